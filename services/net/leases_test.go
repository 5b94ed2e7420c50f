package net

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/net/dhcp"
)

// A lease that expired while its NIC was away brings no name server any more.
func TestDNSOfHeldLeases(t *testing.T) {
	l := newLeases(slog.New(slog.DiscardHandler), func() {})
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	l.got["eth1"] = dhcp.Lease{DNS: []netip.Addr{one}, Expires: time.Now().Add(time.Hour)}
	l.got["eth0"] = dhcp.Lease{DNS: []netip.Addr{two}, Expires: time.Now().Add(-time.Second)}
	if got := l.dns(); !slices.Equal(got, []netip.Addr{one}) {
		t.Errorf("%v", got)
	}
}

// A resolv.conf that cannot be written is told once, not at each pass.
func TestResolvFaultIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	var log strings.Builder
	s := &service{env: &ipc.Env{Run: filepath.Join(dir, "none"), Log: slog.New(ipc.NewLogHandler(&log))}, conf: &status.Conf{}, said: map[string]bool{}}
	s.leases = newLeases(s.env.Log, func() {})
	s.conf.Config.System = model.System{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}
	for range 3 {
		s.report(s.writeResolv())
	}
	if n := strings.Count(log.String(), "names cannot be looked up"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	if err := os.Mkdir(s.env.Run, 0o755); err != nil {
		t.Fatal(err)
	}
	if faults := s.writeResolv(); faults != nil {
		t.Errorf("%v", faults)
	}
	if b, err := os.ReadFile(filepath.Join(s.env.Run, "resolv.conf")); err != nil || !strings.Contains(string(b), "nameserver 192.0.2.53\n") {
		t.Errorf("%q, %v", b, err)
	}
}
