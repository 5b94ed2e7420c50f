package vrrp

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"ballast/services/ipc"
)

// Who resigned is kept in the service's folder in memory: it outlives a crash
// of this process and ends with a reboot. Maintenance is kept on the data disk
// and ends when the operator says so.
const (
	resignedFile    = "resigned.json"
	maintenanceFile = "maintenance.json"
)

// loadHeld reads who resigned ("": all instances), and whether that is
// maintenance. A file that cannot be read holds nobody back.
func loadHeld(env *ipc.Env) (held map[string]string, maintenance bool) {
	held = map[string]string{}
	for _, dir := range []string{env.Run, env.Data} {
		name := resignedFile
		if dir == env.Data {
			name = maintenanceFile
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		var who map[string]string
		if dir == "" || err != nil || json.Unmarshal(b, &who) != nil {
			continue
		}
		maps.Copy(held, who)
		maintenance = maintenance || name == maintenanceFile && who[""] != ""
	}
	return held, maintenance
}

func saveHeld(env *ipc.Env, held map[string]string, maintenance bool) error {
	var kept map[string]string
	if maintenance {
		kept = map[string]string{"": held[""]}
	}
	return errors.Join(saveWho(env.Run, resignedFile, held), saveWho(env.Data, maintenanceFile, kept))
}

// saveWho replaces a file as a whole; of nobody there is no file.
func saveWho(dir, name string, who map[string]string) error {
	if dir == "" {
		if len(who) == 0 {
			return nil
		}
		return fmt.Errorf("there is no folder for %s", name)
	}
	path := filepath.Join(dir, name)
	if len(who) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(who)
	if err != nil {
		return err
	}
	return ipc.WriteDurable(path, b)
}
