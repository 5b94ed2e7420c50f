// Package machine boots whole Ballast disks in QEMU, as hardware would: with
// SeaBIOS or OVMF, from a disk behind virtio, AHCI, NVMe or USB. A test waits for
// what the serial line says, types, logs in over SSH, pulls the power cord, and
// looks at the disk. Machines share the host's disk files by copies, so that many
// tests start from one disk that was made, or booted, once.
package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"ballast/image/bootenv"
	"ballast/image/disk"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
	"ballast/test/lab/vm"
)

// Slow is how long an emulated processor of a busy machine may take from power
// on to ready.
const Slow = 240 * time.Second

// Config is a machine. The zero value is one with SeaBIOS and no disk.
type Config struct {
	Name string // part of file names; "" is "box"
	UEFI bool
	// Vars are UEFI's variables to begin with; "" is a fresh set.
	Vars string
	// Firmware is more of OVMF when that is needed, for Secure Boot. Its Vars are
	// ignored.
	Firmware *vm.UEFI

	Disk string // file of which the machine gets a copy; "" is none
	Size int64  // the copy is made as large as this
	Bus  vm.Bus
	// More are further disks, which are no copies.
	More []vm.Disk

	// NICs come behind eth0, which is on QEMU's user network, for SSH.
	NICs       []vm.NIC
	NoUser     bool // there is no eth0 on the user network
	NoWatchdog bool
	NoReboot   bool // a reset ends the machine
	Memory     int  // MiB, default 512
	Extra      []string

	SSH ssh.Signer // of the user admin: Firmware.SSH
}

// Machine is a machine, with power or without.
type Machine struct {
	Dir     string // of its files
	Disk    string // its disk; "" is none
	Port    int    // of 127.0.0.1: its SSH
	Started time.Time

	t   testing.TB
	c   Config
	vm  *vm.VM
	pos int // how far the console was read
	tty net.Conn
	ssh *ssh.Client
}

// Lab takes the lock of the machine-wide lab for a test, and leaves out those
// that boot machines where only quick ones are wanted.
func Lab(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines")
	}
	unlock, err := vm.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
}

// New makes a machine without power. What its console said is shown when the
// test fails.
func New(t testing.TB, c Config) *Machine {
	t.Helper()
	if c.Name == "" {
		c.Name = "box"
	}
	if c.Memory == 0 {
		c.Memory = 512
	}
	// Not t.TempDir: the name of a test has commas, which QEMU takes for its own, and
	// the path of a socket has room for 108 bytes.
	dir, err := os.MkdirTemp("", "ballast-machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &Machine{t: t, c: c, Dir: dir}
	if c.Disk != "" {
		m.Disk = filepath.Join(m.Dir, "disk")
		if err := Copy(m.Disk, c.Disk, c.Size); err != nil {
			t.Fatal(err)
		}
	}
	if c.UEFI {
		vars := c.Vars
		if vars == "" {
			vars = vm.OVMFVars
		}
		if err := Copy(m.Vars(), vars, 0); err != nil {
			t.Fatalf("%v: make test-tools installs it", err)
		}
	}
	if !c.NoUser {
		p, err := vm.NewPort()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		m.Port = p.Number
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of %s:\n%s", c.Name, m.Console())
		}
		m.PowerCord()
	})
	return m
}

// Vars is the file with UEFI's variables.
func (m *Machine) Vars() string { return filepath.Join(m.Dir, "vars") }

// Copy copies a disk with its holes, and makes the copy as large as size when it
// is smaller.
func Copy(to, from string, size int64) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	err = out.Truncate(max(size, st.Size()))
	for at := int64(0); err == nil && at < st.Size(); {
		var data, hole int64
		if data, err = unix.Seek(int(in.Fd()), at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			err = nil
			break // nothing but holes
		} else if err != nil {
			break
		}
		if hole, err = unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE); err != nil {
			break
		}
		_, err = io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, hole-data))
		at = hole
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("machine: copy %s: %w", from, err)
	}
	return nil
}

// mac is the address of eth0 on the user network.
const mac = "52:54:00:ba:11:01"

// PowerOn gives the machine power.
func (m *Machine) PowerOn() {
	m.t.Helper()
	if m.Running() {
		m.t.Fatalf("%s has power already", m.c.Name)
	}
	m.PowerCord() // what is left of the last time
	c := vm.Config{
		Name: m.c.Name, Dir: m.Dir, Memory: m.c.Memory, Watchdog: !m.c.NoWatchdog, NoReboot: m.c.NoReboot, Extra: m.c.Extra,
	}
	if m.c.UEFI {
		u := vm.UEFI{}
		if m.c.Firmware != nil {
			u = *m.c.Firmware
		}
		u.Vars = m.Vars()
		c.UEFI = &u
	}
	if m.Disk != "" {
		// The host does not lose power: what the guest had written is there after
		// the cord is pulled.
		c.Disks = append(c.Disks, vm.Disk{File: m.Disk, Serial: "system", Bus: m.c.Bus, BootIndex: 1, Cache: "unsafe"})
	}
	c.Disks = append(c.Disks, m.c.More...)
	if !m.c.NoUser {
		c.NICs = append(c.NICs, vm.NIC{Netdev: fmt.Sprintf("user,restrict=on,hostfwd=tcp:127.0.0.1:%d-:22", m.Port), MAC: mac})
	}
	c.NICs = append(c.NICs, m.c.NICs...)
	m.pos = len(m.Console())
	v, err := vm.Start(c)
	if err != nil {
		m.t.Fatal(err)
	}
	m.vm, m.Started = v, v.Started
}

