package lab

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/test/lab/ether"
	"ballast/test/lab/plan"
	"ballast/test/lab/vm"
	"ballast/test/lab/wire"
)

func TestReport(t *testing.T) {
	const ms = time.Millisecond
	ok := func(at time.Duration, server string) wire.Sample {
		return wire.Sample{At: at, Took: 2 * ms, Server: server}
	}
	bad := func(at time.Duration) wire.Sample { return wire.Sample{At: at, Took: 10 * ms, Error: "timeout"} }
	for name, test := range map[string]struct {
		in           []wire.Sample
		outage, from time.Duration
		failed       int
	}{
		"none":        {nil, 0, 0, 0},
		"steady":      {[]wire.Sample{ok(0, "rs1"), ok(10*ms, "rs2"), ok(20*ms, "rs1")}, 10 * ms, 0, 0},
		"out of turn": {[]wire.Sample{ok(20*ms, "rs1"), ok(0, "rs2"), ok(10*ms, "rs1")}, 10 * ms, 0, 0},
		"a gap":       {[]wire.Sample{ok(0, "rs1"), ok(10*ms, "rs1"), bad(20 * ms), bad(30 * ms), ok(40*ms, "rs1")}, 30 * ms, 10 * ms, 2},
		"still open":  {[]wire.Sample{ok(0, "rs1"), bad(10 * ms), bad(20 * ms)}, 20 * ms, 0, 2},
		"never":       {[]wire.Sample{bad(0), bad(10 * ms)}, 0, 0, 2},
	} {
		r := NewReport(10*ms, test.in)
		if r.Outage != test.outage || r.OutageAt != test.from || r.Failed() != test.failed {
			t.Errorf("%s: outage %v at %v, %d failed, want %v at %v, %d", name, r.Outage, r.OutageAt, r.Failed(), test.outage, test.from, test.failed)
		}
	}
	r := NewReport(10*ms, []wire.Sample{ok(0, "rs1"), bad(10 * ms), ok(20*ms, "rs2")})
	want := "2 of 3 answered (rs1 1, rs2 1), errors: timeout 1, longest gap 20ms, median 2ms, slowest 2ms, timer late at most 0s"
	if d := cmp.Diff(want, r.String()); d != "" {
		t.Error(d)
	}
}

// advert is a minimal VRRPv2 advertisement in an Ethernet frame.
func advert(vrid, priority byte) []byte {
	f := make([]byte, 14+20+8)
	copy(f, []byte{1, 0, 0x5e, 0, 0, 0x12, 2, 0, 0, 0, 0, 1, 8, 0, 0x45})
	f[14+9] = 112
	copy(f[14+12:], []byte{10, 0, 0, 1})
	copy(f[34:], []byte{0x21, vrid, priority})
	return f
}

