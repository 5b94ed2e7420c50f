// Package bind gives a parsed configuration its meaning: it turns the tree
// into model.Config with every default resolved, and says what it found wrong
// on the way. All faults are reported; a faulty line leaves its default.
package bind

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/printable"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// Disposition says what became of one line.
type Disposition uint8

// Dispositions.
const (
	Works    Disposition = iota
	Mapped               // does what was meant, though keepalived would not take it so
	NoEffect             // accepted, nothing to do here
	Planned              // accepted, not implemented in this release
	Unknown              // not understood, or wrong
)

func (d Disposition) String() string {
	return [...]string{"works", "mapped", "no effect here", "not implemented", "not understood"}[d]
}

// Use is what became of one line of the text.
type Use struct {
	Pos    model.Pos
	Word   string
	What   Disposition
	Reason string
}

// Result is all that Bind finds out.
type Result struct {
	Config   model.Config
	Problems []model.Problem
	Uses     []Use
	// Places maps "instance/VI_1", "instance/VI_1/interface" and the like to
	// their place in the text; Place knows those of virtual servers too.
	Places map[string]model.Pos

	parts  []placedPart
	byName map[string][]int // parts, by the name of the virtual server
}

// Bind gives a tree its meaning.
func Bind(tree *syntax.Tree) Result { return BindWith(tree, syntax.Options{}, nil) }

// BindWith is Bind for a tree in which blocks were left as text: cache keeps
// what they come to. opts are those of the parser. There are no Uses of lines
// in such blocks.
func BindWith(tree *syntax.Tree, opts syntax.Options, cache *Cache) Result {
	b := &binder{places: map[string]model.Pos{}, parts: newParts(tree.Nodes, cache, opts)}
	b.defaults = factory()
	b.root(tree.Nodes)
	r := Result{Config: b.cfg, Problems: append(b.parts.problems(), b.problems...), Uses: b.uses, Places: b.places, parts: b.parts.list}
	if cache != nil {
		cache.parts, cache.last, cache.result = b.parts.next, b, r
	}
	return r
}

type binder struct {
	cfg      model.Config
	problems []model.Problem
	uses     []Use
	quiet    bool // nobody wants uses
	places   map[string]model.Pos
	marks    []mark // places of a virtual server, when it is bound by itself
	alone    bool   // it is
	defaults defaults
	parts    *parts

	planned  int // depth of blocks that are not implemented: their lines are not warned about one by one
	groups   map[string]*group
	syncs    []sync
	trackers map[string]map[string]*tracker // by the block that defines them, by name
	instance map[string]bool
	weighted map[string]bool   // sync groups that allow weights
	vmacs    map[string]string // virtual interfaces, by the instance that makes them
	garpOf   map[string]bool   // interfaces that are in a garp_group
	nextRule [2]int            // rules without a preference so far, IPv4 and IPv6
	guesses  int               // suggestions made; each costs a search
	watch    *watch            // of Statement; nil: nobody asked
}

func (b *binder) report(s model.Severity, pos model.Pos, fix, format string, args ...any) {
	b.problems = append(b.problems, model.Problem{
		Severity: s, File: pos.File, Line: pos.Line, Col: pos.Col,
		Text: fmt.Sprintf(format, args...), Fix: fix,
	})
}

func (b *binder) fail(pos model.Pos, fix, format string, args ...any) {
	b.report(model.Error, pos, fix, format, args...)
}

func (b *binder) warn(pos model.Pos, fix, format string, args ...any) {
	b.report(model.Warning, pos, fix, format, args...)
}

func (b *binder) note(pos model.Pos, fix, format string, args ...any) {
	b.report(model.Note, pos, fix, format, args...)
}

func (b *binder) use(n *syntax.Node, what Disposition, reason string) {
	if !b.quiet {
		b.uses = append(b.uses, Use{n.Pos, n.Name(), what, reason})
	}
}

// used accounts for a line that each does not see: it shares the fate of its block.
func (b *binder) used(n *syntax.Node) {
	if b.planned > 0 {
		b.use(n, Planned, "")
		return
	}
	b.use(n, Works, "")
}

