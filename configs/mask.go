package configs

import (
	"slices"
	"strings"

	"ballast/configs/internal/lazy"
)

// hidden stands where a secret was.
const hidden = "********"

// What stands behind these words nobody may see: passwords of VRRP, of mail and
// of a key, the community of SNMP, and keys, but for those of logins, which are
// public. They match inside comments too, and behind the sign of a difference.
var (
	secret = lazy.Regexp(`((?:^|[\s{};"#!+-])(?:auth_pass|smtp_password|password|community)[ \t\f\v]*)("[^"]*"?|(?:\$\{[^}\s]*\}|[^\s{}"])+)((?:\$\{[^}]*\}|[^{}\r])*)`)
	// The number of a key of auth_hmac has three digits at most. A quote parts
	// words as a blank does, before the value and behind the word itself.
	secretKey = lazy.Regexp(`((?:^|[\s{};"#!+-])key(?:"[ \t\f\v]*|[ \t\f\v]+)(?:\d{1,3}[ \t\f\v]+)?)("[^"]*"?|(?:\$\{[^}\s]*\}|[^\s{}"])+)((?:\$\{[^}]*\}|[^{}\r])*)`)
	public    = lazy.Regexp(`^"?(?:sk-)?(?:ssh|ecdsa)-`)
	param     = lazy.Regexp(`\$\{?([A-Za-z0-9_]+)`)
	// values are those that a sequence gives to a parameter of its line.
	values = lazy.Regexp(`~(?:LST|SEQx?)\([^)]*\)?`)
)

// triggers are in each line that may hold a secret.
var triggers = []string{"auth_pass", "password", "community", "key"}

// Mask replaces the secrets in a text, so that it can be shown and logged. A
// secret that stands in a definition is hidden there.
func Mask(text string) string { return maskWith(text, secretParams(text)) }

// MaskDiff masks a difference of texts: it may show the definition of a secret
// and not the line that tells that it is one.
func MaskDiff(diff string, texts ...string) string {
	var names []string
	for _, t := range texts {
		names = append(names, secretParams(t)...)
	}
	return maskWith(diff, append(names, secretParams(diff)...))
}

// eachLine calls f with the bounds of each line of text that holds one of some
// words, in order. Texts have megabytes and few such lines.
func eachLine(text string, words []string, f func(start, end int)) {
	next := make([]int, len(words))
	for i, w := range words {
		next[i] = strings.Index(text, w)
	}
	for {
		at := -1
		for _, n := range next {
			if n >= 0 && (at < 0 || n < at) {
				at = n
			}
		}
		if at < 0 {
			return
		}
		start := strings.LastIndexByte(text[:at], '\n') + 1
		end := len(text)
		if n := strings.IndexByte(text[at:], '\n'); n >= 0 {
			end = at + n
		}
		f(start, end)
		for i, w := range words {
			if next[i] >= 0 && next[i] < end {
				if next[i] = strings.Index(text[end:], w); next[i] >= 0 {
					next[i] += end
				}
			}
		}
	}
}

// eachSecret calls f with each line of text that holds secrets, and what matched
// there: a secret is the second group, and the third what stands behind it.
func eachSecret(text string, f func(line string, found [][]string)) {
	eachLine(text, triggers, func(start, end int) {
		line := text[start:end]
		keys := slices.DeleteFunc(secretKey().FindAllStringSubmatch(line, -1), func(m []string) bool { return public().MatchString(m[2]) })
		if found := append(secret().FindAllStringSubmatch(line, -1), keys...); len(found) > 0 {
			f(line, found)
		}
	})
}

// secretParams are the parameters whose values are secrets, in text.
func secretParams(text string) []string {
	seen := map[string]bool{}
	var names []string
	add := func(value string) {
		for _, p := range param().FindAllStringSubmatch(value, -1) {
			if !seen[p[1]] {
				seen[p[1]] = true
				names = append(names, p[1])
			}
		}
	}
	eachSecret(text, func(_ string, found [][]string) {
		for _, m := range found {
			add(m[2] + m[3])
		}
	})
	// A value may be made of further parameters.
	for i := 0; i < len(names); i++ {
		eachLine(text, []string{"$" + names[i] + "="}, func(start, end int) {
			_, value, _ := strings.Cut(text[start:end], "$"+names[i]+"=")
			add(value)
		})
	}
	return names
}

func maskWith(text string, names []string) string {
	words := slices.Clone(triggers)
	for _, n := range names {
		words = append(words, "$"+n+"=")
	}
	var b strings.Builder
	done := 0
	eachLine(text, words, func(start, end int) {
		b.WriteString(text[done:start])
		b.WriteString(maskLine(text[start:end], words[len(triggers):]))
		done = end
	})
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

func maskLine(line string, definitions []string) string {
	for _, d := range definitions {
		if before, _, ok := strings.Cut(line, d); ok {
			cr := line[len(strings.TrimRight(line, "\r")):]
			return before + d + hidden + cr
		}
	}
	was := line
	line = secret().ReplaceAllString(line, "${1}"+hidden)
	line = secretKey().ReplaceAllStringFunc(line, func(s string) string {
		m := secretKey().FindStringSubmatch(s)
		if public().MatchString(m[2]) {
			return s
		}
		return m[1] + hidden
	})
	if line != was {
		line = values().ReplaceAllString(line, "~"+hidden)
	}
	return line
}

// Masked tells the first line of text in which a secret is the mask itself: of
// a text that was shown, and is no configuration any more. 0: none.
func Masked(text string) int {
	at, count := 0, 1
	for {
		n := strings.Index(text[at:], hidden)
		if n < 0 {
			return 0
		}
		count += strings.Count(text[at:at+n], "\n")
		start := strings.LastIndexByte(text[:at+n], '\n') + 1
		line := text[start:]
		if n := strings.IndexByte(line, '\n'); n >= 0 {
			line = line[:n]
		}
		if code, _, _ := strings.Cut(strings.TrimSpace(line), "#"); code != "" && code[0] != '!' && maskedLine().MatchString(code) {
			return count
		}
		at += n + len(hidden)
	}
}

// maskedLine is what Mask makes of a line with a secret.
var maskedLine = lazy.Regexp(`(?:(?:^|[\s{};"])(?:auth_pass|smtp_password|password|community|key(?:"?[ \t]+\d{1,3})?)"?[ \t]+"?|key"|^(?:@\S+[ \t]+)?\$\w+=)\*{8}(?:["\s}]|$)`)
