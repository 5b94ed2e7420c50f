package image

import (
	"bytes"
	"crypto/ed25519"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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
	"ballast/image/packages"
	"ballast/image/sbom"
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

// build makes a release of a board and returns all its files.
func build(t *testing.T, b board.Board, root string) map[string][]byte {
	t.Helper()
	out := t.TempDir()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	err := Build(t.Context(), Options{Board: b, Root: root, Out: out, Version: "1.2.3", Build: 1763750000, Keys: []ed25519.PrivateKey{key},
		Applets: []string{"sh", "killall", "ls"}, Log: io.Discard, Release: true})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]byte{}
	err = filepath.WalkDir(out, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(out, name)
		b, err := os.ReadFile(name)
		if got[rel] = b; len(b) > 128<<20 { // a disk is mostly zeros
			got[rel] = []byte(hash(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The same sources give the same bytes, every file of a release, in another
// folder, from an empty cache.
func TestReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything twice")
	}
	one := build(t, board.Generic, root)
	other := copySources(t)
	cache, err := packages.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	t.Setenv(packages.EnvCache, fresh)
	// What is fetched has a pinned hash and is not fetched again. All that is made
	// of it, and the commands, is made again. Go's own cache stays: its key is
	// everything that goes into a package, the folder of the sources included where
	// that shows in the result.
	for _, kind := range []string{"kernel", "packages"} {
		linkTrees(t, filepath.Join(cache, kind), filepath.Join(fresh, kind))
	}
	two := build(t, board.Generic, other)
	for _, n := range slices.Sorted(maps.Keys(one)) {
		if !bytes.Equal(one[n], two[n]) {
			t.Errorf("%s differs: %d and %d bytes", n, len(one[n]), len(two[n]))
		}
	}
	if a, b := slices.Sorted(maps.Keys(one)), slices.Sorted(maps.Keys(two)); !slices.Equal(a, b) {
		t.Errorf("files %v and %v", a, b)
	}
	if size := len(one[KernelFile]) + len(one[InitramfsFile]); size > 48<<20 {
		t.Errorf("kernel and initramfs have %d bytes, more than 48 MiB", size)
	}
	content(t, one[InitramfsFile])
	released(t, one)
}

// linkTrees shows what was unpacked of packages in another place, without what was
// computed of it since.
func linkTrees(t *testing.T, from, to string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(from, "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s holds nothing, %v", from, err)
	}
	for _, f := range files {
		dir := filepath.Join(to, filepath.Base(filepath.Dir(f)))
		if ok, _ := filepath.Match("modinfo-*", filepath.Base(f)); ok || strings.HasPrefix(filepath.Base(dir), ".") {
			continue
		}
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(f, filepath.Join(dir, filepath.Base(f)))); err != nil {
			t.Fatal(err)
		}
	}
}

// released looks at the files of a release as who gets them does.
func released(t *testing.T, files map[string][]byte) {
	t.Helper()
	sums := map[string]string{}
	for line := range strings.Lines(string(files[SumsFile])) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok {
			t.Errorf("%s: %q", SumsFile, line)
		}
		sums[name] = sum
	}
	for name, content := range files {
		if name != SumsFile && sums[name] != hash(content) && sums[name] != string(content) {
			t.Errorf("%s: the sum of %s is %q", SumsFile, name, sums[name])
		}
	}
	if len(sums) != len(files)-1 {
		t.Errorf("%s has %d lines for %d files", SumsFile, len(sums), len(files)-1)
	}
	for name, from := range map[string]string{KernelFile: KernelFile, InitramfsFile: InitramfsFile, "fw.efi": UKIFile(board.Generic.Name), "firmware.bundle": BundleFile(board.Generic.Name)} {
		if len(files[from]) == 0 || !bytes.Equal(files[NetbootDir+"/"+name], files[from]) {
			t.Errorf("%s/%s is not %s", NetbootDir, name, from)
		}
	}
	for _, name := range []string{DiskFile, DiskZstd, BundleFile(board.Generic.Name), LockFile, ManifestFile, CmdLineFile} {
		if len(files[name]) == 0 {
			t.Errorf("there is no %s", name)
		}
	}
	script := string(files[NetbootDir+"/boot.ipxe"])
	if !strings.HasPrefix(script, "#!ipxe\n") || !strings.Contains(script, strings.TrimSpace(string(files[CmdLineFile]))) {
		t.Errorf("boot.ipxe:\n%s", script)
	}
	if rom := files[NetbootDir+"/undionly.kpxe"]; len(rom) < 40<<10 || len(rom) > 600<<10 {
		t.Errorf("undionly.kpxe has %d bytes", len(rom))
	}
	if err := sbom.Check(files[SBOMFile]); err != nil {
		t.Error(err)
	}
	for _, want := range []string{`"pkg:golang/golang.org/x/sys@v`, `"linux-image-`, `"firmware-realtek"`, `"name": "std"`, `"licenseDeclared": "BSD-3-Clause"`} {
		if !bytes.Contains(files[SBOMFile], []byte(want)) {
			t.Errorf("%s has no %s", SBOMFile, want)
		}
	}
	// What the program itself says it is made of.
	info, err := buildinfo.Read(bytes.NewReader(files[BinaryFile]))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range info.Deps {
		if line := fmt.Sprintf("module %s %s %s\n", d.Path, d.Version, d.Sum); !bytes.Contains(files[LockFile], []byte(line)) {
			t.Errorf("%s has no line %q", LockFile, line)
		}
		if !bytes.Contains(files[SBOMFile], []byte(`"pkg:golang/`+d.Path+"@"+d.Version+`"`)) {
			t.Errorf("%s has no %s %s", SBOMFile, d.Path, d.Version)
		}
	}
	if len(info.Deps) < 10 || info.GoVersion == "" || !bytes.Contains(files[LockFile], []byte("\ngo "+info.GoVersion+"\n")) {
		t.Errorf("%s: %d modules, Go %q", BinaryFile, len(info.Deps), info.GoVersion)
	}
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
		"console": ipc.UIDConsole, "notify": ipc.UIDNotify, "snmp": ipc.UIDSNMP, "pacer": ipc.UIDPacer, "peer": ipc.UIDPeer,
		"firmware": ipc.UIDFirmware, "netboot": ipc.UIDNetboot, "capture": ipc.UIDCapture, "netseed": ipc.UIDSeed, "keepalived_script": ipc.UIDScript, "nobody": 65534}
	got := map[string]int{}
	for _, u := range accounts {
		got[u.name] = u.uid
		if u.uid > 100 && u.uid < 200 && u.uid != ipc.UIDSeed && u.gid != ipc.GroupBallast { // netseed is no service
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
