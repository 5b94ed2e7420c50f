package syntax

import "strings"

// isBlank holds for the separators of tokens.
func isBlank(c byte) bool {
	return c == ' ' || c == '\t' || c == '\f' || c == '\v' || c == '\r'
}

// comment finds where a comment starts: '#' or '!' outside "…" and not after a
// backslash. unterminated is the index of a quote without its end, or -1.
func comment(s string) (start, unterminated int) {
	if strings.IndexByte(s, '#') < 0 && strings.IndexByte(s, '!') < 0 && strings.IndexByte(s, '"') < 0 {
		return len(s), -1
	}
	quote := -1
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if quote >= 0 {
				quote = -1
			} else {
				quote = i
			}
		case quote >= 0:
		case c == '\\' && i+1 < len(s):
			if n := s[i+1]; n == '#' || n == '!' {
				i++
			}
		case c == '#' || c == '!':
			return i, -1
		}
	}
	return len(s), quote
}

// CommentAt finds where the comment of a line starts, len(s) when it has none,
// and a quote that is not closed, or -1.
func CommentAt(s string) (start, unterminated int) { return comment(s) }

// unescape turns \# and \! outside quotes into the plain character.
func unescape(s string) string {
	if !strings.Contains(s, `\#`) && !strings.Contains(s, `\!`) {
		return s
	}
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			quoted = !quoted
		}
		if !quoted && s[i] == '\\' && i+1 < len(s) && (s[i+1] == '#' || s[i+1] == '!') {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// words splits a line. "…" is one word, also when it touches another one. col
// is the column of the line's first byte.
func words(s string, col int) []Word { return appendWords(nil, s, col) }

func appendWords(out []Word, s string, col int) []Word {
	for i := 0; i < len(s); {
		if isBlank(s[i]) {
			i++
			continue
		}
		if s[i] == '"' {
			end := strings.IndexByte(s[i+1:], '"')
			if end < 0 {
				end = len(s) - i - 1
			}
			out = append(out, Word{Text: s[i+1 : i+1+end], Quoted: true, Col: col + i})
			i += end + 2
			continue
		}
		j := i
		for j < len(s) && !isBlank(s[j]) && s[j] != '"' {
			j++
		}
		out = append(out, Word{Text: s[i:j], Col: col + i})
		i = j
	}
	return out
}

// SplitCommand splits a command line as keepalived does for scripts: ' and "
// both quote, adjacent pieces join, and a backslash escapes (\n, \t, \xHH,
// \NNN, \cC and so on; any other character stands for itself). ok is false
// when a quote is not closed.
func SplitCommand(s string) (out []string, ok bool) {
	var cur strings.Builder
	var quote byte
	have := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && quote != '\'':
			n, used := escape(s[i+1:])
			cur.WriteByte(n)
			i += used
			have = true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				cur.WriteByte(c)
			}
		case c == '\'' || c == '"':
			quote, have = c, true
		case isBlank(c) || c == '\n':
			if have {
				out = append(out, cur.String())
				cur.Reset()
				have = false
			}
		default:
			cur.WriteByte(c)
			have = true
		}
	}
	if have {
		out = append(out, cur.String())
	}
	return out, quote == 0
}

// escape decodes what follows a backslash: the byte, and how many bytes of s
// it took.
func escape(s string) (c byte, used int) {
	switch s[0] {
	case 'a':
		return 7, 1
	case 'b':
		return 8, 1
	case 'E':
		return 27, 1
	case 'f':
		return 12, 1
	case 'n':
		return 10, 1
	case 'r':
		return 13, 1
	case 't':
		return 9, 1
	case 'v':
		return 11, 1
	case 'c':
		if len(s) > 1 {
			return s[1] & 0x1f, 2
		}
	case 'x':
		v, i := 0, 1
		for ; i < len(s) && i < 3; i++ {
			d := strings.IndexByte("0123456789abcdef", s[i]|0x20)
			if d < 0 {
				break
			}
			v = v<<4 | d
		}
		if i > 1 {
			return byte(v), i
		}
	case '0', '1', '2', '3', '4', '5', '6', '7':
		v, i := 0, 0
		for ; i < len(s) && i < 3 && s[i] >= '0' && s[i] <= '7'; i++ {
			v = v<<3 | int(s[i]-'0')
		}
		return byte(v), i
	}
	return s[0], 1
}
