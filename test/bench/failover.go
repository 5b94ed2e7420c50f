package bench

import (
	"context"
	"fmt"
	"time"

	"ballast/test/lab"
)

// vrid and target are those of the bench's configurations and of the lab's
// default one.
const (
	vrid   = 51
	target = "10.10.0.80:5000"
)

// timing is one way to run VRRP.
type timing struct {
	name    string
	version int
	advert  time.Duration
}

var timings = []timing{
	{"v2 1 s", 2, time.Second},
	{"v3 100 ms", 3, 100 * time.Millisecond},
	{"v3 30 ms", 3, 30 * time.Millisecond},
}

// options is the lab with the configuration of a timing: a service that the
// client asks by UDP, so that each lost request is one lost packet and no
// retransmission of TCP blurs the figure, and one with checks, as in life.
func (t timing) options() lab.Options {
	real := func(addr string, port int, check string) string {
		return fmt.Sprintf("    real_server %s %d {\n        weight 1\n%s    }\n", addr, port, check)
	}
	text := fmt.Sprintf(`global_defs {
    router_id BENCH
    vrrp_version %d
}
vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id %d
    priority 100
    advert_int %g
    virtual_ipaddress {
        10.10.0.80/24
    }
}
`, t.version, vrid, t.advert.Seconds())
	udp, tcp := "", ""
	for _, a := range []string{"10.10.0.11", "10.10.0.12", "10.10.0.13"} {
		udp += real(a, 5000, "")
		tcp += real(a, 80, "        TCP_CHECK {\n            connect_timeout 1\n        }\n")
	}
	text += "virtual_server 10.10.0.80 5000 {\n    delay_loop 5\n    lb_algo rr\n    lb_kind DR\n    protocol UDP\n" + udp + "}\n"
	text += "virtual_server 10.10.0.80 80 {\n    delay_loop 5\n    lb_algo rr\n    lb_kind DR\n    protocol TCP\n" + tcp + "}\n"
	return lab.Options{Name: t.name, Config: []byte(text)}
}

// masterDown is how long the second director, of priority 99, has to wait for
// an advertisement (RFC 3768 6.1, RFC 5798 6.1).
func (t timing) masterDown() time.Duration {
	unit := t.advert
	if t.version == 2 {
		unit = time.Second
	}
	return 3*t.advert + unit*(256-99)/256
}

