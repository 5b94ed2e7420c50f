package ether

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// nic is QEMU's end of a port.
type nic struct {
	t *testing.T
	p *Port
	c *net.UDPConn
}

func newNIC(t *testing.T, s *Switch, name string) nic {
	t.Helper()
	p, err := s.Port(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(p.nic), p.conn.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return nic{t, p, c}
}

func frame(dst, src byte, text string) []byte {
	f := make([]byte, 14, 64)
	f[0], f[5], f[6], f[11] = 2, dst, 2, src
	if dst == 0xff {
		copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}
	return append(f, text...)
}

func (n nic) send(f []byte) {
	n.t.Helper()
	if _, err := n.c.Write(f); err != nil {
		n.t.Fatal(err)
	}
}

// want reads one frame with that text; "" wants silence.
func (n nic) want(text string) {
	n.t.Helper()
	wait := 20 * time.Second
	if text == "" {
		wait = 50 * time.Millisecond
	}
	n.c.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 2000)
	m, err := n.c.Read(b)
	if err != nil && text != "" {
		n.t.Errorf("%s: no frame %q: %v", n.p.Name, text, err)
	}
	if err == nil && (m < 14 || string(b[14:m]) != text) {
		n.t.Errorf("%s got %q, want %q", n.p.Name, b[14:m], text)
	}
}

func TestForward(t *testing.T) {
	s := New("service")
	defer s.Close()
	a, b, c := newNIC(t, s, "a"), newNIC(t, s, "b"), newNIC(t, s, "c")

	a.send(frame(0xff, 1, "who is b"))
	b.want("who is b")
	c.want("who is b")
	b.send(frame(1, 2, "me")) // learned: only a hears it
	a.want("me")
	c.want("")
	a.send(frame(2, 1, "hello b"))
	b.want("hello b")
	c.want("")
	c.send(frame(9, 3, "unknown"))
	a.want("unknown")
	b.want("unknown")

	// The address moves to another port, as a VIP's owner never does but a
	// restarted machine may.
	c.send(frame(1, 2, "I am b now"))
	a.want("I am b now")
	a.send(frame(2, 1, "hello c"))
	c.want("hello c")
	b.want("")
}

func TestCables(t *testing.T) {
	s := New("service")
	defer s.Close()
	a, b, c := newNIC(t, s, "a"), newNIC(t, s, "b"), newNIC(t, s, "c")

	a.p.Plug(false)
	a.send(frame(0xff, 1, "unplugged"))
	for end := time.Now().Add(20 * time.Second); a.p.Unheard.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the frame of a NIC without a cable never came")
		}
	}
	b.send(frame(0xff, 2, "to a"))
	c.want("to a")
	a.want("")
	b.want("")
	a.p.Plug(true)

	s.Apart(a.p, b.p, true)
	a.send(frame(0xff, 1, "half"))
	c.want("half")
	b.want("")
	s.Apart(a.p, b.p, false)
	a.send(frame(0xff, 1, "whole"))
	b.want("whole")
	c.want("whole")

	b.p.Impair(Impairment{Loss: 1})
	a.send(frame(0xff, 1, "lost"))
	c.want("lost")
	b.want("")
	if n := b.p.Dropped.Load(); n != 1 {
		t.Errorf("%d frames dropped, want 1", n)
	}
	b.p.Impair(Impairment{Delay: 30 * time.Millisecond})
	t0 := time.Now()
	a.send(frame(2, 1, "1"))
	a.send(frame(2, 1, "2"))
	b.want("1")
	if d := time.Since(t0); d < 30*time.Millisecond {
		t.Errorf("a frame came after %v, want 30 ms", d)
	}
	b.want("2")
}

func TestStrangersAreNotHeard(t *testing.T) {
	s := New("service")
	defer s.Close()
	a, b := newNIC(t, s, "a"), newNIC(t, s, "b")
	stranger, err := net.Dial("udp4", a.p.conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Write(frame(0xff, 7, "from outside"))
	b.want("")
}

func TestCapture(t *testing.T) {
	s := New("service")
	defer s.Close()
	a, b := newNIC(t, s, "a"), newNIC(t, s, "b")
	name := filepath.Join(t.TempDir(), "x.pcap")
	stop, err := s.Capture(name)
	if err != nil {
		t.Fatal(err)
	}
	a.send(frame(0xff, 1, "in the file"))
	b.want("in the file")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 24+16+25 || binary.LittleEndian.Uint32(got[24+8:]) != 25 || !strings.HasSuffix(string(got), "in the file") {
		t.Errorf("capture:\n%s", hex.Dump(got))
	}
}

// A port is nobody's, is given to nobody else, and is none that the kernel gives away.
func TestFreePort(t *testing.T) {
	seen := map[netip.AddrPort]bool{}
	for range 50 {
		at, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[at] || at.Port() < firstPort || int(at.Port()) >= chosenPorts() {
			t.Errorf("port %s", at)
		}
		seen[at] = true
	}
	taken, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(taken))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	portMu.Lock()
	nextPort-- // as if it had not been given
	portMu.Unlock()
	if at, err := freePort(); err != nil || at == taken {
		t.Errorf("port %s, which somebody has: %v", at, err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	advertFrame = "01005e000012 525400000a01 0800 45c0 0028 0001 0000 ff70 0000 0a000001 e0000012 21 33 64 01 01 01 0000 0a000064"
	arpFrame    = "ffffffffffff 525400000a01 0806 0001 0800 06 04 0001 525400000a01 0a000064 ffffffffffff 0a000064"
)

func TestParse(t *testing.T) {
	eq := cmpopts.EquateComparable(netip.Addr{})
	ad, ok := ParseAdvert(unhex(t, advertFrame))
	want := Advert{Source: MAC{0x52, 0x54, 0, 0, 0x0a, 1}, From: netip.MustParseAddr("10.0.0.1"), Version: 2, VRID: 51, Priority: 100}
	if d := cmp.Diff(want, ad, eq); !ok || d != "" {
		t.Errorf("advert %v: %s", ok, d)
	}
	p, ok := ParseARP(unhex(t, arpFrame))
	if !ok || !p.Gratuitous() || p.Sender != netip.MustParseAddr("10.0.0.100") || p.Op != 1 {
		t.Errorf("arp %v %+v", ok, p)
	}
	if _, ok := ParseAdvert(unhex(t, arpFrame)); ok {
		t.Error("an ARP packet is taken for an advertisement")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, advertFrame))
	f.Add(unhex(f, arpFrame))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseAdvert(b)
		ParseARP(b)
	})
}
