// Package lab boots a pair of directors from the product's image, with a client
// and real servers around them, and drives them: everything in QEMU, without
// root. A Switch in this process is each segment; one more VM holds the client
// and the real servers in network namespaces.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/test/lab/ether"
	"ballast/test/lab/plan"
	"ballast/test/lab/vm"
)

// Options are what a lab is made of.
type Options struct {
	Name   string            // of the configuration, for messages
	Config []byte            // the first director's keepalived.conf
	Peer   []byte            // the second one's; nil: derived from Config
	Blocks string            // blocks of the appliance to add for both ("mark 300 { … }")
	Files  map[string][]byte // script files by their path on the director
	Image  string            // folder with vmlinuz and initramfs.zst; empty: DefaultImage
	Memory int               // MiB of a director, default 512
	Log    func(string)      // progress, a line at a time; nil: nowhere
	// Seeds replaces what the two boxes are given at their first boot, which is
	// otherwise derived from the fields above: for boxes that boot with faults.
	Seeds [2][]byte
	// Solo boots the first director only.
	Solo bool
	// Disk has directors boot from disks of their own, as hardware does, and makes
	// such a disk: of director i, whose first configuration is seed. nil: QEMU loads
	// kernel and initramfs, and the disk is for data only.
	Disk func(ctx context.Context, i int, file string, seed []byte) error
}

// DefaultImage is where the build leaves the image of QEMU's board, seen from
// the repository's root.
const DefaultImage = "out/image/qemu"

// Lab is a running lab. Make it with Start; Close ends all of it.
type Lab struct {
	Dir       string // sockets, console logs and disks; goes with the lab
	Directors [2]*Director
	Node      *Node
	Switches  []*ether.Switch // by segment
	Roles     *Roles

	key    *key
	opts   Options
	unlock func()
	once   sync.Once

	mu   sync.Mutex
	plan plan.Plan
}

// Plan is how the lab is laid out now.
func (l *Lab) Plan() plan.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plan
}

// KeyFile is the private key that both consoles accept.
func (l *Lab) KeyFile() string { return l.key.file }

// Faults is the error of a configuration that a director would refuse.
type Faults struct{ Problems []model.Problem }

func (f *Faults) Error() string {
	var lines []string
	for _, p := range f.Problems {
		if p.Severity == model.Error {
			lines = append(lines, p.String())
		}
	}
	return strings.Join(lines, "\n")
}

// layout reads a configuration and derives the lab and the two boxes' own
// texts, without the blocks of the appliance.
func layout(o Options) (plan.Plan, [2][]byte, error) {
	texts := [2][]byte{o.Config, o.Peer}
	ids := plan.Names
	shared := false
	if h, ok := plan.Hosts(o.Config); ok && o.Peer == nil {
		ids, shared = h, true
		texts[1] = o.Config
	}
	load := func(i int) (model.Config, error) {
		text := append([]byte(o.Blocks+"\n"), texts[i]...)
		c, problems := configs.Load(o.Name, text, configs.Options{ConfigID: ids[i]})
		for _, p := range problems {
			if p.Severity == model.Error {
				// Positions are those of the user's own file.
				_, own := configs.Load(o.Name, texts[i], configs.Options{ConfigID: ids[i]})
				for _, q := range own {
					if q.Severity == model.Error {
						return c, &Faults{own}
					}
				}
				return c, &Faults{problems}
			}
		}
		if c.System.HostName == "" {
			c.System.HostName = ids[i]
		}
		return c, nil
	}
	a, err := load(0)
	if err != nil {
		return plan.Plan{}, texts, err
	}
	if texts[1] == nil {
		p := plan.Make(a, nil)
		if texts[1], err = plan.Peer(o.Name, texts[0], p); err != nil {
			return p, texts, err
		}
	}
	b, err := load(1)
	if err != nil {
		if !shared && o.Peer == nil {
			return plan.Plan{}, texts, fmt.Errorf("lab: the file derived for the second director: %w", err)
		}
		return plan.Plan{}, texts, err
	}
	return plan.Make(a, &b), texts, nil
}

// Layout is the plan that Start would follow.
func Layout(o Options) (plan.Plan, error) {
	p, _, err := layout(o)
	return p, err
}