// every is the client's pace. It bounds what an outage can be told to.
func (t timing) every() time.Duration {
	if t.advert >= time.Second {
		return 10 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// bench is a lab with both pairs, of which one at a time has power.
type bench struct {
	*run
	l       *lab.Lab
	adverts *adverts
	pairs   [2]pair // ours, theirs
}

// pairs measures what needs two directors.
func (r *run) pairs(ctx context.Context) error {
	chosen, events := timings, []event{kill, stop, unplug}
	if r.Quick {
		chosen, events = timings[1:2], []event{kill, unplug}
	}
	if !r.wants("failover") {
		chosen = nil
	}
	first := timings[1].options()
	first.Image, first.Log = r.Image, r.Log
	l, err := lab.Start(ctx, first)
	if err != nil {
		return err
	}
	defer l.Close()
	b := &bench{run: r, l: l}
	r.host = newTicker()
	defer r.host.close()
	var remove func()
	b.adverts, remove = watchAdverts(l)
	defer remove()
	peer, err := newTheirs(ctx, l)
	if err != nil {
		return err
	}
	defer peer.off()
	b.pairs = [2]pair{&ours{l}, peer}
	for _, t := range chosen {
		if err := b.failovers(ctx, t, events); err != nil {
			return err
		}
	}
	if r.wants("memory") && !r.Quick {
		if err := b.memories(ctx); err != nil {
			return err
		}
	}
	if r.wants("boot") && !r.Quick {
		return b.boots(ctx)
	}
	return nil
}

// each gives power to one pair after the other.
func (b *bench) each(ctx context.Context, o lab.Options, fn func(i int, p pair) error) error {
	for i, p := range b.pairs {
		b.pairs[1-i].off()
		b.adverts.forget()
		sctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		err := p.start(sctx, o)
		cancel()
		if err == nil {
			err = fn(i, p)
		}
		if err != nil {
			return fmt.Errorf("bench: %s, %s: %w", o.Name, [2]string{"ours", "keepalived"}[i], err)
		}
	}
	b.pairs[1].off()
	return nil
}

// failovers fills the rows of one timing.
func (b *bench) failovers(ctx context.Context, t timing, events []event) error {
	rows := make([]Row, len(events))
	for i, e := range events {
		rows[i] = Row{Group: "failover", Name: t.name + ", " + string(e), Unit: "ms"}
	}
	silent := Row{Group: "takeover", Name: fmt.Sprintf("%s (%d ms)", t.name, t.masterDown().Milliseconds()), Unit: "ms"}
	err := b.each(ctx, t.options(), func(i int, p pair) error {
		c, err := startClient(b.l, target, t.every())
		if err != nil {
			return err
		}
		defer c.stop(ctx)
		for k, e := range events {
			s, w, err := b.series(ctx, t, e, p, c)
			if i == 0 {
				rows[k].Ours = s
			} else {
				rows[k].Peer = s
			}
			switch {
			case e != kill:
			case i == 0:
				silent.Ours = w
			default:
				silent.Peer = w
			}
			if err != nil {
				return fmt.Errorf("%s: %w", e, err)
			}
			b.logf("%s, %s, %s: %s", t.name, e, [2]string{"ours", "keepalived " + b.report.Keepalived}[i], cell(s, "ms"))
		}
		return nil
	})
	for _, row := range append(rows, silent) {
		b.add(row)
	}
	return err
}

// series takes one figure as often as is asked for. A value during which a
// clock of the lab stood still for longer than the interval of the
// advertisements is taken anew, a bounded number of times. The second series
// is the silence between the two masters on the wire.
func (b *bench) series(ctx context.Context, t timing, e event, p pair, c *client) (s, wire *Series, err error) {
	s, wire = &Series{}, &Series{}
	type value struct{ ms, witness float64 }
	var bad []value
	spare := b.Runs/2 + 1
	for len(s.Values) < b.Runs {
		gap, silence, stall, err := b.outage(ctx, t, e, p, c)
		if err != nil {
			return s, wire, err
		}
		v := value{gap.Seconds() * 1000, stall.Seconds() * 1000}
		if stall > t.advert {
			s.Discarded++
			bad = append(bad, v)
			if len(bad) <= spare {
				continue
			}
			s.Noisy = true
		}
		s.Values = append(s.Values, v.ms)
		wire.Values = append(wire.Values, silence.Seconds()*1000)
		s.Witness = max(s.Witness, v.witness)
		wire.Witness = s.Witness
	}
	return s, wire, nil
}

// outage does one thing to the master and returns what the client saw of it,
// how long the wire was without an advertisement, and the longest stall of the
// lab's clocks meanwhile.
func (b *bench) outage(ctx context.Context, t timing, e event, p pair, c *client) (gap, silence, stall time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	if err := b.steady(ctx, t, c); err != nil {
		return 0, 0, 0, fmt.Errorf("before it: %w", err)
	}
	c.trim(time.Now().Add(-5 * time.Second))
	begin := time.Now()
	if err := p.do(ctx, e); err != nil {
		return 0, 0, 0, err
	}
	var over time.Time
	err = b.adverts.until(ctx, "the second director does not take over", func(a *adverts) bool {
		over, silence = a.last[1], a.last[1].Sub(a.last[0])
		return over.After(begin)
	})
	if err != nil {
		return 0, 0, 0, err
	}
	var r lab.Report
	for { // answered again for half a second
		now := time.Now()
		settled := now.Add(-100 * time.Millisecond) // later answers may be under way
		if from := settled.Add(-500 * time.Millisecond); from.After(over) && b.calm(c, from, settled) {
			r = c.window(begin.Add(-200*time.Millisecond), settled)
			break
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return 0, 0, 0, fmt.Errorf("the client is not answered again: %w", err)
		}
	}
	// How late the clocks were matters from before it until after it.
	end := over.Add(300 * time.Millisecond)
	stall = max(b.host.worst(begin.Add(-200*time.Millisecond), end), c.window(begin.Add(-200*time.Millisecond), end).MaxLate)
	if err := p.undo(ctx, e); err != nil {
		return 0, 0, 0, fmt.Errorf("undo: %w", err)
	}
	return r.Outage, silence, stall, nil
}

// calm tells whether the client was answered all the time.
func (b *bench) calm(c *client, from, to time.Time) bool {
	r := c.window(from, to)
	want := int(to.Sub(from) / r.Every)
	return r.Good >= want*8/10
}

// steady waits until the first director is master, the second has been silent
// for as long as it takes to be sure, and the client is answered.
func (b *bench) steady(ctx context.Context, t timing, c *client) error {
	silent := max(4*t.advert, time.Second)
	err := b.adverts.until(ctx, "the first director does not become master", func(a *adverts) bool {
		now := time.Now()
		return now.Sub(a.last[0]) < 3*t.advert && now.Sub(a.last[1]) > silent
	})
	if err != nil {
		return err
	}
	for {
		to := time.Now().Add(-100 * time.Millisecond)
		if b.calm(c, to.Add(-time.Second), to) {
			return nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("the client is not answered: %s: %w", c.window(to.Add(-time.Second), to), err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
