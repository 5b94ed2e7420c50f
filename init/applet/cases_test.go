package applet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/notify"
)

// openBox is a box that the script user can use too: the commands, with a copy
// of this binary, in a folder that everybody may enter.
func openBox(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ballast-box-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	exe, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(exe, self); err != nil {
		t.Fatal(err)
	}
	if err := exe.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range Names {
		if err := os.Symlink("ballast", filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// site is a director's notify with the scripts of the users' cases, and a vrrp
// that only remembers what it is told.
type site struct {
	t        *testing.T
	bin      string
	dir      ipc.Dir
	conf     *ipc.Server
	vrrp     *ipc.Server
	resigned chan string
	ctx      context.Context
	updates  chan status.Notify
}

func newSite(t *testing.T, bin string, cfg model.Config) *site {
	t.Helper()
	s := &site{t: t, bin: bin, dir: ipc.Dir(t.TempDir()), resigned: make(chan string, 16), updates: make(chan status.Notify, 256)}
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	quiet := slog.New(slog.DiscardHandler)
	serve := func(name string) *ipc.Server {
		env, err := ipc.NewEnv(s.dir, name, quiet)
		if err != nil {
			t.Fatal(err)
		}
		srv := ipc.NewServer(name)
		go srv.Serve(ctx, env.Listener)
		return srv
	}
	s.conf, s.vrrp = serve("conf"), serve("vrrp")
	s.vrrp.Handle("resign", func(_ context.Context, _ ipc.Peer, b json.RawMessage) (any, error) {
		var r status.Resign
		json.Unmarshal(b, &r)
		s.resigned <- r.By
		return nil, nil
	})
	s.vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 1}})
	s.conf.Publish(status.Conf{Generation: 1, Config: cfg})
	env, err := ipc.NewEnv(s.dir, "notify", quiet)
	if err != nil {
		t.Fatal(err)
	}
	boxes++
	done := make(chan error, 1)
	go func() {
		done <- notify.RunWith(ctx, env, notify.Options{
			Shell: bin + "/sh", Path: bin + ":/usr/bin:/bin", Socket: ipc.Dir(fmt.Sprintf("@ballast-site-%d-%d", os.Getpid(), boxes)),
		})
	}()
	go ipc.Watch(ctx, s.dir.Client("notify"), func(_ uint64, n status.Notify) { s.updates <- n })
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// await waits for a state of notify.
func (s *site) await(what string, ok func(status.Notify) bool) {
	s.t.Helper()
	deadline := time.After(time.Minute)
	var last status.Notify
	for {
		select {
		case last = <-s.updates:
			if ok(last) {
				return
			}
		case <-deadline:
			s.t.Fatalf("waited for %s: %+v", what, last.Scripts)
		}
	}
}

func track(names ...string) []model.Instance {
	i := model.Instance{Name: "VI_1"}
	for _, n := range names {
		i.TrackScripts = append(i.TrackScripts, model.TrackScript{Script: n})
	}
	return []model.Instance{i}
}

// TestCaseDownFile is the check of case 1: a file takes the director down.
func TestCaseDownFile(t *testing.T) {
	bin := openBox(t)
	down := filepath.Join(bin, "down")
	s := newSite(t, bin, model.Config{
		Scripts: []model.Script{
			{Name: "chk_keepalived_down", Command: model.Command{Shell: "[ -e " + down + " ] && exit 1 || exit 0"},
				Interval: 100 * time.Millisecond, Timeout: time.Minute, Rise: 1, Fall: 1},
			{Name: "chk_nginx", Command: model.Command{Argv: []string{"killall", "-0", "nginx"}},
				Interval: 100 * time.Millisecond, Timeout: time.Minute, Rise: 1, Fall: 2},
		},
		Instances: track("chk_keepalived_down", "chk_nginx"),
	})
	is := func(i int, ok bool, detail string) func(status.Notify) bool {
		return func(n status.Notify) bool {
			return len(n.Scripts) == 2 && n.Scripts[i].Known && n.Scripts[i].OK == ok && n.Scripts[i].Detail == detail
		}
	}
	s.await("no file", is(0, true, "exit 0"))
	s.await("no nginx", is(1, false, "exit 1: nginx: no process found"))
	if err := os.WriteFile(down, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.await("the file", is(0, false, "exit 1"))
	os.Remove(down)
	s.await("no file again", is(0, true, "exit 0"))
	pretend(t, "nginx")
	s.await("nginx", is(1, true, "exit 0"))
}

// TestCaseCountAndStop is the check of cases 4 and 5: count nginx, start it,
// count again, stop keepalived.
func TestCaseCountAndStop(t *testing.T) {
	bin := openBox(t)
	script := strings.Replace(checkNginx, "#!/bin/bash", "#!"+bin+"/bash", 1)
	path := write(t, filepath.Join(bin, "check_nginx_alive_or_not.sh"), script)
	s := newSite(t, bin, model.Config{
		Scripts: []model.Script{{Name: "check_nginx_alive", Command: model.Command{Argv: []string{path}},
			Interval: 300 * time.Millisecond, Timeout: time.Minute, Rise: 1, Fall: 1}},
		Instances: track("check_nginx_alive"),
	})
	by := <-s.resigned
	if !strings.HasPrefix(by, "script ") || !strings.Contains(by, "check_nginx_alive_or_not.sh") || !strings.HasSuffix(by, "(systemctl stop)") {
		t.Errorf("resigned by %q", by)
	}
}

// TestCaseTimeout: a check in the interpreter that hangs is ended with all that
// it started, and counts as failed.
func TestCaseTimeout(t *testing.T) {
	bin := openBox(t)
	mark := filepath.Join(bin, "pid")
	script := "#!" + bin + "/sh\nsh -c 'echo $(cut -d\" \" -f4 /proc/self/stat) >" + mark + "; sleep 600' &\nsleep 600\n"
	path := write(t, filepath.Join(bin, "hang.sh"), script)
	s := newSite(t, bin, model.Config{
		Scripts: []model.Script{{Name: "hang", Command: model.Command{Argv: []string{path}},
			Interval: 2500 * time.Millisecond, Timeout: 2 * time.Second, Rise: 1, Fall: 1}},
		Instances: track("hang"),
	})
	s.await("the timeout", func(n status.Notify) bool {
		return len(n.Scripts) == 1 && n.Scripts[0].Known && !n.Scripts[0].OK && n.Scripts[0].Detail == "timeout after 2s, killed"
	})
	end := time.Now().Add(time.Minute)
	pid := ""
	for ; pid == ""; time.Sleep(5 * time.Millisecond) { // a slow machine gets as far in a later run only
		if b, err := os.ReadFile(mark); err == nil && strings.HasSuffix(string(b), "\n") {
			pid = strings.TrimSpace(string(b))
		}
		if time.Now().After(end) {
			t.Fatal("the check never started what it starts")
		}
	}
	for {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(b), ") Z ") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("process %s lives on: %s", pid, b)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestCaseNotifyMail is the site of case 1 that mails who holds the address.
func TestCaseNotifyMail(t *testing.T) {
	bin := openBox(t)
	path := write(t, filepath.Join(bin, "notify.sh"), strings.Replace(notifyScript, "#!/bin/sh", "#!"+bin+"/sh", 1))
	inst := model.Instance{Name: "VI_1", Notify: model.Notify{
		Master: model.Command{Argv: []string{path, "master"}}, Backup: model.Command{Argv: []string{path, "backup"}}}}
	s := newSite(t, bin, model.Config{Instances: []model.Instance{inst}})
	state := func(name string, ring ...status.Transition) {
		s.vrrp.Publish(status.VRRP{Applied: status.Applied{Config: 1},
			Instances: []status.VRRPInstance{{Name: "VI_1", State: name}}, Transitions: ring})
	}
	tr := func(seq uint64, to string) status.Transition {
		return status.Transition{Seq: seq, Time: time.Unix(int64(seq), 0), Kind: "instance", Object: "VI_1", To: to}
	}
	state("BACKUP", tr(1, "BACKUP"))
	// There is no smtp_server here, and the script's mail command says so.
	s.await("notify_backup", func(n status.Notify) bool { return n.Runs == 1 })
	state("MASTER", tr(1, "BACKUP"), tr(2, "MASTER"))
	s.await("notify_master", func(n status.Notify) bool { return n.Runs == 2 })
}
