package check

import (
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strings"

	"ballast/configs/model"
)

// Config checks a whole configuration. places says where its parts stand in
// the text and may be nil; facts may be nil.
func Config(c *model.Config, places Places, facts *Facts) []model.Problem {
	return new(Memory).Config(c, places, facts)
}

// Memory is what is known from the last check, so that of thousands of virtual
// servers those that changed are all that need be looked at. The zero value
// knows nothing.
type Memory struct {
	servers services // nil: something was wrong with a virtual server
	facts   *Facts
}

// Config is the function Config.
func (m *Memory) Config(c *model.Config, places Places, facts *Facts) []model.Problem {
	k := newChecker(c, places, facts)
	k.box()
	n := len(k.problems)
	k.each(c.VirtualServers)
	k.marks()
	k.authority()
	m.servers, m.facts = nil, facts
	if n == len(k.problems) {
		m.servers = k.services
	}
	k.processes()
	return k.problems
}

// Again is Config for a configuration in which nothing is new but now virtual
// servers from place at on, where there was something else before.
func (m *Memory) Again(c *model.Config, places Places, facts *Facts, at, now int, was []model.VirtualServer) []model.Problem {
	fresh := c.VirtualServers[at : at+now]
	if m.servers == nil || !reflect.DeepEqual(facts, m.facts) || marked(fresh) || marked(was) || c.SSL.CA != "" && verified(was) {
		return m.Config(c, places, facts)
	}
	for i := range was {
		for _, id := range was[i].Services {
			delete(m.servers, id)
		}
	}
	k := newChecker(c, places, facts)
	k.box()
	n := len(k.problems)
	k.services = m.servers
	k.each(fresh)
	if n != len(k.problems) {
		return m.Config(c, places, facts) // what is wrong is said of all of them
	}
	k.processes()
	return k.problems
}

// marked tells whether one of some virtual servers takes what has a mark, which
// is a matter of the marks that others take too.
func marked(list []model.VirtualServer) bool {
	return slices.ContainsFunc(list, func(v model.VirtualServer) bool {
		return slices.ContainsFunc(v.Services, func(id model.ServiceID) bool { return id.Mark != 0 })
	})
}

func newChecker(c *model.Config, places Places, facts *Facts) *checker {
	if places == nil {
		places = func(string) (model.Pos, bool) { return model.Pos{}, false }
	}
	return &checker{c: c, places: places, facts: facts}
}

// box checks all but the virtual servers.
func (k *checker) box() {
	k.routers()
	k.addresses()
	k.links()
	k.logins()
	k.mail()
	if k.facts != nil && k.facts.Interfaces != nil {
		k.nics()
	}
	if k.facts != nil && k.facts.Files != nil {
		k.files(k.commands)
	}
}

// each checks virtual servers, against those of services and against the box.
func (k *checker) each(list []model.VirtualServer) {
	k.servers(list)
	k.gateways(list)
	k.sorry(list)
	if k.facts != nil && k.facts.Files != nil {
		k.files(k.serverCommands(list))
	}
}

// services are those of virtual servers, by the name of the one that has them.
type services map[model.ServiceID]string

type checker struct {
	c        *model.Config
	places   Places
	facts    *Facts
	problems []model.Problem
	services services
	told     map[string]bool     // files of which something was said
	holds    map[netip.Addr]bool // addresses that the box has at times; made when asked for
}

// report places a problem at the first of the keys that the text holds.
func (k *checker) report(s model.Severity, fix, text string, keys ...string) {
	p := model.Problem{Severity: s, Text: text, Fix: fix}
	for _, key := range keys {
		if at, ok := k.places(key); ok {
			p.File, p.Line, p.Col = at.File, at.Line, at.Col
			break
		}
	}
	k.problems = append(k.problems, p)
}

func instance(name string, more ...string) string {
	return path.Join(append([]string{"instance/" + name}, more...)...)
}

