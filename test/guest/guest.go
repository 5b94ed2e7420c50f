// Package guest runs tests of this module inside a small virtual machine with
// the firmware's kernel: what the machine that builds cannot do (IPVS, ipip)
// or should not have done to it. It needs QEMU but no root.
//
//	func TestKernel(t *testing.T) {
//		if !guest.Inside() {
//			guest.RunTest(t, "./services/ipvs", "-test.run", "^TestKernel$")
//			return
//		}
//		… as root, in a machine of its own
//	}
package guest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/image/archive"
	"ballast/test/lab/rootfs"
	"ballast/test/lab/vm"
	"ballast/test/lab/wire"
)

// Env is set to "1" inside the virtual machine.
const Env = "BALLAST_GUEST"

// Inside tells whether this process runs in the virtual machine.
func Inside() bool { return os.Getenv(Env) == "1" }

// Options are a run in the virtual machine.
type Options struct {
	Package  string        // the package whose tests run: "./services/ipvs", from the module's root
	Args     []string      // of the test binary
	Binaries []string      // programs of this machine to take along, with their shared libraries
	Files    []string      // further files and folders of this machine, at the same paths
	Modules  []string      // kernel modules to load at the start
	Memory   int           // MiB, default 512
	CPUs     int           // default 1
	Extra    []string      // of QEMU: "-icount", "shift=1,sleep=off"
	Timeout  time.Duration // of the whole run, default 20 minutes
	Output   io.Writer     // where the output goes as it comes; nil: nowhere
}

// RunTest runs the tests of a package in the virtual machine; a failure there
// is a failure here. Its output goes to the test's log. With -short it skips.
func RunTest(t testing.TB, pkg string, args ...string) {
	t.Helper()
	Run(t, Options{Package: pkg, Args: args})
}

// Run is RunTest with all options.
func Run(t testing.TB, o Options) {
	t.Helper()
	if testing.Short() {
		t.Skip("a virtual machine takes too long for -short")
	}
	if o.Output == nil {
		w := &logWriter{t: t}
		defer w.flush()
		o.Output = w
	}
	code, err := Exec(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 {
		t.Fatalf("%s in the virtual machine: exit status %d", o.Package, code)
	}
}

// Exec builds and runs a package's tests in the virtual machine and returns
// their exit status.
func Exec(ctx context.Context, o Options) (int, error) {
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Minute
	}
	if o.Memory == 0 {
		o.Memory = 512
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return -1, err
	}
	dir, err := os.MkdirTemp("", "ballast-guest-")
	if err != nil {
		return -1, fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(dir)
	work, err := build(ctx, root, dir, o)
	if err != nil {
		return -1, err
	}
	kernel, err := rootfs.Kernel(ctx)
	if err != nil {
		return -1, err
	}
	unlock, err := vm.Lock(ctx)
	if err != nil {
		return -1, err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	v, err := vm.Start(vm.Config{
		Name: "guest", Dir: dir, Kernel: kernel, Initrd: filepath.Join(dir, "initrd"),
		Append: "console=ttyS0 quiet panic=-1 oops=panic", Memory: o.Memory, CPUs: o.CPUs,
		Agent: true, NoReboot: true, Extra: o.Extra,
	})
	if err != nil {
		return -1, err
	}
	defer v.Kill()
	actx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	a, err := v.Agent(actx)
	if err != nil {
		return -1, err
	}
	p, err := a.Start(wire.Exec{
		Argv: append([]string{testBinary}, o.Args...), Dir: work,
		Env: []string{Env + "=1", "TMPDIR=/tmp"},
	}, o.Output, o.Output)
	if err != nil {
		return -1, err
	}
	code, err := p.Wait(ctx)
	if err != nil {
		return code, fmt.Errorf("guest: %s: %w; the end of its console:\n%s", o.Package, err, tail(v.Console(), 30))
	}
	return code, nil
}

func tail(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("guest: go env GOMOD: %w", err)
	}
	gomod := strings.TrimSpace(string(out))
	if gomod == "" || gomod == os.DevNull {
		return "", fmt.Errorf("guest: not inside a Go module")
	}
	return filepath.Dir(gomod), nil
}

// testBinary is where the test binary lies in the virtual machine.
const testBinary = "/bin/test"

// source is where the folders of packages lie in there.
const source = "/src"

// build writes dir/initrd and returns the folder, in the virtual machine, that
// the tests run in: the package's own, with its testdata.
func build(ctx context.Context, root, dir string, o Options) (string, error) {
	pkg := filepath.Join(root, o.Package)
	bin := filepath.Join(dir, "test")
	if err := rootfs.Go(ctx, "test", "-c", "-o", bin, pkg); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	if _, err := os.Stat(bin); err != nil {
		return "", fmt.Errorf("guest: %s has no tests", o.Package)
	}
	a := archive.New()
	if err := addFile(a, bin, testBinary); err != nil {
		return "", err
	}
	// Not at its own path: that may lie under /tmp, which is empty in there.
	work := filepath.Join(source, o.Package)
	a.Dir(work, 0o755)
	data := filepath.Join(pkg, "testdata")
	if st, err := os.Stat(data); err == nil && st.IsDir() {
		if err := addTree(a, data, filepath.Join(work, "testdata")); err != nil {
			return "", err
		}
	}
	for _, f := range o.Files {
		if err := addTree(a, f, f); err != nil {
			return "", err
		}
	}
	for _, b := range o.Binaries {
		if err := AddProgram(ctx, a, b); err != nil {
			return "", err
		}
	}
	extra, err := a.Bytes()
	if err != nil {
		return "", err
	}
	base, err := rootfs.Base(ctx, o.Modules...)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "initrd"), append(base, extra...), 0o644); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	return work, nil
}

func addFile(a *archive.Archive, from, to string) error {
	st, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	a.File(to, b, uint32(st.Mode().Perm()))
	return nil
}

func addTree(a *archive.Archive, root, to string) error {
	return filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return addFile(a, p, filepath.Join(to, strings.TrimPrefix(p, root)))
	})
}

// AddProgram takes a program of this machine along, in /bin, with what ldd says
// that it loads.
func AddProgram(ctx context.Context, a *archive.Archive, name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	if err := addFile(a, path, filepath.Join("/bin", filepath.Base(path))); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ldd", path).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("not a dynamic")) {
		return fmt.Errorf("guest: ldd %s: %w: %s", path, err, out)
	}
	for line := range strings.Lines(string(out)) {
		for _, w := range strings.Fields(line) { // "libc.so.6 => /lib/… (0x…)" or "/lib64/ld-… (0x…)"
			if strings.HasPrefix(w, "/") {
				if err := addFile(a, w, w); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// logWriter hands whole lines to the test's log.
type logWriter struct {
	mu sync.Mutex
	t  testing.TB
	b  []byte
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	for {
		line, rest, ok := bytes.Cut(w.b, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		w.t.Log(string(line))
		w.b = append([]byte(nil), rest...)
	}
}

func (w *logWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.b) > 0 {
		w.t.Log(string(w.b))
		w.b = nil
	}
}
