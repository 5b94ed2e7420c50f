package bfd

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

func TestPacketAsRFC5880DrawsIt(t *testing.T) {
	p := Packet{Diag: TimeExpired, State: Up, Poll: true, Multiplier: 5, Mine: 0x01020304, Yours: 0x05060708, MinTx: 10 * ms, MinRx: 20 * ms}
	b := p.Append(nil)
	if got, want := hex.EncodeToString(b), "21e00518"+"01020304"+"05060708"+"00002710"+"00004e20"+"00000000"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got, err := Decode(b)
	if d := cmp.Diff(p, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	for name, break_ := range map[string]func(b []byte){
		"version 2":          func(b []byte) { b[0] = 2<<5 | b[0]&31 },
		"length":             func(b []byte) { b[3] = 25 },
		"short length":       func(b []byte) { b[3] = 23 },
		"multiplier 0":       func(b []byte) { b[2] = 0 },
		"multipoint":         func(b []byte) { b[1] |= 1 },
		"authentication":     func(b []byte) { b[1] |= 4 },
		"my discriminator":   func(b []byte) { copy(b[4:], []byte{0, 0, 0, 0}) },
		"your discriminator": func(b []byte) { copy(b[8:], []byte{0, 0, 0, 0}) },
	} {
		x := p.Append(nil)
		break_(x)
		if _, err := Decode(x); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add((&Packet{State: Down, Multiplier: 3, Mine: 1, MinTx: time.Second, MinRx: ms}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(p.Append(nil))
		if d := cmp.Diff(p, again); d != "" || err != nil {
			t.Fatalf("%v %s", err, d)
		}
		s, _ := Step(Session{Cfg: Config{MinTx: 10 * ms, MinRx: 10 * ms, IdleTx: time.Second, Multiplier: 3, Local: 7}}, Event{Kind: Start, At: time.Hour})
		for i := range 4 {
			at := time.Hour + time.Duration(i)*ms
			s, _ = Step(s, Event{Kind: Control, At: at, RxAt: at, Packet: p})
			if d := s.Deadline(); d != 0 && d < at-time.Hour {
				t.Fatalf("deadline %v", d)
			}
		}
	})
}

// wire runs two sessions against each other in virtual time.
type wire struct {
	t    *testing.T
	rng  *rand.Rand
	now  time.Duration
	s    [2]Session
	mute [2]bool // does not send (and its process does not run)
	sent [2]int
	gap  [2]time.Duration // longest between two packets
	last [2]time.Duration
}

func newWire(t *testing.T, a, b Config) *wire {
	w := &wire{t: t, rng: rand.New(rand.NewPCG(1, 2)), now: time.Hour}
	for i, c := range []Config{a, b} {
		c.Local = uint32(i + 1)
		w.s[i], _ = Step(Session{Cfg: c}, Event{Kind: Start, At: w.now, Jitter: w.rng.Float64()})
	}
	return w
}

func (w *wire) step(i int, ev Event) {
	if w.mute[i] {
		return
	}
	ev.At, ev.RxAt, ev.Jitter = w.now, w.now, w.rng.Float64()
	var out Send
	w.s[i], out = Step(w.s[i], ev)
	if !out.Do {
		return
	}
	w.sent[i]++
	w.gap[i], w.last[i] = max(w.gap[i], w.now-w.last[i]), w.now
	p, err := Decode(out.Packet.Append(nil))
	if err != nil {
		w.t.Fatalf("%+v: %v", out.Packet, err)
	}
	w.step(1-i, Event{Kind: Control, Packet: p})
}

func (w *wire) run(d time.Duration) {
	for end := w.now + d; ; {
		at, who := end, -1
		for i := range w.s {
			if n := w.s[i].Deadline(); n != 0 && n <= at && !w.mute[i] {
				at, who = n, i
			}
		}
		w.now = max(w.now, at)
		if who < 0 {
			return
		}
		w.step(who, Event{Kind: Timer})
	}
}

func (w *wire) states(a, b State) {
	w.t.Helper()
	if w.s[0].State != a || w.s[1].State != b {
		w.t.Fatalf("states %v (%v) and %v (%v), want %v and %v", w.s[0].State, w.s[0].Diag, w.s[1].State, w.s[1].Diag, a, b)
	}
}

func config(tx, rx time.Duration, mult int, passive bool) Config {
	return Config{MinTx: tx, MinRx: rx, IdleTx: time.Second, Multiplier: mult, Passive: passive}
}

// TestSessionLifecycle: up by the three-way handshake, at the agreed pace, down
// within the detection time, up again; one side may be passive, two may not.
func TestSessionLifecycle(t *testing.T) {
	for name, c := range map[string][2]Config{
		"same":         {config(10*ms, 10*ms, 5, false), config(10*ms, 10*ms, 5, false)},
		"different":    {config(10*ms, 50*ms, 3, false), config(20*ms, 30*ms, 5, false)},
		"one passive":  {config(10*ms, 10*ms, 5, false), config(10*ms, 10*ms, 5, true)},
		"multiplier 1": {config(10*ms, 10*ms, 1, false), config(10*ms, 10*ms, 1, false)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, c[0], c[1])
			w.run(4 * time.Second)
			w.states(Up, Up)
			for i := range 2 {
				o := 1 - i
				if got, want := w.s[i].Interval(), max(c[i].MinTx, c[o].MinRx); got != want {
					t.Errorf("side %d sends each %v, want %v", i, got, want)
				}
				if got, want := w.s[i].Detect(), time.Duration(c[o].Multiplier)*max(c[i].MinRx, c[o].MinTx); got != want {
					t.Errorf("side %d detects in %v, want %v", i, got, want)
				}
				if w.s[i].poll {
					t.Errorf("side %d still polls", i)
				}
			}
			w.gap, w.sent = [2]time.Duration{}, [2]int{}
			w.run(10 * time.Second)
			w.states(Up, Up)
			for i := range 2 {
				if w.gap[i] > w.s[i].Interval() || w.sent[i] > int(10*time.Second/(w.s[i].Interval()*3/4))+1 {
					t.Errorf("side %d: %d packets, longest gap %v", i, w.sent[i], w.gap[i])
				}
			}

			w.mute[1] = true
			detect, last := w.s[0].Detect(), w.s[0].lastRx
			w.run(last + detect - w.now - 1)
			w.states(Up, Up)
			w.run(1)
			w.states(Down, Up)
			if w.s[0].Diag != TimeExpired {
				t.Errorf("diagnostic %v", w.s[0].Diag)
			}
			w.mute[1] = false // a machine that was stopped: it hears that the other is down
			w.run(4 * time.Second)
			w.states(Up, Up)
			if w.s[1].Diag == NoDiag && w.sent[1] == 0 {
				t.Error("the stopped side heard nothing")
			}
			w.step(0, Event{Kind: Admin})
			w.states(AdminDown, Down)
			if w.s[1].Diag != NeighborSaidDown {
				t.Errorf("diagnostic %v", w.s[1].Diag)
			}
		})
	}
	w := newWire(t, config(10*ms, 10*ms, 5, true), config(10*ms, 10*ms, 5, true))
	w.run(time.Minute)
	w.states(Down, Down)
	if w.sent != [2]int{} {
		t.Errorf("two passive sides sent %v packets", w.sent)
	}
}

// TestOwnLatenessIsNotTheNeighboursDeath: a loop that slept over the detection
// time listens once more before it says so.
func TestOwnLatenessIsNotTheNeighboursDeath(t *testing.T) {
	w := newWire(t, config(10*ms, 10*ms, 5, false), config(10*ms, 10*ms, 5, false))
	w.run(4 * time.Second)
	s := w.s[0]
	w.now = s.DetectAt() + 30*ms
	s, _ = Step(s, Event{Kind: Timer, At: w.now})
	if s.State != Up || s.DetectAt() != w.now+25*ms {
		t.Errorf("%v, detection ends in %v", s.State, s.DetectAt()-w.now)
	}
	s, _ = Step(s, Event{Kind: Timer, At: s.DetectAt()})
	if s.State != Down {
		t.Errorf("%v, want Down", s.State)
	}
}
