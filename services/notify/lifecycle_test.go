package notify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// lines are what scripts have written.
func lines(path string) []string {
	b, _ := os.ReadFile(path)
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// TestStartupScript: once after a boot, before any other script, and killed
// when it takes too long.
func TestStartupScript(t *testing.T) {
	dir := folder(t)
	log := filepath.Join(dir, "log")
	note := func(what string) model.Command { return model.Command{Shell: "echo " + what + " >>" + log} }
	b := newBox(t)
	cfg := model.Config{
		Global: model.Global{
			StartupScript: model.Command{Shell: "echo begin >>" + log + "; while [ ! -e " + dir + "/gate ]; do sleep 0.02; done; echo end >>" + log}, StartupScriptTimeout: time.Minute,
		},
		Scripts:   []model.Script{{Name: "chk", Command: note("check"), Interval: time.Hour, Timeout: time.Minute, Rise: 1, Fall: 1}},
		Instances: []model.Instance{{Name: "VI_1", TrackScripts: []model.TrackScript{{Script: "chk"}}, Notify: model.Notify{Backup: note("backup")}}},
	}
	b.conf.Publish(status.Conf{Generation: 1, Config: cfg})
	b.vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 1}, Instances: []status.VRRPInstance{{Name: "VI_1", State: "BACKUP"}}})
	b.start()
	await(t, "its start", func() bool { return cmp.Equal(lines(log), []string{"begin"}) })
	await(t, "its state", func() bool { return b.state().Startup == "running" })
	os.WriteFile(dir+"/gate", nil, 0o644)
	await(t, "the others", func() bool { return len(lines(log)) == 4 })
	if l := lines(log); l[1] != "end" {
		t.Errorf("%q", l)
	}
	await(t, "its state", func() bool { return b.state().Startup == "exit 0" })
	b.stop()
	b.start()
	await(t, "the check after a restart", func() bool { return len(lines(log)) == 5 })
	b.stop()
	if l := lines(log); l[4] != "check" {
		t.Errorf("after a restart of notify: %q", l)
	}

	// One that hangs.
	late := newBox(t)
	cfg.Global.StartupScript, cfg.Global.StartupScriptTimeout = model.Command{Argv: []string{"sleep", "60"}}, 50*time.Millisecond
	late.conf.Publish(status.Conf{Generation: 1, Config: cfg})
	late.start()
	await(t, "its end", func() bool { return late.state().Startup == "timeout after 50ms, killed" })
	await(t, "the check behind it", func() bool { return len(lines(log)) == 6 })
	late.stop()
}

// TestShutdown: shutdown_script and omega belong to the end of the box, not to
// a restart of notify.
func TestShutdown(t *testing.T) {
	dir := folder(t)
	log, pipe := filepath.Join(dir, "log"), filepath.Join(dir, "fifo")
	note := func(what string) model.Command { return model.Command{Shell: "echo " + what + " >>" + log} }
	b := newBox(t)
	cfg := eventConfig()
	cfg.Global.SMTPServer, cfg.Global.ShutdownScript, cfg.Global.ShutdownScriptTimeout = "", note("shutdown"), time.Minute
	cfg.Global.LVSFIFO = model.FIFO{Path: pipe, Script: model.Command{Shell: `cat "$1" >>` + dir + "/lines"}}
	vs := &cfg.VirtualServers[0]
	vs.Omega, vs.QuorumUp, vs.QuorumDown = true, model.Command{}, note("quorum down")
	rs := vs.Real[0]
	vs.Real = nil
	var real []status.RealServerHealth
	for port := range uint16(3) {
		rs.ConfPort, rs.NotifyUp, rs.NotifyDown = 80+port, note(fmt.Sprint("up ", 80+port)), note(fmt.Sprint("down ", 80+port))
		vs.Real = append(vs.Real, rs)
		real = append(real, status.RealServerHealth{Addr: rs.Addr, Port: 80 + port, Alive: port != 1})
	}
	cfg.Instances, cfg.SyncGroups = nil, nil
	b.conf.Publish(status.Conf{Generation: 1, Config: *cfg})
	h := status.Health{Applied: status.Applied{Config: 1}, Servers: []status.VirtualServerHealth{{Name: vs.Name, QuorumUp: true, Real: real}}}
	b.health.Publish(h)
	b.init.Publish(status.Init{})
	b.start()
	await(t, "the state at the start", func() bool { return cmp.Equal(lines(log), []string{"down 81"}) })
	b.stop()
	b.start()
	b.applied(1)
	name := func(port int) string { return fmt.Sprintf("[192.168.200.2]:tcp:%d of %s", port, vs.Name) }
	h.Transitions = []status.Transition{{Seq: 1, Time: t0, Kind: "real server", Object: name(80), To: "DOWN"}, {Seq: 2, Time: t0, Kind: "real server", Object: name(81), To: "UP"}}
	b.health.Publish(h)
	await(t, "the news", func() bool { return len(lines(log)) == 3 })
	os.Remove(log)
	b.init.Publish(status.Init{Stopping: true})
	b.stop()
	got := lines(log)
	if len(got) != 4 || got[3] != "shutdown" {
		t.Fatalf("%q", got)
	}
	all := strings.Join(got, "\n") + "\n"
	for _, want := range []string{"down 81\n", "down 82\n", "quorum down\n"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	tail := lines(filepath.Join(dir, "lines"))
	want := []string{"RS [192.168.200.2]:tcp:81 " + vs.Name + " DOWN", "RS [192.168.200.2]:tcp:82 " + vs.Name + " DOWN", "VS " + vs.Name + " DOWN"}
	if len(tail) < 3 || !cmp.Equal(tail[len(tail)-3:], want) {
		t.Errorf("lines %q", tail)
	}
}
