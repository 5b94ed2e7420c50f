package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"ballast/board"
	"ballast/image/archive"
	"ballast/services/ipc/status"
	"ballast/test/lab/ether"
	"ballast/test/lab/plan"
	"ballast/test/lab/vm"
)

// Director is one of the two boxes. Its methods may be called from any
// goroutine.
type Director struct {
	Index   int
	SSHPort int
	Ports   []*ether.Port // by segment
	// BootFrom is how it comes to its kernel, from the next boot on.
	BootFrom BootFrom

	lab    *Lab
	initrd string
	disk   string
	port   *vm.Port // SSHPort

	mu     sync.Mutex
	vm     *vm.VM
	booted time.Time

	dialing sync.Mutex // one attempt at a time; held while it lasts
	cmu     sync.Mutex
	client  *ssh.Client
}

// BootFrom is a way from power on to the kernel.
type BootFrom string

// Ways from power on to the kernel.
const (
	Direct BootFrom = "" // QEMU loads kernel and initramfs; the disk is for data only
	BIOS   BootFrom = "BIOS"
	UEFI   BootFrom = "UEFI"
)

// diskSize is that of a director's data disk. The file is sparse. There is room
// behind the smallest file system.
const diskSize = 80 << 20

func newDirector(l *Lab, i int) (*Director, error) {
	d := &Director{Index: i, lab: l}
	d.initrd = filepath.Join(l.Dir, d.file()+".initrd")
	d.disk = filepath.Join(l.Dir, d.file()+".disk")
	if l.opts.Disk != nil {
		d.BootFrom = BIOS
	}
	for _, s := range l.Switches {
		p, err := s.Port(d.file())
		if err != nil {
			return nil, err
		}
		d.Ports = append(d.Ports, p)
	}
	if err := d.Wipe(); err != nil {
		return nil, err
	}
	p, err := vm.NewPort()
	if err != nil {
		return nil, err
	}
	d.port, d.SSHPort = p, p.Number
	return d, nil
}