func TestRoles(t *testing.T) {
	r := newRoles(nil)
	t0 := time.Unix(1000, 0)
	see := func(after time.Duration, d int, frame []byte) {
		t.Helper()
		a, ok := ether.ParseAdvert(frame)
		if !ok {
			t.Fatal("no advertisement")
		}
		r.advert(t0.Add(after), Router{0, a.VRID, a.From.Is6()}, d, a.Priority)
	}
	see(0, 0, advert(51, 100))
	see(time.Second, 0, advert(51, 100))
	see(4600*time.Millisecond, 1, advert(51, 99))
	see(5*time.Second, 1, advert(51, 0))
	see(5*time.Second, 0, advert(51, 0)) // of one that is not master
	see(5600*time.Millisecond, 0, advert(51, 100))
	var got []string
	for _, e := range r.Events() {
		got = append(got, e.String())
	}
	want := []string{
		"vrid 51: director-a advertises, 0s after nobody",
		"vrid 51: director-b advertises, 3.6s after director-a",
		"vrid 51: director-b resigned",
		"vrid 51: director-a advertises, 600ms after nobody",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if r.Master(51, 0) != 0 || r.Master(52, 0) != -1 || r.String() != "vrid 51 director-a" {
		t.Errorf("master %d, %s", r.Master(51, 0), r)
	}
}

func TestKey(t *testing.T) {
	k, err := newKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(k.file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v: ssh refuses a key that others can read", st.Mode(), err)
	}
	if !strings.HasPrefix(k.public, "ssh-ed25519 ") {
		t.Error(k.public)
	}
}

// TestNode boots the VM with the client and the real servers, without
// directors, and has one ask the others.
func TestNode(t *testing.T) {
	if testing.Short() {
		t.Skip("a virtual machine takes too long for -short")
	}
	ctx := t.Context()
	ip := netip.MustParseAddr
	cfg := model.Config{
		Instances: []model.Instance{
			{Interface: "eth0", VIPs: []model.Address{{Prefix: netip.MustParsePrefix("10.1.0.80/24")}}},
			{Interface: "eth1", VIPs: []model.Address{{Prefix: netip.MustParsePrefix("10.2.0.1/24")}}},
		},
		VirtualServers: []model.VirtualServer{
			{
				Name: "dr", Services: []model.ServiceID{{Addr: ip("10.1.0.80"), Port: 80, Protocol: model.TCP}, {Addr: ip("10.1.0.80"), Port: 53, Protocol: model.UDP}},
				Real: []model.RealServer{{Addr: ip("10.1.0.11"), Port: 80, Forward: model.DR}, {Addr: ip("10.1.0.12"), Port: 80, Forward: model.TUN}},
			},
			{
				Name: "nat", Services: []model.ServiceID{{Addr: ip("10.1.0.80"), Port: 8080, Protocol: model.TCP}},
				Real: []model.RealServer{{Addr: ip("10.2.0.13"), Port: 8080, Forward: model.NAT}},
			},
		},
		Marks: []model.Mark{{Mark: 1, Rules: []model.MarkRule{{Protocol: model.TCP, Dst: netip.MustParsePrefix("10.1.0.80/32")}}}},
	}
	p := plan.Make(cfg, nil)
	for i := range p.Servers {
		p.Servers[i].Passive = [2]uint16{8000, 8100}
		p.Servers[i].UDP = []uint16{53}
	}
	unlock, err := vm.Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{Dir: t.TempDir(), plan: p, unlock: unlock}
	defer l.Close()
	for range p.Segments {
		l.Switches = append(l.Switches, ether.New("segment"))
	}
	if l.Node, err = newNode(ctx, l); err != nil {
		t.Fatal(err)
	}
	n := l.Node
	if err := n.start(ctx, p); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over what the first one made
		if err := n.apply(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	g, err := n.Get(ctx, "10.1.0.11:80", "/bytes/3000000?seed=x", 10*time.Second)
	if want := (wire.Got{Status: 200, Server: "rs1", Bytes: 3000000, Differ: -1}); err != nil || g != want {
		t.Errorf("get: %+v, %v, want %+v", g, err, want)
	}
	control, data, err := n.FTP(ctx, "10.1.0.11:80")
	if err != nil || control != "rs1" || data != "rs1" {
		t.Errorf("ftp: %q %q %v", control, data, err)
	}
	if err := n.Ping(ctx, "10.1.0.12"); err != nil {
		t.Error(err)
	}
	if _, err := n.Get(ctx, "10.2.0.13:8080", "/", time.Second); err == nil {
		t.Error("the client reaches the inside segment without a director")
	}
	if out, err := n.RunIn(ctx, "rs2", "node", "get", "10.1.0.80:80", "/", "10s"); err != nil || !strings.Contains(out, `"rs2"`) {
		t.Errorf("a real server does not have the VIP: %s %v", out, err)
	}
	if err := n.Ping(ctx, "10.1.0.80"); err == nil {
		t.Error("a real server answers ARP for the VIP")
	}
	rs1 := n.Server("rs1")
	if err := rs1.Control(wire.ServeControl{Status: 503}); err != nil {
		t.Fatal(err)
	}
	// What is told to a server takes its way beside the requests.
	answers := func(status int) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; {
			g, err := n.Get(ctx, "10.1.0.11:80", "/", 10*time.Second)
			if err == nil && g.Status == status {
				return
			}
			if err != nil || time.Now().After(end) {
				t.Fatalf("get: %+v, %v, want %d", g, err, status)
			}
		}
	}
	answers(503)
	if err := rs1.Control(wire.ServeControl{}); err != nil {
		t.Fatal(err)
	}
	answers(200)

	udp, err := n.Probe(wire.Probe{Kind: "udp", Target: "10.1.0.11:53", Every: 20 * time.Millisecond, Timeout: 200 * time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := udp.Answered(ctx); err != nil {
		t.Fatal(err)
	}
	pr, err := n.Probe(wire.Probe{Kind: "http", Target: "10.1.0.11:80", Every: 20 * time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pr.Answered(ctx); err != nil {
		t.Fatal(err)
	}
	if err := rs1.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Get(ctx, "10.1.0.11:80", "/", 10*time.Second); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a server that is stopped: %v, want refused", err)
	}
	for end := time.Now().Add(30 * time.Second); pr.Report().Errors["refused"] == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the probe of a server that is stopped: %s", pr.Report())
		}
	}
	if err := rs1.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Get(ctx, "10.1.0.11:80", "/", 10*time.Second); err != nil {
		t.Error(err)
	}
	r, err := pr.Stop(ctx)
	if err != nil || r.Good == 0 || r.Errors["refused"] == 0 || r.ByServer["rs1"] != r.Good {
		t.Errorf("probe: %s, %v", r, err)
	}
	t.Log(r)
	u, err := udp.Stop(ctx)
	if err != nil || u.ByServer["rs1"] == 0 {
		t.Errorf("udp probe: %s, %v", u, err)
	}
	t.Log(u)
}
