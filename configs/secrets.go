package configs

import (
	"slices"
	"strings"
)

// shortest is how long a secret must be to be looked for in other texts: a
// shorter one is a word, or part of one, everywhere.
const shortest = 4

// Secrets are the values that Mask hides in a text, longest first: to be taken
// out of other texts too, that may have quoted one.
func Secrets(text string) []string {
	seen := map[string]bool{}
	var out []string
	add := func(value string) {
		value = strings.TrimRight(value, "\r")
		for _, v := range append(strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune("\"~(),; \t", r) }), strings.Trim(value, `"`)) {
			if len(v) >= shortest && !seen[v] && !strings.HasPrefix(v, "$") && strings.Trim(v, "*") != "" {
				seen[v] = true
				out = append(out, v)
			}
		}
	}
	eachSecret(text, func(line string, found [][]string) {
		for _, m := range found {
			add(m[2])
		}
		for _, v := range values().FindAllString(line, -1) {
			_, list, _ := strings.Cut(v, "(")
			add(list)
		}
	})
	for _, name := range secretParams(text) {
		eachLine(text, []string{"$" + name + "="}, func(start, end int) {
			_, value, _ := strings.Cut(text[start:end], "$"+name+"=")
			add(strings.TrimSpace(value))
		})
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}
