package vrrp

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"ballast/services/ipc"
)

func TestWhoResignedIsKept(t *testing.T) {
	env := &ipc.Env{Run: t.TempDir(), Data: t.TempDir()}
	check := func(what string, want map[string]string, maintenance bool) {
		t.Helper()
		if held, m := loadHeld(env); !maps.Equal(held, want) || m != maintenance {
			t.Errorf("%s: %v %v, want %v %v", what, held, m, want, maintenance)
		}
	}
	check("at first", nil, false)
	if err := saveHeld(env, map[string]string{"VI_1": "ann"}, false); err != nil {
		t.Fatal(err)
	}
	check("an instance", map[string]string{"VI_1": "ann"}, false)
	if err := saveHeld(env, map[string]string{"": "bob", "VI_1": "ann"}, true); err != nil {
		t.Fatal(err)
	}
	check("maintenance", map[string]string{"": "bob", "VI_1": "ann"}, true)
	os.Remove(filepath.Join(env.Run, resignedFile)) // a reboot
	check("maintenance after a reboot", map[string]string{"": "bob"}, true)
	if err := os.WriteFile(filepath.Join(env.Data, maintenanceFile), []byte("null\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("a damaged file", nil, false)
	if err := saveHeld(env, nil, false); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{env.Run, env.Data} {
		if list, _ := os.ReadDir(dir); len(list) > 0 {
			t.Errorf("left over: %v", list)
		}
	}
	if err := saveHeld(&ipc.Env{Run: env.Run}, map[string]string{"": "bob"}, true); err == nil {
		t.Error("maintenance without a data folder is kept")
	}
}
