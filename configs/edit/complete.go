package edit

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// Completion is what may stand at a place of a command line.
type Completion struct {
	Text        string // the word, or what stands for one: "<1..255>"
	Help        string
	Placeholder bool // Text is no word that can be written
}

// Complete says what may follow words in a block, behind set, edit or delete:
// last is what there is of the next word. live gives words of the box by their
// kind, "interface" for example; it may be nil. The words come first, sorted as
// the manual has them, then placeholders.
func Complete(d *Doc, at Path, words []string, last string, live func(kind string) []string) []Completion {
	c := completer{d: d, last: last, live: live}
	t, err := d.walk(at, words)
	if err != nil {
		return nil
	}
	c.t = t
	switch {
	case t.needs != nil:
		c.head(t.needs)
	case len(t.rest) == 0:
		c.first(words)
	default:
		name, _ := selector(t.rest[0])
		k := schema.Lookup(t.block(), name)
		switch {
		case k != nil && t.scopes[0].list() == "":
			c.values(k, t.rest[1:])
		case entry(t.block(), t.rest[0]):
			c.entry(t.rest)
		}
	}
	slices.SortStableFunc(c.out, func(a, b Completion) int {
		switch {
		case a.Placeholder == b.Placeholder:
			return 0
		case b.Placeholder:
			return -1
		}
		return 1
	})
	return c.out
}

type completer struct {
	d    *Doc
	t    *target
	last string
	live func(kind string) []string
	out  []Completion
	have map[string]bool
}

// word offers a word, once.
func (c *completer) word(text, help string) {
	if !strings.HasPrefix(text, c.last) || c.have[text] || text == "" {
		return
	}
	if c.have == nil {
		c.have = map[string]bool{}
	}
	c.have[text] = true
	c.out = append(c.out, Completion{Text: text, Help: help})
}

func (c *completer) placeholder(text, help string) {
	if !c.have["\x00"+text] {
		c.out = append(c.out, Completion{Text: text, Help: help, Placeholder: true})
	}
}

func (c *completer) lively(kind, help string) {
	if c.live == nil {
		return
	}
	for _, w := range c.live(kind) {
		c.word(w, help)
	}
}

// first offers what a line may begin with.
func (c *completer) first(words []string) {
	t := c.t
	if len(words) > 0 && t.cond == "" && len(t.missing) <= 1 {
		// The head of a block may go on: virtual_server ADDRESS [PORT].
		last := t.missing
		var h *head
		if len(last) == 1 {
			h = &last[0]
		} else if s := t.scopes[0]; s.own != nil {
			w := c.d.words(s.own)
			if k := schema.Lookup(s.outer.block, w[0]); k != nil && len(w) > 1 {
				h = &head{words: w, k: k}
			}
		}
		if h != nil && (h.k.Name == "virtual_server" || h.k.Name == "real_server") && words[len(words)-1] == h.words[len(h.words)-1] && len(h.words) == 2 {
			c.head(h)
		}
	}
	if c.list() != "" {
		c.entry(nil)
		return
	}
	block := t.block()
	for _, k := range rows(block) {
		for _, name := range append([]string{k.Name}, k.Aliases...) {
			if !k.Together && name != k.Name && (c.last == "" || strings.HasPrefix(k.Name, c.last)) {
				continue // a further name is offered to those who begin it
			}
			if !strings.HasPrefix(name, c.last) {
				continue
			}
			if n := c.count(k, name); k.Opens != "" && k.Repeats && k.Key == 0 && n > 1 {
				for i := range n {
					c.word(name+"["+strconv.Itoa(i+1)+"]", help(k, name))
				}
				continue
			}
			c.word(name, help(k, name))
		}
	}
	if block == "virtual_server_group" {
		c.entry(nil)
	}
}

func (c *completer) list() string {
	kind, is := strings.CutPrefix(c.t.block(), "list:")
	if !is {
		return ""
	}
	return kind
}

// rows are the keywords of a block in the order of the manual.
func rows(block string) (out []*schema.Keyword) {
	all := schema.Keywords()
	for i := range all {
		if slices.Contains(all[i].In, block) {
			out = append(out, &all[i])
		}
	}
	return out
}