// Wipe gives the box an empty disk. It must have no power.
func (d *Director) Wipe() error {
	f, err := os.Create(d.disk)
	if err == nil {
		err = f.Truncate(diskSize)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// LoseData takes the file system from the box's disk, as a disk does that fails:
// only its last MiB stays. It must have no power.
func (d *Director) LoseData() error {
	f, err := os.OpenFile(d.disk, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(make([]byte, diskSize-1<<20), 0)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// file is the name of the box in file names, which host names do not change.
func (d *Director) file() string { return plan.Names[d.Index] }

// Name is the host name of the box.
func (d *Director) Name() string { return d.lab.Plan().Directors[d.Index].Name }

// Seed writes the initramfs of the next boots (Options.Disk makes a disk in its place): the image's, and behind it what a
// netboot server would send along. A box with a configuration of its own on its
// disk does not look at it.
func (d *Director) Seed(config []byte, files map[string][]byte) error {
	a := archive.New()
	a.File("seed/config", config, 0o600)
	for name, b := range files {
		a.File(path.Join("seed/files", name), b, 0o755)
	}
	extra, err := a.Bytes()
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	image, err := os.ReadFile(filepath.Join(d.lab.opts.Image, "initramfs.zst"))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	image = append(image, make([]byte, -len(image)&3)...)
	if err := os.WriteFile(d.initrd, append(image, extra...), 0o600); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// DiskFile is the box's disk. What writes there makes it one for another BootFrom.
func (d *Director) DiskFile() string { return d.disk }

// VM is the box's machine; nil before its first boot.
func (d *Director) VM() *vm.VM {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.vm
}

// Running tells whether the box has power.
func (d *Director) Running() bool {
	v := d.VM()
	return v != nil && v.Running()
}

// Boot gives the box power. Its disk is what it was.
func (d *Director) Boot(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.vm != nil && d.vm.Running() {
		return fmt.Errorf("lab: %s runs already", d.file())
	}
	c := vm.Config{Name: d.file(), Dir: d.lab.Dir, Memory: d.lab.opts.Memory, Watchdog: true}
	switch d.BootFrom {
	case UEFI:
		var err error
		if c.UEFI, err = d.uefi(); err != nil {
			return err
		}
		fallthrough
	case BIOS:
		c.Disks = []vm.Disk{{File: d.disk, Serial: "boot", BootIndex: 1, Cache: "unsafe"}}
	default:
		c.Kernel, c.Initrd, c.Append = filepath.Join(d.lab.opts.Image, "vmlinuz"), d.initrd, board.QEMU.KernelCmdLine()
		c.Disks = []vm.Disk{{File: d.disk, Serial: board.QEMU.Data.Serial}}
	}
	for i, p := range d.Ports {
		c.NICs = append(c.NICs, vm.NIC{Netdev: p.Netdev(), MAC: plan.SegmentMAC(i, d.Index)})
		p.Plug(true)
	}
	c.NICs = append(c.NICs, vm.NIC{
		Netdev: fmt.Sprintf("user,restrict=on,hostfwd=tcp:127.0.0.1:%d-:22", d.SSHPort), MAC: plan.ManagementMAC(d.Index),
	})
	v, err := vm.Start(c)
	if err != nil {
		return err
	}
	d.vm, d.booted = v, v.Started
	return nil
}

// uefi is its firmware, with the variables of its last boot.
func (d *Director) uefi() (*vm.UEFI, error) {
	u := &vm.UEFI{Vars: filepath.Join(d.lab.Dir, d.file()+".vars")}
	if _, err := os.Stat(u.Vars); err == nil {
		return u, nil
	}
	b, err := os.ReadFile(vm.OVMFVars)
	if err == nil {
		err = os.WriteFile(u.Vars, b, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w: make test-tools installs it", err)
	}
	return u, nil
}

// Kill pulls the power cord.
func (d *Director) Kill() {
	d.cmu.Lock()
	if d.client != nil {
		d.client.Close()
		d.client = nil
	}
	d.cmu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.vm != nil {
		d.vm.Kill()
	}
}

// Stop presses the power button and waits until the box is off: an orderly
// stop, in which VRRP resigns.
func (d *Director) Stop(ctx context.Context) error {
	v := d.VM()
	if v == nil || !v.Running() {
		return nil
	}
	if err := v.PowerButton(ctx); err != nil {
		return err
	}
	if err := v.Wait(ctx); err != nil {
		return err
	}
	d.Kill() // what is left of its connections
	return nil
}

// Unplug pulls, or plugs in, the cables of all segments: the box sees its
// carrier go. The management cable stays.
func (d *Director) Unplug(ctx context.Context, out bool) error {
	v := d.VM()
	if v == nil || !v.Running() {
		return fmt.Errorf("lab: %s has no power", d.file())
	}
	for i, p := range d.Ports {
		p.Plug(!out)
		if err := v.SetLink(ctx, i, !out); err != nil {
			return err
		}
	}
	return nil
}

// WaitConsole waits until the box can be reached over SSH.
func (d *Director) WaitConsole(ctx context.Context) error {
	v := d.VM()
	var last error
	for {
		// An attempt that began before the box was there may hang: not for long.
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, last = d.dial(try)
		cancel()
		if last == nil {
			return nil
		}
		select {
		case <-v.Exited():
			return fmt.Errorf("lab: %s has ended; the end of its console:\n%s", d.file(), lastLines(v.Console(), 20))
		case <-ctx.Done():
			return fmt.Errorf("lab: %s cannot be reached over SSH: %w; the end of its console:\n%s", d.file(), last, lastLines(v.Console(), 20))
		case <-time.After(200 * time.Millisecond): // a port that opens tells nobody
		}
	}
}

func lastLines(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// dial returns the box's SSH connection, a new one when there is none.
func (d *Director) dial(ctx context.Context) (*ssh.Client, error) {
	d.dialing.Lock()
	defer d.dialing.Unlock()
	d.cmu.Lock()
	have := d.client
	d.cmu.Unlock()
	if have != nil {
		return have, nil
	}
	addr := fmt.Sprintf("127.0.0.1:%d", d.SSHPort)
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(15 * time.Second)
	if t, ok := ctx.Deadline(); ok && t.Before(deadline) {
		deadline = t
	}
	c.SetDeadline(deadline)
	conn, channels, requests, err := ssh.NewClientConn(c, addr, &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(d.lab.key.signer)},
		// The boxes are born with the lab and only the loopback interface is between us.
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	client := ssh.NewClient(conn, channels, requests)
	d.cmu.Lock()
	defer d.cmu.Unlock()
	d.client = client
	return client, nil
}

// hangUp forgets a connection that does not work.
func (d *Director) hangUp(c *ssh.Client) {
	c.Close()
	d.cmu.Lock()
	defer d.cmu.Unlock()
	if d.client == c {
		d.client = nil
	}
}

// HangUp ends the SSH connection to the box, which may be dead without a word once
// its address was away: the next command makes another.
func (d *Director) HangUp() {
	d.cmu.Lock()
	c := d.client
	d.cmu.Unlock()
	if c != nil {
		d.hangUp(c)
	}
}

// ExitError is a console command that the box refused.
type ExitError struct {
	Command string
	Status  int
	Text    string // what it said
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit status %d: %s", e.Command, e.Status, e.Text)
}

// Console runs one console command over SSH, with stdin as its input, and
// returns what it printed. A refusal is an *ExitError.
func (d *Director) Console(ctx context.Context, command string, stdin []byte) (string, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return "", fmt.Errorf("lab: %s: ssh: %w", d.Name(), err)
	}
	var out, words bytes.Buffer
	done := make(chan error, 1)
	go func() { // the box may have gone without a word: nothing here waits for its own end
		s, err := c.NewSession()
		if err != nil {
			done <- fmt.Errorf("ssh: %w", err)
			return
		}
		defer s.Close()
		s.Stdout, s.Stderr = &out, &words
		s.Stdin = bytes.NewReader(stdin)
		done <- s.Run(command)
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		d.hangUp(c) // ends the goroutine
		<-done
		return "", fmt.Errorf("lab: %s: %s: %w", d.Name(), command, ctx.Err())
	}
	var exit *ssh.ExitError
	switch {
	case errors.As(err, &exit):
		text := strings.TrimSpace(words.String() + out.String())
		return out.String(), &ExitError{d.Name() + ": " + command, exit.ExitStatus(), text}
	case err != nil:
		d.hangUp(c)
		return out.String(), fmt.Errorf("lab: %s: %s: %w", d.Name(), command, err)
	}
	return out.String(), nil
}

// Show runs a show command with --json and reads its answer.
func Show[T any](ctx context.Context, d *Director, what string) (T, error) {
	var v T
	out, err := d.Console(ctx, "show "+what+" --json", nil)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return v, fmt.Errorf("lab: %s: show %s: %w", d.Name(), what, err)
	}
	return v, nil
}

// VRRP is the box's view of its virtual routers.
func (d *Director) VRRP(ctx context.Context) (status.VRRP, error) {
	return Show[status.VRRP](ctx, d, "vrrp")
}

// IPVS is the box's kernel table.
func (d *Director) IPVS(ctx context.Context) (status.IPVS, error) {
	return Show[status.IPVS](ctx, d, "ipvs")
}

// Commit makes a text the box's configuration.
func (d *Director) Commit(ctx context.Context, text []byte) (string, error) {
	return d.Console(ctx, "commit", text)
}

// PutFile stores a script file on the box.
func (d *Director) PutFile(ctx context.Context, name string, content []byte) error {
	_, err := d.Console(ctx, "file put "+name, content)
	return err
}

// apply brings script files and a configuration to a running box.
func (d *Director) apply(ctx context.Context, text []byte, files map[string][]byte) error {
	if !d.Running() {
		return nil
	}
	for name, b := range files {
		if err := d.PutFile(ctx, name, b); err != nil {
			return err
		}
	}
	// Nothing of what ran before stays.
	_, err := d.Console(ctx, "commit override", text)
	return err
}
