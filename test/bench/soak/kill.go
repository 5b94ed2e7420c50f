package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/services/ipc/status"
	"ballast/test/lab"
	"ballast/test/lab/wire"
)

// Processes are killed, the kernel, which forwards, is not.
const (
	// held is how many connections stay open through each site.
	held = 4
	// again is how long a killed process may take to be at work again.
	again = 20 * time.Second
)

// killConfig is the lab's default with the usual interval of a second: a busy
// machine stops an emulated box for the 0.7 s that suffice at 0.2 s, and a run
// without a fault on the wire must have no change of the master.
func killConfig() []byte {
	return bytes.ReplaceAll(lab.DefaultConfig, []byte("advert_int 0.2\n"), []byte("advert_int 1\n"))
}

// traffic is what clients see all the time.
type traffic struct {
	mu     sync.Mutex
	faults []failure // failed requests and broken connections
	stalls []stall
	good   map[string]int
	probes []*lab.Probe
}

// failure is a request that failed; stall is a time in which the client's own
// timers did not fire: its machine stood still, whatever the boxes did.
type (
	failure struct {
		from, to time.Duration // since the client began
		text     string
		timeout  bool
	}
	stall struct{ from, to time.Duration }
)

// stalled is how late a timer of the client may be on a healthy host.
const stalled = 300 * time.Millisecond

// saw takes a sample of a client whose requests may take so long.
func (t *traffic) saw(name string, limit time.Duration, s wire.Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Late > stalled {
		t.stalls = append(t.stalls, stall{s.At - s.Late, s.At})
	}
	if s.Took > limit+stalled { // its deadline came late
		t.stalls = append(t.stalls, stall{s.At + limit, s.At + s.Took})
	}
	if s.Error == "" {
		t.good[name]++
		return
	}
	t.faults = append(t.faults, failure{s.At, s.At + s.Took, fmt.Sprintf("%s: connection %d, at %v: %s after %v",
		name, s.Conn, s.At.Round(time.Millisecond), s.Error, s.Took.Round(time.Millisecond)), s.Error == "timeout"})
}

// judged are the failures that count, and how many do not: a timeout in a
// machine that stood still meanwhile is nobody's fault. Whatever was refused,
// reset or closed counts always.
func (t *traffic) judged() (list []string, excused int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.faults {
		if f.timeout && slices.ContainsFunc(t.stalls, func(s stall) bool { return s.from < f.to && s.to > f.from }) {
			excused++
			continue
		}
		list = append(list, f.text)
	}
	return list, excused
}

func (t *traffic) start(l *lab.Lab) error {
	t.good = map[string]int{}
	for _, p := range []wire.Probe{
		{Kind: "http", Target: targets[0], Every: 50 * time.Millisecond, Timeout: 5 * time.Second},
		{Kind: "http", Target: targets[1], Every: 50 * time.Millisecond, Timeout: 5 * time.Second},
		{Kind: "held", Target: targets[0], Every: 100 * time.Millisecond, Timeout: 10 * time.Second, Conns: held},
		{Kind: "held", Target: targets[1], Every: 100 * time.Millisecond, Timeout: 10 * time.Second, Conns: held},
	} {
		name := p.Kind + " " + p.Target
		pr, err := l.Node.Probe(p, func(s wire.Sample) {
			t.saw(name, p.Timeout, s)
		})
		if err != nil {
			return err
		}
		t.probes = append(t.probes, pr)
	}
	return nil
}