// help is one line about a word of a row.
func help(k *schema.Keyword, name string) string {
	text := k.Word(name).Help
	switch k.Status {
	case schema.NoEffect:
		return text + " (no effect here: " + k.Reason + ")"
	case schema.Planned:
		return text + " (not implemented in this release)"
	}
	return text
}

// count is how many blocks of a keyword there are.
func (c *completer) count(k *schema.Keyword, name string) (n int) {
	if len(c.t.missing) > 0 {
		return 0
	}
	for _, s := range c.t.scopes {
		n += len(s.blocks(&head{words: []string{name}, k: k}))
	}
	return n
}

// head offers the next word of a block's first line.
func (c *completer) head(h *head) {
	n := len(h.words)
	if m := len(c.t.missing); m == 0 || m == 1 && c.t.needs == nil {
		scopes := c.t.scopes
		if m == 0 && c.t.needs == nil {
			scopes = []*scope{scopes[0].outer}
		}
		for _, s := range scopes {
			for i := range s.spans {
				b := &s.spans[i]
				if b.Kind != syntax.SpanBlock || schema.Lookup(s.block, c.d.keyword(b)) != h.k {
					continue
				}
				if w := c.d.words(b); len(w) > n && sameWords(w[1:n], h.words[1:]) {
					c.word(w[n], h.k.Help)
				}
			}
		}
	}
	if h.k.Name == "virtual_server" {
		switch {
		case n == 1:
			for _, a := range c.names("virtual_ipaddress") {
				c.word(a, "address of an instance")
			}
			c.word("fwmark", "packets with a firewall mark")
			c.word("group", "the addresses of a virtual_server_group")
			c.placeholder("<ADDRESS>", h.k.Help)
		case h.words[1] == "group":
			for _, name := range c.names("virtual_server_group") {
				c.word(name, "virtual_server_group")
			}
			c.placeholder("<NAME>", "of a virtual_server_group")
		case h.words[1] == "fwmark":
			for _, name := range c.names("mark") {
				c.word(name, "mark")
			}
			c.placeholder("<1..4294967295>", "firewall mark")
		default:
			c.placeholder("<1..65535>", "port; without one every port")
		}
		return
	}
	if n-1 < len(h.k.Args) {
		c.arg(h.k, h.k.Args[n-1], h.k.Help)
	}
}

// values offers the next word of a line.
func (c *completer) values(k *schema.Keyword, have []string) {
	w := k.Word(c.t.rest[0]) // of a row of several words, this one
	what := w.Help
	if w.Default != "" {
		what = "default " + w.Default
	}
	switch {
	case c.special(k, have):
	case len(have) < len(w.Args):
		c.arg(k, w.Args[len(have)], what)
	case len(w.Args) > 0 && w.Args[len(w.Args)-1].Kind == schema.KindWords:
		c.arg(k, w.Args[len(w.Args)-1], what)
	}
	// What is there now can be taken up again, or deleted.
	if len(have) == 0 && len(c.t.missing) == 0 && !slices.Contains(secrets, k.Name) {
		for _, h := range c.t.hits(k, c.t.rest[0]) {
			if len(h.words) > 1 && h.words[0] == c.t.rest[0] {
				c.word(h.words[1], "as it is now")
			}
		}
	}
	if len(have) == 0 && len(w.Args) == 0 && k.Opens == "" {
		c.placeholder("<ENTER>", w.Help)
	}
}

