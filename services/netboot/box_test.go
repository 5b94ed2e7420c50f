package netboot

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc"
)

func TestEvents(t *testing.T) {
	var b box
	for n := range maxEvents + 5 {
		if !b.event("event %d", n) {
			t.Errorf("event %d is no news", n)
		}
	}
	if b.event("event %d", maxEvents) {
		t.Error("the same again is news")
	}
	if len(b.events) != maxEvents || b.events[0].Text != "event 5" || b.events[maxEvents-1].Text != fmt.Sprint("event ", maxEvents+4) {
		t.Errorf("%d events: %v", len(b.events), b.events)
	}
}

// Where the network decides who gives the address, it is asked again after a
// while, whatever it has answered.
func TestUnsure(t *testing.T) {
	now := time.Now()
	addr, other := netip.MustParseAddr(boxAddr), netip.MustParseAddr("192.0.2.1")
	for _, tt := range []struct {
		name   string
		mode   model.DHCPMode
		addr   netip.Addr
		other  netip.Addr
		probed time.Time
		want   bool
	}{
		{"never looked", model.DHCPAuto, addr, netip.Addr{}, time.Time{}, true},
		{"nobody, just now", model.DHCPAuto, addr, netip.Addr{}, now.Add(-probeAge), false},
		{"nobody, some time ago", model.DHCPAuto, addr, netip.Addr{}, now.Add(-probeAge - 1), true},
		{"another server, just now", model.DHCPAuto, addr, other, now.Add(-probeAge), false},
		{"another server, some time ago", model.DHCPAuto, addr, other, now.Add(-probeAge - 1), true},
		{"no address to give", model.DHCPAuto, netip.Addr{}, other, time.Time{}, false},
		{"told to give it", model.DHCPServer, addr, other, time.Time{}, false},
		{"told to leave it to another", model.DHCPProxy, addr, netip.Addr{}, time.Time{}, false},
	} {
		b := box{NetbootBox: model.NetbootBox{DHCP: tt.mode}, addr: tt.addr}
		if got := b.unsure(&segment{other: tt.other, probed: tt.probed}, now); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// A box keeps its identity, and takes nobody else's.
func TestIdentity(t *testing.T) {
	s := &service{env: &ipc.Env{Log: slog.New(slog.DiscardHandler), Data: t.TempDir()}}
	first, err := s.identity("lb2.example")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.identity("lb2"); err != nil || !cmp.Equal(first, again) {
		t.Errorf("another one the second time: %v", err)
	}
	if err := os.Rename(s.identityFile("lb2"), s.identityFile("lb3")); err != nil {
		t.Fatal(err)
	}
	if other, err := s.identity("lb3"); err != nil || cmp.Equal(first, other) {
		t.Errorf("lb3 has the identity of lb2: %v", err)
	}
}
