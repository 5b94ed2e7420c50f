package vrrp_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/pacer"
	"ballast/test/stall"
)

// pacerEnv makes the test binary a pacer process: the folder of its socket.
const pacerEnv = "BALLAST_PACER_TEST_DIR"

func pacerProcess(dir ipc.Dir) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := os.Remove(dir.Path("pacer")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, err)
	}
	l, err := net.Listen("unixpacket", dir.Path("pacer"))
	if err == nil {
		runtime.GOMAXPROCS(2)
		err = pacer.Run(ctx, &ipc.Env{Listener: l, Dir: dir, Log: slog.New(ipc.NewLogHandler(os.Stderr))})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// pacer starts the stand-in of a director, in no namespace of the director's:
// the sockets come from there.
func (d *director) pacer() (kill func()) {
	d.l.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), pacerEnv+"="+string(d.dir))
	cmd.Stderr, cmd.Stdout = d.out, d.out
	if err := cmd.Start(); err != nil {
		d.l.t.Fatal(err)
	}
	kill = func() { cmd.Process.Kill(); cmd.Wait() }
	d.l.t.Cleanup(kill)
	return kill
}

// watched waits until the pacer would stand in for n advertisements.
func (d *director) watched(n int) status.VRRP {
	d.l.t.Helper()
	return d.await(60*time.Second, fmt.Sprintf("the pacer watches %d advertisements", n), func(v status.VRRP) bool {
		return v.StandIn.Connected && v.StandIn.Watched == n
	})
}

// gaps are the longest silence of a MAC's advertisements after the first one at
// or after from, on the capture's clock, and when the last one came.
func (l *lan) gaps(mac string) (longest, last time.Duration, n int) {
	l.t.Helper()
	l.eachFrame(mac, isVRRP, func(_ []byte, at time.Duration) {
		if n++; n > 1 {
			longest = max(longest, at-last)
		}
		last = at
	})
	return longest, last, n
}

// fast is 10 ms, as fast as it goes: a backup gives a master up after 36 ms.
var fast = kind{"", 3, false, false, "", 10 * time.Millisecond}

// realTimeConf is keepalived's with its own thread in the real-time class: what
// is tried here is not how soon it gets a processor.
func realTimeConf(k kind, n, priority int) string {
	return strings.Replace(k.keepalivedConf(n, priority), "router_id t\n", "router_id t\n vrrp_rt_priority 49\n vrrp_no_swap\n", 1)
}