// special offers what the grammar of a keyword does not tell.
func (c *completer) special(k *schema.Keyword, have []string) bool {
	n := len(have)
	names := func(block, help string) bool {
		for _, name := range c.names(block) {
			c.word(name, help)
		}
		c.placeholder("<NAME>", "of a "+block)
		return true
	}
	choose := func(words ...string) bool {
		for _, w := range words {
			c.word(w, "")
		}
		return true
	}
	switch {
	case k.Name == "lb_kind" || k.Name == "lvs_method" || k.Name == "sorry_server_lvs_method":
		switch {
		case n == 0:
			c.word("NAT", "packets go both ways through the director")
			c.word("DR", "answers go to the client directly; the real server holds the VIP")
			c.word("TUN", "as DR, through a tunnel")
			return true
		case have[0] == "TUN" && have[n-1] == "type":
			return choose("ipip", "gue", "gre")
		case have[0] == "TUN":
			return choose("type", "port", "nocsum", "csum", "remcsum")
		}
		return true
	case k.Name == "protocol" && n == 0:
		return choose("TCP", "UDP", "SCTP")
	case k.Name == "type" && n == 0:
		return choose("A", "NS", "CNAME", "SOA", "MX", "TXT", "AAAA", "RRSIG", "DNSKEY")
	case k.Name == "lvs_sync_daemon" && n > 0:
		if n == 1 || have[n-1] == "inst" {
			for _, name := range c.names("vrrp_instance") {
				c.word(name, "vrrp_instance")
			}
		}
		return choose("id", "maxlen", "port", "ttl", "group")
	case k.Name == "lvs_timeouts" && n%2 == 0:
		return choose("tcp", "tcpfin", "udp")
	case k.Name == "name" && c.t.block() == "BFD_CHECK" && n == 0:
		return names("bfd_instance", "BFD session")
	case k.Name == "track_file" && c.t.block() == "FILE_CHECK" && n == 0:
		return names("track_file", "file")
	case k.Name == "route" && c.t.block() == "":
		c.routeWords(n, have)
		return true
	case k.Name == "peer" && c.t.block() == "heartbeat" && n > 0:
		if have[n-1] == "dev" {
			c.lively("interface", "interface")
			return true
		}
		return choose("from", "dev")
	case k.Name == "regex_options":
		return choose("caseless", "multiline", "dotall")
	}
	return false
}

func (c *completer) routeWords(n int, have []string) {
	switch {
	case n == 0:
		c.word("default", "every address")
		c.placeholder("<ADDRESS/LENGTH>", "destination")
	case have[n-1] == "dev":
		c.lively("interface", "interface")
		c.placeholder("<IF>", "interface")
	case have[n-1] == "via":
		c.placeholder("<ADDRESS>", "gateway")
	case slices.Contains([]string{"metric", "table", "mtu"}, have[n-1]):
		c.placeholder("<N>", "a number")
	default:
		for _, k := range rows("route-line") {
			for _, w := range append([]string{k.Name}, k.Aliases...) {
				c.word(w, k.Word(w).Help)
			}
		}
	}
}

// names are what the blocks of a keyword at top level are called.
func (c *completer) names(block string) (out []string) {
	root := c.d.root()
	if block == "virtual_ipaddress" {
		for i := range root.spans {
			if b := &root.spans[i]; b.Kind == syntax.SpanBlock && c.d.keyword(b) == "vrrp_instance" && len(out) < 1000 {
				in := root.inside(b, "vrrp_instance", "")
				for j := range in.spans {
					if v := &in.spans[j]; v.Kind == syntax.SpanBlock && c.d.keyword(v) == block {
						list := in.inside(v, "list:address", "")
						for l := range list.spans {
							a, _, _ := strings.Cut(c.d.keyword(&list.spans[l]), "/")
							out = append(out, a)
						}
					}
				}
			}
		}
		return out
	}
	k := schema.Lookup("", block)
	for i := range root.spans {
		b := &root.spans[i]
		if b.Kind == syntax.SpanBlock && schema.Lookup("", c.d.keyword(b)) == k {
			if w := c.d.words(b); len(w) > 1 && !slices.Contains(out, w[1]) {
				if out = append(out, w[1]); len(out) == 1000 {
					break
				}
			}
		}
	}
	return out
}

// lists are what the lines of a list name.
var lists = map[string]string{
	"track_script": "vrrp_script", "track_file": "track_file", "track_process": "vrrp_track_process", "track_bfd": "bfd_instance",
	"group": "vrrp_instance",
}

