// Package soak breaks a running director pair at random, lets it recover, and
// checks that it has: for hours by "make soak", for a minute in the tests. A
// seed gives the same order of faults again.
package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"ballast/test/lab"
	"ballast/test/lab/wire"
)

// Options are one run.
type Options struct {
	Duration time.Duration // no new round begins after it
	Seed     uint64        // of the faults
	Image    string        // folder with vmlinuz and initramfs.zst; empty: lab.DefaultImage
	Log      func(string)  // a line at a time
}

// Result is what a run did.
type Result struct {
	Rounds, Faults          int
	Sent, Good              int               // requests of the client, all the time
	LongestOutage           time.Duration     // whatever was done to the pair meanwhile
	Changes                 int               // of the master
	FirstMemory, LastMemory map[string]uint64 // PSS by service of the first director, bytes
}

func (r Result) String() string {
	return fmt.Sprintf("%d rounds, %d faults, %d changes of the master, %d of %d requests answered, longest gap %v",
		r.Rounds, r.Faults, r.Changes, r.Good, r.Sent, r.LongestOutage.Round(time.Millisecond))
}

// targets are the two sites of the lab's default configuration.
var targets = []string{"10.10.0.80:80", "10.10.0.80:8080"}

var vrids = []uint8{51, 52}

// soak is a run under way.
type soak struct {
	Options
	*lab.Lab
	rnd     *rand.Rand
	result  Result
	history []string // what was done in this round
	down    [2]bool  // power
	out     [2]bool  // cables
	paused  [2]bool
	// patience is how long a site may take to answer, and a master to advertise,
	// when all is well.
	patience time.Duration
	still    *onlookers
	// kills counts, by service, what we killed since a box's boot; everything
	// above it that supervision started anew has crashed by itself.
	kills [2]map[string]int

	mu   sync.Mutex
	last time.Duration // when the last answered request was sent
	bad  int           // failed requests since the last look
	good int
}

// start boots the pair with a configuration.
func start(ctx context.Context, o Options, config []byte) (*soak, error) {
	if o.Log == nil {
		o.Log = func(string) {}
	}
	l, err := lab.Start(ctx, lab.Options{Name: "default.conf", Config: config, Image: o.Image, Log: o.Log})
	if err != nil {
		return nil, err
	}
	o.Log(fmt.Sprintf("seed %d", o.Seed))
	return &soak{Options: o, Lab: l, rnd: rand.New(rand.NewPCG(o.Seed, 0)), kills: [2]map[string]int{{}, {}}, last: -1, patience: time.Second, still: watchProcessors()}, nil
}

func (s *soak) close() {
	s.Lab.Close()
	s.still.close()
}

// Run breaks and checks until the time is over. An error says what did not
// recover, and after which faults.
func Run(ctx context.Context, o Options) (Result, error) {
	s, err := start(ctx, o, lab.DefaultConfig)
	if err != nil {
		return Result{}, err
	}
	l := s.Lab
	o = s.Options
	defer s.close()
	if err := s.settled(ctx); err != nil {
		return s.result, fmt.Errorf("soak: before any fault: %w\n%s", err, s.tell(ctx))
	}
	probe, err := l.Node.Probe(wire.Probe{Kind: "http", Target: targets[0], Every: 50 * time.Millisecond}, s.sample)
	if err != nil {
		return s.result, err
	}
	begun := len(l.Roles.Events())
	for end := time.Now().Add(o.Duration); time.Now().Before(end); {
		err := s.round(ctx)
		s.result.Changes = len(l.Roles.Events()) - begun
		if err != nil {
			return s.result, fmt.Errorf("soak: seed %d, round %d (%s): %w\n%s", o.Seed, s.result.Rounds, strings.Join(s.history, ", "), err, s.tell(ctx))
		}
		s.result.Rounds++
	}
	_, err = probe.Stop(ctx)
	return s.result, err
}

// sample hears of each request.
func (s *soak) sample(x wire.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.Sent++
	if x.Error != "" {
		s.bad++
		return
	}
	s.good++
	s.result.Good++
	if s.last >= 0 && x.At-s.last > s.result.LongestOutage {
		s.result.LongestOutage = x.At - s.last
	}
	s.last = max(s.last, x.At)
}

// seen returns and forgets what the client saw.
func (s *soak) seen() (good, bad int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	good, bad = s.good, s.bad
	s.good, s.bad = 0, 0
	return good, bad
}

