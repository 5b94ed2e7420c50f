package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ballast/init/boot"
	"ballast/init/crash"
	"ballast/init/journal"
	"ballast/init/spare"
	"ballast/init/supervise"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// Keys come back to the services that own them; what is there stays, and what
// this firmware does not know is left out.
func TestPutBack(t *testing.T) {
	data := t.TempDir()
	r := spare.Record{Host: "lb1", Files: []spare.File{
		{Path: "peer/peer_ed25519_key", UID: ipc.UIDPeer, Content: []byte("key of the peer")},
		{Path: "console/ssh_host_ed25519_key", UID: ipc.UIDConsole, Content: []byte("key of SSH")},
		{Path: "../../etc/passwd", UID: 0, Content: []byte("x")},
		{Path: "peer/peer_ed25519_key", UID: 0, Content: []byte("x")},
	}}
	if err := os.Mkdir(filepath.Join(data, "console"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "console/ssh_host_ed25519_key"), []byte("newer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := putBack(data, r); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"peer/peer_ed25519_key": "key of the peer", "console/ssh_host_ed25519_key": "newer", "init/hostname": "lb1\n"} {
		if b, err := os.ReadFile(filepath.Join(data, path)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", path, b, err, want)
		}
	}
	for _, path := range []string{"peer", "peer/peer_ed25519_key"} {
		st, err := os.Stat(filepath.Join(data, path))
		if err != nil {
			t.Fatal(err)
		}
		if s := st.Sys().(*syscall.Stat_t); s.Uid != ipc.UIDPeer || s.Gid != ipc.GroupBallast || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %d:%d %v", path, s.Uid, s.Gid, st.Mode())
		}
	}
	if _, err := os.Stat(filepath.Join(data, "etc")); err == nil {
		t.Error("a path leads out of the folder")
	}
}

// Only what is this box's own and stays is kept in the second place.
func TestLasting(t *testing.T) {
	m := &machine{committed: make(chan uint64, 1)}
	for _, c := range []status.Conf{{}, {Generation: 1, Source: "factory"}, {Generation: 2, Source: "last good"}, {Generation: 3, Source: "commit", Pending: &status.Pending{}}} {
		m.noteCommit(follow.Update{Conf: c})
	}
	if len(m.committed) != 0 {
		t.Errorf("generation %d is to be kept", <-m.committed)
	}
	for n := uint64(4); n < 8; n++ {
		m.noteCommit(follow.Update{Conf: status.Conf{Generation: n, Source: "commit"}})
	}
	if got := <-m.committed; got != 7 {
		t.Errorf("generation %d, want the newest", got)
	}
}

// Lost data is told of until somebody has read it; a new disk is no news.
func TestTellOfRepair(t *testing.T) {
	for _, tt := range []struct {
		name  string
		data  boot.Data
		reset *status.FactoryReset
		put   string
		want  string
	}{
		{"new disk", boot.Data{Fresh: true}, nil, "", ""},
		{"good disk", boot.Data{}, nil, "", ""},
		{"in memory", boot.Data{Stateless: true, Warning: "no data disk"}, nil, "", ""},
		{"damaged, no second place", boot.Data{Fresh: true, Warning: "it is damaged"}, nil, "", "it is damaged"},
		{"damaged", boot.Data{Fresh: true, Warning: "it is damaged"}, nil, "lb1 is itself", "it is damaged; lb1 is itself"},
		{"zeros", boot.Data{Fresh: true}, nil, "lb1 is itself", "the data disk was empty; lb1 is itself"},
		{"unreadable", boot.Data{Stateless: true, Warning: "it cannot be used"}, nil, "lb1 is itself", "it cannot be used; lb1 is itself"},
		{"factory reset", boot.Data{Fresh: true, Warning: "x"}, &status.FactoryReset{}, "", ""},
	} {
		store, err := crash.Open(filepath.Join(t.TempDir(), "crash"))
		if err != nil {
			t.Fatal(err)
		}
		m := &machine{journal: journal.New(nil), data: tt.data, reset: tt.reset, crashes: store, sup: new(supervise.Supervisor)}
		m.tellOfRepair(tt.put)
		alarms := strings.Join(liveState{m}.Summary().(status.InitNews).Alarms, "\n") // what a user is told at his login
		if (alarms == "") != (tt.want == "") || !strings.Contains(alarms, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, alarms, tt.want)
		}
	}
}

// What a program says with its end is on the disk, whatever becomes of its page
// cache: here it is enough that it is in the file, without the room behind it.
func TestLastWords(t *testing.T) {
	if path := os.Getenv("BALLAST_LAST_WORDS"); path != "" {
		if err := crashOutput(path); err != nil {
			t.Fatal(err)
		}
		go panic("no more")
		select {}
	}
	path := filepath.Join(t.TempDir(), "panic")
	if got := lastWords(path); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestLastWords$")
	cmd.Env = append(os.Environ(), "BALLAST_LAST_WORDS="+path)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "panic: no more") {
		t.Fatalf("%v: %s", err, out)
	}
	got := lastWords(path)
	kind, line := crash.Summary([]status.CrashPart{{Name: "init", Text: got}})
	if kind != crash.Init || line != "panic: no more" || !strings.Contains(got, "goroutine ") || strings.Contains(got, "\x00") {
		t.Errorf("%s: %q of %q", kind, line, got)
	}
}