// entry offers the next word of a list line.
func (c *completer) entry(have []string) {
	kind, n := c.list(), len(have)
	var block string // the list's keyword
	if m := len(c.t.missing); m > 0 {
		block = c.t.missing[m-1].words[0]
	} else if own := c.t.scopes[0].own; own != nil {
		block = c.d.keyword(own)
	}
	if n == 0 && len(c.t.missing) == 0 {
		for _, e := range c.t.elements() {
			c.word(e.words[0], "as it is now")
		}
	}
	switch kind {
	case "address":
		switch {
		case n == 0:
			c.placeholder("<ADDRESS/LENGTH>", "one address")
			return
		case have[n-1] == "dev":
			c.lively("interface", "interface")
			c.placeholder("<IF>", "interface")
			return
		case have[n-1] == "scope":
			for _, w := range []string{"global", "site", "link", "host", "nowhere"} {
				c.word(w, "")
			}
			return
		}
		if k := schema.Lookup("address-line", have[n-1]); n > 1 && k != nil && len(k.Args) > 0 {
			c.arg(k, k.Args[0], k.Help)
			return
		}
		for _, k := range rows("address-line") {
			c.word(k.Name, k.Help)
		}
	case "route":
		c.routeWords(n, have)
	case "rule":
		if n > 0 && slices.Contains([]string{"dev", "iif", "oif"}, have[n-1]) {
			c.lively("interface", "interface")
			return
		}
		for _, k := range rows("rule-line") {
			for _, w := range append([]string{k.Name}, k.Aliases...) {
				c.word(w, k.Word(w).Help)
			}
		}
	case "peer":
		c.placeholder("<ADDRESS>", "address of the other box")
		if n > 0 {
			c.word("min_ttl", "least TTL of its advertisements")
			c.word("max_ttl", "greatest TTL")
		}
	case "track":
		switch {
		case n == 0 && block == "track_interface":
			c.lively("interface", "interface")
			c.placeholder("<IF>", "interface")
		case n == 0:
			for _, name := range c.names(lists[block]) {
				c.word(name, lists[block])
			}
			c.placeholder("<NAME>", "of a "+lists[block])
		case have[n-1] == "weight":
			c.placeholder("<-253..253>", "added to the priority, or taken off")
		default:
			c.word("weight", "moves the priority instead of a fault")
			c.word("reverse", "the other way round")
		}
	case "delay":
		if n == 0 {
			c.lively("interface", "interface")
			c.placeholder("<IF>", "interface")
		} else if n < 3 {
			c.placeholder("<SECONDS>", []string{"", "before down counts", "before up counts"}[n])
		}
	case "word":
		if from := lists[block]; from != "" {
			for _, name := range c.names(from) {
				c.word(name, from)
			}
		}
		if block == "interfaces" || block == "linkbeat_interfaces" {
			c.lively("interface", "interface")
		}
		c.placeholder("<WORD>", "one or more")
	default:
		if n == 0 {
			c.placeholder("<ADDRESS>", "an address, A.B.C.D-E, FIRST-LAST or NETWORK/LENGTH")
		} else {
			c.placeholder("<0..65535>", "port")
		}
	}
}

// arg offers words for an argument.
func (c *completer) arg(k *schema.Keyword, a schema.Arg, what string) {
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	span := func() string {
		if math.IsInf(a.Max, 1) {
			return "<" + number(a.Min) + "..>"
		}
		return "<" + number(a.Min) + ".." + number(a.Max) + ">"
	}
	switch a.Kind {
	case schema.KindEnum:
		for _, w := range a.Enum {
			h := ""
			if w == k.Default {
				h = "default"
			}
			c.word(w, h)
		}
	case schema.KindBool:
		c.word("on", what)
		c.word("off", "")
	case schema.KindInt:
		c.placeholder(span(), what)
	case schema.KindTimer:
		unit := "seconds"
		if a.Unit != "" {
			unit = "milliseconds"
		}
		c.placeholder(span(), fmt.Sprintf("%s; %s", unit, what))
	case schema.KindIP:
		c.placeholder("<ADDRESS>", what)
	case schema.KindCmd:
		c.placeholder(`<"COMMAND ARGUMENTS">`, what)
	default:
		if a.Text == "IF" {
			c.lively("interface", "interface")
		}
		text := a.Text
		if text == "" {
			text = "WORD"
		}
		c.placeholder("<"+text+">", what)
	}
	if a.Optional && k.Opens == "" {
		c.placeholder("<ENTER>", "without it")
	}
}
