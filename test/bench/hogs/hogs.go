// Package hogs runs two of our routers at 10 ms advertisements beside processes
// that want all of the machine, and two of keepalived's in the same minutes,
// and counts who went master though no master had failed. It needs root,
// iproute2 and keepalived; "soak -run vrrp-hogs" is its command.
package hogs

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/test/locked"
)

// Options are one run.
type Options struct {
	Duration time.Duration
	Hogs     int // processes that only burn a processor
	Advert   time.Duration
	Readers  int           // processes that ask each of our routers for its state all the time
	Alone    bool          // our routers run without their pacer
	Collect  bool          // our routers collect garbage all the time, as no service of ours does
	Freeze   time.Duration // our master is stopped for up to that long, about once a second; 0: never
	Log      func(string)
}

// Result is what was seen after both pairs had settled.
type Result struct {
	Took  time.Duration
	Pairs []Pair
	// Witness is how late a thread of real-time priority in a process of its
	// own was for a 10 ms timer: what is late there is late for everybody.
	Witness string
}

// Pair is one pair of routers.
type Pair struct {
	Name  string
	False int    // times that the backup went master though the master lived
	Wire  string // how far apart the master's advertisements came in at the backup
	Note  string // of our routers: how late their timers were
}

func (r Result) String() string {
	var b strings.Builder
	for _, p := range r.Pairs {
		fmt.Fprintf(&b, "%-28s %4d false masters in %v; on the wire: %s\n", p.Name, p.False, r.Took.Round(time.Second), p.Wire)
		if p.Note != "" {
			fmt.Fprintf(&b, "  %s\n", p.Note)
		}
	}
	fmt.Fprintf(&b, "%-28s %s", "witness", r.Witness)
	return b.String()
}

// Problem is what must not be: nil when our pair did what it has to.
func (r Result) Problem() error {
	for _, p := range r.Pairs {
		if p.Name == ours && p.False > 0 {
			return fmt.Errorf("hogs: %d false masters of ours in %v", p.False, r.Took.Round(time.Second))
		}
	}
	return nil
}

// ours is the name of our pair.
const ours = "ours"

// Run runs both pairs until the time is over.
func Run(ctx context.Context, o Options) (res Result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var undo []func()
	defer func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}()
	w := &world{o: o, dir: filepath.Join(os.TempDir(), fmt.Sprintf("hogs%d", os.Getpid())), undo: &undo}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		return res, err
	}
	undo = append(undo, func() { os.RemoveAll(w.dir) })
	mine, err := w.ours()
	if err != nil {
		return res, err
	}
	pairs := []counter{mine}
	for _, p := range []struct{ name, global string }{
		{"keepalived", ""}, {"keepalived, real time", " vrrp_rt_priority 50\n vrrp_no_swap\n"},
	} {
		c, err := w.keepalived(p.name, p.global)
		if err != nil {
			return res, err
		}
		pairs = append(pairs, c)
	}
	if err := sleep(ctx, 3*time.Second); err != nil { // everybody has a master
		return res, err
	}
	for range o.Hogs {
		if _, err := w.spawn("", roleHog); err != nil {
			return res, err
		}
	}
	if _, err := w.spawn("", roleThrash); err != nil {
		return res, err
	}
	witness, err := w.spawn("", roleWitness)
	if err != nil {
		return res, err
	}
	looker, err := w.spawn("", roleLooker)
	if err != nil {
		return res, err
	}
	if err := sleep(ctx, 2*time.Second); err != nil { // the start of all that is no fault of anybody's
		return res, err
	}
	first := make([]int, len(pairs))
	for i, p := range pairs {
		first[i], _ = p.count()
		p.wire.cmd.Process.Signal(syscall.SIGUSR1) // from here on
	}
	begun := time.Now()
	if o.Freeze > 0 {
		go w.freeze(ctx)
	}
	for time.Since(begun) < o.Duration && ctx.Err() == nil {
		sleep(ctx, min(time.Minute, o.Duration-time.Since(begun)))
		line := fmt.Sprintf("%v:", time.Since(begun).Round(time.Second))
		for i, p := range pairs {
			n, _ := p.count()
			line += fmt.Sprintf("  %s %d (%s)", p.name, n-first[i], p.wire.last())
		}
		o.Log(line)
	}
	res.Took = time.Since(begun)
	for i, p := range pairs {
		n, note := p.count()
		res.Pairs = append(res.Pairs, Pair{p.name, n - first[i], p.wire.last(), note})
	}
	for _, c := range []*child{witness, looker} {
		c.cmd.Process.Signal(syscall.SIGTERM)
		c.cmd.Wait()
	}
	stalls := spans(looker.out.String(), stallLine)
	res.Witness = fmt.Sprintf("%s; %d times a processor stood still for more than %v", witness.last(), len(stalls), standstill)
	for i, p := range pairs {
		if long := spans(p.wire.out.String(), gapLine); len(long) > 0 {
			res.Pairs[i].Wire += fmt.Sprintf("; in %d of %d such gaps a processor stood still", innocent(long, stalls, 3*o.Advert/2), len(long))
		}
	}
	return res, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// counter is a pair: how often its second router went master so far.
