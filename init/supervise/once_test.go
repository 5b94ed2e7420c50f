package supervise

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process that runs once has its user, the capabilities that it is given and
// no others, and says how it ended.
func TestRunOnce(t *testing.T) {
	var out bytes.Buffer
	exit, err := RunOnce(t.Context(), Once{Exe: "/bin/sh", Args: []string{"sh", "-c", "echo $X; id -u; id -g; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; exit 3"},
		Env: []string{"X=word", "PATH=/usr/bin:/bin"}, UID: 114, GID: 114, Caps: []uintptr{unix.CAP_NET_BIND_SERVICE}, Log: &out})
	if err != nil || !exit.Status.Exited() || exit.Status.ExitStatus() != 3 {
		t.Errorf("%v, %s", err, exit)
	}
	got := strings.Join(strings.Fields(out.String()), " ")
	if want := "word 114 114 CapEff: 0000000000000400 CapBnd: 0000000000000400 NoNewPrivs: 1"; got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	exit, err = RunOnce(ctx, Once{Exe: "/bin/sh", Args: []string{"sh", "-c", "sleep 60; exit 0"}, Env: []string{"PATH=/usr/bin:/bin"}, UID: 114, GID: 114, Log: &out})
	if !errors.Is(err, context.DeadlineExceeded) || !exit.Status.Signaled() {
		t.Errorf("%v, %s", err, exit)
	}
	if _, err := RunOnce(t.Context(), Once{Exe: "/no/such/program", Args: []string{"x"}, Log: &out}); err == nil {
		t.Error("a program that is not there ran")
	}
}
