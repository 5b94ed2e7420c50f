package probe

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestLongest(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	var sent []time.Time
	var got []bool
	for i := range 100 {
		sent, got = append(sent, at(i)), append(got, i < 40 || i > 50)
	}
	for _, c := range []struct{ since, want int }{{0, 12}, {39, 12}, {40, 1}, {60, 1}, {99, 0}, {200, 0}} {
		if w := longest(sent, got, at(c.since)); w != time.Duration(c.want)*time.Millisecond {
			t.Errorf("since %d: %v, want %d ms", c.since, w, c.want)
		}
	}
}

func TestARP(t *testing.T) {
	me := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	addr, other := netip.MustParseAddr("10.77.3.250"), netip.MustParseAddr("10.77.3.251")
	b := question(me, addr)
	if _, ok := answer(b, addr); ok {
		t.Error("a question was taken for an answer")
	}
	b[21] = 2
	copy(b[22:], "\x02\x00\x00\x00\x00\x01")
	a := addr.As4()
	copy(b[28:], a[:])
	if from, ok := answer(b, addr); !ok || from.String() != "02:00:00:00:00:01" {
		t.Errorf("answer from %v, %v", from, ok)
	}
	if _, ok := answer(b, other); ok {
		t.Error("an answer for another address counts")
	}
	if _, ok := answer(b[:41], addr); ok {
		t.Error("half an answer counts")
	}
}

func FuzzAnswer(f *testing.F) {
	addr := netip.MustParseAddr("10.77.0.1")
	f.Add(question(net.HardwareAddr{2, 0, 0, 0, 0, 9}, addr))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if from, ok := answer(b, addr); ok && len(from) != 6 {
			t.Errorf("MAC %v", from)
		}
	})
}
