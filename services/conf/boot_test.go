package conf_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

func (b *box) seed(config string, files map[string]string) {
	b.t.Helper()
	write := func(name, text string) {
		path := filepath.Join(b.data, "seed", name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	write("config", config)
	for name, text := range files {
		write("files"+name, text)
	}
}

func generationFile(b *box, n string) string {
	return filepath.Join(b.data, "configuration", "generations", n)
}

func hasProblem(ps []model.Problem, part string) bool {
	return slices.ContainsFunc(ps, func(p model.Problem) bool { return strings.Contains(p.String(), part) })
}

func TestSeed(t *testing.T) {
	b := newBox(t, "net")
	b.seed("interface eth5\nhostname a\nvs one\n", map[string]string{"/etc/keepalived/x.sh": "exit 0", "/root/no": "x"})
	b.start()
	s := b.state()
	if s.Source != "seed" || s.Config.System.HostName != "a" || len(s.Config.Interfaces) != 1 {
		t.Fatalf("%+v", s)
	}
	if !hasProblem(s.Problems, "/root/no") || len(s.Problems) != 1 {
		t.Errorf("problems %v", s.Problems)
	}
	if got, err := os.ReadFile(filepath.Join(b.root, "/etc/keepalived/x.sh")); string(got) != "exit 0" {
		t.Errorf("%q %v", got, err)
	}
	if st, err := os.Stat(filepath.Join(b.root, "/etc/keepalived/x.sh")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode of a script of the seed: %v", st.Mode())
	}
	b.mustCommit("vs two\n")
	b.seed("vs other\n", nil)
	b.restart()
	if s := b.state(); s.Config.VirtualServers[0].Name != "two" || s.Source != "commit" {
		t.Errorf("a seed counts only for a box without a configuration: %+v", s)
	}
}

// A plain keepalived.conf names no NIC: DHCP must keep the box reachable.
func TestSeedWithoutInterfaces(t *testing.T) {
	b := newBox(t)
	b.seed("vs one\n", nil)
	b.start()
	if s := b.state(); len(s.Config.Interfaces) != 2 || len(s.Config.VirtualServers) != 1 {
		t.Errorf("%+v", s)
	}
}

// What the kernel's command line said fills in what the seed leaves open.
func TestSeedWithWords(t *testing.T) {
	words := func(b *box, text string) {
		if err := errors.Join(os.MkdirAll(filepath.Join(b.data, "seed"), 0o755), os.WriteFile(filepath.Join(b.data, "seed", "words"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	b := newBox(t)
	words(b, "hostname word\nlogin ann\n")
	b.start()
	if s := b.state(); s.Source != "seed" || s.Config.System.HostName != "word" || len(s.Config.System.Logins) != 1 || len(s.Config.Interfaces) != 2 {
		t.Errorf("words alone: %+v", s)
	}
	b = newBox(t)
	b.seed("hostname seed\nvs one\n", nil)
	words(b, "hostname word\nlogin ann\ninterface eth5\n")
	b.start()
	if s := b.state(); s.Config.System.HostName != "seed" || len(s.Config.System.Logins) != 1 || len(s.Config.Interfaces) != 1 || s.Config.Interfaces[0].Name != "eth5" || len(s.Config.VirtualServers) != 1 {
		t.Errorf("both: %+v", s)
	}
}

func TestBrokenSeedStaysReachable(t *testing.T) {
	b := newBox(t, "net")
	b.seed("interface eth5\nhostname a\nlogin bob\nvs one\nrubbish here\n", nil)
	b.start()
	s := b.state()
	c := s.Config
	if c.System.HostName != "a" || len(c.System.Logins) != 1 || len(c.Interfaces) != 1 || c.Interfaces[0].Name != "eth5" {
		t.Errorf("not reachable: %+v", s)
	}
	if len(c.VirtualServers) != 0 {
		t.Error("virtual servers of a faulty configuration run")
	}
	if !hasProblem(s.Problems, "seed:5: error: unknown rubbish") || !strings.Contains(b.log.String(), "unknown rubbish") {
		t.Errorf("problems %v, log:\n%s", s.Problems, b.log)
	}
	b.mustCommit("vs two\n")
	if s := b.state(); s.Config.System.HostName != "a" || len(s.Config.Interfaces) != 1 || s.Config.VirtualServers[0].Name != "two" {
		t.Errorf("the blocks of the box did not stay: %+v", s)
	}
}

func TestGarbageSeedIsFactory(t *testing.T) {
	b := newBox(t)
	b.seed("\x00\xff\x80garbage", nil)
	b.start()
	s := b.state()
	if len(s.Config.Interfaces) != 2 || !s.Config.Interfaces[0].DHCP || !hasProblem(s.Problems, "unknown") {
		t.Errorf("%+v", s)
	}
}

func TestBrokenRunningConfigurationFallsBack(t *testing.T) {
	for _, tc := range []struct {
		name   string
		damage func(b *box)
		want   string
	}{
		{"torn", func(b *box) { os.Truncate(generationFile(b, "00000003"), 20) }, "generation 3: damaged"},
		{"empty", func(b *box) { os.Truncate(generationFile(b, "00000003"), 0) }, "generation 3: damaged"},
		{"gone", func(b *box) { os.Remove(generationFile(b, "00000003")) }, "generation 3"},
		{"does not load any more", func(b *box) {
			b.opts.Language.Load = refusing("two")
		}, "no longer possible"},
		{"two of them", func(b *box) {
			os.Truncate(generationFile(b, "00000003"), 20)
			os.Truncate(filepath.Join(b.data, "configuration", "running"), 0)
		}, "pointer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBox(t, "net").start()
			b.mustCommit("vs one\n") // 2: the factory default is 1
			b.mustCommit("vs two\n")
			b.stop()
			tc.damage(b)
			b.start()
			s := b.state()
			if s.Source != "last good" || len(s.Config.VirtualServers) != 1 || s.Config.VirtualServers[0].Name != "one" || s.Generation <= 3 {
				t.Fatalf("%+v", s)
			}
			if !hasProblem(s.Problems, tc.want) || !strings.Contains(b.log.String(), tc.want) {
				t.Errorf("problems %v lack %q", s.Problems, tc.want)
			}
			b.opts.Language = toy
			b.restart()
			if again := b.state(); again.Generation != s.Generation {
				t.Errorf("at the next boot generation %d, want %d", again.Generation, s.Generation)
			}
			b.mustCommit("vs three\n")
		})
	}
}

// refusing is a newer release that no longer takes what it took.
func refusing(word string) func(string, string, configs.Options) (model.Config, []model.Problem) {
	return func(name, text string, o configs.Options) (model.Config, []model.Problem) {
		c, ps := toy.Load(name, text, o)
		if strings.Contains(text, word) {
			ps = append(ps, model.Problem{Severity: model.Error, File: name, Line: 1, Text: word + " is no longer possible"})
		}
		return c, ps
	}
}

// When nothing at all loads, the box still comes up.
func TestEverythingBroken(t *testing.T) {
	b := newBox(t, "net").start()
	b.mustCommit("hostname a\ninterface eth5\nvs one\n")
	b.stop()
	b.opts.Language.Load = refusing("vs")
	b.start()
	s := b.state()
	if s.Config.System.HostName != "a" || len(s.Config.Interfaces) != 1 || len(s.Config.VirtualServers) != 0 || !hasProblem(s.Problems, "only host name") {
		t.Errorf("%+v", s)
	}
}

// The power goes while services apply a generation: what ran before runs.
func TestUnfinishedCommit(t *testing.T) {
	b := newBox(t, "net").start()
	b.mustCommit("vs one\n")
	svc := b.svcs["net"]
	svc.set(func() { svc.mute = true })
	for len(svc.gens) > 0 {
		<-svc.gens
	}
	done := make(chan error, 1)
	go func() { _, err := b.commit("vs two\n"); done <- err }()
	<-svc.gens // it was published, nobody has applied it
	b.stop()
	if err := <-done; err == nil {
		t.Error("the commit was reported as done")
	}
	svc.set(func() { svc.mute = false })
	b.start()
	s := b.state()
	if s.Config.VirtualServers[0].Name != "one" || s.Generation <= 3 || !hasProblem(s.Problems, "generation 3") {
		t.Errorf("%+v", s)
	}
	if h := b.history(); len(h) != 2 || h[0].Generation != s.Generation {
		t.Errorf("history %+v", h)
	}
}

func TestDamagedFileIsTold(t *testing.T) {
	b := newBox(t, "net").start()
	b.call("file-put", status.File{Path: "/opt/x", Content: []byte("x")}, nil)
	b.mustCommit("vs one\n")
	b.stop()
	blobs, _ := filepath.Glob(filepath.Join(b.data, "configuration", "blobs", "*"))
	os.WriteFile(blobs[0], []byte("y"), 0o600)
	b.start()
	if s := b.state(); s.Source != "commit" || !hasProblem(s.Problems, "/opt/x: error") {
		t.Errorf("%+v", s)
	}
	if err := b.call("file-put", status.File{Path: "/opt/x", Content: []byte("x")}, nil); err != nil {
		t.Errorf("mended by putting it again: %v", err)
	}
}

func TestNoDataFolder(t *testing.T) {
	b := newBox(t, "net")
	b.data = ""
	b.start()
	b.mustCommit("vs one\n")
	b.mustCommit("vs two\n")
	if err := b.call("rollback", status.Rollback{}, nil); err != nil {
		t.Error(err)
	}
}

// A disk that cannot be used must not keep the box down.
func TestDataFolderThatIsAFile(t *testing.T) {
	b := newBox(t, "net")
	b.data = filepath.Join(b.data, "file")
	os.WriteFile(b.data, nil, 0o600)
	b.start()
	if !hasProblem(b.state().Problems, "will not outlive a reboot") {
		t.Errorf("whoever logs in is not told: %v", b.state().Problems)
	}
	if res, err := b.commit("vs one\n"); err != nil || !strings.Contains(res.Warnings["conf"], "will not outlive a reboot") {
		t.Errorf("whoever commits is not told: %v, %v", res, err)
	}
	if !strings.Contains(b.log.String(), "will not outlive a reboot") {
		t.Errorf("log:\n%s", b.log)
	}
}

func TestFactoryFollowsLateNICs(t *testing.T) {
	b := newBox(t, "net")
	nics := make(chan []string, 1)
	nics <- []string{"eth0"}
	b.opts.NICs = func() []string {
		v := <-nics
		nics <- v
		return v
	}
	b.start()
	if s := b.state(); len(s.Config.Interfaces) != 1 {
		t.Fatalf("%+v", s)
	}
	<-nics
	nics <- []string{"eth0", "eth1"}
	b.svcs["net"].server.Publish(status.Net{})
	ctx, cancel := context.WithCancel(t.Context())
	ipc.Watch(ctx, b.dir.Client("conf"), func(_ uint64, s status.Conf) {
		if len(s.Config.Interfaces) == 2 {
			cancel()
		}
	})
}

func TestHostNameNamesItsOwnLines(t *testing.T) {
	b := newBox(t, "net").start()
	b.mustCommit("hostname lb1.example.net\nid\n")
	if s := b.state(); s.Config.Global.RouterID != "lb1" {
		t.Errorf("lines of %q were read, want those of lb1", s.Config.Global.RouterID)
	}
}
