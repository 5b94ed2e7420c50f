package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// folder is a folder that the script user can reach too.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o755)
	return path
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))

func command(name string) model.Command { return model.Command{Argv: []string{name}} }

// peer is another service of the director, made up.
func peer(t *testing.T, ctx context.Context, dir ipc.Dir, name string) *ipc.Server {
	t.Helper()
	env, err := ipc.NewEnv(dir, name, discard())
	if err != nil {
		t.Fatal(err)
	}
	srv := ipc.NewServer(name)
	go srv.Serve(ctx, env.Listener)
	return srv
}

// TestRun drives the whole service, through a restart of its own.
func TestRun(t *testing.T) {
	dir, work := ipc.Dir(t.TempDir()), folder(t)
	outer, end := context.WithCancel(context.Background())
	defer end()
	conf, vrrp, health := peer(t, outer, dir, "conf"), peer(t, outer, dir, "vrrp"), peer(t, outer, dir, "health")
	resigned := make(chan string, 1)
	vrrp.Handle("resign", func(_ context.Context, _ ipc.Peer, b json.RawMessage) (any, error) {
		var r status.Resign
		json.Unmarshal(b, &r)
		resigned <- r.By
		return nil, nil
	})
	log := filepath.Join(work, "log")
	note := func(what string) model.Command { return model.Command{Shell: "echo " + what + " $* >>" + log} }
	seen := func() []string {
		b, _ := os.ReadFile(log)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	cfg := eventConfig()
	cfg.SyncGroups = nil
	cfg.Instances[0].Notify = model.Notify{Master: note("master"), Backup: note("backup"), Any: note("any")}
	cfg.VirtualServers[0].QuorumUp, cfg.VirtualServers[0].QuorumDown = note("quorum up"), note("quorum down")
	cfg.VirtualServers[0].Real[0].NotifyDown = note("real down")
	conf.Publish(status.Conf{Generation: 4, Config: *cfg})
	inst := func(state string) []status.VRRPInstance {
		return []status.VRRPInstance{{Name: "VI_1", State: state, Effective: 100}}
	}
	trans := func(seq uint64, kind, object, from, to string) status.Transition {
		return status.Transition{Seq: seq, Time: t0.Add(time.Duration(seq) * time.Second), Kind: kind, Object: object, From: from, To: to, Priority: 100}
	}
	ring := []status.Transition{trans(1, "instance", "VI_1", "INIT", "BACKUP"), trans(2, "instance", "VI_1", "BACKUP", "MASTER"), trans(3, "instance", "VI_1", "MASTER", "BACKUP")}
	vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 4}, Instances: inst("BACKUP"), Transitions: ring})

	start := func() (stop func()) {
		env, err := ipc.NewEnv(dir, "notify", discard())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(outer)
		done := make(chan error, 1)
		go func() {
			done <- RunWith(ctx, env, Options{Socket: ipc.Dir(fmt.Sprintf("@ballast-notify-%d", os.Getpid()))})
		}()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	expect := func(want ...string) {
		t.Helper()
		await(t, fmt.Sprint(want), func() bool { return len(seen()) >= len(want) })
		if d := cmp.Diff(want, seen()); d != "" {
			t.Fatal(d)
		}
	}
	stop := start()
	// The first start runs the scripts of the state that is, not of the past.
	want := []string{"backup", "any INSTANCE VI_1 BACKUP 100"}
	expect(want...)
	ring = append(ring, trans(4, "instance", "VI_1", "BACKUP", "MASTER"), trans(5, "instance", "VI_1", "MASTER", "BACKUP"))
	vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 4}, Instances: inst("BACKUP"), Transitions: ring})
	want = append(want, "master", "any INSTANCE VI_1 MASTER 100", "backup", "any INSTANCE VI_1 BACKUP 100")
	expect(want...)

	// What happens while it is away is done when it is back, once.
	stop()
	ring = append(ring, trans(6, "instance", "VI_1", "BACKUP", "MASTER"))
	vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 4}, Instances: inst("MASTER"), Transitions: ring})
	stop = start()
	want = append(want, "master", "any INSTANCE VI_1 MASTER 100")
	expect(want...)

	// Health's transitions, with the first state of the quorum.
	vs := status.VirtualServerHealth{Name: "[10.10.10.2]:tcp:80", QuorumUp: true}
	health.Publish(status.Health{Applied: status.Applied{Config: 4}, Servers: []status.VirtualServerHealth{vs}})
	want = append(want, "quorum up")
	expect(want...)
	health.Publish(status.Health{Applied: status.Applied{Config: 4}, Servers: []status.VirtualServerHealth{vs}, Transitions: []status.Transition{
		trans(1, "real server", "[192.168.200.2]:tcp:80 of [10.10.10.2]:tcp:80", "UP", "DOWN")}})
	want = append(want, "real down")
	expect(want...)

	// A newer configuration than ours is waited for.
	cfg2 := *cfg
	cfg2.Instances = []model.Instance{{Name: "VI_2", Notify: model.Notify{Master: note("second")}}}
	ring = append(ring, trans(7, "instance", "VI_2", "INIT", "MASTER"))
	vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 5}, Instances: inst("MASTER"), Transitions: ring})
	conf.Publish(status.Conf{Generation: 5, Config: cfg2})
	want = append(want, "second")
	expect(want...)

	// The verbs.
	c := dir.Client("notify")
	var res status.RunResult
	if err := c.Call(outer, "run", status.Run{Name: "x", Command: model.Command{Shell: "echo hi; exit 4"}, Timeout: time.Minute}, &res); err != nil || res.Exit != 4 || res.Output != "hi\n" || res.Detail != "exit 4: hi" {
		t.Errorf("%+v, %v", res, err)
	}
	slow := make(chan error, 1)
	go func() {
		slow <- c.Call(outer, "run", status.Run{Name: "y", Command: model.Command{Shell: "echo >" + work + "/y; while [ ! -e " + work + "/gate ]; do sleep 0.02; done"}, Timeout: time.Minute}, nil)
	}()
	await(t, "the slow run", func() bool { _, err := os.Stat(work + "/y"); return err == nil })
	var refused *ipc.Refused
	if err := c.Call(outer, "run", status.Run{Name: "y", Command: model.Command{Shell: ":"}, Timeout: time.Minute}, nil); !errors.As(err, &refused) {
		t.Errorf("a second run of one name: %v", err)
	}
	os.WriteFile(work+"/gate", nil, 0o644)
	if err := <-slow; err != nil {
		t.Error(err)
	}
	script := ipc.Dir(fmt.Sprintf("@ballast-notify-%d", os.Getpid())).Client("script")
	if err := script.Call(outer, "resign", status.Resign{By: "killall"}, nil); err != nil {
		t.Error(err)
	}
	if by := <-resigned; !strings.HasPrefix(by, "script ") || !strings.HasSuffix(by, "(killall)") {
		t.Errorf("by %q", by)
	}
	var n status.Notify
	if _, err := c.State(outer, &n); err != nil || n.Config != 5 {
		t.Errorf("%+v, %v", n, err)
	}
	stop()
}

// TestJoined: a ring that is told in parts is the same ring.
func TestJoined(t *testing.T) {
	ring := func(from, to uint64) (out []status.Transition) {
		for n := from; n <= to; n++ {
			out = append(out, status.Transition{Seq: n})
		}
		return out
	}
	for _, c := range []struct{ ring, more, want []status.Transition }{
		{nil, ring(4, 9), ring(4, 9)},
		{ring(1, 3), nil, ring(1, 3)},
		{ring(1, 3), ring(4, 5), ring(1, 5)},
		{ring(1, 3), ring(1, 2), ring(1, 2)}, // the service was restarted
		{ring(1, 3), ring(2, 6), ring(2, 6)}, // read anew
		{ring(1, status.RingSize), ring(status.RingSize+1, status.RingSize+2), ring(3, status.RingSize+2)},
	} {
		if d := cmp.Diff(c.want, joined(c.ring, c.more)); d != "" {
			t.Errorf("%d and %d: %s", len(c.ring), len(c.more), d)
		}
	}
}
