package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ballast/test/lab"
	"ballast/test/lab/ether"
	"ballast/test/lab/plan"
	"ballast/test/lab/wire"
)

// ticker is the witness on the host: the switch of the lab and QEMU itself run
// there. It wakes every hostTick and remembers when it was late.
type ticker struct {
	mu   sync.Mutex
	late []lateness
	stop chan struct{}
	done chan struct{}
}

type lateness struct {
	at time.Time // when it was due
	by time.Duration
}

const (
	hostTick = 2 * time.Millisecond
	// below it the host's lateness is not worth a note
	hostFloor = time.Millisecond
	keepLate  = 100_000
)

func newTicker() *ticker {
	t := &ticker{stop: make(chan struct{}), done: make(chan struct{})}
	go t.run()
	return t
}

func (t *ticker) run() {
	defer close(t.done)
	for due := time.Now().Add(hostTick); ; {
		select {
		case <-t.stop:
			return
		case <-time.After(time.Until(due)):
		}
		now := time.Now()
		if by := now.Sub(due); by > hostFloor {
			t.mu.Lock()
			if len(t.late) >= keepLate {
				t.late = append(t.late[:0], t.late[keepLate/2:]...)
			}
			t.late = append(t.late, lateness{due, by})
			t.mu.Unlock()
		}
		if due = due.Add(hostTick); due.Before(now) {
			due = now.Add(hostTick)
		}
	}
}

func (t *ticker) close() {
	close(t.stop)
	<-t.done
}

// worst is the longest stall that overlaps a time.
func (t *ticker) worst(from, to time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	var w time.Duration
	for _, l := range t.late {
		if l.at.Before(to) && l.at.Add(l.by).After(from) {
			w = max(w, l.by)
		}
	}
	return w
}

// adverts knows from the wire who advertises.
type adverts struct {
	mu      sync.Mutex
	last    [2]time.Time // last advertisement with a priority above 0
	first   [2]time.Time // since forget
	resign  [2]time.Time // last with priority 0
	changed chan struct{}
}

func watchAdverts(l *lab.Lab) (*adverts, func()) {
	a := &adverts{changed: make(chan struct{})}
	remove := l.Switches[0].Tap(func(at time.Time, from *ether.Port, frame []byte) {
		ad, ok := ether.ParseAdvert(frame)
		if !ok || ad.VRID != vrid {
			return
		}
		for i, n := range plan.Names {
			if n == from.Name {
				a.saw(at, i, ad.Priority)
			}
		}
	})
	return a, remove
}

func (a *adverts) saw(at time.Time, i int, priority uint8) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if priority == 0 {
		a.resign[i] = at
		a.last[i] = time.Time{}
	} else {
		a.last[i] = at
		if a.first[i].IsZero() {
			a.first[i] = at
		}
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// forget is for the boot of a machine, or another pair in the place of this one.
func (a *adverts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.first, a.last, a.resign = [2]time.Time{}, [2]time.Time{}, [2]time.Time{}
}

// until waits for a condition over the advertisements, which holds at an
// advertisement or a little later.
func (a *adverts) until(ctx context.Context, what string, ok func(a *adverts) bool) error {
	for {
		a.mu.Lock()
		done := ok(a)
		changed := a.changed
		a.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond): // silence is an event too
		case <-ctx.Done():
			return fmt.Errorf("bench: %s: %w", what, ctx.Err())
		}
	}
}

// client is the probe of one measurement, with the clocks of the node VM and
// of the host brought together.
type client struct {
	probe *lab.Probe

	mu      sync.Mutex
	samples []wire.Sample
	start   time.Time // of the probe by the host's clock: an upper bound, which gets better
}

func startClient(l *lab.Lab, target string, every time.Duration) (*client, error) {
	c := &client{}
	var err error
	c.probe, err = l.Node.Probe(wire.Probe{Kind: "udp", Target: target, Every: every, Timeout: time.Second}, func(s wire.Sample) {
		now := time.Now()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.samples = append(c.samples, s)
		if s.Error != "" {
			return
		}
		if t := now.Add(-s.At - s.Took); c.start.IsZero() || t.Before(c.start) {
			c.start = t
		}
	})
	return c, err
}

// firstGood is when the first answer that counts from a time on came back.
func (c *client) firstGood(from time.Time) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best time.Time
	for _, s := range c.samples {
		at := c.start.Add(s.At + s.Took)
		if s.Error == "" && at.After(from) && (best.IsZero() || at.Before(best)) {
			best = at
		}
	}
	return best, !best.IsZero()
}

// window is the report over the requests of a time.
func (c *client) window(from, to time.Time) lab.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	var in []wire.Sample
	for _, s := range c.samples {
		if at := c.start.Add(s.At); !at.Before(from) && at.Before(to) {
			in = append(in, s)
		}
	}
	return lab.NewReport(c.probe.Every, in)
}

// trim forgets samples older than a time.
func (c *client) trim(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := c.samples[:0]
	for _, s := range c.samples {
		if !c.start.Add(s.At).Before(before) {
			keep = append(keep, s)
		}
	}
	c.samples = keep
}

func (c *client) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c.probe.Stop(ctx) // what it measured is here already
}