// line says where a part stands, for the text of another problem.
func (k *checker) line(key string) string {
	if at, ok := k.places(key); ok && at.Line > 0 {
		return fmt.Sprintf(" (line %d)", at.Line)
	}
	return ""
}

// routers finds two instances that cannot tell each other's advertisements
// apart: the same VRID, interface, family and group, or for unicast a common
// peer.
func (k *checker) routers() {
	type router struct {
		vrid          uint8
		ipv6, unicast bool
		iface         string
	}
	seen := map[router][]int{}
	for i := range k.c.Instances {
		a := &k.c.Instances[i]
		if a.VRID == 0 {
			continue // reported already
		}
		id := router{a.VRID, a.IPv6, a.Unicast, a.Interface}
		for _, j := range seen[id] {
			b := &k.c.Instances[j]
			if a.Unicast {
				common := slices.ContainsFunc(a.Peers, func(p model.Peer) bool {
					return slices.ContainsFunc(b.Peers, func(q model.Peer) bool { return p.Addr == q.Addr })
				})
				if !common {
					continue
				}
			} else if a.McastGroup != b.McastGroup {
				continue
			}
			k.report(model.Error, fmt.Sprintf("give %s another virtual_router_id, the same on both boxes", a.Name),
				fmt.Sprintf("%s and %s%s both use virtual_router_id %d on interface %s", a.Name, b.Name, k.line(instance(b.Name)), a.VRID, a.Interface),
				instance(a.Name, "vrid"), instance(a.Name))
			break
		}
		seen[id] = append(seen[id], i)
	}
}

// addresses finds an address that two instances carry, or that is the box's own.
func (k *checker) addresses() {
	holder := map[netip.Addr]string{}
	for i := range k.c.Instances {
		in := &k.c.Instances[i]
		for _, a := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
			addr := a.Prefix.Addr()
			if addr.IsLinkLocalUnicast() {
				continue // one per interface is normal
			}
			if other := holder[addr]; other != "" && other != in.Name {
				k.report(model.Error, "leave it in one of them",
					fmt.Sprintf("%s and %s%s both carry %s", in.Name, other, k.line(instance(other, "vip", addr.String())), addr),
					instance(in.Name, "vip", addr.String()), instance(in.Name))
			}
			holder[addr] = in.Name
		}
	}
	for _, a := range k.c.StaticAddrs {
		if in := holder[a.Prefix.Addr()]; in != "" {
			k.report(model.Warning, "leave it in one of them",
				fmt.Sprintf("%s is in static_ipaddress and a VIP of %s: both boxes would hold it at all times", a.Prefix.Addr(), in),
				instance(in, "vip", a.Prefix.Addr().String()), instance(in))
		}
	}
	for _, i := range k.c.Interfaces {
		for _, p := range i.Addresses {
			if in := holder[p.Addr()]; in != "" {
				k.report(model.Error, "give the box an address of its own",
					fmt.Sprintf("%s is a fixed address of interface %s and a VIP of %s", p.Addr(), i.Name, in), "interface/"+i.Name)
			}
		}
	}
}

