package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/test/golden"
)

// ftp is the case of an FTP service in passive mode: control port and data ports
// of one client must reach the same real server.
var ftp = []model.Mark{{Mark: 300, Rules: []model.MarkRule{
	{Protocol: model.TCP, Dst: netip.MustParsePrefix("192.168.100.111/32"), Ports: []model.PortRange{{From: 9814, To: 9814}}},
	{Protocol: model.TCP, Dst: netip.MustParsePrefix("192.168.100.111/32"), Ports: []model.PortRange{{From: 8000, To: 9000}, {From: 9001, To: 10000}}},
}}}

var wide = []model.Mark{
	{Mark: 7, Rules: []model.MarkRule{
		{Protocol: model.UDP, Dst: netip.MustParsePrefix("10.1.2.3/16"), Ports: []model.PortRange{{From: 53, To: 53}}},
		{Protocol: model.TCP, Dst: netip.MustParsePrefix("2001:db8::1/128"), Ports: []model.PortRange{{From: 20, To: 21}}},
	}},
	{Mark: 0xfffffffe, Rules: []model.MarkRule{
		{Protocol: model.SCTP, Dst: netip.MustParsePrefix("2001:db8:1::/49")},
		{Protocol: model.TCP, Dst: netip.MustParsePrefix("0.0.0.0/0"), Ports: []model.PortRange{{From: 0, To: 1023}}},
		{Protocol: model.UDP, Dst: netip.MustParsePrefix("::/0"), Ports: []model.PortRange{{From: 1024, To: 65535}}},
	}},
}

func TestDesired(t *testing.T) {
	var b strings.Builder
	for _, c := range Desired(append(ftp, wide...)).Chains {
		fmt.Fprintf(&b, "%s %s %d\n", c.Name, c.Hook, c.Priority)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "  %s\n", r.comment())
		}
	}
	golden.Check(t, filepath.Join("testdata", "desired.txt"), b.String())
	if r := Desired(nil); len(r.Chains) != 0 {
		t.Errorf("no marks: %+v", r)
	}
}

func TestJoinPorts(t *testing.T) {
	p := func(v ...uint16) (out []model.PortRange) {
		for i := 0; i < len(v); i += 2 {
			out = append(out, model.PortRange{From: v[i], To: v[i+1]})
		}
		return out
	}
	for _, tt := range []struct{ in, want []model.PortRange }{
		{nil, p(0, 65535)},
		{p(80, 80), p(80, 80)},
		{p(80, 80, 81, 90), p(80, 90)},
		{p(100, 200, 10, 20, 150, 300, 10, 20), p(10, 20, 100, 300)},
		{p(65535, 65535, 0, 0), p(0, 0, 65535, 65535)},
		{p(1, 65535, 5, 6), p(1, 65535)},
	} {
		if d := cmp.Diff(tt.want, joinPorts(tt.in)); d != "" {
			t.Errorf("%v: %s", tt.in, d)
		}
	}
}

