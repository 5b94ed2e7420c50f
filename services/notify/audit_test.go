package notify

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// auditService is what of notify the audit log needs.
func auditService(dir string) *service {
	return &service{audit: openJournalIn(dir, "audit", "boot1", discard()), memory: &memory{boot: "boot1"}}
}

func (s *service) testAudit(t *testing.T, list ...status.AuditEntry) error {
	t.Helper()
	body, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.verbAudit(t.Context(), ipc.Peer{}, body)
	return err
}

func (s *service) testAuditLog(t *testing.T, q status.AuditQuery) string {
	t.Helper()
	body, _ := json.Marshal(q)
	v, err := s.verbAuditLog(t.Context(), ipc.Peer{}, body)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range v.([]status.AuditEntry) {
		out = append(out, e.User+" "+e.Command)
	}
	return strings.Join(out, ", ")
}

// TestAuditLog: what users did is there after a reboot, bounded, and apart from
// the journal.
func TestAuditLog(t *testing.T) {
	dir := t.TempDir()
	s := auditService(dir)
	for i, user := range []string{"ann", "bob", "ann"} {
		if err := s.testAudit(t, status.AuditEntry{Time: t0.Add(time.Duration(i) * time.Second), User: user, Address: "192.0.2.7", Command: fmt.Sprintf("command %d", i), Result: "ok\x1b[31m"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.testAuditLog(t, status.AuditQuery{}); got != "ann command 0, bob command 1, ann command 2" {
		t.Error(got)
	}
	s.audit.flush()
	s = auditService(dir) // the next boot
	if got := s.testAuditLog(t, status.AuditQuery{User: "ann", Limit: 1}); got != "ann command 2" {
		t.Error(got)
	}
	if got := s.testAuditLog(t, status.AuditQuery{After: t0}); got != "bob command 1, ann command 2" {
		t.Error(got)
	}
	v, _ := s.verbAuditLog(t.Context(), ipc.Peer{}, nil)
	if e := v.([]status.AuditEntry)[0]; strings.Contains(e.Result, "\x1b") || !e.Time.Equal(t0) || e.Address != "192.0.2.7" {
		t.Errorf("%+v", e)
	}
	// The journal is another one.
	if list := openJournal(dir, "boot1", discard()).query(status.JournalQuery{}); len(list) > 0 {
		t.Errorf("the journal has %+v", list)
	}
	if err := s.testAudit(t, make([]status.AuditEntry, auditBatch+1)...); err == nil {
		t.Error("a call without a bound is taken")
	}
	// Bounded on the disk.
	s.audit.size, s.audit.count = 4<<10, 3
	for range 300 {
		if err := s.testAudit(t, status.AuditEntry{User: "eve", Command: strings.Repeat("x", 400), Result: "ok"}); err != nil {
			t.Fatal(err)
		}
		s.audit.flush()
	}
	if n := len(s.audit.segments()); n > 3 {
		t.Errorf("%d segments", n)
	}
	if got := s.testAuditLog(t, status.AuditQuery{}); !strings.HasPrefix(got, "eve x") || strings.Count(got, "eve") > 30 {
		t.Errorf("%d bytes: %.40s", len(got), got)
	}
	// Without a disk it is in memory.
	s = auditService("")
	if err := s.testAudit(t, status.AuditEntry{User: "ann", Command: "x"}); err != nil || s.testAuditLog(t, status.AuditQuery{}) != "ann x" {
		t.Errorf("%v %s", err, s.testAuditLog(t, status.AuditQuery{}))
	}
}