// answered waits for a good answer of each client.
func (t *traffic) answered(ctx context.Context) error {
	for _, p := range t.probes {
		if err := p.Answered(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop lets the clients end; what they had under way counts.
func (t *traffic) stop(ctx context.Context) error {
	var errs []error
	for _, p := range t.probes {
		_, err := p.Stop(ctx)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (t *traffic) check() error {
	if list, _ := t.judged(); len(list) > 0 {
		return fmt.Errorf("%d requests failed or connections broke, though the kernel never stopped forwarding:\n  %s",
			len(list), strings.Join(list[:min(len(list), 10)], "\n  "))
	}
	return nil
}

func (t *traffic) sum() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.good {
		n += x
	}
	return n
}

// Kill kills one process of the master after another, at random, and checks
// that nobody but the processes notices: no failed request, no broken
// connection, no other master, no other table.
func Kill(ctx context.Context, o Options) (Result, error) {
	s, err := start(ctx, o, killConfig())
	if err != nil {
		return Result{}, err
	}
	o, s.patience = s.Options, 5*time.Second
	defer s.close()
	if err := s.settled(ctx); err != nil {
		return s.result, fmt.Errorf("soak: before any fault: %w\n%s", err, s.tell(ctx))
	}
	victims, err := s.victims(ctx)
	if err != nil {
		return s.result, err
	}
	var t traffic
	if err := t.start(s.Lab); err != nil {
		return s.result, err
	}
	actx, cancel := context.WithTimeout(ctx, again)
	err = t.answered(actx)
	cancel()
	if err != nil {
		return s.result, err
	}
	changes := len(s.Roles.Events())
	// Every process is hit once before any is hit twice, in the order of the seed.
	var deck []string
	// Two at least, however slow the machine is.
	for end := time.Now().Add(o.Duration); (time.Now().Before(end) || s.result.Rounds < 2) && err == nil; {
		if len(deck) == 0 {
			deck = slices.Clone(victims)
			s.rnd.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		victim := deck[0]
		deck = deck[1:]
		s.history = append(s.history, victim)
		begun := time.Now()
		if err = s.killOne(ctx, victim); err == nil {
			err = t.check()
		}
		if e := s.Roles.Events()[changes:]; err == nil && len(e) > 0 {
			err = fmt.Errorf("the master has changed: %v", e)
		}
		if err != nil {
			err = fmt.Errorf("kill -9 %s: %w", victim, err)
			break
		}
		s.result.Rounds++
		s.result.Faults++
		o.Log(fmt.Sprintf("kill -9 %s: at work again, all as it was, after %v", victim, time.Since(begun).Round(100*time.Millisecond)))
		err = pause(ctx, time.Duration(s.rnd.IntN(2000))*time.Millisecond)
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	err = errors.Join(err, t.stop(sctx))
	if err == nil {
		err = t.check()
	}
	if _, n := t.judged(); n > 0 {
		o.Log(fmt.Sprintf("%d timeouts are not judged: the client's machine stood still meanwhile, this host is too busy", n))
	}
	s.result.Changes = len(s.Roles.Events()) - changes
	s.result.Good = t.sum()
	t.mu.Lock()
	s.result.Sent = s.result.Good + len(t.faults)
	t.mu.Unlock()
	if err != nil {
		return s.result, fmt.Errorf("soak: seed %d, after killing %s: %w\n%s", o.Seed, strings.Join(s.history, ", "), err, s.tell(ctx))
	}
	return s.result, nil
}

// victims are the processes that run on the master: all but init.
func (s *soak) victims(ctx context.Context) (list []string, err error) {
	st, err := lab.Show[status.Init](ctx, s.Directors[0], "processes")
	if err != nil {
		return nil, err
	}
	for _, p := range st.Services {
		if p.Name != "init" && p.State == "ready" {
			list = append(list, p.Name)
		}
	}
	slices.Sort(list)
	if !slices.Contains(list, "vrrp") || !slices.Contains(list, "ipvs") {
		return nil, fmt.Errorf("soak: the processes of %s are %v", s.Directors[0].Name(), list)
	}
	return list, nil
}

// killOne kills a process of the master and waits until it was started anew and
// all is as it was.
func (s *soak) killOne(ctx context.Context, victim string) error {
	ctx, cancel := context.WithTimeout(ctx, again)
	defer cancel()
	d := s.Directors[0]
	s.kills[0][victim]++
	_, err := d.Console(ctx, "restart "+victim+" signal 9", nil)
	if err != nil && victim != "console" { // the console cannot say that it was killed
		return err
	}
	for {
		err = s.killed(ctx, victim)
		if err == nil {
			return s.well(ctx)
		}
		if perr := pause(ctx, 200*time.Millisecond); perr != nil {
			return fmt.Errorf("not well after %v: %w", again, err)
		}
	}
}

// killed tells whether the process was started anew and the box is well.
func (s *soak) killed(ctx context.Context, victim string) error {
	if victim == "console" {
		if err := s.Directors[0].WaitConsole(ctx); err != nil {
			return err
		}
	}
	st, err := lab.Show[status.Init](ctx, s.Directors[0], "processes")
	if err != nil {
		return err
	}
	for _, p := range st.Services {
		if p.Name == victim && p.Restarts < s.kills[0][victim] {
			return fmt.Errorf("%s was not started anew: %s, started anew %d times", victim, p.State, p.Restarts)
		}
	}
	return s.well(ctx)
}
