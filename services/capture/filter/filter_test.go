package filter

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

// oracle is the program that tcpdump makes of an expression; ok is false when
// it refuses it.
func oracle(t *testing.T, expr string) (*bpf.VM, bool) {
	t.Helper()
	out, err := exec.Command("tcpdump", "-y", "EN10MB", "-ddd", expr).Output()
	if err != nil {
		if _, ran := err.(*exec.ExitError); !ran {
			t.Fatalf("%v; make test-tools installs it", err)
		}
		return nil, false
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var raw []bpf.RawInstruction
	for _, l := range lines[1:] {
		var r bpf.RawInstruction
		if _, err := fmt.Sscan(l, &r.Op, &r.Jt, &r.Jf, &r.K); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		raw = append(raw, r)
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("%s: %s", expr, out)
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return vm, true
}

func ours(t *testing.T, expr string) *bpf.VM {
	t.Helper()
	p, err := Compile(expr, Ethernet, Snap)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	vm, err := bpf.NewVM(p.Instructions)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return vm
}

func takes(t *testing.T, vm *bpf.VM, packet []byte) bool {
	t.Helper()
	n, err := vm.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

// What packets and expressions are made of: few values, so that they meet.
var (
	macs   = []string{"00:00:5e:00:01:33", "02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:12"}
	v4s    = []string{"10.0.0.1", "10.0.0.2", "10.1.2.3", "192.0.2.1", "224.0.0.18", "127.0.0.1"}
	v6s    = []string{"fe80::1", "2001:db8::1", "2001:db8:0:1::2", "ff02::12"}
	portNo = []uint16{22, 53, 80, 443, 8080, 65535}
)

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func macOf(s string) []byte {
	var b []byte
	for h := range strings.SplitSeq(s, ":") {
		n, _ := strconv.ParseUint(h, 16, 8)
		b = append(b, byte(n))
	}
	return b
}

// packet makes one of a few kinds, always long enough for what a filter reads.
func packet(r *rand.Rand) []byte {
	b := append(macOf(pick(r, macs)), macOf(pick(r, macs))...)
	upper := func(proto byte) []byte {
		p := make([]byte, 40)
		binary.BigEndian.PutUint16(p, pick(r, portNo))
		binary.BigEndian.PutUint16(p[2:], pick(r, portNo))
		p[13] = byte(r.IntN(64))
		if proto == 1 || proto == 58 {
			p[0], p[1] = pick(r, []byte{0, 3, 8, 128, 135}), byte(r.IntN(3))
		}
		return append(p, make([]byte, r.IntN(100))...)
	}
	protos := []byte{1, 2, 6, 6, 17, 17, 47, 51, 58, 112, 132}
	switch r.IntN(8) {
	case 0, 1, 2, 3:
		proto := pick(r, protos)
		h := make([]byte, 20+4*pick(r, []int{0, 0, 0, 1, 5}))
		h[0], h[8], h[9] = 0x40|byte(len(h)/4), 255, proto
		binary.BigEndian.PutUint16(h[6:], pick(r, []uint16{0, 0, 0x4000, 0x2000, 0x2001, 185}))
		copy(h[12:], netip.MustParseAddr(pick(r, v4s)).AsSlice())
		copy(h[16:], netip.MustParseAddr(pick(r, v4s)).AsSlice())
		b = append(append(append(b, 8, 0), h...), upper(proto)...)
	case 4, 5, 6:
		proto := pick(r, append(protos, 44, 44, 0))
		h := make([]byte, 40)
		h[0], h[6], h[7] = 0x60, proto, 64
		copy(h[8:], netip.MustParseAddr(pick(r, v6s)).AsSlice())
		copy(h[24:], netip.MustParseAddr(pick(r, v6s)).AsSlice())
		if proto == 44 || proto == 0 {
			x := make([]byte, 8)
			x[0] = pick(r, protos)
			h = append(h, x...)
		}
		b = append(append(append(b, 0x86, 0xdd), h...), upper(proto)...)
	default:
		h := make([]byte, 60)
		h[7] = byte(1 + r.IntN(2))
		copy(h[14:], netip.MustParseAddr(pick(r, v4s)).AsSlice())
		copy(h[24:], netip.MustParseAddr(pick(r, v4s)).AsSlice())
		b = append(append(b, pick(r, [][]byte{{8, 6}, {8, 6}, {0x80, 0x35}, {0x88, 0xcc}})...), h...)
	}
	return b
}

// primitives is what the language has, with values that packets have.
var primitivesList = []string{
	"ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "ah", "proto 47", "ip proto 112", "ip6 proto 112", "proto 112", `ip proto \tcp`, "ip6 proto 17",
	"host 10.0.0.1", "src host 10.0.0.2", "dst host 224.0.0.18", "src or dst host 192.0.2.1", "src and dst host 10.0.0.1", "host 2001:db8::1", "src host fe80::1", "dst host ff02::12",
	"ip host 10.0.0.1", "arp host 10.0.0.1", "rarp host 10.0.0.1", "ip6 host fe80::1", "dst 10.0.0.1", "src 2001:db8::1", "arp src host 10.0.0.2",
	"net 10.0.0.0/8", "net 10", "net 10.0.0", "src net 10.0.0.0/24", "dst net 224.0.0.0/4", "net 10.0.0.0 mask 255.255.0.0", "net 2001:db8::/32", "src net 2001:db8::/48", "ip6 net fe80::/10", "ip net 10.1.0.0/16", "net 0.0.0.0/0",
	"port 80", "src port 53", "dst port 443", "tcp port 80", "udp port 53", "sctp port 22", "tcp src port 22", "udp dst port 53", "src and dst port 80", "port domain",
	"portrange 50-100", "tcp portrange 400-8080", "src portrange 22-53", "udp dst portrange 0-79",
	"ether host 00:00:5e:00:01:33", "ether src 02:00:00:00:00:01", "ether dst ff:ff:ff:ff:ff:ff", "ether broadcast", "ether multicast", "broadcast", "multicast", "ip multicast", "ip6 multicast",
	"ether proto 0x88cc", "ether proto 0x806", "ether proto 0x0800", `ether proto \ip6`,
	"less 100", "greater 120", "len > 90", "len <= 110", "len != 100", "len & 1 = 0",
	"tcp[13] & 2 != 0", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[tcpflags] = tcp-syn", "ip[0] & 0xf > 5", "ip[6:2] & 0x1fff != 0", "udp[2:2] = 53", "icmp[icmptype] = icmp-echo", "icmp[0] != 8",
	"ip6[6] = 58", "icmp6[0] = 135", "arp[6:2] = 1", "ether[0] & 1 = 1", "ip[0] < 0x46", "ip[12:4] = 0x0a000001", "ip[2] + 3 - 1 << 2 >= 4", "ip[1] * 3 | 1 = 1",
}

// Every test alone, and thousands of packets: each verdict is tcpdump's.
func TestPrimitivesAgainstTcpdump(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	packets := make([][]byte, 3000)
	for i := range packets {
		packets[i] = packet(r)
	}
	for _, e := range primitivesList {
		for _, e := range []string{e, "not " + e} {
			want, ok := oracle(t, e)
			if !ok {
				t.Errorf("tcpdump refuses %q", e)
				continue
			}
			have := ours(t, e)
			n := 0
			for _, p := range packets {
				w := takes(t, want, p)
				if w {
					n++
				}
				if takes(t, have, p) != w {
					t.Errorf("%s: taken by tcpdump: %v: %x", e, w, p)
					break
				}
			}
			if (n == 0 || n == len(packets)) && !strings.Contains(e, "0.0.0.0/0") {
				t.Errorf("%s takes %d of %d packets: nothing is tested", e, n, len(packets))
			}
		}
	}
}

// combine makes an expression of several.
func combine(r *rand.Rand, depth int) string {
	switch n := r.IntN(8); {
	case depth == 0 || n < 2:
		return pick(r, primitivesList)
	case n == 2:
		return "not " + combine(r, 0)
	case n == 3:
		return "(" + combine(r, depth-1) + ")"
	case n == 4:
		return pick(r, []string{"port 80 or 443", "tcp port 22 or 53 and not 80", "host 10.0.0.1 or 10.0.0.2", "port (80 or 443)", "src host (10.0.0.1 or 192.0.2.1)", "not host 10.0.0.1 and not port 22", "!(tcp or udp)", "ip host 10.0.0.1 && !port 80 || arp"})
	default:
		return combine(r, depth-1) + pick(r, []string{" and ", " or ", " && ", " || ", " and not ", " or not "}) + combine(r, depth-1)
	}
}

func TestExpressionsAgainstTcpdump(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	packets := make([][]byte, 600)
	for i := range packets {
		packets[i] = packet(r)
	}
	n, refused := 300, 0
	if testing.Short() {
		n = 80
	}
	for range n {
		e := combine(r, 4)
		want, ok := oracle(t, e)
		if !ok {
			refused++
			continue
		}
		have := ours(t, e)
		for _, p := range packets {
			if w := takes(t, want, p); takes(t, have, p) != w {
				t.Errorf("%s\ntaken by tcpdump: %v: %x", e, w, p)
				break
			}
		}
	}
	if refused > n/5 {
		t.Errorf("tcpdump refuses %d of %d", refused, n)
	}
}

// A VLAN tag in the frame hides nothing, and VRRP is that of both families.
func TestBeyondTcpdump(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	seen := map[bool]int{}
	for range 1000 {
		p := packet(r)
		tagged := append(append(append([]byte{}, p[:12]...), 0x81, 0, 0xe0, 5), p[12:]...)
		for _, e := range []string{"tcp port 80", "host 10.0.0.1", "icmp6", "arp", "ip[9] = 17", "tcp[13] & 2 != 0"} {
			vm := ours(t, e)
			want := takes(t, vm, p)
			seen[want]++
			if takes(t, vm, tagged) != want {
				t.Fatalf("%s: in a VLAN %v, without %v: %x", e, !want, want, p)
			}
		}
		vrrp := p[12] == 8 && p[13] == 0 && p[23] == 112 || p[12] == 0x86 && (p[20] == 112 || p[20] == 44 && p[54] == 112)
		if takes(t, ours(t, "vrrp"), p) != vrrp {
			t.Fatalf("vrrp: %v: %x", !vrrp, p)
		}
	}
	if seen[true] < 100 || seen[false] < 100 {
		t.Error(seen)
	}
}

func TestRefused(t *testing.T) {
	for e, want := range map[string]string{
		"tcp and":                 `ends where a filter`,
		"host":                    `ends where the value of "host"`,
		"host lb1.example":        `names are not looked up`,
		"tcp port":                `ends where the value of "tcp port"`,
		"port 70000":              `want a port, 0 to 65535`,
		"net 10.0.0.1/8":          `write 10.0.0.0/8`,
		"(tcp":                    `ends where ")"`,
		"tcp)":                    `")" at 4: want "and", "or" or the end`,
		"tcp 80":                  `"80" at 5: want "and", "or"`,
		"frobnicate":              `"frobnicate" at 1: want a filter such as`,
		"vlan 5000":               `want 0 to 4095`,
		"tcp[13":                  `ends where "]"`,
		"tcp[13:3] = 1":           `want 1, 2 or 4 bytes`,
		"ip[0] & 15":              `ends where =, !=`,
		"icmp port 80":            `icmp has no ports`,
		"ether host 10.0.0.1":     `want a MAC address`,
		"arp host fe80::1":        `arp has no IPv6 addresses`,
		"ip6 host 10.0.0.1":       `ip6 has no IPv4 addresses`,
		"tcp;reboot":              `";" at 4`,
		"host 10.0.0.0/8":         `this is a net`,
		"ether proto 5":           `want a type such as`,
		"proto bogus":             `want a protocol of IP`,
		"ip[0] << 32 = 1":         `a number has 32 bits`,
		"ip[300000] = 1":          `no packet is that long`,
		strings.Repeat("(", 99):   `parentheses are too deep`,
		strings.Repeat("x", 9000): `longer than`,
	} {
		if _, err := Compile(e, Ethernet, Snap); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v; want %s", e, err, want)
		}
	}
	if _, err := Compile("ether host 02:00:00:00:00:01", Cooked, Snap); err == nil {
		t.Error("MAC addresses where there is no Ethernet")
	}
	if _, err := Compile("tcp", Ethernet, 0); err == nil {
		t.Error("snap 0")
	}
	if _, err := Compile("tcp host 10.0.0.1 and udp src 192.0.2.1", Ethernet, Snap); err != nil {
		t.Error(err) // more than tcpdump takes
	}
	if p, err := Compile("", Ethernet, 96); err != nil || len(p.Raw) > 2 {
		t.Errorf("all packets: %v, %v", p, err)
	}
}

// known runs a program with what the kernel knows of a packet: the interpreter has
// no extensions.
func known(t *testing.T, expr string, link Link, packet []byte, ext map[bpf.Extension]uint32) bool {
	t.Helper()
	p, err := Compile(expr, link, Snap)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	for i, ins := range p.Instructions {
		if e, is := ins.(bpf.LoadExtension); is {
			val, ok := ext[e.Num]
			if !ok {
				t.Fatalf("%s asks for extension %d", expr, e.Num)
			}
			p.Instructions[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: val}
		}
	}
	vm, err := bpf.NewVM(p.Instructions)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return takes(t, vm, packet)
}

func TestWhatTheKernelKnows(t *testing.T) {
	frame := make([]byte, 100)
	inFrame := make([]byte, 100)
	copy(inFrame[12:], []byte{0x81, 0, 0x20, 5})
	four, six := make([]byte, 100), make([]byte, 100) // at the network header; IPv4 with options
	four[0], four[9], four[27] = 0x46, 6, 80
	six[0], six[6], six[43] = 0x60, 6, 80
	type ext = map[bpf.Extension]uint32
	tag := func(present, tag uint32) ext {
		return ext{bpf.ExtVLANTagPresent: present, bpf.ExtVLANTag: tag}
	}
	for _, tt := range []struct {
		expr   string
		link   Link
		packet []byte
		ext    ext
		want   bool
	}{
		{"outbound", Ethernet, frame, ext{bpf.ExtType: 4}, true},
		{"outbound", Ethernet, frame, ext{bpf.ExtType: 0}, false},
		{"inbound", Ethernet, frame, ext{bpf.ExtType: 4}, false},
		{"inbound", Cooked, four, ext{bpf.ExtType: 1}, true},
		{"vlan 5", Ethernet, frame, tag(1, 0x2005), true},
		{"vlan 6", Ethernet, frame, tag(1, 0x2005), false},
		{"vlan", Ethernet, frame, tag(1, 0), true},
		{"vlan", Ethernet, frame, tag(0, 0), false},
		{"vlan 5", Ethernet, inFrame, tag(0, 0), true},
		{"vlan 1", Ethernet, inFrame, tag(0, 0), false},
		{"vlan", Ethernet, inFrame, tag(0, 0), true},
		{"vlan", Cooked, four, tag(0, 0), false},
		{"tcp port 80", Cooked, four, ext{bpf.ExtProto: typeIP}, true},
		{"tcp port 81", Cooked, four, ext{bpf.ExtProto: typeIP}, false},
		{"tcp port 80", Cooked, four, ext{bpf.ExtProto: typeARP}, false},
		{"tcp port 80", Cooked, six, ext{bpf.ExtProto: typeIP6}, true},
	} {
		if known(t, tt.expr, tt.link, tt.packet, tt.ext) != tt.want {
			t.Errorf("%s of %.50x with %v: %v", tt.expr, tt.packet, tt.ext, !tt.want)
		}
	}
}

// What is left out is left out whatever the expression says; long expressions
// jump further than an instruction reaches.
func TestBut(t *testing.T) {
	var hosts []string
	for i := range 60 {
		hosts = append(hosts, fmt.Sprintf("host 172.16.%d.%d", i/250, i%250+1))
	}
	long := strings.Join(hosts, " or ")
	for i := range hosts {
		b := make([]byte, 60)
		copy(b[12:], []byte{8, 0, 0x45})
		copy(b[26:], []byte{172, 16, byte(i / 250), byte(i%250 + 1)})
		if !takes(t, ours(t, long), b) {
			t.Errorf("%s is lost among %d", hosts[i], len(hosts))
		}
	}
	r := rand.New(rand.NewPCG(7, 8))
	for _, e := range []string{"", "tcp or udp", "arp or port 80 or ip6", long + " or net 10.0.0.0/8"} {
		p, err := Compile(e, Ethernet, Snap, "tcp and host 10.0.0.1 and port 22")
		if err != nil {
			t.Fatal(err)
		}
		vm, err := bpf.NewVM(p.Instructions)
		if err != nil {
			t.Fatal(err)
		}
		plain, own := ours(t, e), ours(t, "tcp and host 10.0.0.1 and port 22")
		left := 0
		for range 2000 {
			b := packet(r)
			want := takes(t, plain, b)
			if want && takes(t, own, b) {
				want = false
				left++
			}
			if takes(t, vm, b) != want {
				t.Fatalf("%.30s…: %v: %x", e, !want, b)
			}
		}
		if left == 0 && e != "arp or port 80 or ip6" {
			t.Errorf("%.30s…: nothing was left out", e)
		}
	}
	if _, err := Compile(strings.TrimSuffix(strings.Repeat("port 1 or ", 400), " or "), Ethernet, Snap); err == nil || !strings.Contains(err.Error(), "instructions") {
		t.Errorf("a program that is too long: %v", err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, e := range primitivesList {
		f.Add(e, byte(0))
	}
	f.Add("port (80 or not 443) and !(vlan 5 or outbound)", byte(1))
	f.Fuzz(func(t *testing.T, e string, link byte) {
		p, err := Compile(e, Link(link%2), Snap, "port 22")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "filter: ") {
				t.Fatalf("%q: %v", e, err)
			}
			return
		}
		if len(p.Raw) > most {
			t.Fatalf("%q: %d instructions", e, len(p.Raw))
		}
		if vm, err := bpf.NewVM(p.Instructions); err == nil { // it knows few extensions
			vm.Run(make([]byte, 100))
		}
	})
}
