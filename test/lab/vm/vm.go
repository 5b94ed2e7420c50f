// Package vm runs QEMU machines for the lab and talks to them: over QMP, over
// the serial console, and with the agent of package wire on a virtio-serial
// port. Nothing of it needs root. It works with QEMU 6.2 and later.
package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Binary is the emulator.
const Binary = "qemu-system-x86_64"

// EnvAccel names an accelerator to use instead of tcg ("kvm").
const EnvAccel = "BALLAST_LAB_ACCEL"

// Config is one machine.
type Config struct {
	Name     string // part of file names
	Dir      string // where its sockets and console log go
	Kernel   string // "": the machine's firmware boots from a disk or the network
	Initrd   string
	Append   string // kernel command line
	Memory   int    // MiB, default 384
	CPUs     int    // default 1
	NICs     []NIC
	Disks    []Disk
	Agent    bool  // a virtio-serial port with the name wire.Port
	Watchdog bool  // an i6300esb that resets the machine
	NoReboot bool  // a reset ends QEMU
	UEFI     *UEFI // firmware of the machine; nil is a BIOS
	Extra    []string
}

// VM is a running, or ended, machine.
type VM struct {
	Name    string
	Started time.Time
	dir     string
	pid     int
	exited  chan struct{}
	exitErr error // valid once exited is closed
	stderr  *tail

	qmu sync.Mutex
	qmp *qmp

	amu   sync.Mutex
	agent *Agent
}

func orDefault(v, d int) int {
	if v == 0 {
		return d
	}
	return v
}

// SerialSocket is the unix socket of a machine's serial console.
func SerialSocket(dir, name string) string { return filepath.Join(dir, name+".serial") }

// ConsoleLog is the file with everything a machine ever wrote to its console.
func ConsoleLog(dir, name string) string { return filepath.Join(dir, name+".console") }

// Args returns QEMU's arguments.
func (c Config) Args() []string {
	accel := os.Getenv(EnvAccel)
	switch {
	case accel != "":
	case slices.Contains(c.Extra, "-icount"): // counts on one thread only
		accel = "tcg"
	default:
		accel = "tcg,thread=multi"
	}
	a := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35", "-accel", accel, "-cpu", "max",
		"-smp", strconv.Itoa(orDefault(c.CPUs, 1)), "-m", strconv.Itoa(orDefault(c.Memory, 384)),
		"-chardev", "socket,id=serial,server=on,wait=off,path=" + SerialSocket(c.Dir, c.Name) +
			",logfile=" + ConsoleLog(c.Dir, c.Name) + ",logappend=on",
		"-serial", "chardev:serial",
		"-qmp", "unix:" + filepath.Join(c.Dir, c.Name+".qmp") + ",server=on,wait=off",
	}
	if c.NoReboot {
		a = append(a, "-no-reboot")
	}
	if c.Kernel != "" {
		a = append(a, "-kernel", c.Kernel, "-initrd", c.Initrd, "-append", strings.TrimSpace(c.Append+" "+NoTimerCheck))
	}
	a = append(a, c.UEFI.args()...)
	for i, n := range c.NICs {
		a = append(a, n.args(i)...)
	}
	for i, d := range c.Disks {
		a = append(a, d.args(i)...)
	}
	if c.Agent {
		a = append(a, "-device", "virtio-serial-pci",
			"-chardev", "socket,id=agent,server=on,wait=off,path="+filepath.Join(c.Dir, c.Name+".agent"),
			"-device", "virtserialport,chardev=agent,name="+agentPort)
	}
	if c.Watchdog {
		a = append(a, "-device", "i6300esb", "-action", "watchdog=reset")
	}
	return append(a, c.Extra...)
}

// NoTimerCheck is a word for kernels that boot in emulated machines: without it
// one panics when the host takes its processor away while it counts ticks.
const NoTimerCheck = "no_timer_check"

// Missing tells which command a machine that wants to run labs lacks, and the
// Debian package that has it; both are empty when there is nothing to install.
func Missing() (command, pkg string) {
	if _, err := exec.LookPath(Binary); err != nil {
		return Binary, "qemu-system-x86"
	}
	return "", ""
}

// Start runs a machine. It dies with this process.
func Start(c Config) (*VM, error) {
	if cmd, pkg := Missing(); cmd != "" {
		return nil, fmt.Errorf("lab: %s is not installed: apt-get install %s", cmd, pkg)
	}
	for _, s := range []string{".serial", ".qmp", ".agent"} {
		os.Remove(filepath.Join(c.Dir, c.Name+s)) // of an earlier run of this machine
	}
	v := &VM{Name: c.Name, Started: time.Now(), dir: c.Dir, exited: make(chan struct{}), stderr: &tail{max: 4096}}
	cmd := exec.Command(Binary, c.Args()...)
	cmd.Stdout, cmd.Stderr = v.stderr, v.stderr
	// A process group of its own keeps the terminal's Ctrl-C from it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		// The parent of Pdeathsig is the thread, so it must live as long as QEMU.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			v.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		v.exitErr = cmd.Wait()
		close(v.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("lab: start %s: %w", c.Name, err)
	}
	return v, nil
}

