package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ballast/image/archive"
	"ballast/services/ipc/status"
	"ballast/test/bench/peer/box"
	"ballast/test/guest"
	"ballast/test/lab"
	"ballast/test/lab/plan"
	"ballast/test/lab/rootfs"
	"ballast/test/lab/vm"
	"ballast/test/lab/wire"
)

// event is what happens to the master.
type event string

const (
	kill   event = "kill"   // the power cord
	stop   event = "stop"   // the VRRP daemon ends in order: it says so to the others
	unplug event = "unplug" // the cables
)

// memory is what the processes of a box hold.
type memory struct {
	rss, pss, vrrp uint64 // bytes; vrrp is the RSS of the VRRP process, 0: not told apart
	detail         string
}

// pair is two directors of one make.
type pair interface {
	// start brings both up with a configuration.
	start(ctx context.Context, o lab.Options) error
	// power boots one of them and returns its machine.
	power(ctx context.Context, i int) (*vm.VM, error)
	do(ctx context.Context, e event) error   // to the first
	undo(ctx context.Context, e event) error // what do did
	memory(ctx context.Context) (memory, error)
	// up is what the console of a box shows first when PID 1 runs.
	up() string
	off() // both
}

// ours is the product.
type ours struct{ l *lab.Lab }

func (p *ours) start(ctx context.Context, o lab.Options) error {
	for i, d := range p.l.Directors {
		if !d.Running() {
			if _, err := p.power(ctx, i); err != nil {
				return err
			}
		}
	}
	for _, d := range p.l.Directors {
		if err := d.WaitConsole(ctx); err != nil {
			return err
		}
	}
	return p.l.Apply(ctx, o)
}

func (p *ours) power(ctx context.Context, i int) (*vm.VM, error) {
	d := p.l.Directors[i]
	if err := d.Boot(ctx); err != nil {
		return nil, err
	}
	return d.VM(), nil
}

func (p *ours) up() string { return "init is up" }

func (p *ours) off() {
	for _, d := range p.l.Directors {
		d.Kill()
	}
}

func (p *ours) do(ctx context.Context, e event) error {
	d := p.l.Directors[0]
	switch e {
	case kill:
		d.Kill()
	case stop:
		_, err := d.Console(ctx, "resign", nil)
		return err
	case unplug:
		return d.Unplug(ctx, true)
	}
	return nil
}

func (p *ours) undo(ctx context.Context, e event) error {
	d := p.l.Directors[0]
	switch e {
	case kill:
		if err := d.Boot(ctx); err != nil {
			return err
		}
		return d.WaitConsole(ctx)
	case stop:
		_, err := d.Console(ctx, "resume", nil)
		return err
	case unplug:
		return d.Unplug(ctx, false)
	}
	return nil
}

func (p *ours) memory(ctx context.Context) (memory, error) {
	var m memory
	s, err := lab.Show[status.Init](ctx, p.l.Directors[0], "processes")
	for _, x := range s.Services {
		m.rss += x.RSS
		m.pss += x.PSS
		if x.Name == "vrrp" {
			m.vrrp = x.RSS
		}
		m.detail += fmt.Sprintf(" %s %.1f/%.1f", x.Name, float64(x.RSS)/mib, float64(x.PSS)/mib)
	}
	return m, err
}

// theirs is keepalived: the lab's node image (its init is a small static
// program that mounts, loads modules and starts what follows) with this
// machine's keepalived in it, on the firmware's kernel.
type theirs struct {
	l      *lab.Lab
	base   []byte
	vms    [2]*vm.VM
	kernel string
}

func newTheirs(ctx context.Context, l *lab.Lab) (*theirs, error) {
	p := &theirs{l: l}
	var err error
	if p.kernel, err = rootfs.Kernel(ctx); err != nil {
		return nil, err
	}
	if p.base, err = rootfs.Base(ctx, "ip_vs", "ip_vs_rr", "ip_vs_wrr"); err != nil {
		return nil, err
	}
	rc, err := rootfs.Build(ctx, "ballast/test/bench/peer")
	if err != nil {
		return nil, err
	}
	a := archive.New()
	a.File("bin/rc", rc, 0o755)
	for _, b := range []string{"keepalived", "ipvsadm"} {
		if err := guest.AddProgram(ctx, a, b); err != nil {
			return nil, err
		}
	}
	extra, err := a.Bytes()
	p.base = append(p.base, extra...)
	return p, err
}

func (p *theirs) initrd(i int) string {
	return filepath.Join(p.l.Dir, fmt.Sprintf("keepalived-%d.initrd", i))
}

