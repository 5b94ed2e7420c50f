package firmware

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/ipc/verdicts"
)

// publishing serves states on the sockets of services.
func publishing(t *testing.T, states map[string]any) *box {
	t.Helper()
	dir := ipc.Dir(t.TempDir())
	for name, state := range states {
		l, err := net.Listen("unix", dir.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		s := ipc.NewServer(name)
		s.Publish(state)
		s.HandleStream("stick", func(_ context.Context, _ ipc.Peer, s *ipc.Stream) error {
			s.Note("sda1: ballast-qemu.bundle")
			for range 100 {
				if _, err := s.Write(bytes.Repeat([]byte("x"), 10_000)); err != nil {
					return err
				}
			}
			return nil
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); s.Serve(ctx, l) }()
		t.Cleanup(func() { cancel(); <-done })
	}
	return newBox(dir)
}

func TestSee(t *testing.T) {
	b := publishing(t, map[string]any{
		"init": status.Init{Services: []status.Process{{Name: "conf", State: "ready", Restarts: 2}}},
		"conf": status.ConfNews{Generation: 7, Source: "commit"},
		"vrrp": status.VRRP{Applied: status.Applied{Config: 7}, Instances: []status.VRRPInstance{{Name: "VI_1", State: status.VRRPMaster}}, Transitions: []status.Transition{{Seq: 1}}},
		"ipvs": status.IPVS{Applied: status.Applied{Config: 7}},
		"net":  status.Net{Applied: status.Applied{Config: 7, Error: "no eth7"}, Links: []status.Link{link("eth0", true, "10.0.0.11/24", "dhcp")}},
		"health": verdicts.NewBook().Enter(&status.Health{Applied: status.Applied{Config: 7}, Servers: []status.VirtualServerHealth{{Name: "web", Real: []status.RealServerHealth{
			{Alive: true},
			{Alive: true, Checks: []status.CheckHealth{{Up: true, Known: true}}},
			{Alive: true, Checks: []status.CheckHealth{{Up: true}}},
			{Checks: []status.CheckHealth{{Known: true}}},
		}}}}),
	})
	s := b.see(t.Context())
	if want := (reals{All: 4, Live: 2, Open: 1}); s.Real != want {
		t.Errorf("real servers: %+v, want %+v", s.Real, want)
	}
	if len(s.Silent) > 0 || s.restarts() != 2 || s.Conf.Generation != 7 || s.VRRP.Instances[0].Name != "VI_1" || s.VRRP.Transitions != nil || s.Net.Error != "no eth7" || len(s.Net.Links) != 1 || s.IPVS.Config != 7 {
		t.Errorf("%+v", s)
	}
	if got := missing(nil, s, true); len(got) != 1 || !strings.Contains(got[0], "no eth7") {
		t.Errorf("missing %q", got)
	}
	if s := publishing(t, nil).see(t.Context()); len(s.Silent) != 6 || s.Conf != nil {
		t.Errorf("without services: %+v", s)
	}
}

// The stick is read as far as somebody takes it.
func TestStickStream(t *testing.T) {
	b := publishing(t, map[string]any{"init": nil})
	var got int64
	err := b.stick(t.Context(), func(r io.Reader) (err error) {
		got, err = io.Copy(io.Discard, r)
		return err
	})
	if err != nil || got != 1_000_000 {
		t.Errorf("%d bytes, %v", got, err)
	}
	full := errors.New("enough")
	if err := b.stick(t.Context(), func(r io.Reader) error { r.Read(make([]byte, 9)); return full }); !errors.Is(err, full) {
		t.Errorf("what the reader says: %v", err)
	}
	if err := publishing(t, nil).stick(t.Context(), nil); err == nil {
		t.Error("without init")
	}
}

// The handshake is with the console of this box and no other server.
func TestGreet(t *testing.T) {
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			cfg := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
				t.Error("it tries to log in")
				return nil, errors.New("no")
			}}
			cfg.AddHostKey(signer)
			ssh.NewServerConn(c, cfg)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	b := publishing(t, map[string]any{"console": status.Console{Fingerprint: ssh.FingerprintSHA256(signer.PublicKey())}})
	b.ssh = l.Addr().String()
	if err := b.greet(t.Context()); err != nil {
		t.Error(err)
	}
	other := publishing(t, map[string]any{"console": status.Console{Fingerprint: "SHA256:other"}})
	other.ssh = b.ssh
	if err := other.greet(t.Context()); err == nil || !strings.Contains(err.Error(), "the console's is SHA256:other") {
		t.Errorf("another server: %v", err)
	}
	l.Close()
	if err := b.greet(t.Context()); err == nil {
		t.Error("nobody listens, and it is greeted")
	}
}