type counter struct {
	name  string
	wire  *child
	count func() (int, string)
}

// last is the last line that a child said, but for those that tell of spans.
func (c *child) last() (text string) {
	for line := range strings.Lines(c.out.String()) {
		if !strings.HasPrefix(line, gapLine) && !strings.HasPrefix(line, stallLine) {
			text = strings.TrimSpace(line)
		}
	}
	return text
}

// freeze stops our master for a random time now and then, as a stall of its
// runtime would.
func (w *world) freeze(ctx context.Context) {
	for sleep(ctx, time.Duration(rand.Int64N(int64(2*time.Second)))) == nil {
		w.master.Signal(syscall.SIGSTOP)
		sleep(ctx, time.Duration(rand.Int64N(int64(w.o.Freeze))))
		w.master.Signal(syscall.SIGCONT)
	}
}

type world struct {
	o    Options
	dir  string
	nets int
	undo *[]func()

	master *os.Process // of our pair
}

func (w *world) defers(fn func()) { *w.undo = append(*w.undo, fn) }

// wire makes two namespaces with a link between their eth0: 192.0.2.1 and .2.
func (w *world) wire() (a, b string, err error) {
	w.nets++
	base := fmt.Sprintf("hogs%d-%d", os.Getpid(), w.nets)
	a, b = base+"a", base+"b"
	for _, ns := range []string{a, b} {
		if err := ip("netns add " + ns); err != nil {
			return "", "", err
		}
		w.defers(func() { ip("netns del " + ns) })
	}
	for _, cmd := range []string{
		"-n " + a + " link add eth0 type veth peer name eth0 netns " + b,
		"-n " + a + " addr add 192.0.2.1/24 dev eth0", "-n " + b + " addr add 192.0.2.2/24 dev eth0",
		"-n " + a + " link set lo up", "-n " + b + " link set lo up",
		"-n " + a + " link set eth0 up", "-n " + b + " link set eth0 up",
	} {
		if err := ip(cmd); err != nil {
			return "", "", err
		}
	}
	return a, b, nil
}

func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

// child is a process that runs until the end.
type child struct {
	cmd *exec.Cmd
	out *locked.Buffer
}

// spawn starts this program again in a role, in a namespace (empty: ours).
func (w *world) spawn(ns string, role string, env ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return w.exec(ns, append(env, roleEnv+"="+role), self)
}

func (w *world) exec(ns string, env []string, argv ...string) (*child, error) {
	if ns != "" {
		argv = append([]string{"ip", "netns", "exec", ns}, argv...)
	}
	c := &child{exec.Command(argv[0], argv[1:]...), &locked.Buffer{}}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	// A session of its own is a scheduling group of its own, as a cgroup is.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setsid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	w.defers(func() {
		c.cmd.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { c.cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			c.cmd.Process.Kill()
			<-done
		}
	})
	return c, nil
}

