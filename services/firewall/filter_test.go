package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/test/golden"
)

func same(n string) string { return n }

// busy is a configuration that has everything that listens.
func busy() *model.Config {
	a := netip.MustParseAddr
	return &model.Config{
		Instances: []model.Instance{
			{Name: "A", Interface: "eth0", VMAC: &model.VMAC{Name: "vrrp.51"}},
			{Name: "B", Interface: "lan", AuthAH: true},
			{Name: "C", Interface: "eth1", Unicast: true, CheckUnicastSrc: true, Peers: []model.Peer{{Addr: a("10.9.0.2")}, {Addr: a("2001:db8:9::2")}}},
		},
		Heartbeat: &model.Heartbeat{Port: 1912, Paths: []model.HeartbeatPath{{Peer: a("10.0.0.2")}, {Peer: a("fe80::2"), Interface: "eth1"}}},
		BFD:       []model.BFD{{Neighbor: a("10.0.0.3")}, {Neighbor: a("10.7.0.3"), Multihop: true}},
		Pair:      &model.Pair{Addr: a("10.0.0.2"), Port: 1913},
		Global: model.Global{
			SyncDaemon: &model.SyncDaemon{Interface: "eth0"},
			SNMP: model.SNMP{Listen: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:161"), netip.MustParseAddrPort("[::]:1161")},
				Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/32"), netip.MustParsePrefix("2001:db8::/64")}},
		},
		Interfaces: []model.Interface{{Name: "eth2", DHCP: true}},
		Firewall: model.Firewall{
			Log: true,
			SSH: []model.Whence{{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("2001:db8::/64")}}, {Interfaces: []string{"lan"}}},
			Allow: []model.FirewallAllow{
				{Protocol: 6, Ports: []model.PortRange{{From: 8080, To: 8088}}, From: model.Whence{Interfaces: []string{"eth0"}}},
				{Protocol: 47},
				{From: model.Whence{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}, Interfaces: []string{"lan"}}},
			},
		},
	}
}

func renamed(n string) string {
	if n == "lan" {
		return "eth3"
	}
	return n
}

// The kernel has what is wanted, says so, keeps counters, and notices what
// somebody else changed.
func TestFilterApplied(t *testing.T) {
	namespace(t)
	table, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	apply := func(c *model.Config) []string {
		t.Helper()
		_, ops, err := table.Apply(Filter(Ruleset{}, c, renamed))
		if err != nil {
			t.Fatal(err)
		}
		return ops
	}
	if ops := apply(busy()); len(ops) == 0 || !strings.HasPrefix(ops[0], "add chain input with ") {
		t.Errorf("first: %q", ops)
	}
	if ops := apply(busy()); ops != nil {
		t.Errorf("again: %q", ops)
	}
	golden.Check(t, filepath.Join("testdata", "filter.txt"), counters.ReplaceAllString(sh(t, "nft list table inet ballast"), "packets N bytes N"))

	sh(t, "nft delete element inet ballast vrrp { eth0 }")
	if ops := apply(busy()); !slices.Equal(ops, []string{"set vrrp: eth0 eth3 vrrp.51"}) {
		t.Errorf("an element that was deleted: %q", ops)
	}
	out := sh(t, "nft -a list chain inet ballast input")
	i := strings.Index(out, "dport 22 ")
	handle := strings.Fields(out[i+strings.Index(out[i:], "# handle "):])[2]
	sh(t, "nft replace rule inet ballast input handle "+handle+" tcp dport 22 drop")
	if ops := apply(busy()); len(ops) == 0 {
		t.Error("a rule that was replaced is not noticed")
	}
	c := busy()
	c.Instances = c.Instances[:2]
	if ops := apply(c); !slices.Equal(ops, []string{"input: delete accept VRRP from peers", "input: delete accept VRRP from peers, IPv6", "delete set vrrp_peers4", "delete set vrrp_peers6"}) {
		t.Errorf("a peer less: %q", ops)
	}

	sh(t, "ip link set lo up")
	dial(t, "udp", "127.0.0.1:9")
	apply(busy()) // counters outlive the change
	held, err := table.Dump()
	if err != nil {
		t.Fatal(err)
	}
	st := held.Filter()
	if st == nil || st.Default != "drop" || st.Rules[0].Rule != "from the box itself" || st.Rules[0].Packets == 0 {
		t.Errorf("%+v", st)
	}
	if d := cmp.Diff(0, len(held.Marks())); d != "" {
		t.Error(d)
	}
}