// servers checks each virtual server against the others and the instances.
func (k *checker) servers(list []model.VirtualServer) {
	if k.services == nil {
		k.services = make(services, len(list))
	}
	trustless := false
	for i := range list {
		v := &list[i]
		for _, id := range v.Services {
			if other, twice := k.services[id]; twice {
				k.report(model.Error, "put all real servers into one block",
					fmt.Sprintf("virtual server %s is defined twice, in %s and %s", id, other, v.Name), "vs/"+v.Name)
			}
			k.services[id] = v.Name
			if id.Addr.IsValid() && !k.carried(id.Addr) && (len(k.c.Instances) > 0 || len(k.c.StaticAddrs) > 0) {
				k.report(model.Note, "add it to a virtual_ipaddress block if this box shall hold it",
					fmt.Sprintf("no instance carries %s, the address of virtual server %s", id.Addr, v.Name), "vs/"+v.Name)
				break
			}
		}
		local := 0
		for j := range v.Real {
			r := &v.Real[j]
			if r.Forward == model.NAT && k.carried(r.Addr) {
				local++
			}
			if k.c.SSL.CA == "" && !trustless && verifies(r) {
				trustless = true // one line for all of them: the cure is one
				k.report(model.Warning, "add SSL { ca /etc/keepalived/ca.pem } with the authority that signed the certificates, or take tls_verify away",
					fmt.Sprintf("virtual server %s: tls_verify of real server %s trusts no certificate, because no SSL block names a ca: every server with it will be down", v.Name, r.Addr), "vs/"+v.Name)
			}
		}
		if local > 0 {
			k.report(model.Warning, "name the servers behind the box",
				fmt.Sprintf("virtual server %s: a real server is one of the box's own VIPs", v.Name), "vs/"+v.Name)
		}
	}
}

// authority finds one that nothing needs.
func (k *checker) authority() {
	if k.c.SSL.CA != "" && !verified(k.c.VirtualServers) && !mailVerified(&k.c.Global) {
		k.report(model.Note, "add tls_verify to an SSL_GET, or delete the line",
			"SSL: nothing is verified with ca: no SSL_GET has tls_verify, and no mail goes over TLS", "ssl/ca")
	}
}

// verified says whether a real server of some virtual servers must show a certificate.
func verified(list []model.VirtualServer) bool {
	for i := range list {
		for j := range list[i].Real {
			if verifies(&list[i].Real[j]) {
				return true
			}
		}
	}
	return false
}

// mailVerified says whether the mail server must show a certificate.
func mailVerified(g *model.Global) bool {
	return g.SMTPServer != "" && g.SMTPTLS != "" && !g.SMTPNoVerify
}

// verifies says whether a check of r has tls_verify.
func verifies(r *model.RealServer) bool {
	for i := range r.Checks {
		if r.Checks[i].TLSVerify {
			return true
		}
	}
	return false
}

// carried says whether the box holds an address at times.
func (k *checker) carried(a netip.Addr) bool {
	if k.holds == nil {
		k.holds = map[netip.Addr]bool{}
		for i := range k.c.Instances {
			for _, x := range slices.Concat(k.c.Instances[i].VIPs, k.c.Instances[i].ExcludedVIPs) {
				k.holds[x.Prefix.Addr()] = true
			}
		}
		for _, x := range k.c.StaticAddrs {
			k.holds[x.Prefix.Addr()] = true
		}
		for _, i := range k.c.Interfaces {
			for _, p := range i.Addresses {
				k.holds[p.Addr()] = true
			}
		}
	}
	return k.holds[a]
}

// marks compares the marks that are set with the services that want one.
func (k *checker) marks() {
	wanted := map[uint32]string{}
	for i := range k.c.VirtualServers {
		v := &k.c.VirtualServers[i]
		for _, id := range v.Services {
			if id.Mark != 0 {
				wanted[id.Mark] = v.Name
			}
		}
	}
	set := map[uint32]bool{}
	for _, m := range k.c.Marks {
		set[m.Mark] = true
		if wanted[m.Mark] == "" {
			k.report(model.Note, fmt.Sprintf("add virtual_server fwmark %d { … }, or delete the block", m.Mark),
				fmt.Sprintf("no virtual server uses mark %d", m.Mark), fmt.Sprintf("mark/%d", m.Mark))
		}
	}
	for i := range k.c.VirtualServers {
		v := &k.c.VirtualServers[i]
		for _, id := range v.Services {
			if id.Mark != 0 && !set[id.Mark] {
				k.report(model.Note, fmt.Sprintf("add mark %d { tcp ADDRESS PORT … }", id.Mark),
					fmt.Sprintf("no packet gets mark %d, so virtual server %s has no traffic", id.Mark, v.Name), "vs/"+v.Name)
			}
		}
	}
}

