// Package lesser runs parts of tests as somebody who may less than root.
package lesser

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Files does something as one who may not pass over the modes of files.
func Files(t testing.TB, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&h, &had[0]); err != nil {
		t.Fatal(err)
	}
	less := had
	less[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	if err := unix.Capset(&h, &less[0]); err != nil {
		t.Fatal(err)
	}
	defer unix.Capset(&h, &had[0])
	do()
}