// mapped corrects what each said about a line: it works, by another reading.
func (b *binder) mapped(n *syntax.Node, reason string) { b.remark(n, Mapped, reason) }

func (b *binder) remark(n *syntax.Node, what Disposition, reason string) {
	for i := len(b.uses) - 1; i >= 0; i-- {
		if b.uses[i].Pos == n.Pos && b.uses[i].Word == n.Name() {
			b.uses[i].What, b.uses[i].Reason = what, reason
			return
		}
	}
}

// each looks up every line of a block, checks its arguments and hands it to f.
// other takes the lines that are no keyword of the block; nil: all of them are
// unknown.
func (b *binder) each(block string, nodes []*syntax.Node, f func(k *schema.Keyword, n *syntax.Node), other func(n *syntax.Node) bool) {
	if b.watch == nil {
		b.lines(block, nodes, f, other)
		return
	}
	for i, n := range nodes {
		before := len(b.problems)
		b.lines(block, nodes[i:i+1], f, other)
		b.watched(schema.Lookup(block, n.Name()), n, b.problems[before:])
	}
}

func (b *binder) lines(block string, nodes []*syntax.Node, f func(k *schema.Keyword, n *syntax.Node), other func(n *syntax.Node) bool) {
	for _, n := range nodes {
		k := schema.Lookup(block, n.Name())
		if k == nil {
			if other == nil || !other(n) {
				b.unknown(block, n)
			}
			continue
		}
		if !b.check(k, n) {
			b.use(n, Unknown, "")
			continue
		}
		switch {
		case k.Status == schema.NoEffect:
			b.use(n, NoEffect, k.Reason)
			if k.Class == 'L' {
				b.note(n.Pos, "delete the line when convenient", "%s is from old releases and has no effect: %s", n.Name(), k.Reason)
			} else {
				b.note(n.Pos, "", "%s has no effect here: %s", n.Name(), k.Reason)
			}
			continue
		case k.Status == schema.Planned || b.planned > 0:
			b.use(n, Planned, k.Reason)
			if b.planned == 0 {
				reason := ""
				if k.Reason != "" {
					reason = ": " + k.Reason
				}
				b.warn(n.Pos, "", "%s is accepted but not implemented in this release%s", n.Name(), reason)
			}
			b.planned++
			f(k, n)
			b.planned--
			continue
		}
		b.use(n, Works, "")
		before := len(b.problems)
		f(k, n)
		if k.Opens == "" && slices.ContainsFunc(b.problems[before:], func(p model.Problem) bool { return p.Severity == model.Error }) {
			b.remark(n, Unknown, "")
		}
	}
}

// secrets are keywords whose value no message shows.
var secrets = []string{"auth_pass", "password", "key", "community", "smtp_password"}

// blocks that a misplaced keyword may belong to, for a hint.
var homes = []string{"", "global_defs", "vrrp_instance", "vrrp_script", "vrrp_sync_group", "virtual_server",
	"real_server", "authentication", "HTTP_GET", "url", "TCP_CHECK", "MISC_CHECK", "SMTP_CHECK", "DNS_CHECK", "UDP_CHECK", "FILE_CHECK", "BFD_CHECK",
	"track_file", "vrrp_track_process", "bfd_instance", "garp_group", "auth_hmac", "SSL", "heartbeat", "peer", "snmp", "netboot", "box", "system", "interface", "bond", "vlan", "mark", "firewall", "login"}

func (b *binder) unknown(block string, n *syntax.Node) {
	b.use(n, Unknown, "")
	name := n.Name()
	if name == "{" {
		return // the parser has reported it
	}
	what := "keyword"
	if n.Block {
		what = "block"
	}
	where := "at top level"
	if block != "" {
		where = "in " + block
	}
	fix := ""
	if b.guess() {
		if near := schema.Nearest(block, name); near != "" {
			fix = "did you mean " + near + "?"
		}
	}
	for _, home := range homes {
		if fix == "" && home != block && schema.Lookup(home, name) != nil {
			fix = "it belongs into a " + home + " block"
			if home == "" {
				fix = "it belongs to the top level; is a } missing above?"
			}
		}
	}
	if fix == "" {
		fix = "delete it, or correct the name"
	}
	if n.Block {
		b.fail(n.Pos, fix, "unknown %s %s %s; it is skipped as a whole, to line %d", what, quote(name), where, n.End.Line)
		return
	}
	b.fail(n.Pos, fix, "unknown %s %s %s", what, quote(name), where)
}

