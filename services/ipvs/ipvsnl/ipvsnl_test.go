package ipvsnl

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

var cmpAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

var services = []Service{
	{ID: model.ServiceID{Addr: ip("10.0.0.1"), Port: 80, Protocol: model.TCP}, Scheduler: "wlc"},
	{ID: model.ServiceID{Addr: ip("2001:db8::1"), Port: 53, Protocol: model.UDP}, Scheduler: "rr", Flags: FlagOnePacket},
	{ID: model.ServiceID{Addr: ip("2001:db8::1"), Port: 0, Protocol: model.SCTP}, Scheduler: "sh", Flags: FlagPersistent | FlagSched1 | FlagSched2, Timeout: 300, Netmask: 64},
	{ID: model.ServiceID{Mark: 7}, Scheduler: "mh", Flags: FlagPersistent | FlagSched3, Timeout: 60, Netmask: 0xffffff00},
	{ID: model.ServiceID{Mark: 1 << 31, IPv6: true}, Scheduler: "averylongname15"},
	{ID: model.ServiceID{Addr: ip("10.0.0.1"), Port: 5060, Protocol: model.UDP}, Scheduler: "rr", PE: "sip"},
}

var dests = []Dest{
	{Addr: ip("10.0.1.1"), Port: 80, Forward: ForwardNAT, Weight: 1},
	{Addr: ip("10.0.1.1"), Port: 0, Forward: ForwardDR, Weight: 1<<31 - 1, UThreshold: 1<<32 - 1, LThreshold: 5},
	{Addr: ip("2001:db8::2"), Port: 65535, Forward: ForwardTUN, TunnelType: TunnelGUE, TunnelPort: 6080, TunnelFlags: TunnelRemCsum},
}

// payload encodes one request and returns what follows the netlink header.
func payload(t testing.TB, r Request) []byte {
	t.Helper()
	var m buffer
	if err := m.request(0x20, 9, &r); err != nil {
		t.Fatal(err)
	}
	if n := binary.NativeEndian.Uint32(m.b); int(n) != len(m.b) || n%4 != 0 {
		t.Fatalf("length %d of %d bytes", n, len(m.b))
	}
	return m.b[nlmsgHeader:]
}

func TestServiceRoundTrip(t *testing.T) {
	for _, s := range services {
		got, err := decodeService(payload(t, Request{Verb: AddService, Service: s}))
		if err != nil {
			t.Errorf("%v: %v", s.ID, err)
		}
		if d := cmp.Diff(s, got.Service, cmpAddr); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
	}
}

func TestDestRoundTrip(t *testing.T) {
	for _, d := range dests {
		got, err := decodeDest(payload(t, Request{Verb: EditDest, Service: services[0], Dest: d}))
		if err != nil {
			t.Errorf("%v: %v", d.Addr, err)
		}
		if d := cmp.Diff(d, got.Dest, cmpAddr); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
	}
}

func TestDaemonRoundTrip(t *testing.T) {
	for _, d := range []Daemon{
		{Role: Master, Interface: "eth0", ID: 255},
		{Role: Backup, Interface: "a15-bytes-name1", MaxLen: 1400, Port: 8849, TTL: 3, Group: ip("ff02::51")},
		{Role: Backup, Interface: "e", Group: ip("224.0.0.82")},
	} {
		got, err := decodeDaemon(payload(t, Request{Verb: StartDaemon, Daemon: d}))
		if err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(d, got, cmpAddr); d != "" {
			t.Errorf("-want +got\n%s", d)
		}
	}
}

