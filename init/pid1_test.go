package main

import (
	"path/filepath"
	"testing"

	"ballast/board"
)

// A kernel whose modules are not in the image (a netboot server that took one
// from here and one from there) boots as far as it can: a panic of PID 1 would
// boot it again and again.
func TestNoModules(t *testing.T) {
	m := &machine{board: board.QEMU}
	if _, err := m.openWatchdog(filepath.Join(t.TempDir(), "watchdog0")); err == nil {
		t.Error("a watchdog that is not there was opened")
	}
}
