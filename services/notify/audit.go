package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// auditBatch bounds the entries of one call.
const auditBatch = 1000

// auditWord bounds one of its fields, in bytes.
const auditWord = 300

// verbAudit keeps what users did. The entries have segments of their own beside
// the journal's, so that a server that flaps for days takes none of them away.
// Nobody can take one back: there is no verb for that.
func (s *service) verbAudit(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var list []status.AuditEntry
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("notify audit: argument: %w", err)
	}
	if len(list) > auditBatch {
		return nil, fmt.Errorf("notify audit: %d entries; at most %d at a time are possible", len(list), auditBatch)
	}
	s.audit.mu.Lock()
	defer s.audit.mu.Unlock()
	for _, e := range list {
		if e.Time.IsZero() || e.Time.Year() > 9999 {
			e.Time = time.Now()
		}
		for _, w := range []*string{&e.User, &e.Address, &e.Key, &e.Command, &e.Result} {
			*w = printable.Short(printable.Line(*w), auditWord)
		}
		r := record{Boot: s.memory.boot, Audit: &e}
		r.Service, r.Time = "console", e.Time
		s.audit.add(r)
	}
	return nil, nil
}

// verbAuditLog answers with the newest entries that match, oldest first.
func (s *service) verbAuditLog(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.AuditQuery
	if len(body) > 0 {
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fmt.Errorf("notify audit-log: argument: %w", err)
		}
	}
	limit := q.Limit
	if limit <= 0 {
		limit = queryDefault
	}
	limit = min(limit, queryMax)
	out := []status.AuditEntry{}
	s.audit.all(func(r record) {
		if r.Audit == nil || q.User != "" && r.Audit.User != q.User || !q.After.IsZero() && !r.Audit.Time.After(q.After) {
			return
		}
		if len(out) >= 2*limit {
			out = append(out[:0:0], out[len(out)-limit:]...)
		}
		out = append(out, *r.Audit)
	})
	return out[max(0, len(out)-limit):], nil
}
