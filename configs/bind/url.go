package bind

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// url binds one url block.
func (b *binder) url(n *syntax.Node, checkHost, host string) model.URL {
	u := model.URL{VirtualHost: checkHost}
	if u.VirtualHost == "" {
		u.VirtualHost = host
	}
	var options []string
	var regexAt *syntax.Node
	b.each("url", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "path":
			u.Path = l.Arg(0)
		case "digest":
			u.Digest = strings.ToLower(l.Arg(0))
			if len(u.Digest) != 32 || strings.Trim(u.Digest, "0123456789abcdef") != "" {
				b.fail(l.ArgPos(0), "write the MD5 sum of the body, 32 hexadecimal digits", "digest %s is no MD5 sum", quote(l.Arg(0)))
				u.Digest = ""
			}
		case "status_code":
			for i, w := range l.Args() {
				lo, hi, ok := strings.Cut(w.Text, "-")
				if !ok {
					hi = lo
				}
				from, err1 := strconv.Atoi(lo)
				to, err2 := strconv.Atoi(hi)
				if err1 != nil || err2 != nil || from < 100 || to > 999 || to < from {
					b.fail(l.ArgPos(i), "write codes such as 200 or 200-299", "%s is no status code and no range of them", quote(w.Text))
					continue
				}
				u.Status = append(u.Status, model.StatusRange{From: from, To: to})
			}
		case "virtualhost":
			u.VirtualHost = l.Arg(0)
		case "regex":
			raw := strings.TrimSpace(strings.TrimPrefix(l.Raw, l.Name()))
			if words, ok := syntax.SplitCommand(raw); ok && len(words) > 0 {
				u.Regex = words[0]
			}
			regexAt = l
		case "regex_min_offset":
			u.RegexMin = number(l)
		case "regex_max_offset":
			u.RegexMax = number(l) + 1
		case "tls_compliant":
			u.TLSCompliant = true
		case "header":
			if h, ok := b.headerLine(l, true); ok {
				u.Headers = append(u.Headers, h)
			}
		case "expect_header":
			if h, ok := b.headerLine(l, false); ok {
				u.Expect = append(u.Expect, h)
			}
		case "regex_no_match":
			u.RegexNoMatch = true
		case "regex_options":
			for _, w := range l.Args() {
				options = append(options, w.Text)
			}
			for i, w := range l.Args() {
				if !slices.Contains([]string{"caseless", "multiline", "dotall", "utf"}, w.Text) {
					b.warn(l.ArgPos(i), "caseless, multiline and dotall are known", "regex_options: %s has no effect here", quote(w.Text))
				}
			}
		}
	}, nil)
	if u.Path == "" {
		if !has(n, "path") {
			b.warn(n.Pos, "add path /", "the url names no path; / is used")
		}
		u.Path = "/"
	}
	if len(u.Status) == 0 {
		u.Status = []model.StatusRange{{From: 200, To: 299}}
	}
	if u.RegexMax > 0 && u.RegexMax <= u.RegexMin {
		b.fail(lineOf(n, "regex_max_offset"), "write regex_max_offset of "+itoa(u.RegexMin)+" or more", "no match can start at %d at the latest and not before %d", u.RegexMax-1, u.RegexMin)
	}
	if regexAt == nil && (u.RegexMin > 0 || u.RegexMax > 0 || u.RegexNoMatch || options != nil) {
		b.warn(n.Pos, "add regex PATTERN", "the url has options of a regex and no regex; they do nothing")
	}
	if regexAt != nil {
		flags := ""
		for _, o := range options {
			flags += map[string]string{"caseless": "i", "multiline": "m", "dotall": "s"}[o]
		}
		if flags != "" {
			u.Regex = "(?" + flags + ")" + u.Regex
		}
		if _, err := regexp.Compile(u.Regex); err != nil || u.Regex == "" {
			reason := "it is empty"
			if err != nil {
				reason = strings.TrimPrefix(err.Error(), "error parsing regexp: ")
			}
			b.fail(regexAt.ArgPos(0), "patterns here are RE2: no look-ahead, no back references", "regex cannot be used: %s", reason)
			u.Regex = ""
		}
	}
	return u
}

// headerLine reads NAME VALUE of header, or NAME [VALUE] of expect_header. The
// request must stay one request: a name is a token of RFC 9110 section 5.6.2,
// and a value has no control characters.
func (b *binder) headerLine(n *syntax.Node, needed bool) (h model.Header, ok bool) {
	words := n.Args()
	h.Name = words[0].Text
	for i, w := range words[1:] {
		if i > 0 {
			h.Value += " "
		}
		h.Value += w.Text
	}
	token := func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	}
	switch {
	case strings.ContainsFunc(h.Name, token):
		fix := "letters, digits and - are allowed"
		if strings.HasSuffix(h.Name, ":") {
			fix = "leave the : out"
		}
		b.fail(n.ArgPos(0), fix, "%s: %s is no name of a header field", n.Name(), quote(h.Name))
	case needed && len(words) < 2:
		b.fail(n.ArgPos(0), "write header NAME VALUE", "header %s has no value", h.Name)
	case strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		b.fail(n.ArgPos(1), "delete them", "%s %s: the value holds control characters", n.Name(), h.Name)
	case needed && slices.ContainsFunc([]string{"host", "connection", "content-length", "transfer-encoding"}, func(s string) bool { return strings.EqualFold(s, h.Name) }):
		b.fail(n.ArgPos(0), "virtualhost sets Host; the others belong to the request", "header %s is set by the check itself", h.Name)
	default:
		return h, true
	}
	return h, false
}
