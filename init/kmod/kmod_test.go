package kmod

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func tables(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": `kernel/a.ko.xz: kernel/b.ko kernel/c-d.ko.xz
kernel/b.ko: kernel/c-d.ko.xz
kernel/c-d.ko.xz:
kernel/net.ko:
kernel/net2.ko:
kernel/bad.ko:
kernel/needs-bad.ko: kernel/bad.ko
kernel/crc.ko:
kernel/loop1.ko:
kernel/loop2.ko:
kernel/dmi.ko:
`,
		"modules.alias": `alias pci:v00001AF4d0000100[01]sv*sd*bc*sc*i* net
alias pci:v00001AF4d*sv*sd*bc*sc*i* net2
alias net-pf-16-proto-16-family-IPVS a
alias rtnl-link-x c_d
alias dmi*:svnQEMU:pn*:rvr?/1: dmi
`,
		"modules.builtin":       "inside.ko\n",
		"modules.builtin.alias": "alias crypto-crc32c inside\n",
		"modules.softdep":       "softdep b pre: crypto-crc32c nothing crc\nsoftdep loop1 pre: loop2\nsoftdep loop2 pre: loop1 post: loop1\nsoftdep net post: crc\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoad(t *testing.T) {
	tests := []struct {
		name string
		load []string
		want []string
		err  string
	}{
		{"dependencies first", []string{"a"}, []string{"c-d", "crc", "b", "a"}, ""},
		{"by hyphen or underscore", []string{"c_d", "c-d"}, []string{"c-d"}, ""},
		{"parameters", []string{"crc"}, []string{"crc"}, ""},
		{"exact alias", []string{"net-pf-16-proto-16-family-IPVS"}, []string{"c-d", "crc", "b", "a"}, ""},
		{"alias of a link kind", []string{"rtnl_link_x"}, []string{"c-d"}, ""},
		{"device", []string{"pci:v00001AF4d00001001sv00sd00bc02sc00i00"}, []string{"net", "crc", "net2"}, ""},
		{"device, one driver", []string{"pci:v00001AF4d00001002sv00sd00bc02sc00i00"}, []string{"net2"}, ""},
		{"pattern with a slash", []string{"dmi:bvn/x:svnQEMU:pnStandard/1:rvr0/1:"}, []string{"dmi"}, ""},
		{"built in", []string{"inside", "crypto-crc32c"}, nil, ""},
		{"circle of soft ones", []string{"loop1"}, []string{"loop2", "loop1"}, ""},
		{"unknown", []string{"nonsense"}, nil, "nonsense: no such module"},
		{"fails", []string{"bad"}, nil, "load bad: exec format error"},
		{"needs what fails", []string{"needs_bad"}, nil, "needs_bad needs bad"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			l, err := open(tables(t), "quiet crc.x=1 crc.on ro root=/dev/sda1", func(file, params string) error {
				n, _, _ := strings.Cut(path.Base(file), ".ko")
				if n == "bad" {
					return unix.ENOEXEC
				}
				if want := map[string]string{"crc": "x=1 on"}[n]; params != want {
					t.Errorf("%s was given %q, want %q", n, params, want)
				}
				got = append(got, n)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			var errs error
			for _, n := range tt.load {
				errs = errors.Join(errs, l.Load(n))
			}
			if tt.err == "" && errs != nil || tt.err != "" && (errs == nil || !strings.Contains(errs.Error(), tt.err)) {
				t.Errorf("error %v, want %q", errs, tt.err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("loaded (-want +got):\n%s", d)
			}
		})
	}
}

func TestBlacklist(t *testing.T) {
	n := 0
	l, err := open(tables(t), "modprobe.blacklist=net2,x", func(string, string) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Device("pci:v00001AF4d00001002sv00sd00bc02sc00i00"); err != nil || n != 0 {
		t.Errorf("%d loaded, %v; want none and no error", n, err)
	}
	if err := l.Load("net2"); err != nil || n != 1 {
		t.Errorf("by its name: %d loaded, %v; want it", n, err)
	}
}

// addDevice puts a device into a folder like /sys.
func addDevice(t *testing.T, sys, name, modalias string) {
	t.Helper()
	dir, bus := filepath.Join(sys, "devices", name), filepath.Join(sys, "bus/pci/devices")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(bus, 0o755), os.WriteFile(filepath.Join(dir, "modalias"), []byte(modalias+"\n"), 0o644),
		os.Symlink("../../../devices/"+name, filepath.Join(bus, strings.ReplaceAll(name, "/", "-")))); err != nil {
		t.Fatal(err)
	}
}

// A device that shows up while another one's driver loads is found too.
func TestColdplug(t *testing.T) {
	sys := t.TempDir()
	device := func(name, modalias string) { addDevice(t, sys, name, modalias) }
	device("pci0/dev", "pci:v00001AF4d00001002sv00sd00bc02sc00i00")
	device("pci0/none", "pci:vFFFFd0")
	device("pci0/bad", "bad")
	var got []string
	l, err := open(tables(t), "", func(file, _ string) error {
		n, _, _ := strings.Cut(path.Base(file), ".ko")
		if n == "net2" {
			device("pci0/dev/late", "rtnl-link-x")
		}
		got = append(got, n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if errs := l.Coldplug(sys); len(errs) > 0 {
		t.Error(errs)
	}
	if d := cmp.Diff([]string{"net2", "c-d"}, got); d != "" {
		t.Errorf("loaded (-want +got):\n%s", d)
	}
}

// Of some drivers those are loaded whose device is there, with what they need.
func TestColdplugOnly(t *testing.T) {
	sys := t.TempDir()
	addDevice(t, sys, "pci0/dev", "pci:v00001AF4d00001002sv00sd00bc02sc00i00")
	for _, tt := range []struct {
		names []string
		want  int
	}{{[]string{"c-d"}, 0}, {nil, 0}, {[]string{"c-d", "net2"}, 1}} {
		n := 0
		l, err := open(tables(t), "", func(string, string) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if errs := l.ColdplugOnly(sys, tt.names); len(errs) > 0 || n != tt.want {
			t.Errorf("%v: %d loaded, %v; want %d", tt.names, n, errs, tt.want)
		}
	}
}

func TestGlob(t *testing.T) {
	tests := []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"*", "a/b", true}, {"a*c", "abbc", true}, {"a*c", "abbd", false},
		{"a*b*c", "axbxbxc", true}, {"?", "", false}, {"?", "x", true}, {"[a-c]x", "bx", true}, {"[a-c]x", "dx", false},
		{"[!a]", "b", true}, {"[!a]", "a", false}, {"[]]", "]", true}, {"[a", "a", false}, {"v*d0[0-4]*", "v12d03x", true},
		{"*[0-9]z", "aa1b2z", true}, {"a", "", false}, {"", "a", false}, {"a**", "a", true},
	}
	for _, tt := range tests {
		if got := glob(tt.pattern, tt.s); got != tt.want {
			t.Errorf("glob(%q, %q) = %v", tt.pattern, tt.s, got)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko", "alias x* a", "softdep a pre: b", "a.b=c", "x1")
	f.Add("a.ko: a.ko", "alias [ a", "softdep a", "=", "[")
	f.Fuzz(func(t *testing.T, dep, alias, soft, cmdline, ask string) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dep), 0o644)
		os.WriteFile(filepath.Join(dir, "modules.alias"), []byte(alias), 0o644)
		os.WriteFile(filepath.Join(dir, "modules.softdep"), []byte(soft), 0o644)
		l, err := open(dir, cmdline, func(string, string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		l.Load(ask)
		l.Device(ask)
	})
}

// The names of NICs do not depend on what else is in the box: their drivers come
// before that of USB, and in the order of the bus.
func TestColdplugNICsFirst(t *testing.T) {
	dir, sys := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(dir+"/modules.dep", "xhci.ko:\nigb.ko:\ntg3.ko:\nvnet.ko:\n")
	write(dir+"/modules.alias", "alias pci:v*d*sv*sd*bc0Csc03i30* xhci\nalias pci:v00008086d* igb\nalias pci:v000014E4d* tg3\nalias virtio:d00000001v* vnet\n")
	addDevice(t, sys, "pci0/0000:00:01.0/virtio0", "virtio:d00000001v00001AF4")
	addDevice(t, sys, "pci0/0000:00:02.0", "pci:v00001B36d0000000Dsv0sd0bc0Csc03i30")
	addDevice(t, sys, "pci0/0000:00:03.0", "pci:v000014E4d00001657sv0sd0bc02sc00i00")
	addDevice(t, sys, "pci0/0000:00:04.0", "pci:v00008086d00001533sv0sd0bc02sc00i00")
	var got []string
	l, err := open(dir, "", func(file, _ string) error { got = append(got, path.Base(file)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if errs := l.Coldplug(sys); len(errs) > 0 {
		t.Error(errs)
	}
	if d := cmp.Diff([]string{"vnet.ko", "tg3.ko", "igb.ko", "xhci.ko"}, got); d != "" {
		t.Errorf("loaded (-want +got):\n%s", d)
	}
}

func TestNamed(t *testing.T) {
	l, err := open(tables(t), "", func(string, string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		patterns, want []string
	}{
		{[]string{"kernel/n*"}, []string{"needs_bad", "net", "net2"}},
		{[]string{"c-d", "a", "nowhere", "inside"}, []string{"a", "c_d"}}, // what is built in needs no loading
		{[]string{"c_d", "kernel/c*"}, []string{"c_d", "crc"}},
		{[]string{"*"}, nil}, // a pattern is a whole path
		{nil, nil},
	} {
		if got := l.Named(tt.patterns); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.patterns, got, tt.want)
		}
	}
}

// Once closed, what is loaded is there, and what is not says why it will not be.
func TestClosed(t *testing.T) {
	var inserted []string
	l, err := open(tables(t), "", func(file, _ string) error { inserted = append(inserted, file); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Load("b"); err != nil {
		t.Fatal(err)
	}
	n := len(inserted)
	l.closed = true
	if err := l.Load("b"); err != nil {
		t.Errorf("what is loaded: %v", err)
	}
	for _, err := range []error{l.Load("a"), l.Device("pci:v00001AF4d00001001sv00sd00bc02sc00i00")} {
		if !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "ballast.modules=open") {
			t.Errorf("%v", err)
		}
	}
	if len(inserted) != n {
		t.Errorf("%q were loaded", inserted[n:])
	}
}

// The order is that of a walk through the folders.
func TestByPlace(t *testing.T) {
	want := []string{"/d/pci0", "/d/pci0/0000:00:01.0", "/d/pci0/0000:00:01.0/0000:01:00.0", "/d/pci0/0000:00:01.0-x", "/d/pci0/0000:00:02.0", "/d/pci0-1", "/d/platform"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, byPlace)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// On the machine of the test too every device with a driver to be is found.
func TestDevicesOfThisMachine(t *testing.T) {
	found := map[string]bool{}
	look := func() {
		for _, d := range devices("/sys") {
			found[d] = true
		}
	}
	look()
	var there []string
	filepath.WalkDir("/sys/devices", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "modalias" {
			there = append(there, p)
		}
		return nil
	})
	look() // other tests make devices meanwhile, and take them away
	for _, p := range there {
		if _, err := os.Stat(p); err == nil && !found[filepath.Dir(p)] {
			t.Errorf("%s was not found", p)
		}
	}
	if len(found) == 0 {
		t.Error("no device at all")
	}
}
