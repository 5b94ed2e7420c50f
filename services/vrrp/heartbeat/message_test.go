package heartbeat

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	here  = netip.MustParseAddr("10.0.0.1")
	there = netip.MustParseAddr("10.0.0.2")
	opt   = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

func sample(n int) *Message {
	m := &Message{Interval: 10 * time.Millisecond, Epoch: 1, Seq: 2, Challenge: 3, Echo: 4, Table: 5}
	for i := range n {
		m.Records = append(m.Records, Record{
			Key: Key{uint8(i + 1), i%2 == 1, uint64(i) << 40}, Phase: Phase(i % 4), Priority: uint8(i), Source: here,
			Vacant: i%3 == 0, Asks: i%5 == 0, Answers: i%7 == 0,
		})
	}
	return m
}

func TestMessageReturnsAsItWasSent(t *testing.T) {
	c := NewCodec([]byte("0123456789abcdef"))
	for _, n := range []int{0, 1, MaxRecords} {
		want := sample(n)
		b := c.Seal(want.Append(nil), there)
		if len(b) > MaxLen {
			t.Errorf("%d records are %d bytes", n, len(b))
		}
		var got Message
		if err := c.Open(b, there, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, &got, opt, cmp.Transformer("empty", func(r []Record) []Record { return append([]Record{}, r...) })); d != "" {
			t.Errorf("%d records:\n%s", n, d)
		}
	}
}

// TestMessageOfAnotherKeyOrPathIsRefused: every byte counts, the key counts,
// and so does the address that a datagram was sent to.
func TestMessageOfAnotherKeyOrPathIsRefused(t *testing.T) {
	c := NewCodec([]byte("0123456789abcdef"))
	b := c.Seal(sample(2).Append(nil), there)
	var m Message
	if err := NewCodec([]byte("0123456789abcdeF")).Open(b, there, &m); !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v", err)
	}
	if err := c.Open(b, here, &m); !errors.Is(err, ErrKey) {
		t.Errorf("another destination: %v", err)
	}
	for i := range b {
		x := bytes.Clone(b)
		x[i] ^= 1
		if c.Open(x, there, &m) == nil {
			t.Errorf("byte %d changed, and accepted", i)
		}
	}
	for n := range b {
		if c.Open(b[:n], there, &m) == nil {
			t.Errorf("cut to %d bytes, and accepted", n)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(sample(0).Append(nil))
	f.Add(sample(3).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Past the key, which no fuzzer finds.
		var m Message
		if len(b) < headerLen || m.decode(b) != nil {
			return
		}
		var again Message
		if err := again.decode(m.Append(nil)); err != nil {
			t.Fatalf("%v of %+v", err, m)
		}
		if d := cmp.Diff(m, again, opt); d != "" {
			t.Error(d)
		}
		c := NewCodec([]byte("k"))
		c.Open(b, there, &again)
	})
}

// TestHotPathAllocatesNothing: a heartbeat comes a hundred times a second on
// each path, and the process collects its garbage by itself.
func TestHotPathAllocatesNothing(t *testing.T) {
	c := NewCodec([]byte("0123456789abcdef"))
	buf := make([]byte, 0, MaxLen)
	out, in := sample(MaxRecords), Message{Records: make([]Record, 0, MaxRecords)}
	now := time.Hour
	a, b := pair(now)
	agent := Agent{}
	views := []View{{Key: out.Records[0].Key, Phase: Backup}}
	agent.Reset(views)
	acts := make([]Action, 0, 4)
	beat := func() {
		now += 10 * time.Millisecond
		for _, x := range [][2]*Peer{{a, b}, {b, a}} {
			x[0].Stamp(out, uint64(now))
			d := c.Seal(out.Append(buf[:0]), there)
			if err := c.Open(d, there, &in); err != nil {
				t.Fatal(err)
			}
			x[1].Heard(0, now, &in)
			x[1].Expire(now, 0)
			acts = agent.Decide(now, views, x[1], acts[:0])
		}
	}
	for range 10 {
		beat()
	}
	if !a.Up || !b.Up {
		t.Fatal("they do not hear one another")
	}
	if n := testing.AllocsPerRun(1000, beat); n != 0 {
		t.Errorf("%v allocations a heartbeat", n)
	}
}
