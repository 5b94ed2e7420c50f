package configure

import (
	"context"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"ballast/console/cli"
	"ballast/services/conf"
	"ballast/services/ipc"
)

const seed = `system {
    host_name lb1
}
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    priority 100
    authentication {
        auth_type PASS
        auth_pass topsecre
    }
    virtual_ipaddress {
        10.0.0.100/24
    }
}
`

// start runs the configuration service with no other service to ask.
func start(t *testing.T) ipc.Dir {
	t.Helper()
	dir, err := os.MkdirTemp("", "cfg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"data", "root", "seed", "sockets"} {
		if err := os.Mkdir(dir+"/"+d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/seed/config", []byte(seed), 0o600); err != nil {
		t.Fatal(err)
	}
	sockets := ipc.Dir(dir + "/sockets")
	env, err := ipc.NewEnv(sockets, "conf", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	env.Data = dir + "/data"
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- conf.RunWith(ctx, env, conf.Options{Root: dir + "/root", Seed: dir + "/seed", Services: []string{}, NICs: func() []string { return nil }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return sockets
}

func session(dir ipc.Dir, user string, list *cli.Editors) *cli.Session {
	return &cli.Session{Services: cli.NewIPC(dir, cli.Admin), User: user, Address: "192.0.2.7", Role: cli.Admin, Editors: list}
}

func ok(t *testing.T, s *cli.Session, line string, want ...string) string {
	t.Helper()
	r := s.Run(t.Context(), line)
	if r.Code != cli.OK {
		t.Fatalf("%s: %s%s", line, r.Out, r.Err)
	}
	for _, w := range want {
		if !strings.Contains(r.Out, w) {
			t.Errorf("%s: %q, want %q in it", line, r.Out, w)
		}
	}
	return r.Out
}

func refused(t *testing.T, s *cli.Session, line, want string) {
	t.Helper()
	if r := s.Run(t.Context(), line); r.Code == cli.OK || !strings.Contains(r.Err, want) {
		t.Errorf("%s: %+v, want %q", line, r, want)
	}
}

func TestSession(t *testing.T) {
	dir := start(t)
	list := &cli.Editors{}
	ann, bob := session(dir, "ann", list), session(dir, "bob", list)
	ok(t, ann, "configure; set vrrp_instance VI_1 priority 150; set vrrp_instance VI_1 advert_int 2")
	ok(t, ann, "compare", "-    priority 100", "+    priority 150", "+    advert_int 2")
	ok(t, ann, "check", "no faults found")
	ok(t, ann, "check report", "priority 150")
	ok(t, ann, "commit comment raise", "committed: generation 2 runs")
	if text := ok(t, ann, "run show configuration secrets"); !strings.Contains(text, "auth_pass topsecre\n") {
		t.Errorf("%s", text)
	}
	if text := ok(t, ann, "run show configuration"); strings.Contains(text, "topsecre") || !strings.Contains(text, "priority 150") {
		t.Errorf("%s", text)
	}
	ok(t, ann, "run show configuration | display set", "set vrrp_instance VI_1 priority 150", "auth_pass ********")
	ok(t, ann, "commit", "nothing to commit")

	// Another one commits, and both changes run in the end.
	ok(t, bob, "configure; set system host_name lb9")
	ok(t, ann, "set vrrp_instance VI_1 priority 160; commit", "generation 3")
	refused(t, bob, "commit", "moved from generation 2 to 3 (commit by ann@192.0.2.7")
	ok(t, bob, "update; commit and-quit", "generation 4")
	ok(t, bob, "show configuration", "host_name lb9", "priority 160")

	// What conf refuses stays the candidate.
	ok(t, ann, "update; delete vrrp_instance VI_1 virtual_router_id")
	refused(t, ann, "commit", "not committed: 1 error")
	if !ann.Dirty() {
		t.Error("the candidate is gone")
	}
	ok(t, ann, "rollback 2; compare", "-    host_name lb9")
	ok(t, ann, "commit comment back", "generation 5")
	ok(t, ann, "compare 2 5", "no difference")
	ok(t, ann, "compare 4", "--- generation 4", "+    host_name lb1")
	ok(t, ann, "run show history", "back", "raise")

	// A commit that nobody confirms goes back, one that is confirmed stays.
	said := ok(t, ann, "set vrrp_instance VI_1 priority 170; commit confirmed 1")
	if !regexp.MustCompile(`generation 5 runs again in (1m00s|5\ds) `).MatchString(said) { // it is told a moment later
		t.Errorf("commit confirmed 1: %q", said)
	}
	ok(t, ann, "commit", "confirmed: generation 6 stays")
	refused(t, ann, "confirm", "")
	ok(t, ann, "exit")
	ok(t, bob, "rollback 5", "generation 7")
}
