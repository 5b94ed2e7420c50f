package kmod

// glob reports whether s fits a pattern of modules.alias: *, ? and [a-z] as in
// fnmatch(3) without flags, so that * also passes slashes. A pattern that is
// not well formed fits nothing.
func glob(pattern, s string) bool {
	star, mark := -1, 0 // where to come back to when a guess of * was wrong
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) {
			switch pattern[p] {
			case '*':
				star, mark = p, i
				p++
				continue
			case '?':
				p++
				i++
				continue
			case '[':
				if n, ok := class(pattern[p:], s[i]); ok {
					p += n
					i++
					continue
				}
			default:
				if pattern[p] == s[i] {
					p++
					i++
					continue
				}
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// class matches c with the bracket expression that p begins with and returns
// its length.
func class(p string, c byte) (n int, ok bool) {
	i := 1
	not := i < len(p) && (p[i] == '!' || p[i] == '^')
	if not {
		i++
	}
	hit := false
	for first := true; ; first = false {
		if i >= len(p) {
			return 0, false
		}
		if p[i] == ']' && !first {
			return i + 1, hit != not
		}
		if i+2 < len(p) && p[i+1] == '-' && p[i+2] != ']' {
			hit = hit || p[i] <= c && c <= p[i+2]
			i += 3
			continue
		}
		hit = hit || p[i] == c
		i++
	}
}