// bound is how long the pair may take to be well again after a round's faults:
// two boots, and the health checks' own times.
const bound = 90 * time.Second

// hold is how long it must then stay so.
const hold = 3 * time.Second

// round breaks some things, mends all, and checks.
func (s *soak) round(ctx context.Context) error {
	s.history = nil
	for range 1 + s.rnd.IntN(4) {
		what, err := s.fault(ctx)
		if what != "" {
			s.history = append(s.history, what)
			s.result.Faults++
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := pause(ctx, time.Duration(s.rnd.IntN(3000))*time.Millisecond); err != nil {
			return err
		}
	}
	if err := s.mend(ctx); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	start := time.Now()
	if err := s.settled(ctx); err != nil {
		return err
	}
	s.Log(fmt.Sprintf("round %d: %s: well again after %v", s.result.Rounds, strings.Join(s.history, ", "), time.Since(start).Round(100*time.Millisecond)))
	return nil
}

// services are those that a kill -9 may hit.
var services = []string{"vrrp", "pacer", "ipvs", "health", "net", "conf", "notify"}

// fault does one random thing and names it.
func (s *soak) fault(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	i := s.rnd.IntN(2)
	d := s.Directors[i]
	name := d.Name()
	switch n := s.rnd.IntN(10); n {
	case 0:
		if s.down[i] {
			return "", nil
		}
		d.Kill()
		s.down[i] = true
		return "kill " + name, nil
	case 1:
		if s.down[i] || s.paused[i] {
			return "", nil
		}
		s.down[i] = true
		return "stop " + name, d.Stop(ctx)
	case 2, 3:
		if s.down[i] || s.paused[i] {
			return "", nil
		}
		s.out[i] = !s.out[i]
		if s.out[i] {
			return "unplug " + name, d.Unplug(ctx, true)
		}
		return "plug " + name, d.Unplug(ctx, false)
	case 4:
		if s.down[i] || s.paused[i] {
			return "", nil
		}
		s.paused[i] = true
		return "freeze " + name, d.VM().Pause(ctx)
	case 5, 6:
		servers := s.Node.Servers()
		rs := servers[s.rnd.IntN(len(servers))]
		if rs.Running() {
			return "stop " + rs.Name, rs.Stop(ctx)
		}
		return "start " + rs.Name, rs.Start(ctx)
	default:
		service := services[s.rnd.IntN(len(services))]
		if s.down[i] || s.paused[i] {
			return "", nil
		}
		if err := d.WaitConsole(ctx); err != nil {
			return "kill -9 " + service + " of " + name, err
		}
		s.kills[i][service]++
		_, err := d.Console(ctx, "restart "+service+" signal 9", nil)
		var refused *lab.ExitError
		if errors.As(err, &refused) && strings.Contains(refused.Text, "is not running") { // killed a moment ago, and not yet back
			s.kills[i][service]--
			return "", nil
		}
		return "kill -9 " + service + " of " + name, err
	}
}

// mend undoes every fault.
func (s *soak) mend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for _, rs := range s.Node.Servers() {
		if !rs.Running() {
			if err := rs.Start(ctx); err != nil {
				return err
			}
		}
	}
	for i, d := range s.Directors {
		if s.paused[i] {
			if err := d.VM().Resume(ctx); err != nil {
				return err
			}
		}
		if s.down[i] || !d.Running() {
			if !s.down[i] {
				return fmt.Errorf("%s has ended by itself", d.Name())
			}
			if err := d.Boot(ctx); err != nil {
				return err
			}
			s.kills[i] = map[string]int{}
		} else if s.out[i] {
			if err := d.Unplug(ctx, false); err != nil {
				return err
			}
		}
		s.down[i], s.out[i], s.paused[i] = false, false, false
	}
	for _, d := range s.Directors {
		if err := d.WaitConsole(ctx); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tell is what both boxes have to say.
func (s *soak) tell(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var b strings.Builder
	for _, e := range s.Roles.Events() {
		fmt.Fprintf(&b, "%s %s\n", e.At.Format("15:04:05.000"), e)
	}
	for _, d := range s.Directors {
		if !d.Running() {
			fmt.Fprintf(&b, "%s has no power\n", d.Name())
			continue
		}
		for _, c := range []string{"show vrrp", "show ipvs", "show processes", "show log 40"} {
			out, err := d.Console(ctx, c, nil)
			if err != nil {
				out += err.Error()
			}
			fmt.Fprintf(&b, "%s: %s\n%s\n", d.Name(), c, out)
		}
	}
	return b.String()
}
