package conf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/configs"
	"ballast/configs/check"
	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// facts asks the box what a configuration can refer to.
func (c *conf) facts(ctx context.Context, files []store.FileRef) *check.Facts {
	f := &check.Facts{Files: []string{}, Box: c.Host()}
	for _, r := range files {
		f.Files = append(f.Files, r.Path)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var st status.Net
	if _, err := c.client("net").State(ctx, &st); err != nil || len(st.Links) == 0 {
		return f // NICs are not known: checks of them are left out
	}
	for _, l := range st.Links {
		mac := l.PermMAC
		if mac == "" {
			mac = l.MAC
		}
		for _, name := range append([]string{l.Name}, l.AltNames...) {
			f.Interfaces = append(f.Interfaces, check.NIC{Name: name, MAC: mac, PCI: l.PCI})
		}
	}
	return f
}

// checked is a text that was read and checked.
type checked struct {
	text     string
	config   model.Config
	problems []model.Problem
	files    []store.FileRef
}

// examine merges and checks a candidate.
func (c *conf) examine(ctx context.Context, cand status.Candidate) (checked, error) {
	if len(cand.Text) > store.MaxText {
		return checked{}, fmt.Errorf("the configuration has %d bytes; at most %d are possible", len(cand.Text), store.MaxText)
	}
	k := checked{text: cand.Text, files: c.store.Files()}
	if !cand.Override {
		k.text = c.Language.Merge(c.current().state.Text, cand.Text)
	}
	name := cand.Name
	if name == "" {
		name = "candidate"
	}
	k.config, k.problems = c.load(name, k.text, k.files, c.facts(ctx, k.files))
	if n := configs.Masked(cand.Text); n > 0 {
		k.problems = append(k.problems, model.Problem{Severity: model.Error, File: name, Line: n, Text: "a masked secret stands in place of the secret",
			Fix: "write the secret itself; \"show configuration secrets\" shows what runs with them"})
	}
	return k, nil
}

func (c *conf) check(ctx context.Context, cand status.Candidate) (any, error) {
	k, err := c.examine(ctx, cand)
	if err != nil {
		return nil, err
	}
	if k.problems == nil {
		k.problems = []model.Problem{}
	}
	r := status.CheckReport{Problems: k.problems, Errors: errorsIn(k.problems), Merged: k.text,
		Diff: c.Language.Diff(c.current().state.Text, k.text), Cuts: c.cuts(ctx, &k.config, cand.Session)}
	if cand.Lines {
		r.Lines = c.outcomes(cand.Name, cand.Text, k, c.facts(ctx, k.files))
	}
	return r, nil
}

func (c *conf) commit(ctx context.Context, cand status.Candidate) (any, error) {
	if now := c.current().state; cand.Base != 0 && cand.Base != now.Generation {
		return nil, fmt.Errorf("not committed: the running configuration moved from generation %d to %d (%s by %s) meanwhile",
			cand.Base, now.Generation, now.Source, author(now.Author))
	}
	k, err := c.examine(ctx, cand)
	if err != nil {
		return nil, err
	}
	return c.changeAll(ctx, k, store.Meta{Source: "commit", Author: cand.Author, Comment: cand.Comment}, how{cand.Force, cand.Confirm, cand.Session}, cand.Local)
}

func (c *conf) rollback(ctx context.Context, r status.Rollback) (any, error) {
	n := r.Generation
	if w := c.window(); n == 0 && w != nil {
		n = w.mark.Back
	}
	if n == 0 {
		n = c.previous()
		if n == 0 {
			return nil, errors.New("there is no earlier generation to go back to")
		}
	}
	g, err := c.store.Load(n)
	if err != nil {
		return nil, fmt.Errorf("roll back: %w", err)
	}
	k := checked{text: g.Text, files: g.Files}
	k.config, k.problems = c.load(generationName(n), g.Text, g.Files, c.facts(ctx, g.Files))
	return c.changeAll(ctx, k, store.Meta{Source: "rollback", Author: r.Author, Comment: fmt.Sprintf("to %s", generationName(n))}, how{r.Force, r.Confirm, r.Session}, r.Local)
}

// previous is the generation before the running one, 0 for none.
func (c *conf) previous() uint64 {
	now := c.current().state.Generation
	for _, m := range c.store.List() {
		if m.Generation < now && !c.doubtful(m.Generation) {
			return m.Generation
		}
	}
	return 0
}

// how is the way in which a change is made.
type how struct {
	force   bool            // without services that are not there, and whatever it cuts off
	confirm time.Duration   // in which it has to be confirmed; 0: it need not
	session *status.Session // which it must not cut off; nil: any
}

// change makes k the running configuration, or changes nothing and returns
// every reason why.
func (c *conf) change(ctx context.Context, k checked, m store.Meta, h how) (res status.CommitResult, err error) {
	defer func() {
		who := m.Source + " by " + author(m.Author)
		if err != nil {
			c.env.Log.Warn(who + " refused: " + firstLine(err.Error()))
			return
		}
		text := fmt.Sprintf("%s: generation %d runs, applied in %v", who, res.Generation, res.Took.Round(time.Millisecond))
		if res.Pending != nil {
			text += fmt.Sprintf(", and %s again in %s unless it is confirmed", generationName(res.Pending.Back), spell(h.confirm))
		}
		if res.Confirmed != 0 {
			text += fmt.Sprintf(", %s is confirmed by that", generationName(res.Confirmed))
		}
		if m.Comment != "" {
			text += ": " + firstLine(m.Comment)
		}
		c.env.Log.Info(text)
	}()
	s, err := c.stage(ctx, k, m, h)
	if err != nil {
		return res, err
	}
	if failed := c.apply(ctx, s); len(failed) > 0 {
		return res, c.undo(ctx, s, failed)
	}
	if ctx.Err() != nil {
		return res, s.stopped()
	}
	if err := c.settle(s); err != nil {
		return res, c.undo(ctx, s, []string{err.Error()})
	}
	return s.result(), nil
}

// staged is a change that every service has agreed to and that is stored, but
// does not run yet.
type staged struct {
	checked
	meta     store.Meta
	n        uint64
	before   running
	draft    string
	asked    []string // services that agreed and are awaited
	warnings map[string]string
	start    time.Time

	confirm   time.Duration   // in which it has to be confirmed; 0: it need not
	back      uint64          // the generation that runs again otherwise
	pending   *status.Pending // since it is settled
	confirmed uint64          // the generation that it confirmed
	keep      bool            // undo leaves it in the store: the other box may want it yet
}

// result is what a change that runs is answered with.
func (s *staged) result() status.CommitResult {
	return status.CommitResult{Generation: s.n, Problems: s.problems, Warnings: s.warnings, Took: time.Since(s.start),
		Pending: s.pending, Confirmed: s.confirmed}
}

func (s *staged) stopped() error {
	return fmt.Errorf("conf stops while generation %d is being applied: the next start goes back to generation %d", s.n, s.before.state.Generation)
}

// stage asks every service about k, and stores it when all agree.
func (c *conf) stage(ctx context.Context, k checked, m store.Meta, h how) (*staged, error) {
	s := &staged{checked: k, meta: m, before: c.current(), start: time.Now(), confirm: h.confirm}
	if err := confirmTime(h.confirm); err != nil {
		return nil, err
	}
	if n := errorsIn(k.problems); n > 0 {
		return nil, fmt.Errorf("not committed: %d %s%s", n, plural(n, "error", "errors"), list(k.problems))
	}
	cut, err := guard(c.cuts(ctx, &k.config, h.session), h)
	if err != nil {
		return nil, err
	}
	s.draft, s.config = c.book.Draft(k.config)
	if s.asked, s.warnings, err = c.prepare(ctx, s.draft, h.force); err != nil {
		return nil, err
	}
	if c.noDisk != "" {
		s.warnings["conf"] = c.noDisk
	}
	if cut != "" {
		s.warnings["session"] = cut
	}
	if h.confirm > 0 {
		if s.back, err = c.keepBack(); err != nil {
			return nil, err
		}
	}
	s.meta.Time, s.meta.Files = s.start, k.files
	if s.n, err = c.store.Put(store.Generation{Meta: s.meta, Text: k.text}); err != nil {
		c.unkeep(s.back)
		return nil, fmt.Errorf("not committed: %w; what ran goes on", err)
	}
	s.meta.Generation = s.n
	return s, nil
}

// drop forgets a generation that does not run.
func (c *conf) drop(n uint64) {
	if err := c.store.Drop(n); err != nil { // swept at the next boot
		c.env.Log.Warn("configuration store: " + err.Error())
	}
}

// apply hands a staged change to the services and returns why it does not run.
// When ctx ends it does not know.
func (c *conf) apply(ctx context.Context, s *staged) (failed []string) {
	if faults := c.place(s.files); len(faults) > 0 {
		return []string{"script files could not be written" + list(faults)}
	}
	complaints := c.complaints(ctx, s.asked) // what they said of the configuration before this one
	c.publish(running{stateOf(s.meta, s.config, s.text), s.files, s.draft})
	failed = c.await(ctx, s.asked, s.n, complaints, s.warnings)
	if ctx.Err() != nil {
		return nil
	}
	return failed
}

// undo puts back what ran before a staged change that failed for the given reasons.
func (c *conf) undo(ctx context.Context, s *staged, failed []string) error {
	before, n, m := s.before, s.n, s.meta
	c.unkeep(s.back)
	why := fmt.Sprintf("generation %d was not applied: %s", n, strings.Join(failed, "; "))
	back := running{state: before.state, files: before.files}
	back.state.Time = time.Now()
	if before.state.Source == "factory" || c.store.Running() == 0 {
		if r, err := c.store.Reserve(); err == nil {
			back.state.Generation = r
		} else {
			back.state.Generation = n + 1
		}
	} else {
		mark := c.store.Pending()
		back = c.again(back, store.Generation{Text: before.state.Text,
			Meta: store.Meta{Source: "rollback", Author: m.Author, Comment: why, Reverted: before.state.Reverted}}, mark)
		if w := c.window(); w != nil && mark != nil { // the time to confirm it goes on
			back.state.Pending = c.setWindow(&window{*mark, w.ends, w.deadline}).told()
		}
	}
	if back.state.Generation <= n { // the disk failed: the services must still come back
		back.state.Generation = n + 1
	}
	back.state.Problems = before.state.Problems
	faults := c.place(back.files)
	c.publish(back)
	if !s.keep {
		c.drop(n)
	}
	c.env.Log.Error(why + "; rolled back")
	text := fmt.Sprintf("not committed, generation %d was rolled back:\n  %s", n, strings.Join(failed, "\n  "))
	again := c.await(ctx, s.asked, back.state.Generation, nil, map[string]string{})
	for _, f := range faults {
		again = append(again, f.String())
	}
	if len(again) > 0 {
		text += fmt.Sprintf("\nand generation %d, which runs again, has trouble too:\n  %s", back.state.Generation, strings.Join(again, "\n  "))
	} else {
		text += fmt.Sprintf("\ngeneration %d runs with what ran before", back.state.Generation)
	}
	return errors.New(text)
}

// prepare asks every service whether it can apply the configuration that draft
// names: each fetches what of it is new to it. It returns those that will be awaited, and warnings about those that are not there when force is
// set; without force a service that is not there refuses the commit.
func (c *conf) prepare(ctx context.Context, draft string, force bool) (asked []string, warnings map[string]string, err error) {
	arg := status.Prepare{Generation: c.store.Newest() + 1, Token: draft}
	answers := make([]error, len(c.Services))
	var wg sync.WaitGroup
	for i, name := range c.Services {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.PrepareBound)
			defer cancel()
			answers[i] = c.client(name).Call(ctx, "prepare", arg, nil)
		})
	}
	wg.Wait()
	warnings = map[string]string{}
	var refusals []string
	for i, name := range c.Services {
		var refused *ipc.Refused
		switch {
		case answers[i] == nil:
			asked = append(asked, name)
		case errors.As(answers[i], &refused):
			refusals = append(refusals, name+": "+refused.Text)
		case force:
			warnings[name] = "does not run; it takes the configuration when it starts"
		default:
			refusals = append(refusals, fmt.Sprintf("%s does not run (%v); see \"show log %s\"; \"commit force\" goes on without it",
				name, rootCause(answers[i]), name))
		}
	}
	if len(refusals) > 0 {
		return nil, nil, fmt.Errorf("not committed, nothing changed:\n  %s", strings.Join(refusals, "\n  "))
	}
	return asked, warnings, nil
}