// Running tells whether the machine has power.
func (m *Machine) Running() bool { return m.vm != nil && m.vm.Running() }

// VM is the machine as QEMU has it, for QMP; nil before the first PowerOn.
func (m *Machine) VM() *vm.VM { return m.vm }

// PowerCord pulls it.
func (m *Machine) PowerCord() {
	m.hangUp()
	if m.tty != nil {
		m.tty.Close()
		m.tty = nil
	}
	if m.vm != nil {
		m.vm.Kill()
	}
}

// Reset presses the button.
func (m *Machine) Reset() {
	m.t.Helper()
	m.hangUp()
	if err := m.vm.Reset(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// Off presses the power button and waits until the machine is off.
func (m *Machine) Off() {
	m.t.Helper()
	if err := m.vm.PowerButton(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	m.Ended(Slow)
	m.PowerCord()
}

// Ended waits until the machine is off by itself.
func (m *Machine) Ended(within time.Duration) {
	m.t.Helper()
	ctx, stop := context.WithTimeout(m.t.Context(), within)
	defer stop()
	if err := m.vm.Wait(ctx); err != nil {
		m.t.Fatal(err)
	}
}

// Console is everything that the serial line ever said.
func (m *Machine) Console() string {
	b, err := os.ReadFile(vm.ConsoleLog(m.Dir, m.c.Name))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(b), "\r", "")
}

// Expect waits until the serial line says the texts, in this order, behind what
// was waited for before, and returns when the last one was seen, counted from power
// on.
func (m *Machine) Expect(within time.Duration, texts ...string) time.Duration {
	m.t.Helper()
	ctx, stop := context.WithTimeout(m.t.Context(), within)
	defer stop()
	for _, s := range texts {
		pos, err := m.vm.WaitConsole(ctx, m.pos, s)
		if err != nil {
			m.t.Fatalf("waiting for %q: %v", s, err)
		}
		m.pos = pos
	}
	return time.Since(m.Started)
}

// Which waits until the serial line says one of the texts, behind what was waited
// for before, and returns the one that came first.
func (m *Machine) Which(within time.Duration, texts ...string) string {
	m.t.Helper()
	ctx, stop := context.WithTimeout(m.t.Context(), within)
	defer stop()
	from := m.pos
	pos, err := m.vm.WaitConsole(ctx, from, texts...)
	if err != nil {
		m.t.Fatalf("waiting for one of %q: %v", texts, err)
	}
	m.pos = pos
	said := m.Since(from)[:pos-from]
	return texts[slices.IndexFunc(texts, func(s string) bool { return vm.Said(s)(said) == len(said) })]
}

// Since is what the serial line said behind a mark.
func (m *Machine) Since(mark int) string {
	all := m.Console()
	return all[min(mark, len(all)):]
}

// Mark is the place on the console up to which Expect has read.
func (m *Machine) Mark() int { return m.pos }

// Type types on the serial line; "\r" is Enter.
func (m *Machine) Type(keys string) {
	m.t.Helper()
	if m.tty == nil {
		c, err := net.Dial("unix", vm.SerialSocket(m.Dir, m.c.Name))
		if err != nil {
			m.t.Fatal(err)
		}
		m.tty = c
		// QEMU waits for a reader that does not read; the console's log is ours.
		go io.Copy(io.Discard, c)
	}
	if _, err := io.WriteString(m.tty, keys); err != nil {
		m.t.Fatal(err)
	}
}

// Await asks over SSH until the answer fits a pattern, and returns it.
func (m *Machine) Await(within time.Duration, command, pattern string) string {
	m.t.Helper()
	re := regexp.MustCompile(pattern)
	ctx, stop := context.WithTimeout(m.t.Context(), within)
	defer stop()
	var last string
	var err error
	for {
		if last, err = m.try(ctx, command, nil); re.MatchString(last) {
			return last
		}
		select {
		case <-ctx.Done():
			m.t.Fatalf("%s never answered %q to %q: the last answer: %s %v", m.c.Name, pattern, command, last, err)
		case <-m.vm.Exited():
			m.t.Fatalf("%s has ended", m.c.Name)
		case <-time.After(250 * time.Millisecond): // a console tells nobody when it would answer
		}
	}
}

// Ask runs a console command over SSH. The box must be reachable.
func (m *Machine) Ask(command string) string {
	m.t.Helper()
	ctx, stop := context.WithTimeout(m.t.Context(), Slow)
	defer stop()
	out, err := m.try(ctx, command, nil)
	if err != nil {
		m.t.Fatalf("%s: %s: %v", m.c.Name, command, err)
	}
	return out
}

// Run runs a console command with a stream as its input, and returns what it
// printed, and its error (an *ssh.ExitError when it refused).
func (m *Machine) Run(ctx context.Context, command string, stdin io.Reader) (string, error) {
	return m.try(ctx, command, stdin)
}

// Client is an SSH connection to the box, which is kept.
func (m *Machine) Client(ctx context.Context) (*ssh.Client, error) {
	if m.ssh != nil {
		return m.ssh, nil
	}
	var d net.Dialer
	addr := fmt.Sprintf("127.0.0.1:%d", m.Port)
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// The port is QEMU's: it takes a connection that no guest answers yet.
	c.SetDeadline(time.Now().Add(20 * time.Second))
	conn, channels, requests, err := ssh.NewClientConn(c, addr, &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(m.c.SSH)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // born a minute ago, behind the loopback interface
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	m.ssh = ssh.NewClient(conn, channels, requests)
	return m.ssh, nil
}

func (m *Machine) hangUp() {
	if m.ssh != nil {
		m.ssh.Close()
		m.ssh = nil
	}
}

func (m *Machine) try(ctx context.Context, command string, stdin io.Reader) (string, error) {
	var w Words
	err := m.Follow(ctx, command, stdin, &w)
	return w.String(), err
}

// Follow runs a console command as Run does, and puts what it prints into words as
// it comes.
func (m *Machine) Follow(ctx context.Context, command string, stdin io.Reader, words *Words) error {
	c, err := m.Client(ctx)
	if err != nil {
		return err
	}
	// A connection of the time before a reboot does not always know that it is over.
	defer context.AfterFunc(ctx, func() { c.Close() })()
	s, err := c.NewSession()
	if err != nil {
		m.hangUp()
		return err
	}
	defer s.Close()
	s.Stdin, s.Stdout, s.Stderr = stdin, words, words
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = s.Run(command)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		m.hangUp()
		<-done
		err = ctx.Err()
	}
	var exit *ssh.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.hangUp()
	}
	return err
}

// Words are what a command has printed. The zero value is ready to use.
type Words struct {
	mu   sync.Mutex
	b    []byte
	more chan struct{} // closed when there are more; nil: nobody waits
}

// Write implements io.Writer.
func (w *Words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, b...)
	if w.more != nil {
		close(w.more)
		w.more = nil
	}
	return len(b), nil
}

