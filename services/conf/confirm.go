package conf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"ballast/configs/check"
	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/ipc/status"

	"golang.org/x/sys/unix"
)

// maxStarts is how often conf may start while a generation waits to be
// confirmed: a configuration under which the box falls over again and again is
// not waited for.
const maxStarts = 3

// clockCheck is how often the deadline that is told is held against the clock
// that it is told by; somebody may have set that.
const clockCheck = 10 * time.Second

// window is the time in which the running generation can be confirmed. It is
// replaced, never altered.
type window struct {
	mark     store.Pending
	ends     time.Time // by the monotonic clock
	deadline time.Time // what is told
}

// kernelClock is the boot that runs and its age.
func kernelClock() (boot string, since time.Duration) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	var ts unix.Timespec
	if err == nil {
		err = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	}
	if err != nil {
		return "", 0 // no boot is known: the wall clock has to do
	}
	return strings.TrimSpace(string(b)), time.Duration(ts.Nano())
}

// moment is one point of time, by every clock that a mark is kept by.
type moment struct {
	boot  string
	since time.Duration
	wall  time.Time // and the monotonic clock
}

func (c *conf) moment() moment {
	boot, since := c.Clock()
	return moment{boot, since, time.Now()}
}

// marked is m with its end at rest after a moment. What the disk has, what is told
// and when this process acts are one time, however long the disk takes.
func (at moment) marked(m store.Pending, rest time.Duration) (_ store.Pending, ends time.Time) {
	ends = at.wall.Add(rest)
	m.Boot, m.Ends, m.Left, m.Until = at.boot, at.since+rest, rest, ends.Round(0)
	return m, ends
}

// open begins or goes on with a window.
func (c *conf) open(m store.Pending, ends time.Time) *window {
	return c.setWindow(&window{m, ends, ends.Round(0)})
}

func (c *conf) window() *window {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending
}

// setWindow makes w the window, nil for none, and tells who waits for its end.
func (c *conf) setWindow(w *window) *window {
	c.mu.Lock()
	c.pending = w
	c.mu.Unlock()
	select {
	case c.moved <- struct{}{}:
	default:
	}
	return w
}

// told is the window as the state has it.
func (w *window) told() *status.Pending {
	if w == nil {
		return nil
	}
	return &status.Pending{Generation: w.mark.Generation, Back: w.mark.Back, Deadline: w.deadline, Author: w.mark.Author}
}

// settle makes a staged change that all services have applied the one that
// boots, for good or until it is confirmed.
func (c *conf) settle(s *staged) error {
	old := c.window()
	if s.confirm == 0 {
		if err := c.store.SetRunning(s.n); err != nil {
			return err
		}
		if old != nil {
			c.setWindow(nil)
			if s.meta.Source == "commit" {
				s.confirmed = old.mark.Generation
			}
		}
		return nil
	}
	m, ends := c.moment().marked(store.Pending{Generation: s.n, Back: s.back, Author: s.meta.Author, Window: s.confirm}, s.confirm)
	if err := c.store.SetUnconfirmed(m); err != nil {
		return err
	}
	s.pending = c.open(m, ends).told()
	now := c.current()
	now.state.Pending = s.pending
	c.publish(now)
	return nil
}

// keepBack makes sure that what runs is stored, so that it can be gone back to,
// and returns its number. What an unconfirmed generation would go back to stays
// that: it was the last one that somebody was sure of.
func (c *conf) keepBack() (uint64, error) {
	if w := c.window(); w != nil {
		return w.mark.Back, nil
	}
	now := c.current()
	if n := now.state.Generation; n == c.store.Running() {
		return n, nil
	}
	n, err := c.store.Put(store.Generation{Text: now.state.Text,
		Meta: store.Meta{Source: now.state.Source, Author: now.state.Author, Time: now.state.Time, Files: now.files}})
	if err != nil {
		return 0, fmt.Errorf("not committed: what runs cannot be stored to go back to it: %w", err)
	}
	return n, nil
}

