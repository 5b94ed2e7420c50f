package bind

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/configs/syntax"
)

// Apart is the keyword of the blocks that are bound one by one, so that those
// that did not change need not be bound again. A configuration has thousands
// of virtual servers and a handful of anything else.
const Apart = "virtual_server"

// apartFrom are the blocks of the top level that nothing in a virtual_server
// depends on. All others count as what it depends on, and any change of them
// makes every virtual server be bound anew.
var apartFrom = []string{"vrrp_instance", "vrrp_sync_group", "static_ipaddress", "static_routes", "static_rules",
	"track_group", "garp_group", "interface", "bond", "vlan", "route", "mark", "firewall", Apart}

// part is what one virtual_server block came to.
type part struct {
	text     string                // when it was left as text
	servers  []model.VirtualServer // none or one
	parsed   []model.Problem       // found when it was read
	bound    []model.Problem       // and when it was bound
	places   []mark
	guesses  int
	name     string    // of the virtual server
	pos      model.Pos // where it stood
	contexts string    // digest with positions, when there are problems
}

// mark is the place of a virtual server, of a real server, or of a line in one
// of them, from the virtual server's own line on.
type mark struct {
	real      netip.AddrPort // none: it is the virtual server's
	word      string
	line, col int32
}

// stands notes the place of a virtual server (r is nil), a real server, or a line
// in it.
func (b *binder) stands(v *virtual, r *model.RealServer, word string, at model.Pos) {
	m := mark{word: word, line: int32(at.Line - v.pos.Line), col: int32(at.Col)}
	if r != nil {
		m.real = netip.AddrPortFrom(r.Addr, r.ConfPort)
	}
	if !b.alone {
		b.places[m.key(v.Name)] = at
		return
	}
	if b.marks == nil {
		b.marks = make([]mark, 0, 1+len(v.real))
	}
	b.marks = append(b.marks, m)
}

// key is what the place is called in Result.Places.
func (m mark) key(server string) string {
	key := "vs/" + server
	if m.real.Addr().IsValid() {
		key = "rs/" + server + "/" + m.real.Addr().String() + ":" + itoa(int(m.real.Port()))
	}
	if m.word != "" {
		key += "/" + m.word
	}
	return key
}

// movable tells whether a part means the same at a place of the text. What
// problems say may name lines.
func (p *part) movable(to model.Pos, contexts string) bool {
	return len(p.parsed)+len(p.bound) == 0 || p.pos == to && p.contexts == contexts
}

// Cache keeps what virtual_server blocks came to from one Bind to the next.
// The zero value is empty.
type Cache struct {
	// By the digest of what they depend on, then by their text.
	parts map[string]map[string]*part
	// What the last Bind came to, for Rebind.
	last   *binder
	result Result
}

// placedPart is a part and where it stands now.
type placedPart struct {
	*part
	at         model.Pos
	begin, end int           // bytes of the file; end 0: the block was not left as text
	server     int           // its virtual server's place in the list, or the place of the next one
	key        string        // digest of what it depends on
	global     *model.Global // as it was above the block
}

// parts binds virtual_server blocks one by one.
type parts struct {
	cache *Cache
	next  map[string]map[string]*part // what the cache holds afterwards
	opts  syntax.Options
	list  []placedPart
	found []model.Problem // when blocks were read that became no part

	depends  string    // digest of all that a virtual server depends on
	contexts string    // the same with positions
	above    hash.Hash // of what of it stands above
	key      string    // depends and above
	global   *model.Global

	// For one block after the other.
	apart     syntax.Apart
	sub       *binder
	subGlobal *model.Global
	room      []model.VirtualServer
}

// newParts looks at a whole text.
func newParts(nodes []*syntax.Node, cache *Cache, opts syntax.Options) *parts {
	says, stands, servers := sha256.New(), sha256.New(), 0
	for _, n := range nodes {
		if n.Name() == Apart {
			servers++
		}
		if !slices.Contains(apartFrom, n.Name()) {
			digest([]*syntax.Node{n}, says, stands)
		}
	}
	p := &parts{cache: cache, opts: opts, above: sha256.New(), next: map[string]map[string]*part{}, list: make([]placedPart, 0, servers)}
	p.depends = string(says.Sum(nil))
	p.contexts = p.depends + string(stands.Sum(nil))
	return p
}

// pass takes notice of a block that is no virtual server.
func (p *parts) pass(n *syntax.Node) {
	if !slices.Contains(apartFrom, n.Name()) {
		digest([]*syntax.Node{n}, p.above, sha256.New())
		p.key = ""
	}
}

