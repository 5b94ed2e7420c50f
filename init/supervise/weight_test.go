package supervise

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a service's cgroup is told, in files of a folder that is none.
func TestCgroupLimits(t *testing.T) {
	root := t.TempDir()
	f := newFixture(t, root)
	f.add(t, Spec{Name: "vrrp", Memory: 64 << 20, Weight: 10000, Optional: true}, Spec{Name: "conf", Optional: true}) // never started
	for name, want := range map[string]string{
		"vrrp/memory.max": "67108864", "vrrp/memory.oom.group": "1", "vrrp/cpu.weight": "10000",
	} {
		if b, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", name, b, err, want)
		}
	}
	if list, err := os.ReadDir(filepath.Join(root, "conf")); err != nil || len(list) != 0 {
		t.Errorf("a service without limits was given %v, %v", list, err)
	}
}

func TestCgroupLimitsAreIndependent(t *testing.T) {
	root := t.TempDir()
	// A kernel without the memory controller.
	if err := os.MkdirAll(filepath.Join(root, "vrrp", "memory.max"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := newCgroup(root, "vrrp", 1<<20, 10000)
	if c == "" || err == nil || !strings.Contains(err.Error(), "cgroup of vrrp") || !strings.Contains(err.Error(), "memory.max") {
		t.Errorf("%q, %v: want the cgroup and what it could not be told", c, err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "vrrp", "cpu.weight")); err != nil || string(b) != "10000" {
		t.Errorf("cpu.weight %q, %v", b, err)
	}
}
