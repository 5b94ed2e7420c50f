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

// ReadApart reads a block that Parse left as text. opts are those of Parse.
func ReadApart(n *Node, opts Options) ([]*Node, []model.Problem) {
	opts.Apart, opts.Open = "", nil
	r := newReader(opts)
	r.stack = append(r.stack, n.Pos.File)
	r.lines(n.Pos.File, n.Apart, n.Pos.Line)
	r.finish()
	p := parser{items: r.items, grammar: opts.Grammar, problems: r.problems}
	return p.parse(r.last), p.problems
}
