package console

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"ballast/console/line"
)

// histories keeps the command lines of users over their sessions, a file a user.
// It is a comfort: what cannot be read or written is logged once and done
// without.
type histories struct {
	dir  string
	warn func(string)

	mu     sync.Mutex
	warned bool
}

// maxHistoryFile bounds what is read of a file that is damaged.
const maxHistoryFile = 128 << 10

func newHistories(dir string, warn func(string)) *histories {
	return &histories{dir: filepath.Join(dir, "history"), warn: warn}
}

// path is the file of a user: any name is the name of a file.
func (h *histories) path(user string) string {
	return filepath.Join(h.dir, hex.EncodeToString([]byte(user)))
}

// load reads the lines of a user, oldest first.
func (h *histories) load(user string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.read(user)
}

func (h *histories) read(user string) []string {
	b, err := os.ReadFile(h.path(user))
	if err != nil {
		h.failed(err)
		return nil
	}
	return strings.Split(string(b[max(0, len(b)-maxHistoryFile):]), "\n")
}

// save keeps the lines of a session, behind those that others have saved.
func (h *histories) save(user string, lines []string) {
	if len(lines) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	lines = append(h.read(user), lines...)
	err := os.MkdirAll(h.dir, 0o700)
	if err == nil {
		// Not to the disk at once: a power cut costs the history, at most.
		tmp := h.path(user) + ".new"
		if err = os.WriteFile(tmp, []byte(strings.Join(line.Bounded(lines), "\n")), 0o600); err == nil {
			err = os.Rename(tmp, h.path(user))
		}
	}
	h.failed(err)
}

// prune forgets users that are no longer there.
func (h *histories) prune(keep func(user string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list, _ := os.ReadDir(h.dir)
	for _, f := range list {
		user, err := hex.DecodeString(strings.TrimSuffix(f.Name(), ".new"))
		if err != nil || !keep(string(user)) {
			os.Remove(filepath.Join(h.dir, f.Name()))
		}
	}
}

func (h *histories) failed(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !h.warned {
		h.warned = true
		h.warn(fmt.Sprintf("the history of command lines is not kept: %v", err))
	}
}
