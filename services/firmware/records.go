package firmware

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// maxHistory bounds what is kept of upgrades.
const maxHistory = 50

// Files in the folder of the service.
const (
	historyFile  = "history.json"
	baselineFile = "baseline.json"
)

// records are what outlives a reboot. Without a folder nothing does.
type records struct{ dir string }

func (r records) read(name string, v any) error {
	if r.dir == "" {
		return fs.ErrNotExist
	}
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

func (r records) write(name string, v any) error {
	if r.dir == "" {
		return nil
	}
	b, err := json.Marshal(v)
	if err == nil {
		err = ipc.WriteDurable(filepath.Join(r.dir, name), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("firmware: keep %s: %w", name, err)
	}
	return nil
}

// history are the events of the past; what cannot be read is an empty one.
func (r records) history() ([]status.FirmwareEvent, error) {
	var list []status.FirmwareEvent
	if err := r.read(historyFile, &list); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("firmware: the history of upgrades is lost: %w", err)
	}
	return list[max(0, len(list)-maxHistory):], nil
}

func (r records) keep(list []status.FirmwareEvent) error { return r.write(historyFile, list) }

// Word is what init writes when it ends a trial that was not confirmed in time,
// into a file of its own.
type Word struct {
	Slot   string    `json:"slot"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// readWord is what init wrote; nil: nothing that can be read.
func readWord(name string) *Word {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	var w Word
	if json.Unmarshal(b, &w) != nil {
		return nil
	}
	return &w
}

// WriteWord leaves a word.
func WriteWord(name string, w Word) error {
	b, err := json.Marshal(w)
	if err == nil {
		err = ipc.WriteDurable(name, append(b, '\n'))
	}
	if err == nil {
		err = os.Chmod(name, 0o644) // it is root's, and read by the service
	}
	if err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	return nil
}

// about tells whether the word is about an upgrade.
func (w *Word) about(e status.FirmwareEvent) bool {
	return w != nil && w.Slot == e.Slot && w.Time.After(e.Time)
}
