package vrrp_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/probe"
	"ballast/test/stall"
)

var figures = flag.Int("vrrp.figures", 1, "how often the heartbeat's tests repeat what they do, to report outages")

// link2 gives a host a second link, on a switch of its own: 10.9.0.n.
func (l *lan) link2(name string, n int) {
	l.t.Helper()
	if n == 1 {
		l.run("sw", "ip link add br1 type bridge mcast_snooping 0 forward_delay 0")
		l.run("sw", "ip link set br1 up")
	}
	port := fmt.Sprintf("q%d", n)
	l.run("sw", fmt.Sprintf("ip link add %s type veth peer name eth1 netns %s", port, l.ns(name)))
	l.run("sw", fmt.Sprintf("ip link set %s master br1 up", port))
	l.run(name, fmt.Sprintf("ip addr add 10.9.0.%d/24 dev eth1", n))
	l.run(name, "ip link set eth1 up")
}

// power takes both links of a host away at the switch, or brings them back. Its
// own ends stay: a dead box does not see that it is dead.
func (l *lan) power(n int, on bool) {
	l.t.Helper()
	// In one go: a process for each would make the one link outlive the other.
	batch := filepath.Join(l.t.TempDir(), "batch")
	text := fmt.Sprintf("link set p%d nomaster\nlink set q%d nomaster\n", n, n)
	if on {
		text = fmt.Sprintf("link set p%d master br0\nlink set q%d master br1\n", n, n)
	}
	if err := os.WriteFile(batch, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	sh(l.t, "ip -n "+l.ns("sw")+" -batch "+batch)
}

const heartbeatKey = "0123456789abcdef"

// beating is a configuration with a heartbeat on both links of host n.
func beating(n int, list ...model.Instance) model.Config {
	c := config(list...)
	c.Heartbeat = &model.Heartbeat{
		Key: []byte(heartbeatKey), Interval: 10 * time.Millisecond, Multiplier: 3, Port: 1912,
		Paths: []model.HeartbeatPath{
			{Peer: netip.MustParseAddr(fmt.Sprintf("192.168.200.%d", 3-n))},
			{Peer: netip.MustParseAddr(fmt.Sprintf("10.9.0.%d", 3-n)), Interface: "eth1"},
		},
	}
	return c
}

// echo answers every datagram to a host.
func (l *lan) echo(host string) {
	l.t.Helper()
	stop, err := probe.Echo(l.ns(host))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(stop)
}

// prober asks a virtual address a thousand times a second.
type prober struct{ *probe.Client }

func (l *lan) probe(host, vip string) prober {
	l.t.Helper()
	c, stop, err := probe.Ask(l.ns(host), netip.MustParseAddr(vip))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(stop)
	return prober{c}
}

// answered waits until all was answered for a while.
func (p prober) answered(l *lan) {
	l.t.Helper()
	if err := p.Answered(l.t.Context(), 100*time.Millisecond); err != nil {
		l.t.Fatal(err)
	}
}

// outage is the longest time without an answer since a moment, and how many
// requests were lost.
func (p prober) outage(since time.Time) (worst time.Duration, lost int) {
	return p.Outage(since.Add(-20 * time.Millisecond)), p.Lost(since)
}

type outages struct {
	name  string
	worst []time.Duration
	lost  []int
}

func (o *outages) add(w time.Duration, lost int) {
	o.worst, o.lost = append(o.worst, w), append(o.lost, lost)
}

func (o *outages) log(t *testing.T) {
	if len(o.worst) == 0 {
		return
	}
	slices.Sort(o.worst)
	slices.Sort(o.lost)
	n := len(o.worst)
	t.Logf("%s: %d runs, outage median %v, max %v; probes lost median %d, max %d", o.name, n,
		o.worst[n/2].Round(100*time.Microsecond), o.worst[n-1].Round(100*time.Microsecond), o.lost[n/2], o.lost[n-1])
}

// verb asks a director for something.
func (d *director) verb(name string, arg any) {
	d.l.t.Helper()
	b, err := json.Marshal(arg)
	if err != nil {
		d.l.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(d.l.t.Context(), 30*time.Second)
	defer cancel()
	if err := d.dir.Client("vrrp").Call(ctx, name, json.RawMessage(b), nil); err != nil {
		d.l.t.Fatalf("%s: %v", name, err)
	}
}

// mates are two directors with a heartbeat on two paths, a above b.
func mates(t *testing.T) (l *lan, a, b *director) {
	l = newLAN(t)
	for n, name := range []string{"a", "b"} {
		l.host(name, n+1)
		l.link2(name, n+1)
	}
	l.host("c", 3)
	k := kind{"", 3, false, false, "", time.Second}
	a, b = l.director("a", beating(1, k.instance(1, 150))), l.director("b", beating(2, k.instance(2, 100)))
	a.start()
	b.start()
	return l, a, b
}

const vipOfMates = "192.168.200.16"

func heartbeatUp(v status.VRRP) bool {
	return v.Heartbeat != nil && v.Heartbeat.Up && v.Heartbeat.Paths[0].Up && v.Heartbeat.Paths[1].Up && len(v.Heartbeat.Routers) == len(v.Instances)
}

// settled waits until a is master, b its backup, and each hears the other.
func settled(l *lan, a, b *director) {
	l.t.Helper()
	a.awaitState(30*time.Second, status.VRRPMaster)
	b.awaitState(30*time.Second, status.VRRPBackup)
	for _, d := range []*director{a, b} {
		d.await(30*time.Second, "the heartbeat is up", heartbeatUp)
	}
	b.await(30*time.Second, "b listens to a", func(v status.VRRP) bool {
		return v.Instances[0].MasterAddr == netip.MustParseAddr("192.168.200.1") && v.Instances[0].MasterPriority == 150
	})
	l.until(30*time.Second, "a alone holds the address", func() bool { return l.has("a", vipOfMates) && !l.has("b", vipOfMates) })
}

// TestDeadMasterIsReplacedByHeartbeat: a box that is dead on all links and in
// its kernel is replaced long before advert_int 1 would say so; one whose
// process alone hangs is left to the protocol.
func TestDeadMasterIsReplacedByHeartbeat(t *testing.T) {
	t.Parallel()
	l, a, b := mates(t)
	l.echo("a")
	l.echo("b")
	p := l.probe("c", vipOfMates)
	o := outages{name: "silent death, advert_int 1"}
	w := stall.Watch(t)
	for range *figures {
		judged(t, w, func() (err error) {
			settled(l, a, b)
			p.answered(l)
			begin := time.Now()
			l.power(1, false)
			a.cmd.Process.Signal(syscall.SIGSTOP)
			if i := b.awaitState(30*time.Second, status.VRRPMaster); !strings.Contains(i.Reason, "heartbeat of master 192.168.200.1 lost") {
				err = fmt.Errorf("reason %q", i.Reason)
			}
			p.answered(l)
			o.add(p.outage(begin))
			l.power(1, true)
			a.cmd.Process.Signal(syscall.SIGCONT)
			return err
		})
	}
	o.log(t)

	judged(t, w, func() (err error) {
		settled(l, a, b)
		a.cmd.Process.Signal(syscall.SIGSTOP) // its kernel lives, and may hold the addresses for a process that comes back
		v := b.await(30*time.Second, "b replaces a by VRRP's own timer", func(v status.VRRP) bool { return v.Instances[0].State == status.VRRPMaster })
		if i := v.Instances[0]; !strings.Contains(i.Reason, "no advertisement from 192.168.200.1") || v.Heartbeat.Up {
			err = fmt.Errorf("reason %q, heartbeat %+v", i.Reason, v.Heartbeat)
		}
		a.cmd.Process.Signal(syscall.SIGCONT)
		return err
	})
	settled(l, a, b)
}

// judged is for what a heartbeat of 10 ms decides: a machine that stands still
// for longer is, to it, a box that is dead or does not answer.
func judged(t *testing.T, w *stall.Witness, try func() error) {
	t.Helper()
	if err := w.Judge(10*time.Millisecond, try); err != nil {
		t.Error(err)
	}
}

// TestLostLinkIsToldByTheOtherPath: the box whose link drops says so.
func TestLostLinkIsToldByTheOtherPath(t *testing.T) {
	t.Parallel()
	l, a, b := mates(t)
	l.echo("a")
	l.echo("b")
	p := l.probe("c", vipOfMates)
	o := outages{name: "link loss with a second path, advert_int 1"}
	w := stall.Watch(t)
	for range *figures {
		judged(t, w, func() (err error) {
			settled(l, a, b)
			p.answered(l)
			begin := time.Now()
			l.run("sw", "ip link set p1 down")
			if i := b.awaitState(30*time.Second, status.VRRPMaster); !strings.Contains(i.Reason, "said by heartbeat that it no longer is one") {
				err = fmt.Errorf("reason %q", i.Reason)
			}
			b.await(30*time.Second, "the second path alone is up, and tells of the fault", func(v status.VRRP) bool {
				h := v.Heartbeat
				return h.Up && !h.Paths[0].Up && h.Paths[1].Up && len(h.Routers) == 1 && h.Routers[0].State == status.VRRPFault
			})
			p.answered(l)
			o.add(p.outage(begin))
			l.run("sw", "ip link set p1 up")
			return err
		})
	}
	o.log(t)
}

// adverts are the VRRP frames of a capture, in order: who and which priority.
func (l *lan) adverts() (list []string) {
	for _, f := range l.framesOfAll() {
		b, _ := hex.DecodeString(f)
		if isVRRP(b) {
			list = append(list, fmt.Sprintf("%d:%d", b[29], b[36]))
		}
	}
	return list
}

func (l *lan) framesOfAll() []string {
	return l.framesOf("", func([]byte) bool { return true })
}

// TestHandOverIsMakeBeforeBreak: whatever is planned (resign, resume, a process
// that ends) has the new master advertise and answer before the old one says
// that it left.
func TestHandOverIsMakeBeforeBreak(t *testing.T) {
	t.Parallel()
	l, a, b := mates(t)
	l.echo("a")
	l.echo("b")
	p := l.probe("c", vipOfMates)
	over, back := outages{name: "planned switchover (resign)"}, outages{name: "preemption of the returning box (resume)"}
	w := stall.Watch(t)
	l.buffer = 16384 // the probes are in the capture too
	for range *figures {
		judged(t, w, func() error {
			settled(l, a, b)
			p.answered(l)
			var faults []error
			fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
			left := a.awaitState(30*time.Second, status.VRRPMaster).Stats.PriZeroSent
			l.capture()
			begin := time.Now()
			a.verb("resign", status.Resign{By: "test"})
			i := b.awaitState(30*time.Second, status.VRRPMaster)
			if !strings.Contains(i.Reason, "asked to be relieved") {
				fault("reason %q", i.Reason)
			}
			if i := a.awaitState(30*time.Second, status.VRRPBackup); i.Reason != "resigned by the operator" || i.Stats.PriZeroSent != left+1 {
				fault("a: %q, %d advertisements of priority 0", i.Reason, i.Stats.PriZeroSent-left)
			}
			p.answered(l)
			over.add(p.outage(begin))

			begin = time.Now()
			a.verb("resume", status.Resign{})
			i = a.awaitState(30*time.Second, status.VRRPMaster)
			if !strings.Contains(i.Reason, "lower priority 100, ours 150") {
				fault("reason %q", i.Reason)
			}
			if i := b.awaitState(30*time.Second, status.VRRPBackup); !strings.Contains(i.Reason, "higher priority 150") {
				fault("reason %q", i.Reason)
			}
			p.answered(l)
			back.add(p.outage(begin))
			l.stopCapture()
			// On the wire: b's advertisement comes before a's priority 0.
			seen := l.adverts()
			first := slices.Index(seen, "2:100")
			zero := slices.Index(seen, "1:0")
			if first < 0 || zero < first {
				fault("advertisements: %v", seen)
			}
			if slices.Contains(seen, "2:0") {
				fault("b said that it left, though a better one preempted it: %v", seen)
			}
			return errors.Join(faults...)
		})
	}
	over.log(t)
	back.log(t)

	judged(t, w, func() (err error) {
		if a.cmd == nil {
			a.start()
		}
		settled(l, a, b)
		begin := time.Now()
		a.kill(syscall.SIGTERM)
		if i := b.awaitState(30*time.Second, status.VRRPMaster); !strings.Contains(i.Reason, "asked to be relieved") {
			err = fmt.Errorf("reason %q", i.Reason)
		}
		if l.has("a", vipOfMates) {
			t.Error("the address is still on a")
		}
		p.answered(l)
		stop := outages{name: "orderly end of the process"}
		stop.add(p.outage(begin))
		stop.log(t)
		return err
	})

	// The peer is in fault: the protocol does it.
	a.start()
	settled(l, a, b)
	l.run("sw", "ip link set p2 down")
	b.awaitState(30*time.Second, status.VRRPFault)
	a.verb("resign", status.Resign{By: "test"})
	a.awaitState(30*time.Second, status.VRRPBackup)
	l.until(30*time.Second, "the address is gone", func() bool { return !l.has("a", vipOfMates) })
}

// TestPathsShareAnInterface: two addresses of the peer behind one interface are
// two paths, and both work.
func TestPathsShareAnInterface(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	k := kind{"", 3, false, false, "", 200 * time.Millisecond}
	var d []*director
	for n, name := range []string{"a", "b"} {
		l.host(name, n+1)
		l.link2(name, n+1)
		l.run(name, fmt.Sprintf("ip addr add 10.10.0.%d/24 dev eth1", n+1))
		c := beating(n+1, k.instance(n+1, uint8(150-50*n)))
		c.Heartbeat.Paths[0] = model.HeartbeatPath{
			Peer: netip.MustParseAddr(fmt.Sprintf("10.10.0.%d", 2-n)), Interface: "eth1",
			From: netip.MustParseAddr(fmt.Sprintf("10.10.0.%d", n+1)),
		}
		d = append(d, l.director(name, c))
		d[n].start()
	}
	for _, v := range d {
		v.await(30*time.Second, "both paths are up", heartbeatUp)
	}
}

// TestHeartbeatOfAnotherKeyCountsForNothing: it is counted, and the boxes run
// plain VRRP.
func TestHeartbeatOfAnotherKeyCountsForNothing(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	k := quick
	var d []*director
	for n, name := range []string{"a", "b"} {
		l.host(name, n+1)
		l.link2(name, n+1)
		c := beating(n+1, k.instance(n+1, uint8(150-50*n)))
		c.Heartbeat.Key = []byte(fmt.Sprintf("key of box %d, long enough", n))
		d = append(d, l.director(name, c))
		d[n].start()
	}
	d[0].awaitState(k.down(), status.VRRPMaster)
	v := d[1].await(k.down(), "wrong heartbeats are counted", func(v status.VRRP) bool {
		return v.Heartbeat != nil && v.Heartbeat.Paths[0].Rejected > 0 && v.Heartbeat.Paths[1].Rejected > 0 && v.Instances[0].State == status.VRRPBackup
	})
	if v.Heartbeat.Up || v.Heartbeat.Paths[0].Received != 0 || len(v.Heartbeat.Routers) != 0 {
		t.Errorf("heartbeat %+v", v.Heartbeat)
	}
	d[0].verb("resign", status.Resign{By: "test"})
	if i := d[1].awaitState(k.down(), status.VRRPMaster); !strings.Contains(i.Reason, "resigned (priority 0)") {
		t.Errorf("reason %q", i.Reason)
	}
	l.until(30*time.Second, "the log names the key", func() bool { return strings.Contains(d[1].out.String(), "must have the same key") })
	if strings.Contains(d[0].out.String()+d[1].out.String(), "key of box") {
		t.Error("a key is in the log")
	}
}