// unkeep forgets what keepBack stored for a change that came to nothing.
func (c *conf) unkeep(n uint64) {
	if n > c.store.Running() {
		c.store.Drop(n) // swept at the next boot if this fails
	}
}

func (c *conf) confirm(ctx context.Context, arg status.Confirmation) (any, error) {
	if w := c.window(); w != nil && (arg.Generation == 0 || arg.Generation == w.mark.Generation) && time.Now().Before(w.ends) {
		if err := c.confirmPeer(ctx, arg.Author); err != nil {
			return nil, err
		}
	}
	return c.confirmHere(arg)
}

// confirmHere confirms on this box.
func (c *conf) confirmHere(arg status.Confirmation) (any, error) {
	w := c.window()
	now := c.current()
	switch {
	case w == nil && now.state.Reverted != "":
		return nil, fmt.Errorf("too late: %s", now.state.Reverted)
	case w == nil:
		return nil, fmt.Errorf("nothing waits to be confirmed: %s runs for good", generationName(now.state.Generation))
	case arg.Generation != 0 && arg.Generation != w.mark.Generation:
		return nil, fmt.Errorf("not confirmed: %s is what waits for that, not %d", generationName(w.mark.Generation), arg.Generation)
	case !time.Now().Before(w.ends):
		return nil, errors.New("too late: it is being rolled back")
	}
	if err := c.store.Confirm(); err != nil {
		return nil, fmt.Errorf("not confirmed, it is still rolled back in %v: %w", until(w.ends), err)
	}
	c.setWindow(nil)
	now.state.Pending = nil
	c.publish(now)
	left := until(w.ends)
	c.env.Log.Info(fmt.Sprintf("%s confirmed by %s, %v before it would have been rolled back", generationName(w.mark.Generation), author(arg.Author), left))
	return status.Confirmed{Generation: w.mark.Generation, Left: left}, nil
}

func until(t time.Time) time.Duration { return time.Until(t).Round(time.Second) }

