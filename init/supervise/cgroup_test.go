package supervise

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
)

// unifiedMount is where the cgroup2 file system is.
func unifiedMount(t *testing.T) string {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Skip("no cgroup2 file system is mounted")
	return ""
}

// A service that starts others for strangers does so in a cgroup beside its
// own, without root's rights and without its pipe to init.
func TestScriptsHaveACgroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	root, err := os.MkdirTemp(unifiedMount(t), "supervise")
	if err != nil {
		t.Skip("cgroups cannot be made here: ", err)
	}
	t.Cleanup(func() {
		for _, d := range []string{"scripts/scripts", "scripts/main", "scripts", ""} {
			if err := os.Remove(filepath.Join(root, d)); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
	})
	f := newFixture(t, root)
	// The limits are the kernel's affair, and its controllers may belong to
	// another hierarchy here.
	limits := Scripts{}
	if b, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil && slices.Contains(strings.Fields(string(b)), "pids") {
		limits.PIDs = 100
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+pids"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.add(t, Spec{Name: "scripts", UID: 107, GID: ipc.GroupBallast, Caps: []uintptr{unix.CAP_KILL}, Scripts: &limits})
	f.Start()
	f.await(t, "scripts", isReady)
	f.Stop("scripts")
	at := strings.TrimPrefix(root, unifiedMount(t))
	want := "own=" + at + "/scripts/main script=" + at + "/scripts/scripts err=<nil> leaks=false"
	if log := f.log(t, "scripts"); !slices.ContainsFunc(log, func(l string) bool { return strings.HasSuffix(l, want) }) {
		t.Errorf("%q; want %s", log, want)
	}
	if b, err := os.ReadFile(filepath.Join(root, "scripts/scripts/pids.max")); limits.PIDs > 0 && string(b) != "100\n" {
		t.Errorf("pids.max %q, %v", b, err)
	}
}