// complaints are the errors that the services report at the moment.
func (c *conf) complaints(ctx context.Context, services []string) map[string]string {
	out := map[string]string{}
	for _, name := range services {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		var a status.Applied
		if err := c.client(name).Brief(ctx, &a); err == nil && a.Error != "" {
			out[name] = a.Error
		}
		cancel()
	}
	return out
}

// maxFalls is how often a service may go away while it applies a configuration.
const maxFalls = 3

// await waits until every service has applied generation n and returns what
// went wrong. A complaint that a service had before is a warning: otherwise one
// lasting fault would forbid every commit, the one that mends half of it too.
// A new complaint may be about what another service is still doing (the name
// that net gives to an interface in a moment), so it has SettleBound to go away.
func (c *conf) await(ctx context.Context, services []string, n uint64, before, warnings map[string]string) []string {
	verdicts := make([]string, len(services))
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, name := range services {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.ApplyBound)
			defer cancel()
			verdicts[i] = fmt.Sprintf("%s did not apply it within %v", name, c.ApplyBound)
			var settle *time.Timer
			look := func(_ uint64, a status.Applied) {
				if a.Config < n || ctx.Err() != nil {
					return
				}
				switch {
				case a.Error == "":
					verdicts[i] = ""
				case a.Error == before[name]:
					verdicts[i] = ""
					mu.Lock()
					warnings[name] = a.Error
					mu.Unlock()
				default:
					verdicts[i] = name + ": " + a.Error
					if settle == nil {
						settle = time.AfterFunc(c.SettleBound, cancel)
					}
					return
				}
				cancel()
			}
			for falls := 0; ctx.Err() == nil; {
				if ipc.WatchBriefOnce(ctx, c.client(name), look) && ctx.Err() == nil {
					// A crash may have nothing to do with it, and init starts it
					// again; one after the other is what the configuration does.
					falls++
					verdicts[i] = fmt.Sprintf("%s fell over while it applied it, and did not apply it within %v; see \"show log %[1]s\"", name, c.ApplyBound)
					if falls == maxFalls {
						verdicts[i] = fmt.Sprintf("%s fell over %d times while it applied it; see \"show log %[1]s\"", name, falls)
						cancel()
					}
				}
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
				}
			}
			if settle != nil {
				settle.Stop()
			}
		})
	}
	wg.Wait()
	return slices.DeleteFunc(verdicts, func(s string) bool { return s == "" })
}

// rootCause is the innermost error: "connection refused" says it all.
func rootCause(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

func author(a string) string {
	if a == "" {
		return "unknown"
	}
	return a
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