// watchWindow puts the generation before back when the time to confirm is over.
func (c *conf) watchWindow(ctx context.Context) {
	for {
		w := c.window()
		var due <-chan time.Time
		var timer *time.Timer
		if w != nil {
			timer = time.NewTimer(min(time.Until(w.ends), clockCheck))
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-c.moved:
		case <-due:
			c.windowDue(ctx, w)
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// windowDue looks at a window whose time is over, or whose deadline may have
// moved against the clock.
func (c *conf) windowDue(ctx context.Context, w *window) {
	over := !time.Now().Before(w.ends)
	deadline := time.Now().Round(0).Add(time.Until(w.ends))
	if !over && deadline.Sub(w.deadline).Abs() < 2*time.Second {
		return
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-c.turn }()
	if c.window() != w { // a commit had its turn first
		return
	}
	if over {
		c.revert(ctx, w.mark)
		return
	}
	now := c.current()
	now.state.Pending = c.setWindow(&window{w.mark, w.ends, deadline}).told()
	c.publish(now)
}

// revert runs again what ran before the unconfirmed generation of m. Nobody is
// asked: a service that would refuse it ran it a few minutes ago. Called with
// the turn held.
func (c *conf) revert(ctx context.Context, m store.Pending) {
	why := "not confirmed in " + spell(m.Window)
	var problems []model.Problem
	r, g, ok := c.good(c.olderThan(m.Back), &problems, new(string))
	for _, p := range problems {
		c.env.Log.Error("roll back: " + p.String())
	}
	if !ok {
		// Running for good what nobody confirmed is bad, running nothing is worse.
		c.env.Log.Error(fmt.Sprintf("%s was %s, but no generation before it can be loaded: it stays", generationName(m.Generation), why))
		if err := c.store.Confirm(); err != nil {
			c.env.Log.Error("configuration store: " + err.Error())
		}
		c.setWindow(nil)
		now := c.current()
		now.state.Pending = nil
		c.publish(now)
		return
	}
	r = c.again(r, c.reverted(g, m, why), nil)
	if now := c.current().state.Generation; r.state.Generation <= now { // the disk failed: the services must still come back
		r.state.Generation = now + 1
	}
	c.setWindow(nil)
	r.state.Problems = c.place(r.files)
	c.publish(r)
	if r.state.Source == "factory" {
		c.wg.Go(func() { c.followNICs(ctx) })
	}
	c.env.Log.Warn("rollback: " + r.state.Reverted)
	for _, f := range c.await(ctx, c.Services, r.state.Generation, nil, map[string]string{}) {
		c.env.Log.Error("rollback: " + f)
	}
	for _, p := range r.state.Problems {
		c.env.Log.Error("rollback: " + p.String())
	}
}

// reverted is g as it comes back in place of the unconfirmed generation of m.
func (c *conf) reverted(g store.Generation, m store.Pending, why string) store.Generation {
	g.Comment = fmt.Sprintf("%s was %s", generationName(m.Generation), why)
	g.Reverted = fmt.Sprintf("%s by %s was %s: %s runs again", generationName(m.Generation), author(m.Author), why, generationName(g.Generation))
	g.Author = ""
	if g.Source != "factory" { // which goes on following the NICs
		g.Source = "rollback"
	}
	return g
}

// bootMark counts this start against the unconfirmed generation that runs, if
// one does. back is set when it must not run again, with the reason.
func (c *conf) bootMark() (m *store.Pending, ends time.Time, back bool, why string) {
	m = c.store.Pending()
	if m == nil {
		return nil, ends, false, ""
	}
	at := c.moment()
	rest := m.Rest(at.boot, at.since, at.wall)
	m.Starts++
	switch {
	case rest == 0:
		return m, ends, true, "not confirmed in " + spell(m.Window)
	case m.Starts >= maxStarts:
		return m, ends, true, fmt.Sprintf("not confirmed, and the box or conf started %d times meanwhile", m.Starts)
	}
	*m, ends = at.marked(*m, rest)
	// Before anything is loaded: what falls over there counts too.
	if err := c.store.SetUnconfirmed(*m); err != nil {
		c.env.Log.Error("configuration store: " + err.Error())
	}
	return m, ends, false, ""
}

// spell is a duration as people write it: "5m", not "5m0s".
func spell(d time.Duration) string {
	s := d.Round(time.Second).String()
	if d < time.Second {
		s = d.String()
	}
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// confirmTime says why a time to confirm is none.
func confirmTime(d time.Duration) error {
	if d < 0 || d > status.MaxConfirm {
		return fmt.Errorf("not committed: %v to confirm is outside 1…%.0f minutes", d, status.MaxConfirm.Minutes())
	}
	return nil
}

// cuts says why next would cut off session.
func (c *conf) cuts(ctx context.Context, next *model.Config, session *status.Session) []string {
	if session == nil {
		return nil
	}
	now := c.current().state.Config
	s := check.Session{User: session.User, Local: session.Local.Unmap().WithZone(""), Remote: session.Remote.Unmap().WithZone("")}
	if s.Local.IsValid() {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		var st status.Net
		if _, err := c.client("net").State(ctx, &st); err == nil {
			for _, l := range st.Links {
				for _, a := range l.Addresses {
					if a.Prefix.Addr() == s.Local {
						s.Interface = l.Name
					}
				}
			}
		}
	}
	return check.Cuts(&now, next, s)
}

// guard refuses a change that would cut off the session that asks for it, or
// returns the warning that it gets along.
func guard(cuts []string, h how) (warning string, err error) {
	if len(cuts) == 0 {
		return "", nil
	}
	if h.session.Terminal && h.confirm == 0 && !h.force {
		return "", fmt.Errorf("not committed, nothing changed: it would cut off your own session:\n  %s\n"+
			"\"commit confirmed 5\" goes back by itself after 5 minutes unless you get in again and \"confirm\"; \"commit force\" commits it for good",
			strings.Join(cuts, "\n  "))
	}
	return "it may cut off your own session: " + strings.Join(cuts, "; "), nil
}
