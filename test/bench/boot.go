package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ballast/image/disk"
	"ballast/test/firmware/machine"
	"ballast/test/lab"
	"ballast/test/lab/vm"
	"ballast/test/lab/wire"
)

// starts are the ways from power on to the kernel that are timed.
var starts = []struct {
	how  lab.BootFrom
	name string
}{{lab.Direct, "QEMU loads the kernel"}, {lab.BIOS, "disk, BIOS"}, {lab.UEFI, "disk, UEFI"}}

// boots times the start of one director while the other one is off. It comes last:
// it leaves the director with another disk.
func (b *bench) boots(ctx context.Context) error {
	t := timings[1]
	names := []string{"PID 1", "first advertisement on the wire", "first request through the VIP answered", "all services ready"}
	var rows []Row
	for _, s := range starts {
		for _, n := range names {
			rows = append(rows, Row{Group: "boot", Name: s.name + ": " + n, Unit: "s"})
		}
	}
	rows[3].Note = "ours only: keepalived has no such mark"
	err := b.each(ctx, t.options(), func(i int, p pair) error {
		c, err := startClient(b.l, target, 10*time.Millisecond)
		if err != nil {
			return err
		}
		defer c.stop(ctx)
		if err := b.steady(ctx, t, c); err != nil { // the configuration works, and is on the disk
			return err
		}
		for n, s := range starts {
			runs := b.Runs
			if i == 0 {
				b.l.Directors[0].BootFrom = s.how
			} else if s.how != lab.Direct {
				break // keepalived's machine has no disk
			}
			if s.how == lab.BIOS { // UEFI has the same disk
				p.off()
				if err := b.install(ctx, b.l.Directors[0], t.options().Config); err != nil {
					return err
				}
				runs++ // and the first boot, which makes the data partition, does not count
			}
			for r := range runs {
				p.off()
				b.adverts.forget()
				took, stall, err := b.bootOnce(ctx, p, c, i == 0)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				if r < runs-b.Runs {
					continue
				}
				for k, d := range took {
					row := &rows[n*len(names)+k]
					to := [2]**Series{&row.Ours, &row.Peer}[i]
					if *to == nil {
						*to = &Series{}
					}
					(*to).Values = append((*to).Values, d.Seconds())
					(*to).Witness = max((*to).Witness, stall.Seconds()*1000)
				}
			}
		}
		return nil
	})
	for _, row := range rows {
		b.add(row)
	}
	b.report.Remarks = append(b.report.Remarks, "Boot: v3 with 100 ms advertisements, so 0.36 s of it are the master-down interval. The peer's machine is the smallest that "+
		"can run keepalived: the same kernel and modules, the lab's static Go init, which mounts, loads modules, sets addresses and starts keepalived; no distribution, no service manager. "+
		"From disk (virtio-blk): SeaBIOS or OVMF and GRUB, which waits 2 s for Esc, are in it.")
	return err
}

// install makes the disk of a director the image's, as one that was flashed, with
// a configuration for its first boot.
func (b *bench) install(ctx context.Context, d *lab.Director, config []byte) error {
	f, err := machine.Read(b.Image)
	if err == nil {
		f, err = f.WithConfig(b.l.Text(d.Index, config))
	}
	if err == nil {
		err = f.Disk(ctx, d.DiskFile(), 512<<20, disk.Options{})
	}
	return err
}

func (b *bench) bootOnce(ctx context.Context, p pair, c *client, wantReady bool) (took []time.Duration, stall time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c.trim(time.Now())
	v, err := p.power(ctx, 0)
	if err != nil {
		return nil, 0, err
	}
	from := 0
	if wantReady { // the console log of ours goes on over its boots
		from = len(v.Console())
	}
	up, from, err := shown(ctx, v, from, p.up())
	if err != nil {
		return nil, 0, err
	}
	var advert time.Time
	err = b.adverts.until(ctx, "no advertisement", func(a *adverts) bool {
		advert = a.first[0]
		return !advert.IsZero()
	})
	if err != nil {
		return nil, 0, err
	}
	var forwarded time.Time
	for ok := false; !ok; forwarded, ok = c.firstGood(up) {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return nil, 0, fmt.Errorf("no answer after the boot: %w", err)
		}
	}
	marks := []time.Time{up, advert, forwarded}
	if wantReady {
		ready, _, err := shown(ctx, v, from, "ready: ")
		if err != nil {
			return nil, 0, err
		}
		marks = append(marks, ready)
	}
	for _, m := range marks {
		took = append(took, m.Sub(v.Started))
	}
	return took, b.host.worst(v.Started, time.Now()), nil
}

// shown waits for a text on the console.
func shown(ctx context.Context, v *vm.VM, from int, text string) (time.Time, int, error) {
	for {
		s := v.Console()
		if from <= len(s) {
			if i := strings.Index(s[from:], text); i >= 0 {
				return time.Now(), from + i + len(text), nil
			}
		}
		select {
		case <-v.Exited():
			return time.Time{}, 0, fmt.Errorf("bench: %s has ended before it showed %q", v.Name, text)
		case <-ctx.Done():
			return time.Time{}, 0, fmt.Errorf("bench: %s does not show %q: %w", v.Name, text, ctx.Err())
		case <-time.After(10 * time.Millisecond): // the log is a file that QEMU appends to
		}
	}
}

// Aims for memory, in MiB.
const (
	totalAim = 64
	vrrpAim  = 10
)

// memories reads what the processes hold after some traffic.
func (b *bench) memories(ctx context.Context) error {
	rss := Row{Group: "memory", Name: "resident (RSS), summed", Unit: "MiB", Aim: totalAim, Note: "counts the pages of the one binary once in each process"}
	pss := Row{Group: "memory", Name: "proportional (PSS), summed", Unit: "MiB", Aim: totalAim}
	vrrp := Row{Group: "memory", Name: "the vrrp process, RSS", Unit: "MiB", Aim: vrrpAim}
	o := lab.Options{Name: "default.conf", Config: lab.DefaultConfig}
	err := b.each(ctx, o, func(i int, p pair) error {
		m, err := b.memoryOf(ctx, p)
		if err != nil {
			return err
		}
		one := func(n uint64) *Series { return &Series{Values: []float64{float64(n) / mib}} }
		if i == 0 {
			rss.Ours, pss.Ours, vrrp.Ours = one(m.rss), one(m.pss), one(m.vrrp)
		} else {
			rss.Peer, pss.Peer = one(m.rss), one(m.pss)
		}
		b.report.Remarks = append(b.report.Remarks, fmt.Sprintf("Memory in MiB (RSS/PSS) of%s", m.detail))
		return nil
	})
	b.add(rss)
	b.add(pss)
	b.add(vrrp)
	return err
}

func (b *bench) memoryOf(ctx context.Context, p pair) (memory, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	probe, err := b.l.Node.Probe(wire.Probe{Kind: "http", Target: "10.10.0.80:80", Every: 20 * time.Millisecond}, nil)
	if err != nil {
		return memory{}, err
	}
	err = probe.Answered(ctx)
	if err == nil {
		err = pause(ctx, 10*time.Second) // traffic, and some rounds of the checks
	}
	var m memory
	if err == nil {
		m, err = p.memory(ctx)
	}
	if _, perr := probe.Stop(ctx); err == nil {
		err = perr
	}
	return m, err
}
