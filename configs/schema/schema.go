// Package schema is the keyword table of the configuration language: one row a
// keyword, with its grammar, default, help and what this release does with it.
// The table drives the parser's idea of blocks, argument checks, the import
// report, completion and the reference manual; configs/bind gives the rows
// that work their meaning.
package schema

import (
	"slices"
	"strings"
	"sync"

	"ballast/configs/syntax"
)

// Status says what this release does with a keyword.
type Status uint8

// Statuses.
const (
	Works    Status = iota // does what keepalived does
	NoEffect               // accepted; there is nothing for it to do here, Reason says why
	Planned                // accepted; not implemented in this release
)

func (s Status) String() string {
	return [...]string{"works", "accepted, no effect here", "not implemented in this release"}[s]
}

// Keyword is one row.
type Keyword struct {
	Block   string   // the part of the manual it belongs to
	Name    string   // a name in parentheses stands for no word of its own
	Aliases []string // further names
	In      []string // blocks that take it, by the parser's name of the block
	Args    []Arg
	Opens   string // parser's name of the block it opens; empty: none
	Default string
	Help    string
	Class   byte // 'A' nearly every user, 'B' common, 'C' rare; 'L' legacy, 'O' the appliance's own
	Status  Status
	Reason  string // why NoEffect, or what Planned leaves out
	Since   string // keepalived release, when newer than 2.2.7

	Repeats  bool // several of it in a block count side by side
	Key      int  // of one that repeats: so many of its first words tell one from another; 0: all of them; Each
	Together bool // its names are keywords of their own that share the row
}

// row is one row of the tables below, in their compact form. Nothing is made of
// it before somebody asks: most processes of a box never do.
//
// block is "manual part", or "manual part@context context" when the words that
// may stand in front of it differ. names is "name,alias,…". args is the
// argument grammar (see Arg), ending in {context} for a block. rest is the
// reason and the release.
func row(block, names, args, def string, class byte, status Status, help string, rest ...string) compact {
	return compact{block, names, args, def, class, status, help, rest}
}

type compact struct {
	block, names, args, def string
	class                   byte
	status                  Status
	help                    string
	rest                    []string
}

// keyword makes the Keyword.
func (c *compact) keyword() Keyword {
	k := Keyword{Default: c.def, Class: c.class, Status: c.status, Help: c.help}
	var in string
	var given bool
	k.Block, in, given = strings.Cut(c.block, "@")
	if !given {
		in = k.Block
	}
	k.In = strings.Fields(in)
	if in == "root" {
		k.In = []string{""}
	}
	all := strings.Split(c.names, ",")
	k.Name, k.Aliases = all[0], all[1:]
	if strings.HasPrefix(k.Name, "(") {
		k.In = nil
	}
	args := c.args
	if i := strings.LastIndexByte(args, '{'); i >= 0 {
		k.Opens = strings.Trim(args[i:], "{}")
		args = args[:i]
	}
	for _, a := range strings.Fields(args) {
		k.Args = append(k.Args, arg(a))
	}
	if len(c.rest) > 0 {
		k.Reason = c.rest[0]
	}
	if len(c.rest) > 1 {
		k.Since = c.rest[1]
	}
	k.repeat()
	return k
}

// tables are the rows, and what is found in them.
type tables struct {
	rows   []Keyword
	lookup map[string]map[string]*Keyword // context, word
	names  map[string][]string            // context: sorted words
}

var all = sync.OnceValue(func() *tables {
	t := &tables{lookup: map[string]map[string]*Keyword{}, names: map[string][]string{}}
	parts := [][]compact{rootRows, globalRows, instanceRows, lineRows, trackRows, serverRows, checkRows, legacyRows, ownRows, pairRows, firewallRows, probeRows}
	n := 0
	for _, rows := range parts {
		n += len(rows)
	}
	t.rows = make([]Keyword, 0, n)
	for _, rows := range parts {
		for i := range rows {
			t.rows = append(t.rows, rows[i].keyword())
		}
	}
	for i := range t.rows {
		k := &t.rows[i]
		for _, in := range k.In {
			if t.lookup[in] == nil {
				t.lookup[in] = map[string]*Keyword{}
			}
			for _, n := range append([]string{k.Name}, k.Aliases...) {
				t.lookup[in][n] = k
				t.names[in] = append(t.names[in], n)
			}
		}
	}
	for in := range t.names {
		slices.Sort(t.names[in])
	}
	return t
})

// Keywords are all rows, in the order of the manual. The caller must not
// change them.
func Keywords() []Keyword { return all().rows }

// Lookup finds the row of a word at the start of a line in a block; nil when
// there is none. block is "" at top level.
func Lookup(block, word string) *Keyword { return all().lookup[block][word] }

// Words are the keywords that a block takes, sorted.
func Words(block string) []string { return all().names[block] }

// Grammar is what syntax.Parse needs to know.
type Grammar struct{}

// Use implements syntax.Grammar.
func (Grammar) Use(block string, words []syntax.Word) (string, syntax.Use) {
	if kind, is := strings.CutPrefix(block, "list:"); is {
		if listed(kind, words[0].Text) {
			return "", syntax.Line
		}
		return "", syntax.Unknown
	}
	k := Lookup(block, words[0].Text)
	switch {
	case k == nil:
		return "", syntax.Unknown
	case k.Opens == "":
		return "", syntax.Line
	}
	return k.Opens, syntax.Block
}

// listed says whether a line of a list may start with this word.
func listed(kind, w string) bool {
	switch kind {
	case "address", "peer":
		return strings.ContainsAny(w, ".:/")
	case "route":
		return strings.ContainsAny(w, ".:/") || slices.Contains(routeWords, w)
	}
	return true
}

var routeWords = []string{"default", "default6", "to", "src", "from", "unicast", "local", "broadcast", "multicast",
	"throw", "unreachable", "prohibit", "blackhole", "nat", "anycast", "xresolve", "via", "dev", "table", "inet", "inet6"}

// Nearest suggests the keyword of a block that a word was probably meant to
// be; empty when none is near.
func Nearest(block, word string) string { return nearest(word, Words(block)) }

// NearestOf is Nearest for any list of names.
func NearestOf(word string, among []string) string { return nearest(word, among) }

func nearest(word string, among []string) string {
	if len(word) == 0 || len(word) > 64 {
		return ""
	}
	best, distance := "", len(word)/3+2
	if len(word) <= 4 {
		distance = 2
	}
	for _, n := range among[:min(len(among), 1000)] { // nobody mistypes one of thousands of names
		d := edits(strings.ToLower(word), strings.ToLower(n), distance)
		if d < distance {
			best, distance = n, d
		}
	}
	return best
}

// edits is the distance of two words (insert, delete, replace, swap of
// neighbours), cut off at limit.
func edits(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
