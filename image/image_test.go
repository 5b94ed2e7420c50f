package image

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"ballast/board"
	"ballast/image/archive"
	"ballast/image/modules"
	"ballast/services/ipc"
)

// root is the module's.
const root = ".."

// copySources copies what git would take of the module into another folder.
func copySources(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.go", "*.lock", "go.mod", "go.sum", "*").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue // removed, but not from the index
		}
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func build(t *testing.T, root string) map[string][]byte {
	t.Helper()
	out := t.TempDir()
	err := Build(t.Context(), Options{Board: board.QEMU, Root: root, Out: out, Version: "1.2.3", Applets: []string{"sh", "killall", "ls"}, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]byte{}
	for _, n := range []string{KernelFile, InitramfsFile, CmdLineFile, ManifestFile, BinaryFile} {
		b, err := os.ReadFile(filepath.Join(out, n))
		if err != nil {
			t.Fatal(err)
		}
		got[n] = b
	}
	return got
}

// The same sources give the same bytes, in another folder, from an empty cache.
func TestReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything twice")
	}
	one := build(t, root)
	other := copySources(t)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	// The kernel is fetched once; the commands are built anew.
	if err := os.Symlink(filepath.Join(cache, "ballast", "kernel"), filepath.Join(fresh, "kernel")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BALLAST_CACHE", fresh)
	two := build(t, other)
	for n, b := range one {
		if !bytes.Equal(b, two[n]) {
			t.Errorf("%s differs: %d and %d bytes", n, len(b), len(two[n]))
		}
	}
	if size := len(one[KernelFile]) + len(one[InitramfsFile]); size > 32<<20 {
		t.Errorf("kernel and initramfs have %d bytes, more than 32 MiB", size)
	}
	content(t, one[InitramfsFile])
}

// content looks at what is in an initramfs.
func content(t *testing.T, initramfs []byte) {
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	raw, err := d.DecodeAll(bytes.TrimRight(initramfs, "\x00"), nil)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := archive.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]archive.Entry{}
	for _, e := range entries {
		files[e.Name] = e
	}
	for name, target := range map[string]string{"etc/resolv.conf": "/run/service/net/resolv.conf", "bin/sh": "/init", "bin/killall": "/init", "bin/ls": "/init", "bin/cat": "bb", "sbin": "bin", "usr/bin": "../bin"} {
		if got := string(files[name].Data); got != target {
			t.Errorf("%s points to %q, want %q", name, got, target)
		}
	}
	for _, name := range []string{"init", "bin/bb", "etc/passwd", "etc/ballast/data.ext4.zst", "etc/ballast/board", "dev/console"} {
		if _, ok := files[name]; !ok {
			t.Errorf("there is no %s", name)
		}
	}
	if files["dev/console"].Device != [2]uint32{5, 1} {
		t.Errorf("dev/console is %v", files["dev/console"].Device)
	}
}

// The kernel package has everything that each board names.
func TestBoardModules(t *testing.T) {
	for _, name := range board.Names() {
		b, err := board.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		a := archive.New()
		n, err := addModules(t.Context(), a, b)
		if err != nil || n.count < 50 {
			t.Errorf("%s: %d modules, %v", name, n.count, err)
		}
		have := map[string]bool{}
		for _, f := range a.Names() {
			stem, _, _ := strings.Cut(filepath.Base(f), ".ko")
			have[modules.Name(stem)] = true
		}
		for _, m := range b.Load {
			if !have[modules.Name(m)] && m != "button" {
				t.Errorf("%s loads %s, which is not in the image", name, m)
			}
		}
	}
}

func TestAccounts(t *testing.T) {
	want := map[string]int{"root": ipc.UIDRoot, "conf": ipc.UIDConf, "net": ipc.UIDNet, "vrrp": ipc.UIDVRRP, "ipvs": ipc.UIDIPVS, "health": ipc.UIDHealth,
		"console": ipc.UIDConsole, "notify": ipc.UIDNotify, "snmp": ipc.UIDSNMP, "pacer": ipc.UIDPacer, "peer": ipc.UIDPeer, "keepalived_script": ipc.UIDScript, "nobody": 65534}
	got := map[string]int{}
	for _, u := range accounts {
		got[u.name] = u.uid
		if u.uid > 100 && u.uid < 200 && u.gid != ipc.GroupBallast {
			t.Errorf("%s is in group %d", u.name, u.gid)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// e2fsck, when the machine has it, finds nothing to mend in the template.
func TestDataTemplate(t *testing.T) {
	z, err := DataTemplate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := DataTemplate(t.Context())
	if err != nil || !bytes.Equal(z, again) {
		t.Errorf("made twice it differs, %v", err)
	}
	if len(z) > 64<<10 {
		t.Errorf("%d bytes", len(z))
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	raw, err := d.DecodeAll(z, nil)
	if err != nil || len(raw) != dataSize {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	f := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(f, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(findTool("e2fsck"), "-f", "-n", f).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

func TestCommandPackages(t *testing.T) {
	cmds, err := commandPackages(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(cmds, uroot+"/cmds/core/ls") || slices.Contains(cmds, uroot) {
		t.Errorf("%v", cmds)
	}
}