// maxGuesses bounds the searches for the word that was meant: a text with more
// unknown words is no configuration.
const maxGuesses = 300

func (b *binder) guess() bool {
	b.guesses++
	return b.guesses <= maxGuesses
}

// meant suggests one of some names, or falls back.
func (b *binder) meant(name string, among func() []string, fallback string) string {
	if b.guess() {
		if near := schema.NearestOf(name, among()); near != "" {
			return "did you mean " + near + "?"
		}
	}
	return fallback
}

// check judges the arguments of a line by its row.
func (b *binder) check(k *schema.Keyword, n *syntax.Node) bool {
	args := n.Args()
	i := 0
	for _, a := range k.Args {
		if i >= len(args) {
			if a.Optional || a.Kind == schema.KindFree && a.Text == "" {
				continue
			}
			if a.Kind == schema.KindFree && i > 0 {
				continue
			}
			b.fail(n.Pos, "write "+n.Name()+" "+k.Grammar(), "%s needs a value", n.Name())
			return false
		}
		switch a.Kind {
		case schema.KindWords, schema.KindFree, schema.KindCmd:
			return true
		}
		if err := a.Check(args[i].Text); err != nil {
			fix := "write " + n.Name() + " " + k.Grammar()
			if near := schema.NearestOf(args[i].Text, a.Enum); near != "" {
				fix = "did you mean " + near + "?"
			}
			if special := b.tolerate(k, n, args[i].Text); special {
				return false
			}
			b.fail(n.ArgPos(i), fix, "%s: %v", n.Name(), err)
			return false
		}
		i++
	}
	if i < len(args) && k.Opens == "" {
		if name := n.Name(); slices.Contains(secrets, name) {
			// These words may be half of a secret, which no message shows.
			b.note(n.ArgPos(i), `quote a value with blanks: "…"`, "%s: what follows the first word is ignored", name)
		} else {
			b.note(n.ArgPos(i), "delete the rest of the line", "%s: the words from %s on are ignored", name, quote(args[i].Text))
		}
	}
	return true
}

// tolerate takes values that keepalived refuses with a warning, that many live
// files hold, and whose default does no harm.
func (b *binder) tolerate(k *schema.Keyword, n *syntax.Node, value string) bool {
	switch {
	case k.Name == "lb_algo" && value == "loadbalance":
		b.warn(n.ArgPos(0), "write lb_algo wlc", "there is no scheduler loadbalance; wlc is used, as keepalived does")
		return true
	case k.Name == "retry" && value == "0":
		b.warn(n.ArgPos(0), "write it into the checks", "retry 0 counts in a check only; it is ignored here, as keepalived does")
		return true
	}
	return false
}

func quote(s string) string {
	return fmt.Sprintf("%q", printable.Short(s, 40))
}

// early are the blocks that others name.
var early = []string{"vrrp_script", "virtual_server_group", "vrrp_track_process", "track_file", "vrrp_track_file", "bfd_instance", "track_group"}

