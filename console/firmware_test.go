package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// firmware serves what a test wants of it: a state, and an upgrade that counts
// what it is sent and refuses a bundle that begins with "bad".
func (l *lab) firmware(st status.Firmware) {
	l.t.Helper()
	env, err := ipc.NewEnv(ipc.Dir(l.dir), "firmware", slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	s := ipc.NewServer("firmware")
	s.Publish(st)
	s.HandleStream("upgrade", func(_ context.Context, p ipc.Peer, s *ipc.Stream) error {
		var q status.FirmwareUpgrade
		if err := json.Unmarshal(s.Argument, &q); err != nil {
			return err
		}
		if q.Source != "" {
			return s.Note("from %s, older %v\n", q.Source, q.Older)
		}
		head := make([]byte, 3)
		if _, err := io.ReadFull(s.In, head); err != nil || string(head) == "bad" {
			return errors.New("bundle: this is no bundle\nnothing was written")
		}
		n, err := io.Copy(io.Discard, s.In)
		if err != nil {
			return err
		}
		s.Note("%d bytes of %s\n", n+3, q.By)
		for i := range int64(5) {
			b, _ := json.Marshal(status.FirmwareProgress{Step: "fw.efi", Done: i * 25e6, Total: 100e6})
			fmt.Fprintf(s, "%s\n", b)
		}
		return s.Note("the box reboots\n")
	}, ipc.GroupAdmin)
	s.HandleStream("upgrade-pair", func(_ context.Context, p ipc.Peer, s *ipc.Stream) error {
		n, err := io.Copy(io.Discard, s.In)
		if err != nil {
			return err
		}
		row := func(p status.FirmwarePairProgress) {
			b, _ := json.Marshal(p)
			fmt.Fprintf(s, "%s\n", b)
		}
		row(status.FirmwarePairProgress{Text: fmt.Sprintf("%d bytes\x1b[2J", n)})
		for i := range int64(6) {
			row(status.FirmwarePairProgress{Box: "lb1", Step: "fw.efi", Done: i * 20e6, Total: 100e6})
			row(status.FirmwarePairProgress{Box: "lb2", Step: "fw.efi", Done: i * 10e6, Total: 100e6})
		}
		row(status.FirmwarePairProgress{Text: "lb2 boots the new firmware"})
		return errors.New("stopped while lb2 boots the new firmware: lb2 is back with 1: no VRRP")
	}, ipc.GroupAdmin)
	s.Handle("upgrade-pair-ask", func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var q status.FirmwarePairAsk
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, err
		}
		if q.Ask == status.PairAbort {
			return nil, errors.New("no upgrade of the pair is under way")
		}
		return nil, nil
	}, ipc.GroupAdmin)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, env.Listener) }()
	l.t.Cleanup(func() { cancel(); <-done })
}

func TestUpgrade(t *testing.T) {
	l := newLab(t)
	l.firmware(status.Firmware{Running: status.FirmwareIdentity{Version: "1.0"}, Notice: "firmware 1.1 in slot B: rejected: vrrp VI_1 is in FAULT; 1.0 runs"})
	l.start()
	file := strings.Repeat("\x00\x03firmware\r\n", 200_000) // with what a terminal would take for Ctrl-C
	o := l.ssh("admin", file, "upgrade")
	o.want(t, 0, "", fmt.Sprintf("%d bytes of admin@127.0.0.1\nwrite    10%% 20%% 30%% 40%% 50%% 60%% 70%% 80%% 90%% 100%%\nthe box reboots\n", len(file)))
	if o.out != "" {
		t.Errorf("on standard output: %q", o.out)
	}
	l.ssh("admin", "bad"+file, "upgrade").want(t, 1, "", "this is no bundle\nnothing was written")
	l.ssh("admin", "", "upgrade http://ann:secret@192.0.2.1/fw older").want(t, 0, "", "from http://ann:secret@192.0.2.1/fw, older true")
	l.ssh("operate", file, "upgrade").want(t, 1, "", "permission denied: it needs role admin")
	l.ssh("admin", "upgrade\n", "-T").want(t, 1, "", "nothing can be sent here")
	l.ssh("admin", "", "upgrade fw.bundle").want(t, 2, "", "upgrade does not take \"fw.bundle\": want [usb|URL] [noreboot] [older] [again]; a file is sent: ssh USER@BOX upgrade < FILE.bundle")
	l.ssh("view", "", "show firmware").want(t, 0, "Running    1.0", "")
	// Whoever comes reads what became of the last one.
	s, _ := l.onTerminal("view")
	s.expect("! firmware 1.1 in slot B: rejected", "lb1> ")
}

// Of a terminal one line is drawn again and again.
func TestUpgradeOnATerminal(t *testing.T) {
	l := newLab(t)
	l.firmware(status.Firmware{})
	l.start()
	s, _ := l.onTerminal("admin")
	s.expect("lb1> ")
	s.send("upgrade usb\r")
	s.expect("Upgrade this box? It reboots", "[y/N]")
	s.send("n\r")
	s.expect("not done", "lb1> ")
	s.send("upgrade usb\r")
	s.expect("[y/N]")
	s.send("y\r")
	s.expect("from usb, older false\r\n", "lb1> ")
}

// Both boxes of a pair: what is sent streams, the slower box counts, and where it
// stopped is the error.
func TestUpgradePair(t *testing.T) {
	l := newLab(t)
	l.firmware(status.Firmware{})
	l.start()
	file := strings.Repeat("\x00\x03firmware\r\n", 100_000)
	o := l.ssh("admin", file, "upgrade pair")
	o.want(t, 1, "", fmt.Sprintf(" %d bytes?[2J\nwrite    10%% 20%% 30%% 40%% 50%%\n", len(file)))
	o.want(t, 1, "", " lb2 boots the new firmware\n")
	o.want(t, 1, "", "stopped while lb2 boots the new firmware: lb2 is back with 1: no VRRP\n")
	l.ssh("admin", "", "upgrade pair continue").want(t, 0, "it goes on: see \"show firmware\"\n", "")
	l.ssh("admin", "", "upgrade pair abort").want(t, 1, "", "no upgrade of the pair is under way")
	l.ssh("operate", file, "upgrade pair").want(t, 1, "", "permission denied: it needs role admin")
	l.ssh("operate", "", "upgrade pair abort").want(t, 1, "", "permission denied: it needs role admin")
	l.ssh("admin", "", "upgrade pair noreboot").want(t, 2, "", "want [usb|URL] [older], continue or abort; a file is sent: ssh USER@BOX upgrade pair < FILE.bundle")
	l.ssh("admin", "upgrade pair\n", "-T").want(t, 1, "", "nothing can be sent here")
}