// Start boots everything and returns when both directors can be reached. It
// waits for its turn when another lab runs on this machine.
func Start(ctx context.Context, o Options) (l *Lab, err error) {
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.Image == "" {
		o.Image = DefaultImage
	}
	if o.Memory == 0 {
		o.Memory = 512
	}
	p, texts, err := layout(o)
	if err != nil {
		return nil, err
	}
	for _, f := range []string{"vmlinuz", "initramfs.zst"} {
		if o.Disk != nil {
			break
		}
		if _, err := os.Stat(filepath.Join(o.Image, f)); err != nil {
			return nil, fmt.Errorf("lab: no image: %w: make image builds it", err)
		}
	}
	o.Log("waiting for the machine's lab lock")
	unlock, err := vm.Lock(ctx)
	if err != nil {
		return nil, err
	}
	removeStale()
	ctx, cancel := context.WithTimeout(ctx, bootBound)
	defer cancel()
	l = &Lab{opts: o, plan: p, unlock: unlock}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.Dir, err = os.MkdirTemp("", tempPrefix); err != nil {
		return l, fmt.Errorf("lab: %w", err)
	}
	if l.key, err = newKey(filepath.Join(l.Dir, "key")); err != nil {
		return l, err
	}
	for i := range max(plan.MinSegments, len(p.Segments)) {
		l.Switches = append(l.Switches, ether.New(fmt.Sprintf("segment%d", i)))
	}
	l.Roles = newRoles(l.Switches)
	for i := range l.Directors {
		if l.Directors[i], err = newDirector(l, i); err != nil {
			return l, err
		}
	}
	if err = l.writeSSHConfig(); err != nil {
		return l, err
	}
	if l.Node, err = newNode(ctx, l); err != nil {
		return l, err
	}
	start := time.Now()
	o.Log("booting the directors, the client and the real servers")
	err = parallel(
		func() error { return l.Node.start(ctx, p) },
		func() error { return l.bootDirector(ctx, 0, texts) },
		func() error {
			if o.Solo {
				return nil
			}
			return l.bootDirector(ctx, 1, texts)
		},
	)
	if err != nil {
		return l, err
	}
	o.Log(fmt.Sprintf("all up after %v", time.Since(start).Round(100*time.Millisecond)))
	return l, nil
}

// bootBound is how long everything may take to boot, once it is the lab's turn.
const bootBound = 5 * time.Minute

func (l *Lab) bootDirector(ctx context.Context, i int, texts [2][]byte) error {
	seed := l.opts.Seeds[i]
	if seed == nil {
		seed = l.Text(i, texts[i])
	}
	d := l.Directors[i]
	err := error(nil)
	if l.opts.Disk != nil {
		err = l.opts.Disk(ctx, i, d.disk, seed)
	} else {
		err = d.Seed(seed, l.opts.Files)
	}
	if err != nil {
		return err
	}
	if err := d.Boot(ctx); err != nil {
		return err
	}
	if err := d.WaitConsole(ctx); err != nil {
		return err
	}
	l.opts.Log(fmt.Sprintf("%s answers after %v", d.Name(), time.Since(d.booted).Round(100*time.Millisecond)))
	return nil
}

// Text is a box's whole configuration: the blocks of the appliance, and the
// user's text as it is.
func (l *Lab) Text(i int, user []byte) []byte {
	return append([]byte(l.Plan().Blocks(i, l.key.public)+l.opts.Blocks+"\n"), user...)
}

// Apply lays the running lab out anew around another configuration: the client
// and the real servers change, and both boxes commit it. The number of
// segments cannot grow.
func (l *Lab) Apply(ctx context.Context, o Options) error {
	p, texts, err := layout(o)
	if err != nil {
		return err
	}
	if len(p.Segments) > len(l.Switches) {
		return fmt.Errorf("lab: the configuration needs %d segments, the running lab has %d", len(p.Segments), len(l.Switches))
	}
	l.mu.Lock()
	l.plan = p
	l.opts.Blocks, l.opts.Files = o.Blocks, o.Files
	l.mu.Unlock()
	if err := l.Node.apply(ctx, p); err != nil {
		return err
	}
	// What the boxes advertised until they had committed tells nothing of what they
	// do now.
	defer l.Roles.forget()
	return parallel(
		func() error { return l.Directors[0].apply(ctx, l.Text(0, texts[0]), o.Files) },
		func() error { return l.Directors[1].apply(ctx, l.Text(1, texts[1]), o.Files) },
	)
}

// Close ends everything that the lab started and removes its files.
func (l *Lab) Close() {
	l.once.Do(func() {
		for _, d := range l.Directors {
			if d != nil {
				d.Kill()
				d.port.Close()
			}
		}
		if l.Node != nil {
			l.Node.close()
		}
		for _, s := range l.Switches {
			s.Close()
		}
		if l.Dir != "" {
			os.RemoveAll(l.Dir)
		}
		l.unlock()
	})
}

const tempPrefix = "ballast-lab-"

// removeStale removes what a lab left that was killed. The caller holds the
// lock, so no lab runs.
func removeStale() {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*"))
	if err != nil {
		return
	}
	for _, d := range old {
		if _, err := os.Stat(filepath.Join(d, "key")); err == nil {
			os.RemoveAll(d)
		}
	}
}

// parallel calls all and joins their errors.
func parallel(fns ...func() error) error {
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() { errs[i] = fn() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
