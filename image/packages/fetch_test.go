package packages

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// client is the package client of a machine, in the place of apt: each step of
// it is a script.
type client struct{ dir string }

// dispatch tells the steps apart, writes them down and runs their scripts.
const dispatch = `#!/bin/sh
case "${0##*/} $*" in
"apt-get download "*) step=download ;;
"apt-get "*" download "*) step=own-download ;;
"apt-get "*" update") step=update ;;
"apt-get indextargets "*) step=archives ;;
"apt-get "*" indextargets "*) step=own-archives ;;
"apt-config "*) step=config ;;
"apt-cache show "*) step=show ;;
"apt-cache "*" show "*) step=own-show ;;
*) step=unknown ;;
esac
echo $step >> "$CLIENT/log"
[ -f "$CLIENT/$step" ] && . "$CLIENT/$step" && exit 0
echo "E: first words" >&2
echo "E: no $step here" >&2
exit 100
`

func newClient(t *testing.T, steps map[string]string) client {
	t.Helper()
	c := client{t.TempDir()}
	bin := filepath.Join(c.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"apt-get", "apt-cache", "apt-config"} {
		if err := os.WriteFile(filepath.Join(bin, n), []byte(dispatch), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for n, text := range steps {
		if err := os.WriteFile(filepath.Join(c.dir, n), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CLIENT", c.dir)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(EnvDebs, "")
	t.Setenv(EnvCache, filepath.Join(c.dir, "cache"))
	return c
}

// did are the steps that were asked of it.
func (c client) did() string {
	b, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	return strings.Join(strings.Fields(string(b)), " ")
}

// aDeb makes a package with the file usr/x in it.
func aDeb(t *testing.T, content string) (file string, p Package) {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for name, text := range map[string]string{"DEBIAN/control": "Package: ab\nVersion: 1\nArchitecture: all\nMaintainer: m <m@example.org>\nDescription: d\n", "usr/x": content} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(root, 0o755)
	file = filepath.Join(dir, "ab_1_all.deb")
	if out, err := exec.Command("dpkg-deb", "--build", "--root-owner-group", root, file).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	sum, err := hashFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, Package{Name: "ab", Version: "1", SHA256: sum}
}

var testRoom = Unpacked{Kind: "x", Pin: "make x-pin"}

// inFolder checks that own lists are below the folder of the download, and ready.
const inFolder = `case "$*" in *"Dir::State::Lists=$PWD/lists "*"Dir::Cache=$PWD/cache "*) [ -d lists/partial ] ;; *) false ;; esac`

// ownArchives checks besides that nothing but own sources is asked.
const ownArchives = inFolder + ` && case "$*" in *"Dir::Etc::SourceList=/dev/null "*"Dir::Etc::SourceParts=$PWD/sources "*) true ;; *) false ;; esac`

const someArchives = `printf 'Debian http://a.example/debian/\nDebian http://a.example/debian\nOther http://o.example/\nDebian\n'`

// The pinned package comes from where the machine has it, by as few steps as it
// takes, and the cache has it from then on.
func TestFetch(t *testing.T) {
	deb, p := aDeb(t, "content")
	hand := " && cp " + deb + " ."
	list := filepath.Join(t.TempDir(), "sources.list")
	if err := os.WriteFile(list, []byte("deb http://a.example/debian stable main\ndeb http://o.example x main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	parts := filepath.Join(filepath.Dir(list), "parts")
	if err := os.Mkdir(parts, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.sources": "URIs: http://a.example/debian\nComponents: main\n", "b.list": "deb http://a.example/debian b main\n", "c.save": "deb http://a.example/debian c main\n"} {
		if err := os.WriteFile(filepath.Join(parts, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := "printf \"LIST='" + list + "'\\nPARTS='" + parts + "'\\n\""
	keep := ownArchives + ` && cat sources/* > "$CLIENT/sources"`
	extra := p
	extra.Component = "extra"
	for _, tt := range []struct {
		name  string
		p     Package
		steps map[string]string
		did   string
		err   string
	}{
		{"at once", p, map[string]string{"download": "true" + hand}, "download", ""},
		{"its lists are old", p, map[string]string{"update": inFolder, "own-download": inFolder + hand}, "download update own-download", ""},
		{"not offered", p, map[string]string{"update": inFolder}, "download update own-download",
			"do not offer ab 1 (apt-get: exit status 100: E: no own-download here). Refresh their list with: apt-get update; if they have dropped that version, move the pin to one they offer with: make x-pin; or put a copy of the .deb into a folder and set BALLAST_DEBS to it"},
		{"no network", p, nil, "download update", "exit status 100: E: no download here)"},
		{"nothing came", p, map[string]string{"download": "true"}, "download", "apt-get download ab left 0 files, want 1"},
		{"two came", p, map[string]string{"download": "true" + hand + " && cp " + deb + " b.deb"}, "download", "left 2 files, want 1"},
		{"another build", p, map[string]string{"download": "echo x > ab.deb"}, "download", "make x-pin"},
		{"a component that it has", extra, map[string]string{"download": "true" + hand}, "download", ""},
		{"a component", extra, map[string]string{"archives": someArchives, "config": config, "update": keep, "own-download": ownArchives + hand},
			"download archives config update own-download", ""},
		{"a component, lists never fetched", extra, map[string]string{"archives": "true", "own-archives": `case "$*" in *"/lists -o Dir::Cache="*) ` + someArchives + ` ;; *) false ;; esac`, "config": config, "update": inFolder, "own-download": ownArchives + hand},
			"download archives update own-archives config update own-download", ""},
		{"a component, not offered", extra, map[string]string{"archives": someArchives, "config": config, "update": keep},
			"download archives config update own-download", "do not offer ab 1"},
		{"a component, no archive of Debian", extra, map[string]string{"archives": "echo Other http://o.example", "own-archives": "true", "update": "true"},
			"download archives update own-archives", "name no archive of Debian: add one to /etc/apt/sources.list, or keep copies"},
		{"a component, no network", extra, map[string]string{"archives": "true"}, "download archives update", "which archives this machine uses: apt-get: exit status 100: E: no update here"},
		{"a component, no archives told", extra, nil, "download archives", "which archives this machine uses: apt-get: exit status 100: E: no archives here"},
		{"a component, no files told", extra, map[string]string{"archives": someArchives}, "download archives config", "where this machine's package sources are described: apt-config: exit status 100"},
		{"a component that is not there", extra, map[string]string{"archives": someArchives, "config": config}, "download archives config update", "the component extra of this machine's archives: apt-get: exit status 100"},
		{"a component, no file of lines", extra, map[string]string{"archives": someArchives, "config": "printf \"LIST='" + list + ".none'\\nPARTS='" + parts + "'\\n\"", "update": ownArchives, "own-download": ownArchives + hand},
			"download archives config update own-download", ""},
		{"a component, a file that cannot be looked at", extra, map[string]string{"archives": someArchives, "config": "echo LIST=" + list + "/x"}, "download archives config", "not a directory"},
		{"a component, a file that cannot be read", extra, map[string]string{"archives": someArchives, "config": "echo LIST=" + parts}, "download archives config", "is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, tt.steps)
			dir, err := testRoom.Tree(t.Context(), tt.p)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.did, c.did()); diff != "" {
				t.Errorf("it was asked (-want +got):\n%s", diff)
			}
			room := filepath.Join(c.dir, "cache", "x")
			if tt.err != "" {
				if left, _ := filepath.Glob(filepath.Join(room, "*")); len(left) != 1 { // the lock
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if b, err := os.ReadFile(filepath.Join(dir, "usr/x")); string(b) != "content" {
				t.Errorf("%q, %v", b, err)
			}
			if left, _ := os.ReadDir(room); dir != filepath.Join(room, tt.p.SHA256) || len(left) != 2 {
				t.Errorf("in %s, beside %v", dir, left)
			}
			if again, err := testRoom.Tree(t.Context(), tt.p); again != dir || err != nil || c.did() != tt.did {
				t.Errorf("again: %s, %v, asked %s", again, err, c.did())
			}
			if tt.name == "a component" {
				b, _ := os.ReadFile(filepath.Join(c.dir, "sources"))
				if diff := cmp.Diff("deb http://a.example/debian stable extra\ndeb http://a.example/debian b extra\nURIs: http://a.example/debian\nComponents: extra\n\n", string(b)); diff != "" {
					t.Errorf("its sources (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// Who gives up has no second try made.
func TestFetchGivenUp(t *testing.T) {
	_, p := aDeb(t, "content")
	for _, component := range []string{"", "extra"} {
		p.Component = component
		c := newClient(t, map[string]string{"download": `echo > "$CLIENT/begun"; exec cat "$CLIENT/never"`})
		if out, err := exec.Command("mkfifo", filepath.Join(c.dir, "begun"), filepath.Join(c.dir, "never")).CombinedOutput(); err != nil {
			t.Fatalf("mkfifo: %v: %s", err, out)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := testRoom.Tree(ctx, p)
			done <- err
		}()
		if _, err := os.ReadFile(filepath.Join(c.dir, "begun")); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-done; err == nil || c.did() != "download" {
			t.Errorf("%v, it was asked %s", err, c.did())
		}
	}
}

// Of several that want the same at once one fetches it.
func TestFetchAtOnce(t *testing.T) {
	deb, p := aDeb(t, "content")
	c := newClient(t, map[string]string{"download": `cat "$CLIENT/go" && cp ` + deb + " ."})
	if out, err := exec.Command("mkfifo", filepath.Join(c.dir, "go")).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v: %s", err, out)
	}
	const n = 3
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := testRoom.Tree(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
	}
	hold, err := os.OpenFile(filepath.Join(c.dir, "go"), os.O_WRONLY, 0) // the first one is at it
	if err != nil {
		t.Fatal(err)
	}
	// The kernel tells nobody that somebody waits for a lock.
	for waiting := 0; waiting < n-1; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		waiting = 0
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 5 && f[1] == "->" && f[5] == strconv.Itoa(os.Getpid()) {
				waiting++
			}
		}
	}
	hold.Close()
	all.Wait()
	if c.did() != "download" {
		t.Errorf("it was asked %s", c.did())
	}
}

// What stands in the way is named.
func TestTreeErrors(t *testing.T) {
	deb, p := aDeb(t, "content")
	junk := filepath.Join(t.TempDir(), "junk.deb")
	if err := os.WriteFile(junk, []byte("junk"), 0o644); err != nil {
		t.Fatal(err)
	}
	sum, err := hashFile(junk)
	if err != nil {
		t.Fatal(err)
	}
	ofJunk := Package{Name: "ab", Version: "1", SHA256: sum}
	cache := func(t *testing.T, c client, name string) string {
		t.Helper()
		at := filepath.Join(c.dir, "cache", name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, tt := range []struct {
		name   string
		u      Unpacked
		p      Package
		before func(*testing.T, client)
		want   string
	}{
		{"no package", Unpacked{Kind: "x"}, Package{Name: "../x", Version: "1", SHA256: p.SHA256}, nil, `package "../x"`},
		{"no home", Unpacked{Kind: "x"}, p, func(t *testing.T, _ client) {
			for _, v := range []string{EnvCache, "HOME", "XDG_CACHE_HOME"} {
				t.Setenv(v, "")
			}
		}, "no folder for the cache"},
		{"a file in the place of the cache", Unpacked{Kind: "x"}, p, func(t *testing.T, c client) {
			if err := os.WriteFile(cache(t, c, "x"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "cache/x: not a directory"},
		{"a file in the place of the package", Unpacked{Kind: "x", Deb: deb}, p, func(t *testing.T, c client) {
			if err := os.WriteFile(cache(t, c, "x/"+p.SHA256), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "packages: rename"},
		{"a folder in the place of the lock", Unpacked{Kind: "x"}, p, func(t *testing.T, c client) {
			if err := os.MkdirAll(cache(t, c, "x/lock"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "lock: is a directory"},
		{"no such copy", Unpacked{Kind: "x", Deb: deb + ".none"}, p, nil, ".none: no such file"},
		{"no package in the copy", Unpacked{Kind: "x", Deb: junk}, ofJunk, nil, "packages: unpack " + junk + ": exit status 2: dpkg-deb: error:"},
		{"not what was meant", Unpacked{Kind: "x", Deb: deb, Want: []string{"usr/x", "usr/y"}}, p, nil, "ab_1_all.deb holds no usr/y"},
		{"a folder of copies that cannot be one", Unpacked{Kind: "x"}, p, func(t *testing.T, _ client) { t.Setenv(EnvDebs, "[") }, "BALLAST_DEBS: syntax error in pattern"},
		{"no client", Unpacked{Kind: "x"}, p, func(t *testing.T, c client) { t.Setenv("PATH", c.dir) }, "this machine has no apt-get to fetch it: put a copy of the .deb into a folder and set BALLAST_DEBS to it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, nil)
			if tt.before != nil {
				tt.before(t, c)
			}
			dir, err := tt.u.Tree(t.Context(), tt.p)
			if err == nil || dir != "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q, error %v, want %q", dir, err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(c.dir, "cache", "x", ".new-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	// A copy of another name, or that cannot be read, is passed over.
	c := newClient(t, map[string]string{"download": "cp " + deb + " ."})
	kept := t.TempDir()
	if err := os.Mkdir(filepath.Join(kept, "ab_0_all.deb"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvDebs, kept)
	if _, err := testRoom.Tree(t.Context(), p); err != nil || c.did() != "download" {
		t.Errorf("%v, it was asked %s", err, c.did())
	}
}

// A package of the lock file is found by its name, and a file of it too.
func TestFile(t *testing.T) {
	c := newClient(t, nil)
	ps, err := Locked()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.dir, "cache", "packages", ps[0].SHA256)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := File(t.Context(), ps[0].Name, "f"); string(b) != "content" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := File(t.Context(), ps[0].Name, "g"); err == nil || !strings.Contains(err.Error(), "packages: "+ps[0].Name+": open ") {
		t.Errorf("a file that it does not have: %v", err)
	}
	if _, err := File(t.Context(), "no-such", "f"); err == nil || !strings.Contains(err.Error(), "no package no-such") {
		t.Errorf("no package of the lock file: %v", err)
	}
}

func TestNewest(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	show := func(section, sum string) string {
		return "[ \"$*\" = \"${*% cd} cd\" ] && printf 'Package: cd\\nVersion: 2\\nSection: " + section + "\\nSHA256: " + sum + "\\n'"
	}
	config := "echo PARTS=/none"
	for _, tt := range []struct {
		name, component string
		steps           map[string]string
		want            Package
		did, err        string
	}{
		{"main", "", map[string]string{"show": show("kernel", sum)}, Package{"cd", "2", sum, ""}, "show", ""},
		{"a component that is known", "extra", map[string]string{"show": show("extra/kernel", sum)}, Package{"cd", "2", sum, "extra"}, "show", ""},
		{"it moved", "", map[string]string{"show": show("extra/kernel", sum)}, Package{"cd", "2", sum, "extra"}, "show", ""},
		{"a component", "extra", map[string]string{"archives": someArchives, "config": config, "update": "true", "own-show": show("extra/kernel", sum)},
			Package{"cd", "2", sum, "extra"}, "show archives config update own-show", ""},
		{"a name and nothing else", "extra", map[string]string{"show": "echo Package: cd", "archives": someArchives, "config": config, "update": "true", "own-show": show("extra/kernel", sum)},
			Package{"cd", "2", sum, "extra"}, "show archives config update own-show", ""},
		{"not known", "", nil, Package{}, "show", "packages: apt-cache: exit status 100: E: no show here"},
		{"not known in a component", "extra", map[string]string{"archives": someArchives, "config": config, "update": "true"}, Package{}, "show archives config update own-show", "E: no own-show here"},
		{"no archives", "extra", nil, Package{}, "show archives", "which archives"},
		{"half a sum", "", map[string]string{"show": show("kernel", "0a")}, Package{}, "show", "what apt-cache tells of cd: sha256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			c := newClient(t, tt.steps)
			got, err := Newest(t.Context(), "cd", tt.component)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if c.did() != tt.did {
				t.Errorf("it was asked %q, want %q", c.did(), tt.did)
			}
			if left, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "ballast-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	newClient(t, nil)
	t.Setenv("TMPDIR", "/none")
	if _, err := Newest(t.Context(), "cd", "extra"); err == nil || !strings.Contains(err.Error(), "packages: ") || !strings.Contains(err.Error(), "/none") {
		t.Errorf("no room for lists: %v", err)
	}
}