// The bytes that the kernel's policy wants, once in full.
func TestWireFormat(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("written for little-endian machines")
	}
	var m buffer
	r := Request{Verb: AddDest, Service: services[0], Dest: dests[0]}
	if err := m.request(0x20, 9, &r); err != nil {
		t.Fatal(err)
	}
	m.acknowledge(0)
	want := []byte{
		136, 0, 0, 0, 0x20, 0, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0, // REQUEST|ACK, sequence 9
		cmdNewDest, 1, 0, 0,
		36, 0, 1, 0x80, // service, nested
		6, 0, 1, 0, 2, 0, 0, 0, // AF_INET
		6, 0, 2, 0, 6, 0, 0, 0, // TCP
		8, 0, 3, 0, 10, 0, 0, 1,
		6, 0, 4, 0, 0, 80, 0, 0, // port, network order
		80, 0, 2, 0x80, // destination, nested
		8, 0, 1, 0, 10, 0, 1, 1,
		6, 0, 2, 0, 0, 80, 0, 0,
		6, 0, 11, 0, 2, 0, 0, 0,
		8, 0, 3, 0, 0, 0, 0, 0,
		8, 0, 4, 0, 1, 0, 0, 0,
		8, 0, 5, 0, 0, 0, 0, 0,
		8, 0, 6, 0, 0, 0, 0, 0,
	}
	want[0] = byte(len(want))
	want[56] = byte(len(want) - 56)
	if d := cmp.Diff(want, m.b); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestRequestErrors(t *testing.T) {
	for want, r := range map[string]Request{
		"ipvs: no verb 0":                                                {},
		"ipvs: a service without address and mark":                       {Verb: DelService},
		"ipvs: a destination without address":                            {Verb: DelDest, Service: services[0]},
		"ipvs: weight -1 is negative":                                    {Verb: AddDest, Service: services[0], Dest: Dest{Addr: ip("10.0.0.1"), Weight: -1}},
		`ipvs: scheduler name "" is not 1 to 15 bytes long`:              {Verb: AddService, Service: Service{ID: services[0].ID}},
		`ipvs: sync daemon: interface name "" is not 1 to 15 bytes long`: {Verb: StartDaemon},
	} {
		var m buffer
		if err := m.request(1, 1, &r); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestStats64(t *testing.T) {
	var m buffer
	m.b = append(m.b, cmdNewDest, 1, 0, 0)
	k := m.nest(attrDest)
	m.raw(dstAddr, append([]byte{10, 0, 0, 9}, make([]byte, 12)...))
	m.be16(dstPort, 80)
	m.u16(dstAF, unix.AF_INET)
	m.u32(dstForward, 3|0x100) // flags besides the forwarding method
	m.u32(dstWeight, 2)
	m.u32(dstActive, 4)
	s := m.nest(dstStats64)
	for i := range uint16(10) {
		m.raw(i+1, binary.NativeEndian.AppendUint64(nil, uint64(i)+1<<40))
	}
	m.raw(11, nil)
	m.unnest(s)
	m.unnest(k)
	got, err := decodeDest(m.b)
	if err != nil {
		t.Fatal(err)
	}
	const b = 1 << 40
	want := DestState{Dest: Dest{Addr: ip("10.0.0.9"), Port: 80, Forward: ForwardDR, Weight: 2}, Active: 4,
		Stats: Stats{b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7, b + 8, b + 9}}
	if d := cmp.Diff(want, got, cmpAddr); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// ack builds an NLMSG_ERROR.
func ack(seq uint32, errno int32, flags uint16, tail []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(36+len(tail)))
	b = binary.NativeEndian.AppendUint16(b, unix.NLMSG_ERROR)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(errno))
	b = binary.NativeEndian.AppendUint32(b, 16)
	b = append(b, make([]byte, 12)...)
	return append(b, tail...)
}

func TestOutcome(t *testing.T) {
	text := append([]byte{9, 0, 1, 0}, "nope\x00\x00\x00\x00"...)
	for _, test := range []struct {
		b    []byte
		want string
		bad  bool
	}{
		{ack(1, 0, 0, nil), "", false},
		{ack(1, -int32(unix.EEXIST), flagCapped, nil), "file exists", false},
		{ack(1, -int32(unix.EINVAL), flagCapped|flagAckTLVs, text), "invalid argument: nope", false},
		{ack(1, 5, 0, nil), "", true},
		{ack(1, -int32(unix.EINVAL), flagCapped|flagAckTLVs, text[:6]), "", true},
	} {
		var got error
		n := 0
		err := messages(test.b, func(m message) (err error) {
			n++
			got, err = m.outcome()
			return err
		})
		if (err != nil) != test.bad || n != 1 {
			t.Errorf("%x: malformed %v, %d messages", test.b, err, n)
		}
		if !test.bad && (got == nil) != (test.want == "") || !test.bad && got != nil && got.Error() != test.want {
			t.Errorf("%x: %v, want %q", test.b, got, test.want)
		}
	}
	if err := error(&Error{Errno: unix.ESRCH}); !errors.Is(err, unix.ESRCH) {
		t.Error("the error number is lost")
	}
}

const connTab = `Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A4D0005 D431 0A4D0001 0050 0A4D0102 0050 ESTABLISHED     899
UDP 20010db8000000000000000000000005 0035 0A 0 0 0 NONE 1
`

func TestReadConnections(t *testing.T) {
	text := strings.Join(strings.Split(connTab, "\n")[:2], "\n") + `
TCP 2001:0db8:0000:0000:0000:0000:0000:0005 D431 2001:0db8:0000:0000:0000:0000:0000:0001 0050 2001:0db8:0000:0000:0000:0000:0000:0102 1F90 FIN_WAIT       110
IP  0A4D0005 0000 00000007 0000 0A4D0102 0000 NONE             59
UDP 0A4D0005 13C4 0A4D0001 13C4 0A4D0102 13C4 UDP            298 sip    abc@host
TCP 2001:0db8:0000:0000:0000:0000:0000:0005 D431 2001:0db8:0000:0000:0000:0000:0000:0001 0050 0A4D0102 0050 SYN_RECV        59
`
	ap := netip.MustParseAddrPort
	want := []Connection{
		{"TCP", ap("10.77.0.5:54321"), ap("10.77.0.1:80"), ap("10.77.1.2:80"), "ESTABLISHED", 899 * time.Second},
		{"TCP", ap("[2001:db8::5]:54321"), ap("[2001:db8::1]:80"), ap("[2001:db8::102]:8080"), "FIN_WAIT", 110 * time.Second},
		{"IP", ap("10.77.0.5:0"), ap("0.0.0.7:0"), ap("10.77.1.2:0"), "NONE", 59 * time.Second},
		{"UDP", ap("10.77.0.5:5060"), ap("10.77.0.1:5060"), ap("10.77.1.2:5060"), "UDP", 298 * time.Second},
		{"TCP", ap("[2001:db8::5]:54321"), ap("[2001:db8::1]:80"), ap("10.77.1.2:80"), "SYN_RECV", 59 * time.Second},
	}
	var got []Connection
	if err := ReadConnections(strings.NewReader(text), func(c Connection) error { got = append(got, c); return nil }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpAddr); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	n := 0
	if err := ReadConnections(strings.NewReader(text), func(Connection) error { n++; return ErrStop }); err != nil || n != 1 {
		t.Errorf("stopped after %d: %v", n, err)
	}
	err := ReadConnections(strings.NewReader(connTab), func(Connection) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a line that is none: %v", err)
	}
}

func TestCompareID(t *testing.T) {
	for i, a := range services {
		for j, b := range services {
			if c := CompareID(a.ID, b.ID); (c == 0) != (i == j) || c != -CompareID(b.ID, a.ID) {
				t.Errorf("CompareID(%v, %v) = %d", a.ID, b.ID, c)
			}
		}
	}
}

func FuzzReplies(f *testing.F) {
	for _, s := range services {
		f.Add(payload(f, Request{Verb: AddService, Service: s}))
	}
	for _, d := range dests {
		f.Add(payload(f, Request{Verb: AddDest, Service: services[0], Dest: d}))
	}
	f.Add(payload(f, Request{Verb: StartDaemon, Daemon: Daemon{Role: Master, Interface: "eth0", Group: ip("ff02::51")}}))
	f.Add(payload(f, Request{Verb: SetTimeouts, Timeouts: Timeouts{900, 120, 300}}))
	f.Add(ack(1, -22, flagAckTLVs|flagCapped, []byte{9, 0, 1, 0, 'n', 'o', 'p', 'e', 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		messages(b, func(m message) error { m.outcome(); return nil })
		decodeTimeouts(b)
		decodeInfo(b)
		if d, err := decodeDaemon(b); err == nil && d.Role != Master && d.Role != Backup {
			t.Errorf("role %d", d.Role)
		}
		// What decodes encodes to the same again.
		if s, err := decodeService(b); err == nil && s.Scheduler != "" {
			again, err := decodeService(payload(t, Request{Verb: AddService, Service: s.Service}))
			if d := cmp.Diff(s.Service, again.Service, cmpAddr); err != nil || d != "" {
				t.Errorf("%v -want +got\n%s", err, d)
			}
		}
		if s, err := decodeDest(b); err == nil {
			again, err := decodeDest(payload(t, Request{Verb: AddDest, Service: services[0], Dest: s.Dest}))
			if d := cmp.Diff(s.Dest, again.Dest, cmpAddr); err != nil || d != "" {
				t.Errorf("%v -want +got\n%s", err, d)
			}
		}
	})
}

func FuzzReadConnections(f *testing.F) {
	f.Add(connTab)
	f.Add("TCP 2001:0db8:0000:0000:0000:0000:0000:0005 D431 00000000 0050 0A4D0102 1F90 FIN_WAIT 110\n")
	f.Fuzz(func(t *testing.T, s string) {
		ReadConnections(strings.NewReader(s), func(c Connection) error {
			if !c.Client.IsValid() || !c.Virtual.IsValid() || !c.Dest.IsValid() {
				t.Errorf("%+v", c)
			}
			return nil
		})
	})
}