// TestPacerStandsIn: keepalived with advertisements 10 ms apart stays backup
// while our process is stopped for half a second, as a stalled runtime would, and
// while it is killed and started again; it takes over when our process is gone
// for longer than the lease, and when it resigns.
func TestPacerStandsIn(t *testing.T) {
	l := newLAN(t) // not beside others: they take processors for longer than 36 ms
	l.host("a", 1)
	l.host("b", 2)
	a := l.director("a", config(fast.instance(1, 200)))
	a.pacer()
	a.start()
	a.awaitState(fast.down(), status.VRRPMaster)
	a.watched(1)
	k := l.keepalived("b", realTimeConf(fast, 2, 100))
	k.start()
	took := func() int { return strings.Count(k.out.String(), "Entering MASTER STATE") }
	rest := func() (told uint64) {
		t.Helper()
		a.awaitState(fast.down(), status.VRRPMaster)
		told = a.watched(1).StandIn.Adverts
		l.until(30*time.Second, "keepalived is backup", func() bool {
			out := k.out.String()
			return strings.LastIndex(out, "Entering BACKUP STATE") > strings.LastIndex(out, "Entering MASTER STATE")
		})
		return told
	}
	l.buffer = 16384
	// A machine that stands still is silent for longer than keepalived waits.
	w := stall.Watch(t)
	const still = 5 * time.Millisecond
	if err := w.Judge(still, func() error {
		told := rest()
		l.capture()
		before := took() // it is no matter of ours who was master while everybody started
		proc := a.cmd.Process
		for range 3 {
			proc.Signal(syscall.SIGSTOP)
			time.Sleep(500 * time.Millisecond)
			proc.Signal(syscall.SIGCONT)
			time.Sleep(100 * time.Millisecond)
		}
		if n := took() - before; n != 0 {
			l.endCapture()
			return fmt.Errorf("keepalived went master %d times while our process was stopped for 500 ms:\n%s", n, k.out.String())
		}
		v := a.await(60*time.Second, "the stand-ins are told", func(v status.VRRP) bool { return v.StandIn.Adverts >= told+100 })
		t.Logf("stopped: %+v", v.StandIn)

		a.kill(syscall.SIGKILL)
		a.start()
		a.awaitState(fast.down(), status.VRRPMaster)
		a.watched(1)
		l.stopCapture()
		if n := took() - before; n != 0 {
			return fmt.Errorf("keepalived went master %d times while our process was killed and started again", n)
		}
		longest, _, n := l.gaps(macA)
		t.Logf("%d advertisements on the wire, longest gap %v", n, longest)
		if longest > 36*time.Millisecond {
			return fmt.Errorf("a gap of %v on the wire", longest)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	// Longer than the lease: somebody else must.
	if err := w.Judge(still, func() error {
		rest()
		before, stopped := took(), time.Now()
		a.cmd.Process.Signal(syscall.SIGSTOP)
		l.until(30*time.Second, "keepalived takes over", func() bool { return took() > before })
		d := time.Since(stopped)
		a.cmd.Process.Signal(syscall.SIGCONT)
		if d < 1900*time.Millisecond || d > 5*time.Second {
			return fmt.Errorf("it took over after %v", d)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	rest() // it yields
	l.capture()
	before := took()
	if err := a.call("resign", status.Resign{By: "test"}); err != nil {
		t.Fatal(err)
	}
	l.until(30*time.Second, "keepalived takes over", func() bool { return took() > before })
	a.watched(0)
	time.Sleep(100 * time.Millisecond)
	l.stopCapture()
	l.nothingAfterResigning(1)
}

// nothingAfterResigning fails when a's last words are not of priority 0, n of
// them.
func (l *lan) nothingAfterResigning(n int) {
	l.t.Helper()
	found := 0
	l.eachFrame(macA, isVRRP, func(f []byte, _ time.Duration) {
		if resigns(f) {
			found++
		} else if found > 0 {
			l.t.Errorf("an advertisement of priority %d after one of priority 0", f[36])
		}
	})
	if found != n {
		l.t.Errorf("%d advertisements of priority 0, want %d", found, n)
	}
}

// TestPacerKeepsAMasterUnderNoPreempt: who must not come back once a backup may
// have taken over stays master when the pacer saw to it that none did, and
// listens when its lease was over.
func TestPacerKeepsAMasterUnderNoPreempt(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	// Slow enough for a pacer that stands still with its machine, fast enough for
	// a few stand-ins within a lease.
	k := kind{"", 3, false, false, "", 300 * time.Millisecond}
	i := k.instance(1, 200)
	i.NoPreempt = true
	a := l.director("a", config(i))
	a.pacer()
	a.start()
	a.awaitState(k.down(), status.VRRPMaster)
	l.capture()
	stop := func(frames int, over time.Duration) {
		t.Helper()
		a.watched(1)
		a.cmd.Process.Signal(syscall.SIGSTOP)
		l.caughtUp()
		n := len(l.framesOf(macA, isVRRP))
		l.until(30*time.Second, "stand-ins", func() bool { return len(l.framesOf(macA, isVRRP)) >= n+frames })
		time.Sleep(over)
		a.cmd.Process.Signal(syscall.SIGCONT)
	}
	stop(3, 0)
	v := a.await(60*time.Second, "the stand-ins are told", func(v status.VRRP) bool { return v.StandIn.Adverts >= 3 })
	if n := v.Instances[0].Stats.ReleaseMaster; n != 0 || v.Instances[0].Stats.LateTimers == 0 {
		t.Errorf("it gave up mastership %d times: %+v", n, v.Instances[0])
	}
	stop(5, 2*time.Second) // and the lease ends
	a.awaitInstance(60*time.Second, "it listens", func(i status.VRRPInstance) bool { return i.Stats.ReleaseMaster == 1 })
}

// TestPacerInEveryWay: the stand-in's frames are those that we send, in every
// way to run VRRP: keepalived believes them, and tshark finds nothing wrong.
// With an authentication header, or signed, there is none.
func TestPacerInEveryWay(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if testing.Short() && (k.version == 2 || k.unicast != k.ipv6) {
			continue // one of each family, one of each transport
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			l := newLAN(t)
			l.host("a", 1)
			l.host("b", 2)
			a := l.director("a", config(k.instance(1, 200)))
			a.pacer()
			a.start()
			a.awaitState(k.down(), status.VRRPMaster)
			want := 1
			if k.ah() {
				want = 0
			}
			a.watched(want)
			if k.ah() {
				return
			}
			l.capture()
			ka := l.keepalived("b", k.keepalivedConf(2, 100))
			ka.start()
			l.until(30*time.Second, "keepalived is backup", func() bool { return strings.Contains(ka.out.String(), "Entering BACKUP STATE") })
			l.until(30*time.Second, "an advertisement of ours", func() bool { return len(l.framesOf(macA, isVRRP)) > 0 })
			a.cmd.Process.Signal(syscall.SIGSTOP)
			l.caughtUp()
			before := len(l.framesOf(macA, isVRRP))
			// One or more from the pacer: it has two seconds.
			l.until(30*time.Second, "a stand-in", func() bool { return len(l.framesOf(macA, isVRRP)) > before })
			a.cmd.Process.Signal(syscall.SIGCONT)
			v := a.await(60*time.Second, "the stand-in is told", func(v status.VRRP) bool { return v.StandIn.Adverts > 0 })
			if v.StandIn.Failed != 0 {
				t.Errorf("%+v", v.StandIn)
			}
			l.until(60*time.Second, "enough of them", func() bool { return len(l.framesOf(macA, isVRRP)) >= before+4 })
			l.stopCapture()
			if strings.Contains(ka.out.String(), "Entering MASTER STATE") {
				t.Errorf("keepalived went master:\n%s", ka.out.String())
			}
			frames := l.framesOf(macA, isVRRP)
			first := payload(t, frames[0])
			for n, f := range frames {
				if payload(t, f) != first || f[:28] != frames[0][:28] {
					t.Errorf("frame %d differs:\n%s\n%s", n, f, frames[0])
				}
			}
			out, err := exec.Command("tshark", "-r", l.pcap, "-o", "ip.check_checksum:TRUE", "-V", "-Y",
				"vrrp && eth.src==02:00:00:00:00:01 && (vrrp.checksum.status!=1 || ip.checksum.status==0 || _ws.expert)").Output()
			if err != nil || len(out) > 0 {
				t.Errorf("tshark: %v, on frames of ours:\n%s", err, out)
			}
		})
	}
}

// TestPacerOnAVirtualMAC: frames leave from the virtual MAC, its interface may go
// and come, and a commit that changes what is said is what the pacer says next.
func TestPacerOnAVirtualMAC(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	k := kind{"", 3, false, false, "", 100 * time.Millisecond} // there is nobody who could take over
	i := k.instance(1, 200)
	i.VMAC = &model.VMAC{Name: "vrrp.51", MAC: "00:00:5e:00:01:33"}
	a := l.director("a", config(i))
	a.pacer()
	a.start()
	a.awaitState(k.down(), status.VRRPMaster)
	a.watched(1)
	l.capture()
	const mac = "00:00:5e:00:01:33"
	stand := func() {
		t.Helper()
		told := a.watched(1).StandIn.Adverts
		a.cmd.Process.Signal(syscall.SIGSTOP)
		l.caughtUp()
		before := len(l.framesOf(mac, isVRRP))
		l.until(30*time.Second, "stand-ins", func() bool { return len(l.framesOf(mac, isVRRP)) > before+5 })
		a.cmd.Process.Signal(syscall.SIGCONT)
		a.await(60*time.Second, "they are told", func(v status.VRRP) bool { return v.StandIn.Adverts > told+4 && v.StandIn.Failed == 0 })
	}
	stand()
	// Another list of addresses.
	i.VIPs = append(i.VIPs, model.Address{Prefix: netip.MustParsePrefix("192.168.200.18/32")})
	a.commit(config(i))
	a.awaitState(k.down(), status.VRRPMaster)
	stand()
	l.caughtUp()
	frames := l.framesOf(mac, isVRRP)
	if n := len(payload(t, frames[len(frames)-1])) / 2; n != 8+3*4 {
		t.Errorf("the last frame's message has %d bytes: %s", n, frames[len(frames)-1])
	}
	l.run("a", "ip link del vrrp.51")
	l.until(30*time.Second, "it is made again", func() bool { return strings.Count(a.out.String(), "made macvlan vrrp.51") == 2 })
	n := len(l.framesOf(mac, isVRRP))
	l.until(30*time.Second, "advertisements by another socket", func() bool { return len(l.framesOf(mac, isVRRP)) > n+2 })
	stand()
	a.kill(syscall.SIGTERM)
	l.until(30*time.Second, "it resigns", func() bool { return len(l.framesOf(mac, resigns)) > 0 })
	l.stopCapture()
}

// TestPacerComesAndGoes: without a pacer all goes on as ever; one that comes is
// used, one that is killed is replaced.
func TestPacerComesAndGoes(t *testing.T) {
	t.Parallel()
	l, a, b := pair(t, quick, nil)
	a.start()
	a.awaitState(quick.down(), status.VRRPMaster)
	b.start()
	b.awaitInstance(quick.down(), "b hears a", func(i status.VRRPInstance) bool { return i.MasterPriority == 200 })
	for range 3 {
		kill := a.pacer()
		a.watched(1)
		kill()
		a.await(30*time.Second, "it knows", func(v status.VRRP) bool { return !v.StandIn.Connected })
	}
	a.pacer()
	a.watched(1)
	if v := b.awaitState(quick.down(), status.VRRPBackup); v.Stats.BecomeMaster != 0 {
		t.Errorf("b went master %d times", v.Stats.BecomeMaster)
	}
	if n := l.descriptors(a); n > 40 {
		t.Errorf("%d open descriptors", n)
	}
}

// descriptors is how many a director's process has open.
func (l *lan) descriptors(d *director) int {
	l.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	return len(list)
}

// TestPacerEndsWithTheRole: a process that is killed and, when it is back, may
// not be master any more, is not spoken for.
func TestPacerEndsWithTheRole(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.host("a", 1)
	k := quick
	k.adv = 10 * time.Millisecond
	a := l.director("a", config(k.instance(1, 200)))
	a.pacer()
	a.start()
	a.awaitState(k.down(), status.VRRPMaster)
	a.watched(1)
	l.capture()
	a.kill(syscall.SIGKILL)
	i := k.instance(1, 200)
	i.TrackInterfaces = []model.TrackInterface{{Interface: "nowhere"}}
	a.commit(config(i))
	a.start()
	a.awaitState(k.down(), status.VRRPFault)
	l.until(30*time.Second, "the addresses go", func() bool { return !l.has("a", k.vips()[0]) })
	l.caughtUp()
	n := len(l.framesOf(macA, isVRRP))
	time.Sleep(100 * time.Millisecond)
	l.caughtUp()
	if m := len(l.framesOf(macA, isVRRP)); n == 0 || m != n {
		t.Errorf("%d advertisements, %d of them after the addresses were gone", m, m-n)
	}
}