// box is a network namespace with a filter, and a client at the other end of its
// link. Both have the test's thread take turns.
type box struct {
	t              *testing.T
	inside, client *os.File
	table          *Table
}

const (
	boxAddr, clientAddr   = "192.0.2.1", "192.0.2.9"
	boxAddr6, clientAddr6 = "2001:db8::1", "2001:db8::9"
)

func newBox(t *testing.T) *box {
	t.Helper()
	namespace(t)
	b := &box{t: t}
	var err error
	open := func() *os.File {
		f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	sh(t, "ip link set lo up")
	sh(t, "ip link add eth0 type veth peer name p0")
	b.inside = open()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	b.client = open()
	b.enter(b.inside)
	move := exec.Command("ip", "link", "set", "p0", "netns", "/proc/self/fd/3")
	move.ExtraFiles = []*os.File{b.client}
	if out, err := move.CombinedOutput(); err != nil {
		t.Fatalf("move p0: %v %s", err, out)
	}
	sh(t, "ip addr add "+boxAddr+"/24 dev eth0")
	sh(t, "ip addr add "+boxAddr6+"/64 dev eth0 nodad")
	sh(t, "ip link set eth0 up")
	b.enter(b.client)
	sh(t, "ip addr add "+clientAddr+"/24 dev p0")
	sh(t, "ip addr add "+clientAddr6+"/64 dev p0 nodad")
	sh(t, "ip link set lo up")
	sh(t, "ip link set p0 up")
	b.enter(b.inside)
	linkUp(t, "eth0")
	if b.table, err = Open(); err != nil {
		t.Fatal(err)
	}
	// What is sent to a group that nobody is in comes to no filter.
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []byte{18, 81} {
		member, err := net.ListenMulticastUDP("udp4", eth0, &net.UDPAddr{IP: net.IPv4(224, 0, 0, group), Port: 9})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { member.Close() })
	}
	return b
}

func (b *box) enter(f *os.File) {
	b.t.Helper()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) filter(c *model.Config) {
	b.t.Helper()
	if _, _, err := b.table.Apply(Filter(Ruleset{}, c, same)); err != nil {
		b.t.Fatal(err)
	}
}

// rule are the names of the rules that took the packets which do sends from the
// client, in their order, once that which is wanted is among them, or never will be.
func (b *box) rule(want string, do func()) string {
	b.t.Helper()
	before, err := b.table.Dump()
	if err != nil {
		b.t.Fatal(err)
	}
	b.enter(b.client)
	do()
	b.enter(b.inside)
	for deadline := time.Now().Add(5 * time.Second); ; {
		after, err := b.table.Dump()
		if err != nil {
			b.t.Fatal(err)
		}
		var hit []string
		was, is := before.Filter().Rules, after.Filter().Rules
		for i := range is {
			if is[i].Packets > was[i].Packets && !strings.HasPrefix(is[i].Rule, "IPv6 neighbours") {
				hit = append(hit, is[i].Rule)
			}
		}
		if slices.Contains(hit, want) || time.Now().After(deadline) {
			return strings.Join(hit, "; ")
		}
		time.Sleep(time.Millisecond) // a packet of a veth is there within one: nothing tells when
	}
}

// send sends one raw packet of an IP protocol.
func (b *box) send(protocol int, to, from string, payload []byte) {
	b.t.Helper()
	c, err := net.ListenPacket(fmt.Sprintf("ip:%d", protocol), from)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteTo(payload, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) udp(from, to string) {
	b.t.Helper()
	l, err := net.ResolveUDPAddr("udp", from)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := net.DialUDP("udp", l, r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 64)); err != nil {
		b.t.Fatal(err)
	}
}

