package power

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func event(typ, code uint16, value uint32) []byte {
	b := make([]byte, eventSize)
	binary.NativeEndian.PutUint16(b[16:], typ)
	binary.NativeEndian.PutUint16(b[18:], code)
	binary.NativeEndian.PutUint32(b[20:], value)
	return b
}

func TestPressed(t *testing.T) {
	press, release, sync, other := event(evKey, keyPower, 1), event(evKey, keyPower, 0), event(0, 0, 0), event(evKey, 30, 1)
	tests := []struct {
		name string
		in   []byte
		want bool
	}{
		{"press", append(append([]byte{}, press...), sync...), true},
		{"behind others", append(append(append([]byte{}, other...), sync...), press...), true},
		{"release", release, false},
		{"another key", other, false},
		{"half an event", press[:eventSize-1], false},
		{"nothing", nil, false},
	}
	for _, tt := range tests {
		if got := pressed(tt.in); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestButtons(t *testing.T) {
	sys := t.TempDir()
	for name, keys := range map[string]string{
		"event0": "10000000000000 0\n", // an ACPI power button
		"event1": "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n",
		"event2": "70000 0 0 0 0\n", // a mouse
		"event3": "0\n",
		"event4": "rubbish rubbish\n",
	} {
		d := filepath.Join(sys, name, "device/capabilities")
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "key"), []byte(keys), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"event0", "event1"}, Buttons(sys)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzPressed(f *testing.F) {
	f.Add(event(evKey, keyPower, 1), "10000000000000 0")
	f.Fuzz(func(t *testing.T, b []byte, s string) { pressed(b); hasBit(s, keyPower) })
}

// No signal that somebody may send ends PID 1.
func TestHold(t *testing.T) {
	if os.Getenv("BALLAST_TEST_HOLD") != "" {
		Hold()
		for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGALRM, unix.SIGUSR1, unix.SIGPWR} {
			if err := unix.Kill(os.Getpid(), s); err != nil {
				t.Error(err)
			}
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHold$")
	cmd.Env = append(os.Environ(), "BALLAST_TEST_HOLD=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
