package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ballast/services/ipc/status"
)

// calmWitness is how long the host's clock may stand still during a death that
// says something of the box and not of the machine.
const calmWitness = 3 * time.Millisecond

// deaths: the same silent death many times, for its tail. Nothing is taken
// anew; a second row leaves out the runs in which the witness was late.
func (r *run) deaths(ctx context.Context) error {
	p, err := r.couple(routers{instances: 1, vips: 1, advert: time.Second, heartbeat: true}, true)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Echo(); err != nil {
		return err
	}
	c, err := p.Client(firstVIP)
	if err != nil {
		return err
	}
	all, calm := &Series{}, &Series{}
	for range r.Runs {
		if err = p.settled(ctx); err == nil {
			err = c.Answered(ctx, 200*time.Millisecond)
		}
		if err != nil {
			return err
		}
		begin := time.Now()
		if err = p.Power(0, false); err != nil {
			return err
		}
		p.boxes[0].Freeze()
		if err = p.moved(ctx, 1); err == nil {
			err = c.Answered(ctx, 200*time.Millisecond)
		}
		if err != nil {
			return err
		}
		ms, stall := c.Outage(begin.Add(-100*time.Millisecond)).Seconds()*1000, r.host.worst(begin, time.Now())
		v, err := p.boxes[1].State(ctx)
		if err != nil {
			return err
		}
		in := v.Instances[0]
		r.logf("death: %.1f ms, witness %.1f ms, %s; first announcement %.1f ms later", ms, stall.Seconds()*1000, in.Reason, in.Evidence.FirstGARP.Seconds()*1000)
		all.Values = append(all.Values, ms)
		all.Witness = max(all.Witness, stall.Seconds()*1000)
		if in.Evidence.Takeover != "heartbeat lost" {
			all.Noisy = true // the protocol did it: what was measured is something else
		}
		if stall <= calmWitness {
			calm.Values = append(calm.Values, ms)
			calm.Witness = max(calm.Witness, stall.Seconds()*1000)
		}
		p.boxes[0].Thaw()
		if err := errors.Join(p.Power(0, true), p.quiet(ctx)); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		name string
		s    *Series
	}{{"all", all}, {fmt.Sprintf("those with a witness of at most %s", calmWitness), calm}} {
		if len(s.s.Values) == 0 {
			continue
		}
		r.add(Row{
			Group: "death", Name: fmt.Sprintf("%d silent deaths, %s", len(s.s.Values), s.name), Unit: "ms", Ours: s.s,
			Note: fmt.Sprintf("p99 %.0f ms", quantile(s.s.Values, 0.99)),
		})
	}
	return nil
}

// quiet waits until the box that came back has the place again, and the pair
// has been at rest for longer than a hand-over takes.
func (p *couple) quiet(ctx context.Context) error {
	if err := p.settled(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	v, err := p.boxes[0].State(ctx)
	if err == nil && v.Instances[0].State != status.VRRPMaster {
		err = fmt.Errorf("bench: the better box is %s", v.Instances[0].State)
	}
	return err
}

// quantile is the smallest value that the fraction q of all does not exceed.
func quantile(values []float64, q float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return v[max(int(math.Ceil(q*float64(len(v))))-1, 0)]
}
