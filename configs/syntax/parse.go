package syntax

import (
	"fmt"
	"strings"

	"ballast/configs/model"
)

// skipped is the block name of what nobody knows: everything in it is kept in
// the tree, and nothing in it is judged.
const skipped = "?"

// frame is an open block.
type frame struct {
	node  *Node
	block string // as the grammar names it
}

type parser struct {
	items    []item
	grammar  Grammar
	problems []model.Problem

	root  []*Node
	stack []frame
	// surplus is closing minus opening braces of the whole text. Only a text
	// with a brace too few is searched for where it should have stood.
	surplus int
	deep    int  // braces opened beyond MaxDepth
	apart   bool // a block left as text stood inside another one
}

func (p *parser) problem(pos model.Pos, fix, format string, args ...any) {
	p.problems = append(p.problems, model.Problem{
		Severity: model.Error, File: pos.File, Line: pos.Line, Col: pos.Col,
		Text: fmt.Sprintf(format, args...), Fix: fix,
	})
}

func (p *parser) block() string {
	if len(p.stack) == 0 {
		return ""
	}
	return p.stack[len(p.stack)-1].block
}

func (p *parser) use(block string, words []Word) (string, Use) {
	if block == skipped {
		return skipped, Unknown
	}
	if p.grammar == nil {
		return words[0].Text, Either
	}
	return p.grammar.Use(block, words)
}

func (p *parser) add(n *Node) {
	if len(p.stack) == 0 {
		p.root = append(p.root, n)
		return
	}
	parent := p.stack[len(p.stack)-1].node
	parent.Children = append(parent.Children, n)
}

func (p *parser) push(n *Node, block string) {
	n.Block = true
	p.stack = append(p.stack, frame{n, block})
}

func (p *parser) pop(at model.Pos) {
	p.stack[len(p.stack)-1].node.End = at
	p.stack = p.stack[:len(p.stack)-1]
}

// parse builds the tree. end is the last line of the text.
func (p *parser) parse(end model.Pos) []*Node {
	for _, it := range p.items {
		switch it.kind {
		case '{':
			p.surplus--
		case '}':
			p.surplus++
		}
	}
	for i := 0; i < len(p.items); i++ {
		it := p.items[i]
		switch it.kind {
		case '}':
			switch {
			case p.deep > 0:
				p.deep--
			case len(p.stack) == 0:
				p.surplus--
				p.problem(it.pos, "delete it, or write the { that is missing above", "this } closes nothing")
			default:
				p.pop(it.pos)
			}
		case '{':
			if p.deep > 0 || len(p.stack) >= MaxDepth {
				p.tooDeep(it.pos)
				continue
			}
			// No line before it takes a block: skip to the brace that closes it.
			if p.block() != skipped {
				p.problem(it.pos, "delete it together with its }", "this { follows no line that opens a block")
			}
			p.push(&Node{Pos: it.pos, Words: []Word{{Text: "{", Col: it.pos.Col}}, Raw: "{"}, skipped)
		case 'a':
			p.apart = p.apart || p.deep > 0 || len(p.stack) > 0
			p.root = append(p.root, it.node)
		case 't':
			if p.deep > 0 {
				continue
			}
			if p.text(it, i) {
				i++ // its opening brace
			}
		}
	}
	if n := len(p.stack); n > 0 {
		var open []string
		for i := n - 1; i >= 0 && len(open) < 8; i-- {
			f := p.stack[i].node
			open = append(open, fmt.Sprintf("%s (line %d)", title(f), f.Pos.Line))
		}
		what, fix := "a block is", "add the missing }"
		if n > 1 {
			what, fix = fmt.Sprintf("%d blocks are", n), fmt.Sprintf("add the %d missing }", n)
		}
		p.problem(end, fix, "the file ends while %s open: %s", what, strings.Join(open, ", "))
		for len(p.stack) > 0 {
			p.pop(end)
		}
	}
	return p.root
}

func (p *parser) tooDeep(pos model.Pos) {
	if p.deep == 0 {
		p.problem(pos, "", "blocks are nested more than %d deep", MaxDepth)
	}
	p.deep++
}

// text places one line; true when it took the opening brace that follows.
func (p *parser) text(it item, i int) bool {
	n := it.node
	opens := i+1 < len(p.items) && p.items[i+1].kind == '{'
	child, use := p.use(p.block(), n.Words)
	if use == Unknown && p.surplus < 0 && p.recover(n, opens) {
		child, use = p.use(p.block(), n.Words)
	}
	if opens && len(p.stack) >= MaxDepth {
		p.add(n)
		return false // the brace is counted as too deep
	}
	p.add(n)
	switch {
	case use == Unknown && opens:
		p.push(n, skipped)
		return true
	case use == Line && opens:
		p.problem(p.items[i+1].pos, "delete it together with its }", "%s takes no block", n.Name())
		p.push(&Node{Pos: it.pos, Words: n.Words[:1], Raw: n.Raw}, skipped)
		return true
	case opens:
		p.push(n, child)
		return true
	case use == Block:
		n.Block = true
		n.End = n.Pos
		last := n.Words[len(n.Words)-1]
		at := n.Pos
		at.Col = last.Col + len(last.Text)
		if last.Quoted {
			at.Col += 2
		}
		p.problem(at, "write "+strings.Join(strings.Fields(n.Raw), " ")+" { … }", "%s has no { after it", n.Name())
		// With a } to spare, the lines that follow are its own.
		if p.surplus > 0 && i+1 < len(p.items) && p.items[i+1].kind == 't' && len(p.stack) < MaxDepth {
			if _, u := p.use(child, p.items[i+1].node.Words); u != Unknown {
				p.surplus--
				p.push(n, child)
			}
		}
	}
	return false
}

// recover looks for the block that a line belongs to when it is unknown where
// it stands and the text has a } too few. True when blocks were closed.
func (p *parser) recover(n *Node, opens bool) bool {
	if p.grammar == nil || len(p.stack) == 0 {
		return false
	}
	for i := len(p.stack) - 1; i >= 0; i-- {
		above := ""
		if i > 0 {
			above = p.stack[i-1].block
		}
		if p.block() == skipped && above != "" {
			continue // inside what nobody knows, only a line of the top level is a sign
		}
		_, use := p.use(above, n.Words)
		if use == Unknown || use == Block && !opens || use == Line && above == "" && p.block() == skipped {
			continue
		}
		if -p.surplus < len(p.stack)-i {
			return false
		}
		for len(p.stack) > i {
			f := p.stack[len(p.stack)-1].node
			p.problem(n.Pos, "write } before this line", "%s, opened in line %d, is not closed", title(f), f.Pos.Line)
			p.pop(n.Pos)
			p.surplus++
		}
		return true
	}
	return false
}

// title names a block for a message.
func title(n *Node) string {
	s := n.Name()
	if a := n.Arg(0); a != "" {
		s += " " + a
	}
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return s
}
