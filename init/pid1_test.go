package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/board"
	"ballast/init/journal"
	"ballast/services/ipc"
)

// A kernel whose modules are not in the image (a netboot server that took one
// from here and one from there) boots as far as it can: a panic of PID 1 would
// boot it again and again.
func TestNoModules(t *testing.T) {
	m := &machine{board: board.QEMU}
	for _, dev := range []string{"", filepath.Join(t.TempDir(), "watchdog0")} {
		if _, err := m.openWatchdog(dev); err == nil || m.dog != nil || !strings.HasPrefix(m.dogState, "none: ") {
			t.Errorf("%q: a watchdog that is not there was opened: %v, %q", dev, err, m.dogState)
		}
	}
	m.journal = journal.New(nil)
	m.starved("vrrp is silent") // nobody is there to bite, and PID 1 must live on
	m.starved("")
	if err := (kennel{m}).Feed(); err != nil {
		t.Error(err)
	}
	if _, err := m.modules(t.Context()); err == nil {
		t.Error("modules without a loader")
	}
}

// "restart conf signal 19" would leave the box without its configuration
// service for good.
func TestRestartSignals(t *testing.T) {
	m := &machine{journal: journal.New(nil)}
	for _, tt := range []struct{ body, want string }{
		{`{"service":"conf","signal":19}`, "SIGSTOP"},
		{`{"service":"conf","signal":64}`, "want 1 to 31"},
		{`{"service":"conf","signal":-1}`, "want 1 to 31"},
		{`x`, "argument"},
	} {
		if _, err := m.verbRestart(t.Context(), ipc.Peer{}, json.RawMessage(tt.body)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.body, err, tt.want)
		}
	}
}

// The watchdog is fed while the boot takes its time, but not for ever, and
// while a shutdown does.
func TestHealthWithoutServices(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		up, stopping time.Duration // ago; 0: not
		want         string
	}{
		{time.Minute, 0, ""},
		{time.Hour, 0, "the boot hangs"},
		{time.Hour, time.Second, ""},
		{time.Hour, time.Minute, "the shutdown hangs"},
	} {
		m := &machine{started: now.Add(-tt.up)}
		if tt.stopping > 0 {
			m.stopping = now.Add(-tt.stopping)
		}
		if got := m.health(now); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}
