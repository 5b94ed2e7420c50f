package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// scripts runs every vrrp_script that something tracks, one goroutine each (a
// configuration has a handful): a run begins at most once an interval and
// never beside another one of the same script.
type scripts struct {
	run *runner
	log *slog.Logger
	did func(news bool) // after each result

	hold <-chan struct{}                     // closed: scripts may run; nil: at once
	tell func(name, from, to, reason string) // a verdict is another one

	before map[string]verdict // of the run before, until the first apply

	mu   sync.Mutex
	list []*script // in the order of the configuration
	wg   sync.WaitGroup
}

type script struct {
	conf    model.Script
	tracked bool
	cancel  context.CancelFunc
	done    chan struct{} // closed when nothing of it runs any more

	// under scripts.mu
	count counter
	res   status.ScriptResult
}

// apply takes a configuration. A script that stays as it is goes on as if
// nothing had happened; one whose counts or timing changed keeps its verdict.
func (s *scripts) apply(ctx context.Context, cfg *model.Config) {
	tracked := trackedScripts(cfg)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := map[string]*script{}
	for _, o := range s.list {
		old[o.conf.Name] = o
	}
	s.list = nil
	for _, conf := range cfg.Scripts {
		o := old[conf.Name]
		if o != nil && o.tracked == tracked[conf.Name] && reflect.DeepEqual(o.conf, conf) {
			s.list = append(s.list, o)
			delete(old, conf.Name)
			continue
		}
		n := &script{conf: conf, tracked: tracked[conf.Name], count: newCounter(&conf)}
		n.res = status.ScriptResult{Name: conf.Name, Known: n.count.known}
		if o != nil && reflect.DeepEqual(o.conf.Command, conf.Command) {
			n.count.inherit(o.count)
			n.res = o.res
			n.res.Known, n.res.OK = n.count.known, n.count.ok()
		} else if b, have := s.before[conf.Name]; have && b.Command == hashOf(conf.Command) {
			n.count.resume(b.OK)
			n.res.Known, n.res.OK, n.res.Detail = true, b.OK, "as before the restart of notify"
		}
		s.list = append(s.list, n)
		if !n.tracked {
			n.res.Detail = "not tracked by any instance or group, so not run"
			continue
		}
		var one context.Context
		one, n.cancel = context.WithCancel(ctx)
		n.done = make(chan struct{})
		var before <-chan struct{}
		if o != nil {
			before = o.done
		}
		s.wg.Add(1)
		go s.work(one, n, before)
	}
	s.before = nil
	for _, o := range old {
		if o.cancel != nil {
			o.cancel()
		}
	}
}

// trackedScripts are the scripts that an instance or a group looks at.
func trackedScripts(cfg *model.Config) map[string]bool {
	out := map[string]bool{}
	for i := range cfg.Instances {
		for _, t := range cfg.Instances[i].TrackScripts {
			out[t.Script] = true
		}
	}
	for i := range cfg.SyncGroups {
		for _, t := range cfg.SyncGroups[i].TrackScripts {
			out[t.Script] = true
		}
	}
	return out
}

// minInterval bounds what a script can cost: starting a process takes about
// 10 ms of a core.
const minInterval = 10 * time.Millisecond

// work runs a script until ctx ends. It waits for the end of the script that
// it replaces, so that a reload does not make two of them run at once.
func (s *scripts) work(ctx context.Context, n *script, before <-chan struct{}) {
	defer s.wg.Done()
	defer close(n.done)
	if before != nil {
		<-before
	}
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return
		}
	}
	interval := max(n.conf.Interval, minInterval)
	timeout := n.conf.Timeout
	if timeout <= 0 {
		timeout = interval
	}
	next := time.Now()
	for {
		res := s.run.run(ctx, n.conf.Command, nil, timeout)
		if ctx.Err() != nil {
			return
		}
		s.account(n, res, time.Now())
		// A run that took longer than the interval skips the beats it missed.
		now := time.Now()
		next = next.Add(interval)
		if late := now.Sub(next); late > 0 {
			next = next.Add((late + interval - 1) / interval * interval)
		}
		t := time.NewTimer(next.Sub(now))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// account counts a result and logs what changed.
func (s *scripts) account(n *script, res result, now time.Time) {
	s.mu.Lock()
	detail := res.detail
	if out := lastLine(res.output); out != "" {
		detail += ": " + out
	}
	was := n.res
	n.res.Last, n.res.Took, n.res.Exit, n.res.Detail = now, res.took, res.exit, detail
	if res.missing && !n.count.known {
		// Never ran: vrrp drops the tracker, as keepalived does. It is looked
		// for at each interval, so that a file that is put there later works.
		n.res.Missing = true
		s.mu.Unlock()
		if !was.Missing {
			s.log.Warn(fmt.Sprintf("vrrp_script %s: not run: %s", n.conf.Name, detail))
		}
		s.did(!was.Missing)
		return
	}
	news := n.count.add(res.exit == 0)
	n.res.Missing = false
	n.res.Known, n.res.OK = n.count.known, n.count.ok()
	ok := n.res.OK
	s.mu.Unlock()
	news = news || was.Missing
	if news {
		verdict := "failed"
		if ok {
			verdict = "succeeded"
		}
		s.log.Info(fmt.Sprintf("vrrp_script %s: %s: %s", n.conf.Name, verdict, detail))
		if s.tell != nil {
			s.tell(n.conf.Name, verdictName(was.Known, was.OK), verdictName(true, ok), detail)
		}
	}
	s.did(news)
}

func verdictName(known, ok bool) string {
	switch {
	case !known:
		return stateInit
	case ok:
		return "OK"
	}
	return "KO"
}

// results is a copy for publishing.
func (s *scripts) results() []status.ScriptResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]status.ScriptResult, len(s.list))
	for i, n := range s.list {
		out[i] = n.res
		out[i].Detail = strings.ToValidUTF8(n.res.Detail, "�")
	}
	return out
}

// verdicts are for the memory: every script that has one.
func (s *scripts) verdicts() map[string]verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]verdict{}
	for _, n := range s.list {
		if n.tracked && n.count.known {
			out[n.conf.Name] = verdict{hashOf(n.conf.Command), n.count.ok()}
		}
	}
	return out
}

func hashOf(c model.Command) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q", c.Argv, c.Shell))
	return hex.EncodeToString(h[:16])
}
