package filter

import (
	"fmt"
	"strings"
)

// token is a word or a sign of an expression.
type token struct {
	text string
	at   int // where it begins
	word bool
}

func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._:/-", c) >= 0
}

var signs = []string{"&&", "||", "==", "!=", "<=", ">=", "<<", ">>", "(", ")", "[", "]", "!", "&", "|", "=", "<", ">", "+", "*", ":", "-", "/"}

// tokens cuts an expression. Inside brackets a colon parts the offset from the
// size, elsewhere it belongs to an address.
func tokens(s string) ([]token, error) {
	var out []token
	depth := 0
next:
	for i := 0; i < len(s); {
		c := s[i]
		if strings.IndexByte(" \t\r\n", c) >= 0 {
			i++
			continue
		}
		if c == '\\' { // how a name that is a keyword too is written for tcpdump: ip proto \tcp
			i++
			continue
		}
		if wordByte(c) && strings.IndexByte("-/", c) < 0 && (depth == 0 || c != ':') {
			j := i
			for j < len(s) && wordByte(s[j]) && (depth == 0 || strings.IndexByte(":-/", s[j]) < 0) {
				j++
			}
			out = append(out, token{strings.ToLower(s[i:j]), i, true})
			i = j
			continue
		}
		for _, g := range signs {
			if strings.HasPrefix(s[i:], g) {
				switch g {
				case "[":
					depth++
				case "]":
					depth--
				}
				out = append(out, token{g, i, false})
				i += len(g)
				continue next
			}
		}
		return nil, fmt.Errorf("filter: %q at %d: no filter has this", s[i:i+1], i+1)
	}
	return out, nil
}