// tcp begins a connection that may never be: what counts is the packet.
func (b *box) tcp(to string) { b.reach(to, 300*time.Millisecond) }

func (b *box) reach(to string, within time.Duration) (reached bool) {
	c, err := net.DialTimeout("tcp", to, within)
	if err == nil {
		c.Close()
	}
	return err == nil || errors.Is(err, unix.ECONNREFUSED)
}

// What the configuration does not ask for is dropped, what it asks for comes in,
// and from elsewhere it does not.
func TestFilterPackets(t *testing.T) {
	b := newBox(t)
	a := netip.MustParseAddr
	peer := func(c *model.Config, addr string) { c.Pair = &model.Pair{Addr: a(addr), Port: 1913} }
	listen := netip.MustParseAddrPort(boxAddr + ":161")
	for _, tt := range []struct {
		name   string
		config func(*model.Config)
		do     func()
		want   string
	}{
		{"TCP to a port", nil, func() { b.tcp(boxAddr + ":80") }, "everything else"},
		{"TCP to a port, IPv6", nil, func() { b.tcp("[" + boxAddr6 + "]:80") }, "everything else"},
		{"UDP to a port", nil, func() { b.udp(clientAddr+":0", boxAddr+":53") }, "everything else"},
		{"another protocol", nil, func() { b.send(47, boxAddr, clientAddr, make([]byte, 8)) }, "everything else"},
		{"SSH", nil, func() { b.tcp(boxAddr + ":22") }, "SSH"},
		{"SSH, IPv6", nil, func() { b.tcp("[" + boxAddr6 + "]:22") }, "SSH"},
		{"SSH for others", func(c *model.Config) {
			c.Firewall.SSH = []model.Whence{{Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")}}, {Interfaces: []string{"eth1"}}}
		}, func() { b.tcp(boxAddr + ":22") }, "everything else"},
		{"SSH for others, the rest accepted", func(c *model.Config) {
			c.Firewall = model.Firewall{Accept: true, SSH: []model.Whence{{Interfaces: []string{"eth1"}}}}
		}, func() { b.tcp(boxAddr + ":22") }, "SSH from elsewhere"},
		{"SSH for a network", func(c *model.Config) {
			c.Firewall.SSH = []model.Whence{{Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25")}, Interfaces: []string{"eth0"}}}
		}, func() { b.tcp(boxAddr + ":22") }, "SSH from 192.0.2.0/25 on eth0; TCP connections"}, // a reset comes of it, which is answered by nothing
		{"accepted by default", func(c *model.Config) { c.Firewall.Accept = true }, func() { b.udp(clientAddr+":0", boxAddr+":53") }, "everything else"},
		{"allowed", func(c *model.Config) {
			c.Firewall.Allow = []model.FirewallAllow{{Protocol: 17, Ports: []model.PortRange{{From: 50, To: 60}}}}
		}, func() { b.udp(clientAddr+":0", boxAddr+":53") }, "allow udp 50-60"},
		{"outside the range", func(c *model.Config) {
			c.Firewall.Allow = []model.FirewallAllow{{Protocol: 17, Ports: []model.PortRange{{From: 50, To: 60}}}}
		}, func() { b.udp(clientAddr+":0", boxAddr+":61") }, "everything else"},
		{"allowed wholly", func(c *model.Config) {
			c.Firewall.Allow = []model.FirewallAllow{{From: model.Whence{Sources: []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}}}}
		}, func() { b.udp("["+clientAddr6+"]:0", "["+boxAddr6+"]:61") }, "allow any protocol from 2001:db8::/64"},
		{"VRRP of nobody", nil, func() { b.send(112, "224.0.0.18", clientAddr, make([]byte, 20)) }, "everything else"},
		{"VRRP", func(c *model.Config) { c.Instances = []model.Instance{{Interface: "eth0"}} },
			func() { b.send(112, "224.0.0.18", clientAddr, make([]byte, 20)) }, "VRRP"},
		{"VRRP on another interface", func(c *model.Config) { c.Instances = []model.Instance{{Interface: "eth1"}} },
			func() { b.send(112, "224.0.0.18", clientAddr, make([]byte, 20)) }, "everything else"},
		{"VRRP, IPv6", func(c *model.Config) { c.Instances = []model.Instance{{Interface: "eth0"}} },
			func() { b.send(112, boxAddr6, clientAddr6, make([]byte, 20)) }, "VRRP"},
		{"VRRP with AH", func(c *model.Config) { c.Instances = []model.Instance{{Interface: "eth0", AuthAH: true}} },
			func() { b.send(51, "224.0.0.18", clientAddr, make([]byte, 44)) }, "VRRP with AH"},
		{"VRRP of a peer", func(c *model.Config) {
			c.Instances = []model.Instance{{Unicast: true, CheckUnicastSrc: true, Interface: "eth0", Peers: []model.Peer{{Addr: a(clientAddr)}}}}
		}, func() { b.send(112, boxAddr, clientAddr, make([]byte, 20)) }, "VRRP from peers"},
		{"VRRP of a stranger", func(c *model.Config) {
			c.Instances = []model.Instance{{Unicast: true, CheckUnicastSrc: true, Interface: "eth0", Peers: []model.Peer{{Addr: a("192.0.2.8")}}}}
		}, func() { b.send(112, boxAddr, clientAddr, make([]byte, 20)) }, "everything else"},
		{"heartbeat", func(c *model.Config) {
			c.Heartbeat = &model.Heartbeat{Port: 1912, Paths: []model.HeartbeatPath{{Peer: a(clientAddr)}}}
		}, func() { b.udp(clientAddr+":1912", boxAddr+":1912") }, "heartbeat"},
		{"heartbeat of a stranger", func(c *model.Config) {
			c.Heartbeat = &model.Heartbeat{Port: 1912, Paths: []model.HeartbeatPath{{Peer: a("192.0.2.8")}}}
		}, func() { b.udp(clientAddr+":1912", boxAddr+":1912") }, "heartbeat from elsewhere"},
		{"BFD", func(c *model.Config) { c.BFD = []model.BFD{{Neighbor: a(clientAddr6)}} },
			func() { b.udp("["+clientAddr6+"]:49152", "["+boxAddr6+"]:3784") }, "BFD, IPv6"},
		{"BFD of a stranger", func(c *model.Config) { c.BFD = []model.BFD{{Neighbor: a("192.0.2.8")}} },
			func() { b.udp(clientAddr+":49152", boxAddr+":3784") }, "BFD from elsewhere"},
		{"BFD over hops", func(c *model.Config) { c.BFD = []model.BFD{{Neighbor: a(clientAddr), Multihop: true}} },
			func() { b.udp(clientAddr+":49152", boxAddr+":4784") }, "BFD over several hops"},
		{"BFD at the wrong port", func(c *model.Config) { c.BFD = []model.BFD{{Neighbor: a(clientAddr), Multihop: true}} },
			func() { b.udp(clientAddr+":49152", boxAddr+":3784") }, "everything else"},
		{"IPVS sync", func(c *model.Config) { c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth0"} },
			func() { b.udp(clientAddr+":0", "224.0.0.81:8848") }, "IPVS synchronisation"},
		{"IPVS sync to the box alone", func(c *model.Config) { c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth0"} },
			func() { b.udp(clientAddr+":0", boxAddr+":8848") }, "IPVS synchronisation from elsewhere"},
		{"IPVS sync elsewhere", func(c *model.Config) { c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", Port: 8849} },
			func() { b.udp(clientAddr+":0", boxAddr+":8849") }, "IPVS synchronisation from elsewhere"},
		{"peer", func(c *model.Config) { peer(c, clientAddr) }, func() { b.tcp(boxAddr + ":1913") }, "peer"},
		{"peer is another", func(c *model.Config) { peer(c, "192.0.2.8") }, func() { b.tcp(boxAddr + ":1913") }, "everything else"},
		{"SNMP", func(c *model.Config) { c.Global.SNMP.Listen = []netip.AddrPort{listen} },
			func() { b.udp(clientAddr+":0", boxAddr+":161") }, "SNMP at 192.0.2.1:161"},
		{"SNMP for others", func(c *model.Config) {
			c.Global.SNMP = model.SNMP{Listen: []netip.AddrPort{listen}, Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		}, func() { b.udp(clientAddr+":0", boxAddr+":161") }, "SNMP from elsewhere, port 161"},
		{"DHCP", func(c *model.Config) { c.Interfaces = []model.Interface{{Name: "eth0", DHCP: true}} },
			func() { b.udp(clientAddr+":67", boxAddr+":68") }, "DHCP answers"},
		{"DHCP unasked", nil, func() { b.udp(clientAddr+":67", boxAddr+":68") }, "everything else"},
		{"netboot, which nobody serves", nil, func() { b.udp(clientAddr+":0", boxAddr+":69") }, "everything else"},
		{"netboot by HTTP, which nobody serves", nil, func() { b.tcp(boxAddr + ":1914") }, "everything else"},
		{"IGMP", nil, func() { b.send(2, "224.0.0.1", clientAddr, []byte{0x11, 100, 0xee, 0x9b, 0, 0, 0, 0}) }, "multicast membership"},
		{"ICMP timestamp", nil, func() { b.send(1, boxAddr, clientAddr, append([]byte{13, 0, 0xf2, 0xff}, make([]byte, 16)...)) }, "everything else"},
		{"ICMP redirect", nil, func() { b.send(1, boxAddr, clientAddr, append([]byte{5, 1, 0, 0}, make([]byte, 28)...)) }, "everything else"},
	} {
		c := &model.Config{}
		if tt.config != nil {
			tt.config(c)
		}
		b.filter(c)
		want, _, _ := strings.Cut(tt.want, "; ")
		got := b.rule(want, tt.do)
		if got, _, _ = strings.Cut(got, "; "); got != want {
			t.Errorf("%s: taken by %q, want %q", tt.name, got, tt.want)
		}
	}
}

// What the box asks others for is answered: TCP, UDP, ping; by both families;
// and a stranger's datagram to the same port is not taken for an answer.
func TestFilterAnswers(t *testing.T) {
	b := newBox(t)
	b.filter(&model.Config{})
	for _, at := range []string{clientAddr, clientAddr6} {
		b.enter(b.client)
		l, err := net.Listen("tcp", net.JoinHostPort(at, "80"))
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", net.JoinHostPort(at, "53"))
		if err != nil {
			t.Fatal(err)
		}
		b.enter(b.inside)
		if !b.reach(net.JoinHostPort(at, "80"), 10*time.Second) {
			t.Errorf("%s: no TCP connection from the box", at)
		}
		if !b.reach(net.JoinHostPort(at, "81"), 10*time.Second) {
			t.Errorf("%s: no reset for a port that is closed", at)
		}
		ask, err := net.Dial("udp", net.JoinHostPort(at, "53"))
		if err != nil {
			t.Fatal(err)
		}
		ask.Write([]byte("?"))
		buf := make([]byte, 4096)
		_, from, err := u.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		// Larger than a packet: it comes in pieces.
		if _, err := u.WriteTo(make([]byte, 3000), from); err != nil {
			t.Fatal(err)
		}
		ask.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := ask.Read(buf); err != nil || n != 3000 {
			t.Errorf("%s: the answer by UDP: %d bytes, %v", at, n, err)
		}
		me := ask.LocalAddr().(*net.UDPAddr)
		got := b.rule("everything else", func() { b.udp(net.JoinHostPort(at, "54"), me.String()) })
		if !strings.Contains(got, "everything else") || strings.Contains(got, "answers") { // the end of a connection may come in beside it
			t.Errorf("%s: a stranger's datagram to port %d is taken by %q", at, me.Port, got)
		}
		// An error about it reaches whoever asked.
		refused, err := net.Dial("udp", net.JoinHostPort(at, "99"))
		if err != nil {
			t.Fatal(err)
		}
		refused.Write([]byte("?"))
		refused.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := refused.Read(buf); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: port 99: %v, want connection refused", at, err)
		}
		for _, c := range []interface{ Close() error }{l, u, ask, refused} {
			c.Close()
		}
	}
	ping, err := icmp.ListenPacket("ip4:icmp", boxAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer ping.Close()
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 1}}
	raw, _ := m.Marshal(nil)
	if _, err := ping.WriteTo(raw, &net.IPAddr{IP: net.ParseIP(clientAddr)}); err != nil {
		t.Fatal(err)
	}
	ping.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, _, err := ping.ReadFrom(make([]byte, 128)); err != nil {
		t.Errorf("no answer to a ping: %v", err)
	}
}

// Where connections are synchronised, a packet of one that nobody knows is dropped
// for a while before it is answered with a reset: the other box may be about to
// tell of it. Connections of the box itself wait for nothing.
func TestFilterPatience(t *testing.T) {
	b := newBox(t)
	c := &model.Config{Global: model.Global{SyncDaemon: &model.SyncDaemon{Interface: "eth0"}}, Firewall: model.Firewall{Accept: true}}
	b.filter(c)
	for _, tt := range []struct{ box, client, family string }{{boxAddr, clientAddr, "4"}, {boxAddr6, clientAddr6, "6"}} {
		segment := func(port byte) func() {
			h := make([]byte, 20)
			h[1], h[3], h[12], h[13], h[14] = port, 80, 0x50, 0x10, 1 // an ACK; nobody looks at its sum before the filter
			return func() { b.send(6, tt.box, tt.client, h) }
		}
		first, later := "TCP connections not told of yet, IPv"+tt.family+", first packet", "TCP connections not told of yet, IPv"+tt.family
		begin := time.Now()
		if got := b.rule(first, segment(1)); got != first {
			t.Errorf("the first packet: %s", got)
		}
		got := b.rule(later, segment(1))
		if late := time.Since(begin) > patienceTime; got != later && !late {
			t.Errorf("the second packet: %s", got)
		}
		if got := b.rule(first, segment(2)); got != first {
			t.Errorf("another client's first packet: %s", got)
		}
		time.Sleep(time.Until(begin.Add(patienceTime + 200*time.Millisecond))) // the kernel tells nobody that the time is over
		if got := b.rule("TCP connections", segment(1)); got != "TCP connections" {
			t.Errorf("%v after the first packet: %s", time.Since(begin), got)
		}
		begin = time.Now()
		b.enter(b.inside)
		l, err := net.Listen("tcp", net.JoinHostPort(tt.box, "443"))
		if err != nil {
			t.Fatal(err)
		}
		b.enter(b.client)
		var said [1]byte
		conn, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		if err == nil {
			in, aerr := l.Accept() // it has the last packet of the handshake
			if err = aerr; err == nil {
				conn.Write([]byte("x"))
				_, err = in.Read(said[:])
				in.Close()
			}
			conn.Close()
		}
		b.enter(b.inside)
		l.Close()
		if err != nil || said[0] != 'x' {
			t.Errorf("a connection of the box: %v", err)
		}
		held, err := b.table.Dump()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range held.Filter().Rules {
			if r.Rule == "TCP connections of the box" && r.Packets == 0 {
				t.Error("no packet of the box's own connection was known as such")
			}
		}
		t.Logf("its own connection took %v", time.Since(begin))
	}
	if _, ops, err := b.table.Apply(Filter(Ruleset{}, c, same)); err != nil || len(ops) > 0 {
		t.Errorf("what is there already: %q, %v", ops, err)
	}
}

// A box that is served over the network gets in while it is.
func TestFilterNetboot(t *testing.T) {
	b := newBox(t)
	b.filter(&model.Config{})
	u, err := net.ListenPacket("udp4", ":69")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err := net.Listen("tcp4", ":1914")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := b.rule("netboot, udp 69", func() { b.udp(clientAddr+":0", boxAddr+":69") }); got != "netboot, udp 69" {
		t.Errorf("TFTP: %q", got)
	}
	if got := b.rule("netboot, tcp 1914", func() { b.tcp(boxAddr + ":1914") }); !strings.Contains(got, "netboot, tcp 1914") {
		t.Errorf("HTTP: %q", got)
	}
}

// Pings are answered, up to a limit.
func TestFilterPingLimit(t *testing.T) {
	b := newBox(t)
	b.filter(&model.Config{})
	// The first packet waits for the box's address on the link, and few more do.
	if got := b.rule("everything else", func() { b.udp(clientAddr+":0", boxAddr+":9") }); got != "everything else" {
		t.Fatalf("a datagram before all: %q", got)
	}
	sent := 3 * pingsPerSecond
	b.enter(b.client)
	c, err := icmp.ListenPacket("ip4:icmp", clientAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 1}}
	raw, _ := m.Marshal(nil)
	start := time.Now()
	for range sent {
		if _, err := c.WriteTo(raw, &net.IPAddr{IP: net.ParseIP(boxAddr)}); err != nil {
			t.Fatal(err)
		}
	}
	b.enter(b.inside)
	n := map[string]uint64{}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		held, err := b.table.Dump()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range held.Filter().Rules {
			n[r.Rule] = r.Packets
		}
		if n["ping"]+n["ping, more than 500 a second"] >= uint64(sent) || time.Now().After(end) {
			break
		}
	}
	took := time.Since(start) // until the last was judged
	most := uint64(pingsPerSecond + int(took.Seconds()*pingsPerSecond) + 50)
	if ok := n["ping"]; ok < pingsPerSecond || ok > most || ok+n["ping, more than 500 a second"] != uint64(sent) {
		t.Errorf("%d pings in %v: %d answered, at most %d should be; %d dropped", sent, took, ok, most, n["ping, more than 500 a second"])
	}
}

// The number that a set had in its transaction is no matter; all else of a lookup is.
func TestSameLookup(t *testing.T) {
	ours := &expr.Lookup{SourceRegister: 1, SetName: "peer4", SetID: 3}
	for _, tt := range []struct {
		held expr.Lookup
		want bool
	}{
		{expr.Lookup{SourceRegister: 1, SetName: "peer4"}, true},
		{expr.Lookup{SourceRegister: 1, SetName: "peer4", Invert: true}, false},
		{expr.Lookup{SourceRegister: 1, SetName: "peer6"}, false},
		{expr.Lookup{SourceRegister: 2, SetName: "peer4"}, false},
	} {
		if sameExprs([]expr.Any{&tt.held}, []expr.Any{ours}) != tt.want {
			t.Errorf("%+v: %v", tt.held, !tt.want)
		}
	}
}

// Advertisements of the segment are let in where the instance judges by itself who
// may send them.
func TestFilterUnicast(t *testing.T) {
	for _, tt := range []struct{ unicast, check, want bool }{{false, false, true}, {false, true, true}, {true, false, true}, {true, true, false}} {
		c := &model.Config{Instances: []model.Instance{{Interface: "eth0", Unicast: tt.unicast, CheckUnicastSrc: tt.check}}}
		if got := len(Filter(Ruleset{}, c, same).Sets) == 1; got != tt.want {
			t.Errorf("unicast %v, checked %v: the segment %v", tt.unicast, tt.check, got)
		}
	}
}

func TestCheckFilter(t *testing.T) {
	if err := CheckFilter(busy()); err != nil {
		t.Error(err)
	}
	c := &model.Config{}
	for i := range 40 {
		c.Firewall.SSH = append(c.Firewall.SSH, model.Whence{Interfaces: []string{fmt.Sprintf("eth%d", i)}})
		for j := range 40 {
			c.Firewall.SSH[i].Sources = append(c.Firewall.SSH[i].Sources, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i, j)))
		}
	}
	if err := CheckFilter(c); err == nil || !strings.Contains(err.Error(), "at most 1024") {
		t.Error(err)
	}
}