// root binds the whole text. global_defs come first, wherever they stand:
// their values are the defaults of everything else.
func (b *binder) root(nodes []*syntax.Node) {
	b.groups, b.trackers = map[string]*group{}, map[string]map[string]*tracker{}
	b.vmacs = map[string]string{}
	b.instance, b.weighted, b.garpOf = map[string]bool{}, map[string]bool{}, map[string]bool{}
	var later []*syntax.Node
	vrrp := false
	for _, n := range nodes {
		switch n.Name() {
		case "global_defs":
			b.each("", []*syntax.Node{n}, func(_ *schema.Keyword, n *syntax.Node) { b.global(n, vrrp) }, nil)
			continue
		case "vrrp_instance":
			vrrp = true
			b.instance[n.Arg(0)] = true
		case "vrrp_sync_group":
			b.members(n)
		}
		later = append(later, n)
	}
	b.finishGlobal()
	// Trackers and groups may be used above their definition.
	for _, first := range []bool{true, false} {
		for _, n := range later {
			switch {
			case slices.Contains(early, n.Name()) != first:
			case n.Name() == Apart:
				b.parts.server(b, n)
			default:
				b.parts.pass(n)
				b.each("", []*syntax.Node{n}, b.top, nil)
			}
		}
	}
	b.finishSync()
	b.finishTrackGroups()
	b.finishSyncDaemon()
	slices.SortStableFunc(b.uses, func(x, y Use) int { return comparePos(x.Pos, y.Pos) })
}

func comparePos(a, b model.Pos) int {
	if c := strings.Compare(a.File, b.File); c != 0 {
		return c
	}
	if a.Line != b.Line {
		return a.Line - b.Line
	}
	return a.Col - b.Col
}

func (b *binder) top(k *schema.Keyword, n *syntax.Node) {
	switch k.Name {
	case "vrrp_instance":
		b.vrrpInstance(n)
	case "vrrp_script":
		b.script(n)
	case "vrrp_sync_group":
		b.syncGroup(n)
	case "virtual_server":
		b.virtualServer(n)
	case "virtual_server_group":
		b.serverGroup(n)
	case "vrrp_track_process":
		b.trackProcess(n)
	case "track_file":
		b.trackFile(n)
	case "bfd_instance":
		b.bfd(n)
	case "track_group":
		b.trackGroup(n)
	case "static_ipaddress":
		for _, l := range n.Children {
			if a, ok := b.address(l, b.defaults.iface); ok {
				b.cfg.StaticAddrs = append(b.cfg.StaticAddrs, a)
			}
		}
	case "static_routes":
		for _, l := range n.Children {
			if r, ok := b.route(l.Words, l); ok {
				b.cfg.StaticRoutes = append(b.cfg.StaticRoutes, r)
			}
		}
	case "static_rules":
		for _, l := range n.Children {
			if r, ok := b.rule(l); ok {
				b.cfg.StaticRules = append(b.cfg.StaticRules, r)
			}
		}
	case "garp_group":
		b.garpGroup(n)
	case "interface_up_down_delays":
		b.linkDelays(n)
	case "SSL":
		b.ssl(n)
	case "heartbeat":
		b.heartbeat(n)
	case "peer":
		b.pair(n)
	case "snmp":
		b.snmp(n)
	case "netboot":
		b.netboot(n)
	case "system":
		b.system(n)
	case "interface":
		b.iface(n)
	case "bond":
		b.bond(n)
	case "vlan":
		b.vlan(n)
	case "route":
		if r, ok := b.route(n.Args(), n); ok {
			b.cfg.StaticRoutes = append(b.cfg.StaticRoutes, r)
		}
	case "mark":
		b.mark(n)
	case "firewall":
		b.firewall(n)
	}
}

// duration, number and truth read an argument that check has judged already.
func duration(n *syntax.Node) time.Duration {
	d, _ := schema.Arg{Max: 1 << 33}.Timer(n.Arg(0))
	return d
}

func seconds(n *syntax.Node) time.Duration { return time.Duration(number(n)) * time.Second }

func number(n *syntax.Node) int {
	v, _ := schema.Arg{Min: -1 << 31, Max: 1 << 62}.Int(n.Arg(0))
	return int(v)
}

// truth: the keyword alone means yes.
func truth(n *syntax.Node) bool {
	v, ok := schema.Bool(n.Arg(0))
	return v || !ok
}

func tristate(n *syntax.Node) model.Tristate {
	if truth(n) {
		return model.On
	}
	return model.Off
}

// pick is the first tristate that is set, else def.
func pick(def bool, states ...model.Tristate) bool {
	for _, s := range states {
		if s != model.Unset {
			return s == model.On
		}
	}
	return def
}
