package firmware

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/layout"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// fakeDisk is a disk in memory. Slots hold an identity or nothing.
type fakeDisk struct {
	mu     sync.Mutex
	env    bootenv.Env
	envErr error
	slots  map[layout.Slot]layout.Identity
	checks error
	log    []string // what was done to it, in order
	broken bool     // it reads back otherwise
	deny   error    // of writing the state
	before func()   // the state is written
}

func (d *fakeDisk) Env() (bootenv.Env, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.env, d.envErr
}

func (d *fakeDisk) SetEnv(e bootenv.Env) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := bootenv.Parse(e.Bytes()); err != nil {
		return err
	}
	if d.deny != nil {
		return d.deny
	}
	if d.before != nil {
		d.before()
	}
	d.env, d.envErr = e, nil
	d.log = append(d.log, fmt.Sprintf("env %s %s %d", e.Good, e.Try, e.Left))
	return nil
}

func (d *fakeDisk) Identity(s layout.Slot) (layout.Identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, ok := d.slots[s]
	if !ok {
		return id, errors.New("there is nothing in it")
	}
	return id, nil
}

func (d *fakeDisk) Write(s layout.Slot, r *bundle.Reader, progress func(string, int64, int64)) error {
	d.mu.Lock()
	delete(d.slots, s)
	d.log = append(d.log, "begin "+string(s))
	d.mu.Unlock()
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, p)
		if err != nil {
			return err
		}
		progress(p.Name, n, p.Size)
	}
	progress("verify", 1, 1)
	if d.broken {
		return errors.New("what was written reads back differently: the disk is bad")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slots[s] = r.Manifest.Identity
	d.log = append(d.log, "wrote "+string(s))
	return nil
}

func (d *fakeDisk) Check(layout.Slot, []bundle.Key) error { return d.checks }
func (d *fakeDisk) Close() error                          { return nil }

func (d *fakeDisk) done() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.log...)
}

// fakeBox is the other services.
type fakeBox struct {
	mu       sync.Mutex
	now      sight
	greeting error
	pending  *status.Pending
	audits   []status.AuditEntry
	rebooted chan struct{}
	stays    error // why it does not reboot
	usb      []byte
}

func (b *fakeBox) conf(context.Context) (status.ConfNews, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return status.ConfNews{Generation: 7, Pending: b.pending}, nil
}

func (b *fakeBox) see(context.Context) sight {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *fakeBox) set(f func(*sight)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = well()
	f(&b.now)
}

func (b *fakeBox) greet(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.greeting
}

func (b *fakeBox) audit(_ context.Context, e status.AuditEntry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.audits = append(b.audits, e)
}

func (b *fakeBox) reboot(context.Context) error {
	if b.stays == nil {
		close(b.rebooted)
	}
	return b.stays
}

func (b *fakeBox) stick(_ context.Context, take func(io.Reader) error) error {
	if b.usb == nil {
		return errors.New("there is no stick with a bundle")
	}
	return take(bytes.NewReader(b.usb))
}

func link(name string, carrier bool, addr, origin string) status.Link {
	return status.Link{Name: name, Carrier: carrier, Addresses: []status.LinkAddress{{Prefix: netip.MustParsePrefix(addr), Origin: origin}}}
}

// well is a box that does its job.
func well() sight {
	applied := func() *status.Applied { return &status.Applied{Config: 7} }
	return sight{
		Init: &status.InitNews{Services: []status.Process{{Name: "conf", State: "ready"}, {Name: "snmp", State: "stopped"}, {Name: "capture", State: "idle"}}},
		Conf: &status.ConfNews{Generation: 7, Source: "commit"},
		VRRP: &status.VRRP{Applied: status.Applied{Config: 7}, Instances: []status.VRRPInstance{
			{Name: "VI_1", State: status.VRRPMaster}, {Name: "VI_2", State: status.VRRPFault, Reason: "eth7 has no carrier"},
		}},
		IPVS: applied(), Health: applied(), Real: reals{All: 4, Live: 3},
		Net: &status.Net{Applied: status.Applied{Config: 7}, Links: []status.Link{
			link("lo", true, "127.0.0.1/8", "kernel"), link("eth0", true, "10.0.0.11/24", "dhcp"),
			link("eth1", true, "192.0.2.11/24", "static"), link("eth2", true, "192.0.2.100/32", "vip"), link("eth3", false, "10.3.0.1/24", "static"),
		}},
	}
}

var (
	oldID = layout.Identity{Version: "1.0", Build: 1000, Board: "qemu", Kernel: "6.12"}
	newID = layout.Identity{Version: "1.1", Build: 2000, Board: "qemu", Kernel: "6.12"}
	maker = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
)

func trusted() []bundle.Key { return []bundle.Key{{Public: maker.Public().(ed25519.PublicKey)}} }

func bundled(t testing.TB, id layout.Identity, key ed25519.PrivateKey) []byte {
	t.Helper()
	var b bytes.Buffer
	err := bundle.Write(&b, bundle.Manifest{Identity: id, ConfigFormat: layout.ConfigFormat}, []bundle.File{
		{Name: bundle.SlotConfig, Data: []byte("x")}, {Name: bundle.Firmware, Data: bytes.Repeat([]byte("fw"), 3<<20)}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newService is one on a disk whose slot A runs the old firmware.
func newService(t testing.TB) (*service, *fakeDisk, *fakeBox) {
	d := &fakeDisk{env: bootenv.Default, slots: map[layout.Slot]layout.Identity{layout.A: oldID}}
	b := &fakeBox{now: well(), rebooted: make(chan struct{})}
	s := &service{
		log: slog.New(slog.DiscardHandler), server: ipc.NewServer("firmware"), machine: d, others: b, records: records{dir: t.TempDir()},
		boot: "boot1", running: oldID, keys: trusted(), slot: layout.A, limit: layout.TrialLimit, uptime: func() time.Duration { return 5 * time.Second },
		hold: func() func() { return func() {} }, client: newFetcher(),
	}
	return s, d, b
}

// serve answers for a service on a socket of its own.
func serve(t testing.TB, s *service) *ipc.Client {
	t.Helper()
	dir := ipc.Dir(t.TempDir())
	l, err := net.Listen("unix", dir.Path("firmware"))
	if err != nil {
		t.Fatal(err)
	}
	s.handle()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dir.Client("firmware")
}

func published(t testing.TB, c *ipc.Client) status.Firmware {
	t.Helper()
	var st status.Firmware
	if _, err := c.State(t.Context(), &st); err != nil {
		t.Fatal(err)
	}
	return st
}
