package net

import (
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/iprule"
	"ballast/services/ipc/status"
)

// Rule is one policy rule, in the form of iprule.Normal.
type Rule struct {
	model.Rule
	Proto uint8
}

func (r Rule) String() string { return iprule.Text(r.Rule) }

// Ops of rules.
type (
	// SetRule adds a policy rule.
	SetRule struct{ Rule }
	// DelRule removes one of net's rules.
	DelRule struct{ Rule }
)

func (o SetRule) String() string { return "set rule " + o.Rule.String() }
func (o DelRule) String() string { return "delete rule " + o.Rule.String() }

// orProto is the protocol of a line, or that of net. What carries vrrp's is
// vrrp's to remove.
func orProto(p uint8) uint8 {
	if p == 0 || p == status.RouteProtoVRRP {
		return status.RouteProtoNet
	}
	return p
}

// rules adds what is missing, then removes what nobody wants. The kernel takes
// two rules that differ in their protocol only for one: whoever put it there,
// it does what the line says.
func (d *diff) rules() {
	for _, w := range d.want.Rules {
		if !slices.ContainsFunc(d.have.Rules, func(h Rule) bool { return h.Rule == w.Rule }) {
			d.op(SetRule{w})
		}
	}
	for _, h := range d.have.Rules {
		own := h.Proto == status.RouteProtoNet || slices.Contains(d.want.Gone.Rules, h)
		if own && !slices.ContainsFunc(d.want.Rules, func(w Rule) bool { return h.Rule == w.Rule }) {
			d.op(DelRule{h})
		}
	}
}

// rules are the policy rules of both families, as far as the configuration
// could ask for them.
func (k *Kernel) rules() ([]Rule, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP)
	req.AddRawData(make([]byte, unix.SizeofRtMsg))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWRULE)
	if err != nil {
		return nil, err
	}
	var out []Rule
	for _, m := range msgs {
		if r, proto, ok := iprule.Parse(m); ok {
			out = append(out, Rule{r, proto})
		}
	}
	return out, nil
}

// Foreign is what carries a protocol of its own by the word protocol: once its
// line is gone, nothing in the kernel says that it was net's.
type Foreign struct {
	Routes []Route
	Rules  []Rule
}

// foreign is what of a world has to be remembered.
func foreign(w World) (f Foreign) {
	for _, r := range w.Routes {
		if r.Proto != status.RouteProtoNet {
			f.Routes = append(f.Routes, r)
		}
	}
	for _, r := range w.Rules {
		if r.Proto != status.RouteProtoNet {
			f.Rules = append(f.Rules, r)
		}
	}
	return f
}

// Tracked is one static address, route or rule with a track_group.
type Tracked struct {
	Group, What string
	Links       []string // that it needs
	there       func(Facts) bool
	set         string // the op that sets it
}

// missing are those of the tracked that the kernel does not hold, with the
// reason. failed is why an op failed, by its text.
func missing(w World, f Facts, failed map[string]string) (out []status.Missing) {
	for _, t := range w.Tracked {
		if t.there(f) {
			continue
		}
		why := failed[t.set]
		for _, name := range t.Links {
			switch l := findLink(f, name); {
			case l == nil:
				why = "interface " + name + " is not there"
			case !l.Up:
				why = "interface " + name + " is down"
			}
		}
		if why == "" {
			why = "it is not in the kernel"
		}
		out = append(out, status.Missing{Group: t.Group, What: t.What + ": " + why})
	}
	return out
}

func findLink(f Facts, name string) *Link {
	for i := range f.Links {
		if f.Links[i].Name == name {
			return &f.Links[i]
		}
	}
	for i := range f.Links {
		if slices.Contains(f.Links[i].AltNames, name) {
			return &f.Links[i]
		}
	}
	return nil
}

// resolved is a route with the names that its links have now.
func resolved(r Route, f Facts) Route {
	name := func(n string) string {
		if l := findLink(f, n); l != nil {
			return l.Name
		}
		return n
	}
	r.Interface = name(r.Interface)
	r.NextHops = slices.Clone(r.NextHops)
	for i := range r.NextHops {
		r.NextHops[i].Interface = name(r.NextHops[i].Interface)
	}
	return r
}

func trackAddr(a Addr, group string) Tracked {
	return Tracked{Group: group, What: "address " + a.String(), Links: []string{a.Link}, set: SetAddr{a, "add"}.String(), there: func(f Facts) bool {
		w := a
		if l := findLink(f, a.Link); l != nil {
			w.Link = l.Name
		}
		return slices.ContainsFunc(f.Addrs, func(h Addr) bool { return addrKey(h) == addrKey(w) })
	}}
}

func trackRoute(r Route, group string) Tracked {
	return Tracked{Group: group, What: "route " + r.String(), Links: r.links(), set: SetRoute{r}.String(), there: func(f Facts) bool {
		w := resolved(r, f)
		return slices.ContainsFunc(f.Routes, func(h Route) bool { return routeKey(h) == routeKey(w) && sameRoute(h, w) })
	}}
}

func trackRule(r Rule, group string) Tracked {
	return Tracked{Group: group, What: "rule " + r.String(), set: SetRule{r}.String(), there: func(f Facts) bool {
		return slices.ContainsFunc(f.Rules, func(h Rule) bool { return h.Rule == r.Rule })
	}}
}
