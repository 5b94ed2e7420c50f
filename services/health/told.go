package health

import (
	"context"
	"fmt"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Checks that are not probed: another service says what they are. BFD_CHECK
// follows the sessions of vrrp, FILE_CHECK the files of notify.

// bfdPatience is how long a session may take to come up for the first time. An
// RFC 5880 session starts with a packet a second, so that it needs some.
const bfdPatience = 10 * time.Second

// tell gives a check that is not probed its verdict. The same one again is no
// news.
func (l *loop) tell(c *check, o outcome, now time.Time) {
	if o.local {
		if c.detail != o.reason {
			c.detail = o.reason
			c.stale()
		}
		return
	}
	if c.m.known && c.m.up == o.ok && c.detail == o.reason && (!c.added || c.adds == o.adds) {
		return
	}
	changed, _ := l.w.result(c, o, now)
	l.touched = true
	l.changed = l.changed || changed
}

// tellAll looks again at what was told last: the checks may be new.
func (l *loop) tellAll(now time.Time) {
	for _, c := range l.w.bfds {
		l.tell(c, bfdOutcome(l.sessions, c, false), now)
	}
	for _, c := range l.w.files {
		l.tell(c, fileOutcome(l.files, c.spec), now)
	}
}

// bfdOutcome: a session that is up lets the server live. One that has not been
// up yet is given bfdPatience; so is AdminDown for good, which is somebody's
// wish and no failure (RFC 5882 section 3.2).
func bfdOutcome(sessions []status.BFDSession, c *check, patienceOver bool) outcome {
	for i := range sessions {
		s := &sessions[i]
		if s.Name != c.spec.Name {
			continue
		}
		why := "session " + s.State
		switch {
		case s.State == "Up":
			return outcome{ok: true, weight: -1, reason: why}
		case s.State == "AdminDown" || s.Remote == "AdminDown":
			return outcome{local: true, reason: "session AdminDown: no verdict"}
		case !c.m.known && !patienceOver:
			return outcome{local: true, reason: why + ", coming up"}
		}
		if s.Diagnostic != "" {
			why += ": " + s.Diagnostic
		}
		return outcome{weight: -1, reason: why}
	}
	return outcome{local: true, reason: "vrrp has no session of this name yet"}
}

// bfdWaited is called when the patience with a new BFD_CHECK is over.
func (l *loop) bfdWaited(c *check, now time.Time) {
	if !c.m.known {
		l.tell(c, bfdOutcome(l.sessions, c, true), now)
	}
}

// fileOutcome: value times weight is added to the weight of the server. With
// weight 0 the file only says dead (not 0) or alive; reverse turns both around.
func fileOutcome(files []status.FileResult, spec *model.Check) outcome {
	for _, f := range files {
		if f.Name != spec.Name {
			continue
		}
		if spec.Weight == 0 {
			o := outcome{ok: (f.Value == 0) != spec.Reverse, weight: -1, reason: fmt.Sprintf("value %d", f.Value)}
			if f.Detail != "" {
				o.reason += " (" + f.Detail + ")"
			}
			return o
		}
		weight := int64(spec.Weight)
		if spec.Reverse {
			weight = -weight
		}
		// Values are what somebody wrote into a file: the product must not wrap.
		value := min(max(int64(f.Value), -maxWeight-1), maxWeight)
		adds := min(max(value*weight, -maxWeight-1), maxWeight)
		o := outcome{ok: adds > -maxWeight-1, weight: -1, adds: int(adds), reason: fmt.Sprintf("value %d, weight %+d", f.Value, adds)}
		if !o.ok {
			o.adds = 0
		}
		return o
	}
	return outcome{local: true, reason: "notify has not read the file yet"}
}

// watches are the other services that health follows while a check needs them.
type watches struct {
	dir ipc.Dir
	l   *loop
	on  map[string]func() // service: what ends it, and waits for the end
}

func newWatches(dir ipc.Dir, l *loop) *watches {
	return &watches{dir: dir, l: l, on: map[string]func(){}}
}

// adjust starts and ends them as the configuration needs it.
func (w *watches) adjust(ctx context.Context) {
	w.set(ctx, "vrrp", len(w.l.w.bfds) > 0, func(ctx context.Context, c *ipc.Client) {
		ipc.Watch(ctx, c, func(_ uint64, s status.VRRP) {
			w.l.post(func(now time.Time) { w.l.sessions = s.BFD; w.l.tellAll(now) })
		})
	})
	w.set(ctx, "notify", len(w.l.w.files) > 0, func(ctx context.Context, c *ipc.Client) {
		ipc.Watch(ctx, c, func(_ uint64, s status.Notify) {
			w.l.post(func(now time.Time) { w.l.files = s.Files; w.l.tellAll(now) })
		})
	})
	w.set(ctx, "ipvs", true, func(ctx context.Context, c *ipc.Client) {
		ipc.WatchBrief(ctx, c, func(_ uint64, n status.IPVSNews) {
			if n.Config == 0 {
				return // ipvs has just started and does not know them yet
			}
			w.l.post(func(now time.Time) {
				if w.l.w.order(n.Orders, now) {
					w.l.changed = true
				}
			})
		})
	})
}

func (w *watches) set(ctx context.Context, service string, want bool, watch func(context.Context, *ipc.Client)) {
	end, have := w.on[service]
	switch {
	case want && !have:
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			watch(ctx, w.dir.Client(service))
		}()
		w.on[service] = func() { cancel(); <-done }
	case !want && have:
		end()
		delete(w.on, service)
	}
}

// close ends all of them.
func (w *watches) close() {
	for _, end := range w.on {
		end()
	}
	clear(w.on)
}