// links checks bonds and VLANs against each other.
func (k *checker) links() {
	kind := map[string]string{}
	once := func(name, what string) {
		if other := kind[name]; other != "" {
			k.report(model.Error, "choose another name", fmt.Sprintf("%s %s has the name of a %s", what, name, other), what+"/"+name)
		}
		kind[name] = what
	}
	member := map[string]string{}
	for _, b := range k.c.Bonds {
		once(b.Name, "bond")
		for _, m := range b.Members {
			if m == b.Name {
				k.report(model.Error, "", fmt.Sprintf("bond %s is its own member", b.Name), "bond/"+b.Name)
			}
			if other := member[m]; other != "" {
				k.report(model.Error, "leave it in one of them", fmt.Sprintf("%s is a member of bond %s and of bond %s", m, other, b.Name), "bond/"+b.Name)
			}
			member[m] = b.Name
		}
		if b.Primary != "" && !slices.Contains(b.Members, b.Primary) {
			k.report(model.Error, "name one of its members", fmt.Sprintf("primary %s is no member of bond %s", b.Primary, b.Name), "bond/"+b.Name)
		}
	}
	for _, v := range k.c.VLANs {
		once(v.Name, "vlan")
		if v.Link == v.Name {
			k.report(model.Error, "name the interface below", fmt.Sprintf("vlan %s stands on itself", v.Name), "vlan/"+v.Name)
		}
	}
	matched := map[model.Match]string{}
	for _, i := range k.c.Interfaces {
		if b := member[i.Name]; b != "" && (len(i.Addresses) > 0 || i.DHCP || i.DHCP6) {
			k.report(model.Error, "move the addresses to interface "+b, fmt.Sprintf("%s has addresses, but it is a member of bond %s", i.Name, b), "interface/"+i.Name)
		}
		if i.Match != (model.Match{}) {
			if other := matched[i.Match]; other != "" {
				k.report(model.Error, "each name needs a card of its own", fmt.Sprintf("interfaces %s and %s name the same card", other, i.Name), "interface/"+i.Name+"/match", "interface/"+i.Name)
			}
			matched[i.Match] = i.Name
		}
	}
}

func (k *checker) logins() {
	admins := 0
	for _, l := range k.c.System.Logins {
		if len(l.Keys) == 0 {
			k.report(model.Error, `add key "ssh-ed25519 AAAA… NAME"; there are no passwords`, fmt.Sprintf("login %s has no key, so nobody can use it", l.Name), "login/"+l.Name)
		} else if l.Role == "admin" {
			admins++
		}
	}
	if len(k.c.System.Logins) > 0 && admins == 0 {
		k.report(model.Warning, "give one login role admin", "no login with a key has role admin: nobody could change this configuration over the network", "login/"+k.c.System.Logins[0].Name)
	}
}

// What is expected to run on the box beside the director:

// mail finds a mail server there.
func (k *checker) mail() {
	host := k.c.Global.SMTPServer
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = strings.Trim(host[:i], "[]")
	}
	a, err := netip.ParseAddr(host)
	if len(k.c.Global.NotificationEmail) > 0 && (host == "localhost" || err == nil && a.IsLoopback()) {
		k.report(model.Warning, "name a mail server that the box can reach", "smtp_server "+host+": no mail server runs on this box, so mail cannot be delivered", "smtp_server")
	}
}

// sorry finds a sorry server there.
func (k *checker) sorry(list []model.VirtualServer) {
	for i := range list {
		v := &list[i]
		if v.Sorry != nil && v.Sorry.Addr.IsLoopback() {
			k.report(model.Warning, "name a server on the network", fmt.Sprintf("virtual server %s: nothing on this box serves the sorry server %s", v.Name, v.Sorry.Addr), "vs/"+v.Name+"/sorry_server", "vs/"+v.Name)
		}
	}
}