// server binds one virtual_server block, or takes what it came to before.
func (p *parts) server(b *binder, n *syntax.Node) {
	if p.key == "" {
		p.key = p.depends + string(p.above.Sum(nil))
		g := b.cfg.Global
		p.global = &g
	}
	var known *part
	if n.Apart != "" && p.cache != nil {
		known = p.cache.parts[p.key][n.Apart]
	}
	fresh := known == nil || !known.movable(n.Pos, p.contexts)
	if fresh {
		if known = p.bind(b, n); known == nil {
			return
		}
	}
	if n.Apart != "" && p.cache != nil && known.guesses == 0 {
		m := p.next[p.key]
		if m == nil {
			m = make(map[string]*part, len(p.cache.parts[p.key]))
			p.next[p.key] = m
		}
		m[known.text] = known
	}
	b.guesses += known.guesses
	placed := placedPart{part: known, at: n.Pos, server: len(b.cfg.VirtualServers), key: p.key, global: p.global}
	if n.Apart != "" {
		placed.begin, placed.end = n.At, n.At+len(n.Apart)
	}
	if b.cfg.VirtualServers == nil && len(known.servers) > 0 {
		b.cfg.VirtualServers = make([]model.VirtualServer, 0, cap(p.list))
	}
	b.cfg.VirtualServers = append(b.cfg.VirtualServers, known.servers...)
	if fresh {
		// In the list, when all of it is new; else one virtual server would keep
		// a whole old list in memory.
		if known.servers = b.cfg.VirtualServers[placed.server:len(b.cfg.VirtualServers):len(b.cfg.VirtualServers)]; p.cache != nil && len(p.cache.parts) > 0 {
			known.servers = slices.Clone(known.servers)
		}
	}
	b.problems = append(b.problems, known.bound...)
	p.list = append(p.list, placed)
}

// alone tells whether a block can be bound by itself.
func alone(nodes []*syntax.Node) bool { return len(nodes) == 1 && nodes[0].Arg(0) != "group" }

// bind binds a block by itself: of what else there is, it gets to see only what
// newParts counts as something that it depends on. nil: the block is one of a
// group, whose name depends on the others of that group, and b took it.
func (p *parts) bind(b *binder, n *syntax.Node) *part {
	out, nodes := p.read(n)
	if !alone(nodes) {
		p.found = append(p.found, out.parsed...)
		b.each("", nodes, b.top, nil)
		return nil
	}
	b.uses = append(b.uses, p.finish(b, p.global, out, n, nodes)...)
	return out
}

// read reads a block that was left as text.
func (p *parts) read(n *syntax.Node) (out *part, nodes []*syntax.Node) {
	out = &part{pos: n.Pos, contexts: p.contexts}
	if n.Apart == "" {
		return out, []*syntax.Node{n}
	}
	own := *n
	own.Apart = strings.Clone(n.Apart) // what is bound must not keep the whole text in memory
	out.text = own.Apart
	nodes, out.parsed = p.apart.Read(&own, p.opts)
	return out, nodes
}

// finish binds a block that was read, and says what became of its lines unless
// it was left as text. Its virtual server stands in room that is used again.
func (p *parts) finish(b *binder, global *model.Global, out *part, n *syntax.Node, nodes []*syntax.Node) []Use {
	sub := p.sub
	if sub == nil || p.subGlobal != global {
		sub = &binder{cfg: model.Config{Global: *global}, defaults: b.defaults, groups: b.groups, trackers: b.trackers, alone: true, watch: b.watch}
		p.sub, p.subGlobal = sub, global
	}
	sub.cfg.VirtualServers, sub.problems, sub.uses, sub.marks = p.room[:0], nil, nil, nil
	sub.guesses, sub.quiet = b.guesses, n.Apart != ""
	sub.each("", nodes, sub.top, nil)
	p.room = sub.cfg.VirtualServers
	out.servers, out.bound, out.guesses, out.places = p.room, sub.problems, sub.guesses-b.guesses, sub.marks
	if len(out.servers) > 0 {
		out.name = out.servers[0].Name
	}
	return sub.uses
}

// problems are those that were found when the parts were read.
func (p *parts) problems() []model.Problem {
	out := p.found
	for _, x := range p.list {
		out = append(out, x.parsed...)
	}
	return out
}

// Place finds where a part of the configuration stands in the text; see Places.
func (r *Result) Place(key string) (model.Pos, bool) {
	kind, rest, _ := strings.Cut(key, "/")
	if kind == "vs" || kind == "rs" {
		name, _, _ := strings.Cut(rest, "/")
		if r.byName == nil && len(r.parts) > 0 {
			r.byName = make(map[string][]int, len(r.parts))
			for i, p := range r.parts {
				r.byName[p.name] = append(r.byName[p.name], i)
			}
		}
		list := r.byName[name]
		for i := len(list) - 1; i >= 0; i-- {
			p := r.parts[list[i]]
			for j := len(p.places) - 1; j >= 0; j-- {
				if m := p.places[j]; m.key(p.name) == key {
					return model.Pos{File: p.at.File, Line: p.at.Line + int(m.line), Col: int(m.col)}, true
				}
			}
		}
	}
	at, ok := r.Places[key]
	return at, ok
}

// digest hashes what a block says, and where its lines stand.
func digest(nodes []*syntax.Node, says, stands hash.Hash) {
	var n [12]byte
	number := func(h hash.Hash, v int) { h.Write(binary.BigEndian.AppendUint64(n[:0], uint64(v))) }
	for _, x := range nodes {
		number(says, len(x.Words))
		for _, w := range x.Words {
			number(says, len(w.Text)<<1|map[bool]int{true: 1}[w.Quoted])
			says.Write([]byte(w.Text))
			number(stands, w.Col)
		}
		number(says, len(x.Raw))
		says.Write([]byte(x.Raw))
		stands.Write([]byte(x.Pos.File))
		number(stands, x.Pos.Line)
		number(stands, x.End.Line)
		number(says, len(x.Children)<<1|map[bool]int{true: 1}[x.Block])
		digest(x.Children, says, stands)
	}
}
