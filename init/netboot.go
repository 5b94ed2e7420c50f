package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ballast/init/boot"
	"ballast/init/netseed"
	"ballast/init/supervise"
	"ballast/services/ipc"
)

// netDir is where the process that asks the network puts what it got.
const netDir = "/run/netseed"

// netTime is how long a box that was loaded over the network asks for its
// configuration before it goes on without one.
const netTime = 2 * time.Minute

// netboot fetches configuration and identity of a box that was loaded over the
// network and has none.
func (m *machine) netboot(ctx context.Context) (string, error) {
	source, is := boot.FromNetwork(boot.EFIVars, m.cmdline)
	if !is {
		return "not loaded over the network", nil
	}
	m.mu.Lock()
	m.source = source
	m.mu.Unlock()
	if boot.Configured(boot.DataDir, boot.SeedDir) {
		return "loaded over the network; it has a configuration", nil
	}
	if err := os.Mkdir(netDir, 0o700); err != nil {
		return "", err
	}
	defer os.RemoveAll(netDir)
	if err := os.Chown(netDir, ipc.UIDSeed, ipc.UIDSeed); err != nil {
		return "", err
	}
	out := filepath.Join(netDir, "seed")
	ctx, cancel := context.WithTimeout(ctx, netTime)
	defer cancel()
	// BOOTIF, as pxelinux and iPXE tell it, is no word of ours.
	exit, err := supervise.RunOnce(ctx, supervise.Once{
		Exe: "/proc/self/exe", Args: []string{"ballast", "netseed"},
		Env: []string{netseed.EnvSource + "=" + source, netseed.EnvBootIF + "=" + m.cmdline.Get("BOOTIF"), netseed.EnvOut + "=" + out, "GOMEMLIMIT=192MiB"},
		UID: ipc.UIDSeed, GID: ipc.UIDSeed, Caps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE},
		Log: m.journal.Writer("netseed"),
	})
	switch {
	case err == nil && exit.Status.Exited() && exit.Status.ExitStatus() == netseed.StatusNone:
		return "loaded over the network; its server has no configuration for it", nil
	case errors.Is(err, context.DeadlineExceeded):
		return "", fmt.Errorf("no configuration within %v: it goes on without; see \"show log netseed\", and \"show netboot\" of the box that serves it", netTime)
	case err != nil:
		return "", err
	case !exit.Status.Exited() || exit.Status.ExitStatus() != 0:
		return "", fmt.Errorf("the process that asks the network ended: %s", exit)
	}
	origin, source, err := boot.TakeSeed(out, boot.SeedDir, boot.DataDir, func(name string) (int, int) {
		s, _ := serviceNamed(name)
		return int(s.uid), ipc.GroupBallast
	})
	if err != nil {
		return "", err
	}
	if source != "" {
		m.mu.Lock()
		m.source = source
		m.mu.Unlock()
	}
	return strings.TrimSpace("loaded over the network; configuration: " + origin), nil
}
