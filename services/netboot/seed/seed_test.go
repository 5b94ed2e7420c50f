package seed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/store"
)

func example(t testing.TB) Seed {
	t.Helper()
	k, err := MakeKeys()
	if err != nil {
		t.Fatal(err)
	}
	return Seed{Format: Format, Name: "lb2", Server: "lb1", Generation: 7, Config: "auth_pass x\n", Keys: k,
		Files: []File{{"/etc/keepalived/check.sh", []byte("#!/bin/sh\n")}, {"/opt/a/b", nil}}}
}

func TestRoundTrip(t *testing.T) {
	want := example(t)
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	want.Files[1].Data = nil
	if len(got.Files) == 2 && len(got.Files[1].Data) == 0 {
		got.Files[1].Data = nil
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	key, err := Public(got.Keys.Peer)
	if err != nil || !strings.HasPrefix(Line(key), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI") || !strings.HasPrefix(Fingerprint(key), "SHA256:") {
		t.Errorf("%v: %s %s", err, Line(key), Fingerprint(key))
	}
}

func TestFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Seed)
		want   string
	}{
		"name":    {func(s *Seed) { s.Name = "../x" }, "no name of a box"},
		"server":  {func(s *Seed) { s.Server = "" }, "no name of a server"},
		"no text": {func(s *Seed) { s.Config = "" }, "configuration of 0 bytes"},
		"key":     {func(s *Seed) { s.Keys.SSH = []byte("hunter2") }, "key of console: it is no private key"},
		"no key":  {func(s *Seed) { s.Keys.Peer = nil }, "key of peer"},
		"up":      {func(s *Seed) { s.Files[0].Path = "/etc/../x" }, "no path of a file"},
		"near":    {func(s *Seed) { s.Files[0].Path = "etc/x" }, "no path of a file"},
		"root":    {func(s *Seed) { s.Files[0].Path = "/" }, "no path of a file"},
		"twice":   {func(s *Seed) { s.Files[0].Path = s.Files[1].Path }, "is there twice"},
		"large":   {func(s *Seed) { s.Files[0].Data = make([]byte, store.MaxFile+1) }, "more than"},
		"many":    {func(s *Seed) { s.Files = make([]File, store.MaxFiles+1) }, "files are more than"},
	} {
		s := example(t)
		tt.change(&s)
		if _, err := s.Encode(); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	for in, want := range map[string]string{
		"":                               "no JSON",
		`{"format":2}`:                   "form 2",
		`{"format":1,"config":7,"x":"s"`: "no JSON",
	} {
		if _, err := Decode([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for _, bad := range []string{"", "-a", ".a", "a b", "a/b", "ä", strings.Repeat("x", 65)} {
		if ValidName(bad) {
			t.Errorf("%q is taken for a host name", bad)
		}
	}
	if good := strings.Repeat("x", 60) + "-1.Z"; !ValidName(good) {
		t.Errorf("%q is not taken for a host name", good)
	}
}

func TestLayAndTake(t *testing.T) {
	s := example(t)
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := s.Lay(from, "http://192.0.2.1/"); err != nil {
		t.Fatal(err)
	}
	if err := Take(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"config": s.Config, "hostname": "lb2\n", "keys/console": string(s.Keys.SSH), "keys/peer": string(s.Keys.Peer),
		"files/etc/keepalived/check.sh": "#!/bin/sh\n", "files/opt/a/b": "", "origin": "generation 7 of lb1\n",
	} {
		if b, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(b) != want {
			t.Errorf("%s: %v, %q", name, err, b)
		}
	}
	if st, err := os.Stat(filepath.Join(to, "files/etc/keepalived/check.sh")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the script: %v", st.Mode())
	}
	if Take(from, to) == nil {
		t.Error("a folder that is there was taken for a new one")
	}
}

// Who lays the files out is not trusted.
func TestTakeFaults(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"a link":          func(d string) error { os.Remove(d + "/config"); return os.Symlink("/etc/passwd", d+"/config") },
		"a link to a dir": func(d string) error { os.RemoveAll(d + "/files"); return os.Symlink("/etc", d+"/files") },
		"a pipe":          func(d string) error { return syscall.Mkfifo(d+"/files/pipe", 0o600) },
		"another name":    func(d string) error { return os.WriteFile(d+"/words", nil, 0o600) },
		"another key":     func(d string) error { return os.WriteFile(d+"/keys/conf", nil, 0o600) },
		"a folder":        func(d string) error { os.Remove(d + "/config"); return os.Mkdir(d+"/config", 0o700) },
		"a file":          func(d string) error { os.RemoveAll(d + "/keys"); return os.WriteFile(d+"/keys", nil, 0o600) },
		"a long key":      func(d string) error { return os.WriteFile(d+"/keys/peer", make([]byte, maxKey+1), 0o600) },
		"a long name":     func(d string) error { return os.WriteFile(d+"/hostname", make([]byte, 100), 0o600) },
		"many files": func(d string) error {
			var errs []error
			for n := range store.MaxFiles + 8 {
				errs = append(errs, os.WriteFile(fmt.Sprintf("%s/files/%d", d, n), nil, 0o600))
			}
			return errors.Join(errs...)
		},
		"a deep folder": func(d string) error { return os.MkdirAll(d+"/files/"+strings.Repeat("x/", 350), 0o700) },
	} {
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		if err := example(t).Lay(from, "http://192.0.2.1/"); err != nil {
			t.Fatal(err)
		}
		if err := spoil(from); err != nil {
			t.Fatal(err)
		}
		if err := Take(from, to); err == nil {
			t.Errorf("%s was taken", name)
		}
		if _, err := os.Lstat(to); err == nil {
			t.Errorf("%s: half a seed was left", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := example(f).Encode()
	f.Add(b)
	f.Add([]byte(`{"format":1,"name":"a","server":"b","config":"x","files":[{"path":"/../x"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		for _, f := range s.Files {
			if !filepath.IsLocal("x" + f.Path) {
				t.Errorf("%q was taken", f.Path)
			}
		}
		if _, err := s.Encode(); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}