func TestCheckReportsEveryFault(t *testing.T) {
	err := Check([]model.Mark{{Rules: []model.MarkRule{
		{Protocol: 47, Dst: netip.MustParsePrefix("10.0.0.1/32"), Ports: []model.PortRange{{From: 9, To: 8}}}, {Protocol: model.TCP}}}})
	for _, want := range []string{"mark 0: 0 means no mark", "protocol 47 has no ports", "ports 9-8 run backwards; write 8-9", "no destination"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if err := Check(append(ftp, wide...)); err != nil {
		t.Error(err)
	}
	many := []model.Mark{{Mark: 1, Rules: []model.MarkRule{{Protocol: model.TCP, Dst: netip.MustParsePrefix("10.0.0.1/32"), Ports: make([]model.PortRange, maxRules)}}}}
	if err := Check(many); err != nil {
		t.Error(err)
	}
	many[0].Rules = append(many[0].Rules, many[0].Rules[0])
	if err := Check(many); err == nil || !strings.Contains(err.Error(), "2048 mark rules; at most 1024") {
		t.Errorf("too many: %v", err)
	}
}

// What exprs writes, parseRule reads, and anything that was changed is noticed.
func TestRuleReadsBack(t *testing.T) {
	for _, c := range Desired(append(ftp, wide...)).Chains {
		for _, r := range c.Rules {
			es := exprs(r, Count{3, 99})
			got, n, ok := parseRule(es)
			if !ok || got != r || n != (Count{3, 99}) {
				t.Errorf("%s: read back as %+v %+v %v", r, got, n, ok)
			}
			for i := range es {
				if _, _, ok := parseRule(append(append([]expr.Any{}, es[:i]...), es[i+1:]...)); ok {
					if x, _, _ := parseRule(append(append([]expr.Any{}, es[:i]...), es[i+1:]...)); x == r {
						t.Errorf("%s: the loss of expression %d is not noticed", r, i)
					}
				}
			}
		}
	}
}

// namespace moves the test's thread into a new network namespace. The thread ends
// with the test, and the namespace with the thread.
func namespace(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	runtime.LockOSThread() // never unlocked: the runtime then throws the thread away
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func sh(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// linkUp waits until a link of this namespace that came up without its other end
// can send: the kernel lets it a little after that is there, and drops what comes
// before.
func linkUp(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(sh(t, "ip link show "+name), "state UP"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come up", name)
		}
	}
}

var counters = regexp.MustCompile(`packets \d+ bytes \d+`)

func TestApplyIsIdempotent(t *testing.T) {
	namespace(t)
	sh(t, "nft add table inet other")
	sh(t, "nft add chain inet other c")
	table, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	apply := func(marks []model.Mark) []string {
		t.Helper()
		_, ops, err := table.Apply(Desired(marks))
		if err != nil {
			t.Fatal(err)
		}
		return ops
	}
	all := append(ftp, wide...)
	for i, step := range []struct {
		name  string
		marks []model.Mark
		do    string // before
		want  []string
	}{
		{"nothing to nothing", nil, "", nil},
		{"first", ftp, "", []string{"add chain mark_output with 2 rules", "add chain mark_prerouting with 2 rules"}},
		{"again", ftp, "", nil},
		{"more", all, "", []string{
			"mark_output: add mark 7: udp 10.1.0.0/16 53", "mark_output: add mark 7: tcp 2001:db8::1 20-21",
			"mark_output: add mark 4294967294: sctp 2001:db8:1::/49", "mark_output: add mark 4294967294: tcp 0.0.0.0/0 0-1023", "mark_output: add mark 4294967294: udp ::/0 1024-65535",
			"mark_prerouting: add mark 7: udp 10.1.0.0/16 53", "mark_prerouting: add mark 7: tcp 2001:db8::1 20-21",
			"mark_prerouting: add mark 4294967294: sctp 2001:db8:1::/49", "mark_prerouting: add mark 4294967294: tcp 0.0.0.0/0 0-1023", "mark_prerouting: add mark 4294967294: udp ::/0 1024-65535"}},
		{"again", all, "", nil},
		{"a stranger's rule", all, "nft add rule inet ballast mark_output drop", []string{"replace table ballast: not ours: rule 8 of chain mark_output"}},
		{"again", all, "", nil},
		{"a stranger's chain", all, "nft add chain inet ballast x", []string{"replace table ballast: not ours: chain x"}},
		{"a lost rule", ftp, "nft flush chain inet ballast mark_output", nil},
		{"gone", nil, "nft delete table inet ballast", nil},
		{"first again", ftp, "", []string{"add chain mark_output with 2 rules", "add chain mark_prerouting with 2 rules"}},
	} {
		if step.do != "" {
			sh(t, step.do)
		}
		ops := apply(step.marks)
		if step.want != nil || step.name == "again" {
			if d := cmp.Diff(step.want, ops); d != "" {
				t.Errorf("%d %s (-want +got):\n%s", i, step.name, d)
			}
		}
		if step.name == "more" {
			golden.Check(t, filepath.Join("testdata", "nft.txt"), counters.ReplaceAllString(sh(t, "nft list table inet ballast"), "packets N bytes N"))
		}
	}
	// Counters go on over a change of other rules.
	sh(t, "ip link set lo up")
	sh(t, "ip addr add 192.168.100.111/32 dev lo")
	dial(t, "tcp", "192.168.100.111:9814")
	apply(all)
	held, err := table.Dump()
	if err != nil {
		t.Fatal(err)
	}
	if m := held.Marks()[0]; m.Rule != "tcp 192.168.100.111 9814" || m.Packets == 0 {
		t.Errorf("counter after a change: %+v", held.Marks())
	}
	apply(nil)
	if out := sh(t, "nft list tables"); out != "table inet other\n" {
		t.Errorf("tables left: %q", out)
	}
}

// dial sends at least one packet; nobody listens.
func dial(t *testing.T, network, addr string) {
	t.Helper()
	c, err := net.DialTimeout(network, addr, 5*time.Second)
	if err == nil {
		c.Write([]byte("x"))
		c.Close()
	}
}

// The FTP case as packets: what a client sends to the control port and to the
// passive range carries mark 300 behind our chain, and nothing else does.
func TestPacketsGetTheirMark(t *testing.T) {
	namespace(t)
	sh(t, "ip link set lo up")
	sh(t, "ip link add eth0 type veth peer name p0")
	director, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	defer director.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil { // the client's
		t.Fatal(err)
	}
	client, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	enter := func(f *os.File) {
		t.Helper()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
	}
	tid := unix.Gettid()
	enter(director)
	move := exec.Command("ip", "link", "set", "p0", "netns", "/proc/self/fd/3")
	move.ExtraFiles = []*os.File{client}
	if out, err := move.CombinedOutput(); err != nil {
		t.Fatalf("thread %d: move p0: %v %s", tid, err, out)
	}
	sh(t, "ip addr add 192.168.100.244/24 dev eth0")
	sh(t, "ip addr add 192.168.100.111/32 dev eth0")
	sh(t, "ip addr add 2001:db8::1/64 dev eth0 nodad")
	sh(t, "ip link set eth0 up")
	enter(client)
	sh(t, "ip addr add 192.168.100.9/24 dev p0")
	sh(t, "ip addr add 2001:db8::9/64 dev p0 nodad")
	sh(t, "ip link set p0 up")
	enter(director)
	linkUp(t, "eth0")

	table, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	marks := append([]model.Mark{}, ftp...)
	marks = append(marks, model.Mark{Mark: 6, Rules: []model.MarkRule{{Protocol: model.UDP, Dst: netip.MustParsePrefix("2001:db8::1/128"),
		Ports: []model.PortRange{{From: 53, To: 53}}}}})
	if _, _, err := table.Apply(Desired(marks)); err != nil {
		t.Fatal(err)
	}
	sh(t, "nft add table inet watch")
	sh(t, "nft add chain inet watch in { type filter hook input priority 0 ; }")
	sh(t, "nft add rule inet watch in meta mark 300 counter")
	sh(t, "nft add rule inet watch in meta mark 6 counter")
	seen := func() string {
		var out []string
		for _, n := range counters.FindAllString(sh(t, "nft list table inet watch"), -1) {
			out = append(out, strings.Fields(n)[1])
		}
		return strings.Join(out, " ")
	}
	// A packet of a veth is there at once, nearly always: nothing tells when.
	await := func(n300, n6 int) (got, want string) {
		want = fmt.Sprintf("%d %d", n300, n6)
		for end := time.Now().Add(5 * time.Second); ; {
			if got = seen(); got == want || time.Now().After(end) {
				return got, want
			}
		}
	}
	want300, want6 := 0, 0
	for _, tt := range []struct {
		network, addr string
		mark          int
	}{
		{"tcp", "192.168.100.111:9814", 300}, {"tcp", "192.168.100.111:8000", 300}, {"tcp", "192.168.100.111:9001", 300}, {"tcp", "192.168.100.111:10000", 300},
		{"tcp", "192.168.100.111:7999", 0}, {"tcp", "192.168.100.111:10001", 0}, {"tcp", "192.168.100.244:9814", 0}, {"udp", "192.168.100.111:9814", 0},
		{"udp", "[2001:db8::1]:53", 6}, {"udp", "[2001:db8::1]:54", 0}, {"tcp", "[2001:db8::1]:53", 0},
	} {
		enter(client)
		dial(t, tt.network, tt.addr)
		enter(director)
		switch tt.mark {
		case 300:
			want300++
		case 6:
			want6++
		}
		if got, want := await(want300, want6); got != want {
			t.Errorf("after %s %s: packets with mark 300 and 6: %s, want %s", tt.network, tt.addr, got, want)
		}
	}
	// From the director itself.
	dial(t, "tcp", "192.168.100.111:9814")
	if got, want := await(want300+1, want6); got != want {
		t.Errorf("after a local connection: %s, want %s", got, want)
	}
	held, err := table.Dump()
	if err != nil {
		t.Fatal(err)
	}
	packets := map[string]uint64{}
	for _, m := range held.Marks() {
		packets[m.Rule] = m.Packets
	}
	// The local one is counted in both chains: sent, and come in by lo.
	if d := cmp.Diff(map[string]uint64{"tcp 192.168.100.111 9814": 3, "tcp 192.168.100.111 8000-10000": 3, "udp 2001:db8::1 53": 1}, packets); d != "" {
		t.Errorf("counters (-want +got):\n%s", d)
	}
}
