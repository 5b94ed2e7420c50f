package console

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Bounds of what waits for notify, which keeps the audit log: while that is
// away for longer, the newest stay.
const (
	auditWaiting = 2000
	auditBatch   = 500
	auditRetry   = time.Second
	auditLast    = 2 * time.Second // for what is left when the console ends
)

// auditor hands the audit log to notify, in order. A command never waits for
// it.
type auditor struct {
	mu      sync.Mutex
	list    []status.AuditEntry
	dropped int
	news    chan struct{}
}

func newAuditor() *auditor { return &auditor{news: make(chan struct{}, 1)} }

func (a *auditor) add(e status.AuditEntry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.list) >= auditWaiting {
		a.list = a.list[1:]
		a.dropped++
	}
	a.list = append(a.list, e)
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// next are the entries to hand over now, and how many were dropped before them.
func (a *auditor) next() (list []status.AuditEntry, dropped int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.list), auditBatch)
	return append(list, a.list[:n]...), a.dropped
}

// done takes back what was handed over, and what was dropped meanwhile of it.
func (a *auditor) done(n, told int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// What was dropped since then was of the front as well, and is handed over.
	since := a.dropped - told
	a.dropped = max(0, since-n)
	a.list = a.list[max(0, min(n-since, len(a.list))):]
}

// run hands over until ctx ends, and then once more.
func (a *auditor) run(ctx context.Context, notify *ipc.Client) {
	for {
		select {
		case <-a.news:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditLast)
			defer cancel()
			for a.hand(last, notify) {
			}
			return
		}
		for a.hand(ctx, notify) {
		}
		if a.waits() { // notify is away, or refuses
			select {
			case <-time.After(auditRetry):
			case <-ctx.Done():
			}
			select {
			case a.news <- struct{}{}:
			default:
			}
		}
	}
}

func (a *auditor) waits() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.list) > 0
}

// hand gives one batch to notify and reports whether it took it.
func (a *auditor) hand(ctx context.Context, notify *ipc.Client) bool {
	list, dropped := a.next()
	if len(list) == 0 {
		return false
	}
	n := len(list)
	if dropped > 0 {
		list = append([]status.AuditEntry{{Time: list[0].Time, User: "console", Address: "-", Command: "audit log",
			Result: fmt.Sprintf("%d entries were lost while notify was away", dropped)}}, list...)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if notify.Call(ctx, "audit", list, nil) != nil {
		return false
	}
	a.done(n, dropped)
	return true
}
