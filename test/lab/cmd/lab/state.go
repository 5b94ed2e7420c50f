package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/lab"
	"ballast/test/lab/plan"
	"ballast/test/lab/wire"
)

// window is what the rates are means of.
const window = 3 * time.Second

// keepEvents is how many lines of events are kept.
const keepEvents = 50

// traffic is what the client sees of one service.
type traffic struct {
	target plan.Target
	every  time.Duration
	probe  *lab.Probe

	recent   []hit // of the last window
	good     uint64
	failed   uint64
	began    time.Time
	base     time.Time // when the probe began, by our clock
	lastGood time.Time
	gaps     []gap
}

type hit struct {
	at     time.Time
	server string // empty: failed
}

// gap is a time without an answer that is longer than the pace explains.
type gap struct{ from, to time.Time }

// failover is a change of master and what the client saw of it.
type failover struct {
	lab.RoleChange
	gap time.Duration
}

// state is everything that the view shows.
type state struct {
	l      *lab.Lab
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	started   time.Time
	traffic   []*traffic
	vrrp      [2]*status.VRRP
	vrrpErr   [2]string
	table     map[string]bool // real servers that the master's IPVS table sends to
	unplugged [2]bool
	events    []string
	seen      time.Time // of the last role change shown
	last      *failover
}

// newState starts the client's probes and the polling of the directors.
func newState(l *lab.Lab, every time.Duration) (*state, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &state{l: l, cancel: cancel, started: time.Now()}
	for _, t := range l.Plan().Targets {
		if err := s.ask(t, every); err != nil {
			s.close()
			return nil, err
		}
	}
	for i := range l.Directors {
		s.wg.Go(func() { s.poll(ctx, i) })
	}
	s.wg.Go(func() { s.follow(ctx) })
	return s, nil
}

// ask starts the probe of one service.
func (s *state) ask(t plan.Target, every time.Duration) error {
	p := wire.Probe{Kind: "http", Target: t.Addr.String(), Every: every, Timeout: time.Second}
	if t.Protocol == model.UDP {
		p.Kind = "udp"
	}
	tr := &traffic{target: t, every: every, began: time.Now()}
	s.mu.Lock()
	s.traffic = append(s.traffic, tr)
	s.mu.Unlock()
	var err error
	tr.probe, err = s.l.Node.Probe(p, func(sample wire.Sample) {
		s.mu.Lock()
		defer s.mu.Unlock()
		tr.add(time.Now(), sample)
	})
	return err
}

// add counts one request. A gap reaches from the sending of an answered request
// to the sending of the next one that was answered.
func (t *traffic) add(now time.Time, s wire.Sample) {
	if t.base.IsZero() {
		t.base = now.Add(-s.Took - s.At)
	}
	sent := t.base.Add(s.At) // a report that comes late says when it was all the same
	if s.Error != "" {
		t.failed++
		t.recent = append(t.recent, hit{at: sent})
		return
	}
	t.good++
	t.recent = append(t.recent, hit{sent, s.Server})
	if d := sent.Sub(t.lastGood); !t.lastGood.IsZero() && d > 2*t.every+50*time.Millisecond {
		t.gaps = append(t.gaps, gap{t.lastGood, sent})
		if n := len(t.gaps) - 100; n > 0 {
			t.gaps = slices.Delete(t.gaps, 0, n)
		}
	}
	if sent.After(t.lastGood) {
		t.lastGood = sent
	}
}

// rates are the answers a second by real server, and the failures.
func (t *traffic) rates(now time.Time) (by map[string]float64, failed float64) {
	from := now.Add(-window)
	t.recent = slices.DeleteFunc(t.recent, func(h hit) bool { return h.at.Before(from) })
	by = map[string]float64{}
	span := min(window, max(now.Sub(t.began), time.Second)).Seconds()
	for _, h := range t.recent {
		if h.server == "" {
			failed += 1 / span
		} else {
			by[h.server] += 1 / span
		}
	}
	return by, failed
}

// around is the longest gap that touches the time of a failover.
func (t *traffic) around(at time.Time) time.Duration {
	var worst time.Duration
	for _, g := range t.gaps {
		if g.from.Before(at.Add(2*time.Second)) && g.to.After(at.Add(-5*time.Second)) {
			worst = max(worst, g.to.Sub(g.from))
		}
	}
	return worst
}

// pollEvery is how often the directors are asked: each question costs an
// emulated processor some milliseconds.
const pollEvery = 2 * time.Second