// ours starts two of our routers.
func (w *world) ours() (counter, error) {
	a, b, err := w.wire()
	if err != nil {
		return counter{}, err
	}
	states := map[string]*state{}
	var logs []*locked.Buffer
	for i, ns := range []string{a, b} {
		dir := filepath.Join(w.dir, ns)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return counter{}, err
		}
		inst := model.Instance{
			Name: "VI_1", Interface: "eth0", VRID: 51, Priority: uint8(200 - 100*i), Version: 3, AdvertInt: w.o.Advert, DownTimerAdverts: 3,
			McastGroup: netip.MustParseAddr("224.0.0.18"), GARPMasterRepeat: 5, GARPMasterDelay: 5 * time.Second, GARPLowerPrioRepeat: 5,
			VIPs: []model.Address{{Prefix: netip.MustParsePrefix("192.0.2.100/32")}},
		}
		conf := ipc.NewServer("conf")
		conf.Publish(status.Conf{Generation: 1, Config: model.Config{Instances: []model.Instance{inst}}})
		sock, err := net.Listen("unix", ipc.Dir(dir).Path("conf"))
		if err != nil {
			return counter{}, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		w.defers(cancel)
		go conf.Serve(ctx, sock)
		// As on the box, where init gives the cgroups of the two the largest
		// weight. A kernel that does not group sessions has nothing to set.
		first := func(c *child) {
			os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", c.cmd.Process.Pid), []byte("-20"), 0o644)
		}
		if !w.o.Alone {
			p, err := w.spawn("", rolePacer, ipc.EnvDir+"="+dir)
			if err != nil {
				return counter{}, err
			}
			first(p)
		}
		env := []string{ipc.EnvDir + "=" + dir}
		if w.o.Collect {
			env = append(env, collectEnv+"=1")
		}
		router, err := w.spawn(ns, roleRouter, env...)
		if err != nil {
			return counter{}, err
		}
		if i == 0 {
			w.master = router.cmd.Process // "ip netns exec" becomes it
		}
		logs = append(logs, router.out)
		first(router)
		for range w.o.Readers {
			if _, err := w.spawn("", roleReader, ipc.EnvDir+"="+dir); err != nil {
				return counter{}, err
			}
		}
		s := &state{}
		states[ns] = s
		go ipc.Watch(ctx, ipc.Dir(dir).Client("vrrp"), func(_ uint64, v status.VRRP) {
			s.mu.Lock()
			s.v = v
			s.mu.Unlock()
		})
	}
	seen, err := w.spawn(b, roleWire)
	if err != nil {
		return counter{}, err
	}
	return counter{ours, seen, func() (int, string) {
		va, vb := states[a].get(), states[b].get()
		if len(va.Instances) == 0 || len(vb.Instances) == 0 {
			return 0, "no state yet"
		}
		note := ""
		for i, v := range []status.VRRP{va, vb} {
			t := v.Timers
			note += fmt.Sprintf("%s: timers late p50 %v, p99 %v, p99.9 %v, max %v of %d; ", []string{"master", "backup"}[i], t.P50, t.P99, t.P999, t.Max, t.Count)
		}
		if p := va.StandIn; p.Connected {
			note += fmt.Sprintf("\n  pacer: %d of %d advertisements since the start, vrrp at most %v overdue, own timer at most %v late",
				p.Adverts, p.Adverts+va.Instances[0].Stats.AdvertSent, p.Late, p.OwnLate)
		}
		for line := range strings.Lines(logs[1].String()) {
			if strings.Contains(line, "backup -> master") {
				note += "\n  backup: " + strings.TrimSpace(line) // whether it was deaf or the master dumb, with the times above
			}
		}
		return int(vb.Instances[0].Stats.BecomeMaster), note
	}}, nil
}

type state struct {
	mu sync.Mutex
	v  status.VRRP
}

func (s *state) get() status.VRRP {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v
}

// keepalived starts two of its routers with the same timing.
func (w *world) keepalived(name, global string) (counter, error) {
	a, b, err := w.wire()
	if err != nil {
		return counter{}, err
	}
	var second *child
	for i, ns := range []string{a, b} {
		p := func(what string) string { return filepath.Join(w.dir, ns+"."+what) }
		conf := fmt.Sprintf("global_defs {\n router_id hogs\n%s}\nvrrp_instance VI_1 {\n state BACKUP\n interface eth0\n virtual_router_id 51\n priority %d\n version 3\n advert_int %g\n virtual_ipaddress {\n 192.0.2.100\n }\n}\n",
			global, 200-100*i, w.o.Advert.Seconds())
		if err := os.WriteFile(p("conf"), []byte(conf), 0o644); err != nil {
			return counter{}, err
		}
		second, err = w.exec(ns, nil, "keepalived", "-n", "-l", "-P", "-f", p("conf"), "-p", p("pid"), "-r", p("vrrp.pid"))
		if err != nil {
			return counter{}, fmt.Errorf("hogs: the peer figure needs keepalived: %w", err)
		}
	}
	seen, err := w.spawn(b, roleWire)
	if err != nil {
		return counter{}, err
	}
	return counter{name, seen, func() (int, string) {
		return strings.Count(second.out.String(), "Entering MASTER STATE"), ""
	}}, nil
}
