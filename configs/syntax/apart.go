package syntax

import (
	"strings"

	"ballast/configs/model"
)

// A configuration of 10,000 virtual servers is 10,000 blocks that mean the same
// wherever they stand. Such a block can be left as text and read by itself, or
// not at all where it was read before. That holds for a block that begins a
// line and ends one, whose braces match, and in which nothing refers to what
// stands outside of it: no parameter, condition, sequence or include. Any other
// block is read where it stands.

// Classes of the bytes that matter here.
const (
	plainByte = iota
	lineByte
	openByte
	closeByte
	quoteByte
	commentByte
	badByte // may reach beyond the block, or is more than this scan knows
)

var classes = func() (t [256]uint8) {
	t['\n'], t['{'], t['}'], t['"'] = lineByte, openByte, closeByte, quoteByte
	t['#'], t['!'] = commentByte, commentByte
	for _, c := range "\x00$@~\\" {
		t[c] = badByte
	}
	return t
}()

// apart measures the block of a keyword that text begins with: its bytes with
// the end of its last line, its lines, and the column of the keyword. size is
// 0 when there is none that can be read by itself.
func apart(text, keyword string) (size, lines, col int) {
	lead := 0
	for lead < len(text) && isBlank(text[lead]) {
		lead++
	}
	head := text[lead:]
	if len(head) <= len(keyword) || head[:len(keyword)] != keyword || !isBlank(head[len(keyword)]) {
		return 0, 0, 0
	}
	depth, begin := 0, 0 // begin: where the line begins
	for i := lead; i < len(text); i++ {
		switch classes[text[i]] {
		case plainByte:
		case lineByte:
			lines++
			if depth == 0 || i-begin > MaxLine {
				return 0, 0, 0
			}
			begin = i + 1
			if includes(text[begin:]) {
				return 0, 0, 0
			}
		case openByte:
			depth++
		case closeByte:
			if depth--; depth < 0 {
				return 0, 0, 0
			}
			if depth > 0 {
				continue
			}
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				end = len(text) - i
			}
			rest := strings.TrimLeft(text[i+1:i+end], " \t\f\v\r")
			if i+end-begin > MaxLine || rest != "" && rest[0] != '#' && rest[0] != '!' || strings.IndexByte(rest, 0) >= 0 {
				return 0, 0, 0
			}
			return min(i+end+1, len(text)), lines + 1, lead + 1
		case quoteByte:
			end := strings.IndexAny(text[i+1:min(len(text), i+1+MaxLine)], "\"\n\x00$\\")
			if end < 0 || text[i+1+end] != '"' {
				return 0, 0, 0
			}
			i += end + 1
		case commentByte:
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 || strings.IndexByte(text[i:i+end], 0) >= 0 {
				return 0, 0, 0
			}
			i += end - 1 // the end of the line comes next
		default:
			return 0, 0, 0
		}
	}
	return 0, 0, 0
}

// includes tells whether a line may be an include.
func includes(line string) bool {
	for line != "" && isBlank(line[0]) {
		line = line[1:]
	}
	return strings.HasPrefix(line, "include")
}

// Apart reads blocks that Parse left as text, one after the other: what it
// gives is good until the next one. The zero value is ready.
type Apart struct {
	reader reader
	tree   Tree
	parser parser
}

// Read reads a block. opts are those of Parse.
func (a *Apart) Read(n *Node, opts Options) ([]*Node, []model.Problem) {
	opts.Apart, opts.Open = "", nil
	r, p := &a.reader, &a.parser
	*r = reader{opts: opts, tree: &a.tree, budget: MaxExpanded, items: r.items[:0], stack: append(r.stack[:0], n.Pos.File), slab: r.slab}
	a.tree = Tree{Comments: a.tree.Comments[:0]}
	r.slab.reset()
	r.lines(n.Pos.File, n.Apart, n.Pos.Line)
	r.finish()
	*p = parser{items: r.items, grammar: opts.Grammar, problems: r.problems, root: p.root[:0], stack: p.stack[:0]}
	return p.parse(r.last), p.problems
}

// slab is room for nodes and words, many at a time.
type slab struct {
	nodes []Node
	used  int
	list  []Word
}

// slabSize is how many nodes, and three times as many words, are made room for.
const slabSize = 64

func (s *slab) node() *Node {
	if s.used == len(s.nodes) {
		s.nodes, s.used = make([]Node, max(slabSize, min(2*len(s.nodes), 16*slabSize))), 0
	}
	s.used++
	return &s.nodes[s.used-1]
}

// words splits a line.
func (s *slab) words(text string, col int) []Word {
	begin := len(s.list)
	if cap(s.list)-begin < 8 {
		s.list, begin = make([]Word, 0, max(3*slabSize, min(2*cap(s.list), 48*slabSize))), 0
	}
	out := appendWords(s.list, text, col)
	if len(out) <= cap(s.list) {
		s.list = out
	}
	return out[begin:len(out):len(out)]
}

// reset makes the room free for others. The nodes keep that for their children.
func (s *slab) reset() {
	for i := range s.nodes[:s.used] {
		n := &s.nodes[i]
		*n = Node{Children: n.Children[:0]}
	}
	s.used, s.list = 0, s.list[:0]
}