func (s *state) poll(ctx context.Context, i int) {
	d := s.l.Directors[i]
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		if d.Running() {
			cctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			v, err := d.VRRP(cctx)
			master := err == nil && slices.ContainsFunc(v.Instances, func(x status.VRRPInstance) bool { return x.State == status.VRRPMaster })
			var table map[string]bool
			if master {
				if p, err := d.IPVS(cctx); err == nil {
					table = s.alive(p)
				}
			}
			cancel()
			s.mu.Lock()
			if err == nil {
				s.vrrp[i], s.vrrpErr[i] = &v, ""
			} else {
				s.vrrp[i], s.vrrpErr[i] = nil, "no answer"
			}
			if table != nil {
				s.table = table
			}
			s.mu.Unlock()
		} else {
			s.mu.Lock()
			s.vrrp[i], s.vrrpErr[i] = nil, ""
			s.mu.Unlock()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

// alive names the real servers that a table sends new connections to.
func (s *state) alive(p status.IPVS) map[string]bool {
	out := map[string]bool{}
	for _, srv := range s.l.Plan().Servers {
		for _, v := range p.Services {
			for _, d := range v.Dests {
				if d.Addr == srv.Addr && d.Weight > 0 {
					out[srv.Name] = true
				}
			}
		}
	}
	return out
}

// follow turns changes of the master, seen on the wire, into events.
func (s *state) follow(ctx context.Context) {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		for _, c := range s.l.Roles.Events() {
			s.mu.Lock()
			if c.At.After(s.seen) {
				s.seen = c.At
				s.event(c.At, c.String())
				if c.From >= 0 && c.To >= 0 || c.To >= 0 && c.Silence > 0 {
					s.last = &failover{RoleChange: c}
				}
			}
			s.mu.Unlock()
		}
	}
}

// event adds a line; the caller holds mu.
func (s *state) event(at time.Time, text string) {
	s.events = append(s.events, at.Format("15:04:05 ")+text)
	if n := len(s.events) - keepEvents; n > 0 {
		s.events = slices.Delete(s.events, 0, n)
	}
}

func (s *state) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.event(time.Now(), fmt.Sprintf(format, args...))
}

func (s *state) close() {
	s.cancel()
	s.wg.Wait()
}

// box is a director in a snapshot.
type box struct {
	name      string
	power     bool
	unplugged bool
	instances []string // "outside MASTER 100"
	note      string
}

// server is a real server in a snapshot.
type server struct {
	name    string
	rate    float64
	running bool
	used    bool // the director sends to it
	known   bool // whether used is known
	sorry   bool
	// stranger is somebody who answers and should not be there.
	stranger bool
}

// service is one service in a snapshot.
type service struct {
	target  string
	rate    float64
	failing float64
	failed  uint64
	silent  time.Duration // since the last answer
}

// snapshot is the state at one moment, ready to be drawn.
type snapshot struct {
	up       time.Duration
	now      time.Time
	boxes    [2]box
	services []service
	servers  []server
	failover string
	events   []string
	master   string
}

func (s *state) snapshot() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	v := snapshot{up: now.Sub(s.started).Round(time.Second), now: now, events: slices.Clone(s.events)}
	for i, d := range s.l.Directors {
		b := box{name: d.Name(), power: d.Running(), unplugged: s.unplugged[i], note: s.vrrpErr[i]}
		if st := s.vrrp[i]; st != nil && b.power {
			for _, in := range st.Instances {
				b.instances = append(b.instances, fmt.Sprintf("%s %s %d", in.Name, in.State, in.Effective))
			}
			if st.Resigned {
				b.note = "resigned"
			}
		}
		v.boxes[i] = b
	}
	total := map[string]float64{}
	for _, t := range s.traffic {
		by, failing := t.rates(now)
		sv := service{target: t.target.Protocol.String() + " " + t.target.Addr.String(), failing: failing, failed: t.failed}
		for n, r := range by {
			sv.rate += r
			total[n] += r
		}
		if since := t.lastGood; !since.IsZero() {
			sv.silent = now.Sub(since)
		}
		v.services = append(v.services, sv)
	}
	for _, srv := range s.l.Node.Servers() {
		used, known := s.table[srv.Name], s.table != nil
		v.servers = append(v.servers, server{name: srv.Name, rate: total[srv.Name], running: srv.Running(), used: used, known: known, sorry: srv.Sorry})
		delete(total, srv.Name)
	}
	for _, n := range slices.Sorted(maps.Keys(total)) {
		v.servers = append(v.servers, server{name: n, rate: total[n], stranger: true})
	}
	if f := s.last; f != nil {
		for _, t := range s.traffic {
			f.gap = max(f.gap, t.around(f.At))
		}
		v.failover = fmt.Sprintf("%s %s; the client saw a gap of %v", f.At.Format("15:04:05"), f.RoleChange, f.gap.Round(time.Millisecond))
		if f.gap == 0 {
			v.failover = fmt.Sprintf("%s %s; the client saw no gap", f.At.Format("15:04:05"), f.RoleChange)
		}
	}
	v.master = s.l.Roles.String()
	return v
}

// line is a snapshot on one line, for a log.
func (v snapshot) line() string {
	var out []string
	for _, s := range v.services {
		out = append(out, fmt.Sprintf("%s %.0f/s failed %d", s.target, s.rate, s.failed))
	}
	var real []string
	for _, s := range v.servers {
		if s.rate > 0 {
			real = append(real, fmt.Sprintf("%s %.0f", s.name, s.rate))
		}
	}
	f := ""
	if v.failover != "" {
		f = " | last failover " + v.failover
	}
	return v.now.Format("15:04:05 ") + v.master + " | " + strings.Join(out, ", ") + " | " + strings.Join(real, " ") + f
}