// String is all of them.
func (w *Words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.b)
}

// Await waits until the texts are among them, in this order.
func (w *Words) Await(ctx context.Context, texts ...string) error {
	for {
		w.mu.Lock()
		rest, ok := string(w.b), true
		for i := 0; i < len(texts) && ok; i++ {
			_, rest, ok = strings.Cut(rest, texts[i])
		}
		if w.more == nil {
			w.more = make(chan struct{})
		}
		more := w.more
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("machine: waiting for %q in %q: %w", texts, w.String(), ctx.Err())
		}
	}
}

// Partition returns a partition of the machine's disk, by its number. The machine
// should have no power, or not write there.
func (m *Machine) Partition(number int) (disk.Device, func()) {
	m.t.Helper()
	f, err := os.OpenFile(m.Disk, os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	size, err := disk.Size(f)
	if err != nil {
		m.t.Fatal(err)
	}
	table, err := gpt.Read(f, size)
	if err != nil {
		m.t.Fatal(err)
	}
	p, ok := table.Find(number)
	if !ok {
		m.t.Fatalf("the disk has no partition %d", number)
	}
	return disk.Section(f, p), func() { f.Close() }
}

// Env reads the state of boot loader and firmware from the disk.
func (m *Machine) Env() bootenv.Env {
	m.t.Helper()
	d, done := m.Partition(layout.NumberESP)
	defer done()
	e, err := disk.ReadEnv(d)
	if err != nil {
		m.t.Fatal(err)
	}
	return e
}

// SetEnv writes it.
func (m *Machine) SetEnv(e bootenv.Env) {
	m.t.Helper()
	d, done := m.Partition(layout.NumberESP)
	defer done()
	if err := disk.WriteEnv(d, e); err != nil {
		m.t.Fatal(err)
	}
}

// Ruin overwrites the beginning of a partition with zeros.
func (m *Machine) Ruin(number int, bytes int64) {
	m.t.Helper()
	d, done := m.Partition(number)
	defer done()
	if _, err := d.WriteAt(make([]byte, bytes), 0); err != nil {
		m.t.Fatal(err)
	}
}