// files writes what is particular to each box.
func (p *theirs) files(o lab.Options) error {
	lp := p.l.Plan()
	second, err := plan.Peer(o.Name, o.Config, lp)
	if err != nil {
		return err
	}
	for i, text := range [2][]byte{o.Config, second} {
		c := box.Config{HostName: lp.Directors[i].Name, Sysctls: map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv4/conf/all/send_redirects": "0",
		}}
		for s, as := range lp.Directors[i].Addresses {
			c.NICs = append(c.NICs, box.NIC{MAC: plan.SegmentMAC(s, i), Addresses: as})
		}
		b, err := json.Marshal(c)
		if err != nil {
			return err
		}
		a := archive.New()
		a.File(box.File, b, 0o644)
		a.File(box.Conf, text, 0o644)
		own, err := a.Bytes()
		if err != nil {
			return err
		}
		if err := os.WriteFile(p.initrd(i), append(p.base[:len(p.base):len(p.base)], own...), 0o600); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	return nil
}

func (p *theirs) start(ctx context.Context, o lab.Options) error {
	p.off()
	// Nobody of ours runs, so this lays out only the client and the servers.
	if err := p.l.Apply(ctx, o); err != nil {
		return err
	}
	if err := p.files(o); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var errs [2]error
	for i := range p.vms {
		wg.Go(func() {
			if _, errs[i] = p.power(ctx, i); errs[i] == nil {
				errs[i] = p.reach(ctx, p.vms[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

func (p *theirs) reach(ctx context.Context, v *vm.VM) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := v.Agent(ctx)
	return err
}

func (p *theirs) power(_ context.Context, i int) (*vm.VM, error) {
	c := vm.Config{
		Name: fmt.Sprintf("keepalived-%d", i), Dir: p.l.Dir, Memory: 512, Kernel: p.kernel, Initrd: p.initrd(i),
		Append: "console=ttyS0,115200 panic=10 loglevel=4 printk.devkmsg=on", Agent: true, NoReboot: true,
	}
	os.Remove(vm.ConsoleLog(c.Dir, c.Name)) // a boot is timed by its lines
	for s, port := range p.l.Directors[i].Ports {
		c.NICs = append(c.NICs, vm.NIC{Netdev: port.Netdev(), MAC: plan.SegmentMAC(s, i)})
		port.Plug(true)
	}
	v, err := vm.Start(c)
	if err != nil {
		return nil, err
	}
	p.vms[i] = v
	// The agent takes a port that nobody has opened for the end of the lab, and
	// powers the machine off.
	go p.reach(context.Background(), v)
	return v, nil
}

func (p *theirs) up() string { return "node: PID 1" }

func (p *theirs) off() {
	for _, v := range p.vms {
		if v != nil {
			v.Kill()
		}
	}
}

func (p *theirs) rc(ctx context.Context, i int, verb string) (string, error) {
	a, err := p.vms[i].Agent(ctx)
	if err != nil {
		return "", err
	}
	return a.Run(ctx, wire.Exec{Argv: []string{"/bin/rc", verb}})
}

func (p *theirs) do(ctx context.Context, e event) error {
	switch e {
	case kill:
		p.vms[0].Kill()
	case stop:
		_, err := p.rc(ctx, 0, "stop")
		return err
	case unplug:
		return p.plug(ctx, false)
	}
	return nil
}

func (p *theirs) undo(ctx context.Context, e event) error {
	switch e {
	case kill:
		if _, err := p.power(ctx, 0); err != nil {
			return err
		}
		return p.reach(ctx, p.vms[0])
	case stop:
		a, err := p.vms[0].Agent(ctx)
		if err != nil {
			return err
		}
		_, err = a.Start(wire.Exec{Argv: []string{"/bin/rc", "start"}}, nil, nil)
		return err
	case unplug:
		return p.plug(ctx, true)
	}
	return nil
}

// plug does what lab.Director.Unplug does.
func (p *theirs) plug(ctx context.Context, in bool) error {
	for i, port := range p.l.Directors[0].Ports {
		port.Plug(in)
		if err := p.vms[0].SetLink(ctx, i, in); err != nil {
			return err
		}
	}
	return nil
}

func (p *theirs) memory(ctx context.Context) (memory, error) {
	out, err := p.rc(ctx, 0, "memory")
	if err != nil {
		return memory{}, err
	}
	var m box.Memory
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return memory{}, fmt.Errorf("bench: keepalived's memory: %w", err)
	}
	return memory{rss: m.RSS, pss: m.PSS, detail: fmt.Sprintf(" keepalived, %d processes", m.Processes)}, nil
}