// Exited is closed when the machine has ended.
func (v *VM) Exited() <-chan struct{} { return v.exited }

// Running tells whether the machine has not ended.
func (v *VM) Running() bool {
	select {
	case <-v.exited:
		return false
	default:
		return true
	}
}

// PID is QEMU's process id.
func (v *VM) PID() int { return v.pid }

// Kill pulls the power cord and waits until QEMU is gone.
func (v *VM) Kill() {
	if v.Running() {
		syscall.Kill(v.pid, syscall.SIGKILL)
		<-v.exited
	}
	v.qmu.Lock()
	if v.qmp != nil {
		v.qmp.close()
		v.qmp = nil
	}
	v.qmu.Unlock()
	v.amu.Lock()
	if v.agent != nil {
		v.agent.close()
		v.agent = nil
	}
	v.amu.Unlock()
}

// Wait waits until the machine has ended by itself.
func (v *VM) Wait(ctx context.Context) error {
	select {
	case <-v.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lab: %s still runs: %w", v.Name, ctx.Err())
	}
}

// died is the error of talking to a machine that has ended.
func (v *VM) died() error {
	words := strings.TrimSpace(v.stderr.String())
	if words == "" && v.exitErr != nil {
		words = v.exitErr.Error()
	}
	if words != "" {
		words = ": " + words
	}
	return fmt.Errorf("lab: %s has ended%s", v.Name, words)
}

// SetLink plugs or unplugs the cable of a NIC: the guest sees the carrier go.
func (v *VM) SetLink(ctx context.Context, nic int, up bool) error {
	return v.QMP(ctx, "set_link", map[string]any{"name": "nic" + strconv.Itoa(nic), "up": up})
}

// Pause stops the machine's processors, as a hypervisor that is busy would;
// Resume lets them go on.
func (v *VM) Pause(ctx context.Context) error { return v.QMP(ctx, "stop", nil) }

// Resume undoes Pause.
func (v *VM) Resume(ctx context.Context) error { return v.QMP(ctx, "cont", nil) }

// PowerButton presses the power button.
func (v *VM) PowerButton(ctx context.Context) error { return v.QMP(ctx, "system_powerdown", nil) }

// Reset presses the reset button.
func (v *VM) Reset(ctx context.Context) error { return v.QMP(ctx, "system_reset", nil) }

// Console returns everything that the machine wrote to its serial console.
func (v *VM) Console() string {
	b, err := os.ReadFile(ConsoleLog(v.dir, v.Name))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(b), "\r", "")
}

// WaitConsole waits until the console has shown one of the texts, after what was
// there at byte from. It returns the offset behind the one that ends first.
func (v *VM) WaitConsole(ctx context.Context, from int, texts ...string) (int, error) {
	var said []func(string) int
	for _, text := range texts {
		said = append(said, Said(text))
	}
	for {
		running := v.Running() // before the look: a machine that ends may say it with its last breath
		s := v.Console()
		first := -1
		for _, where := range said {
			if end := where(s[min(from, len(s)):]); end >= 0 && (first < 0 || end < first) {
				first = end
			}
		}
		if first >= 0 {
			return from + first, nil
		}
		if !running {
			return 0, fmt.Errorf("%w; its console never showed %q", v.died(), texts)
		}
		select {
		case <-v.exited: // one more look
		case <-ctx.Done():
			return 0, fmt.Errorf("lab: %s: the console did not show %q: %w", v.Name, texts, ctx.Err())
		case <-time.After(50 * time.Millisecond): // the log is a file that QEMU appends to
		}
	}
}

// Said makes a function that tells where a text ends on a console, -1 when it is
// not there. Each character of it may have been written more than once: QEMU's log
// of a serial line has one again when whoever reads the line does not take it at
// once.
func Said(text string) func(console string) int {
	var pattern strings.Builder
	for i, c := range text {
		if i > 0 {
			pattern.WriteString("+")
		}
		pattern.WriteString(regexp.QuoteMeta(string(c)))
	}
	re := regexp.MustCompile(pattern.String())
	return func(console string) int {
		if i := strings.Index(console, text); i >= 0 {
			console = console[:i+len(text)] // it is there, or before
		}
		if m := re.FindStringIndex(console); m != nil {
			return m[1]
		}
		return -1
	}
}

// errGone is what a broken agent or QMP connection becomes.
var errGone = errors.New("connection closed")

// tail keeps the last max bytes written to it.
type tail struct {
	mu  sync.Mutex
	max int
	b   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - t.max; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
