package vrrp_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/vrrp"
	"ballast/test/locked"
)

// childEnv makes the test binary a router process: the folder of its sockets.
const childEnv = "BALLAST_VRRP_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(routerProcess(ipc.Dir(dir)))
	}
	if dir := os.Getenv(pacerEnv); dir != "" {
		os.Exit(pacerProcess(ipc.Dir(dir)))
	}
	// The tests wait nearly all of their time: more of them than processors.
	flag.Parse()
	flag.Set("test.parallel", "8")
	os.Exit(m.Run())
}

// routerProcess is what init would start.
func routerProcess(dir ipc.Dir) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Remove(dir.Path("vrrp"))
	env, err := ipc.NewEnv(dir, "vrrp", slog.New(ipc.NewLogHandler(os.Stderr)))
	if err == nil {
		vrrp.Tune()
		err = vrrp.Run(ctx, env)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var labs atomic.Int32

// lan is a switch and hosts in network namespaces of their own.
type lan struct {
	t    *testing.T
	name string
	pcap string
	dump *exec.Cmd

	dumped [2]string // the host and the link that it looks at
	marks  byte      // frames of caughtUp
	buffer int       // KiB, of the capture; 0: tcpdump's own
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{t: t, name: fmt.Sprintf("vt%d-%d", os.Getpid(), labs.Add(1))}
	l.addNS("sw")
	l.run("sw", "ip link add br0 type bridge mcast_snooping 0 forward_delay 0")
	l.run("sw", "ip link set br0 up")
	return l
}

func (l *lan) ns(host string) string { return l.name + "-" + host }

func (l *lan) addNS(host string) {
	l.t.Helper()
	ns := l.ns(host)
	sh(l.t, "ip netns add "+ns)
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	// Link-local addresses are given by the test; nothing talks but VRRP.
	l.run(host, "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0")
	l.run(host, "ip link set lo up")
}

// host adds one with eth0 on the switch: number n has MAC 02::n, addresses
// 192.168.200.n, fd00::n and fe80::n.
func (l *lan) host(name string, n int) {
	l.t.Helper()
	l.addNS(name)
	port := fmt.Sprintf("p%d", n)
	l.run("sw", fmt.Sprintf("ip link add %s type veth peer name eth0 address 02:00:00:00:00:%02x netns %s", port, n, l.ns(name)))
	l.run("sw", fmt.Sprintf("ip link set %s master br0 up", port))
	l.run(name, "ip link set eth0 addrgenmode none")
	l.run(name, fmt.Sprintf("ip addr add 192.168.200.%d/24 dev eth0", n))
	l.run(name, "ip link set eth0 up")
	l.run(name, fmt.Sprintf("ip addr add fe80::%d/64 dev eth0 nodad", n))
	l.run(name, fmt.Sprintf("ip addr add fd00::%d/64 dev eth0 nodad", n))
}

func (l *lan) run(host, cmd string) string {
	l.t.Helper()
	return sh(l.t, "ip netns exec "+l.ns(host)+" "+cmd)
}

func sh(t *testing.T, cmd string) string {
	t.Helper()
	f := strings.Fields(cmd)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// capture records everything on the switch from now on.
func (l *lan) capture() { l.captureOn("sw", "br0") }

func (l *lan) captureOn(host, link string) {
	l.t.Helper()
	l.pcap = filepath.Join(l.t.TempDir(), "lan.pcap")
	// In immediate mode a slot of the buffer has the size of the longest frame
	// that is captured: with tcpdump's own length the buffer has eight of them.
	l.dumped = [2]string{host, link}
	l.dump = exec.Command("ip", "netns", "exec", l.ns(host), "tcpdump", "-i", link, "-U", "-n", "-s", "1600", "-B", fmt.Sprint(max(l.buffer, 2048)), "--immediate-mode", "-w", l.pcap)
	var errs locked.Buffer
	l.dump.Stderr = &errs
	if err := l.dump.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(l.endCapture)
	l.until(30*time.Second, "the capture starts", func() bool { return strings.Contains(errs.String(), "listening on") })
}

// caughtUp returns when all that has passed the captured link is in the file:
// tcpdump may be late, and forgets at its end what it has not read.
func (l *lan) caughtUp() {
	l.t.Helper()
	l.marks++
	mark := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\xff\x88\xb5"), l.marks) // an Ethertype of experiments
	for len(mark) < 50 {
		mark = append(mark, l.name[len(mark)%len(l.name)])
	}
	var err error
	l.inside(l.dumped[0], func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(l.dumped[1]); err != nil {
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		err = unix.Sendto(fd, mark, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
	if err != nil {
		l.t.Fatalf("a mark in the capture: %v", err)
	}
	l.until(30*time.Second, "the capture catches up", func() bool {
		b, err := os.ReadFile(l.pcap)
		return err == nil && bytes.Contains(b, mark)
	})
}

// stopCapture ends a capture that has all that passed until now.
func (l *lan) stopCapture() {
	l.t.Helper()
	l.caughtUp()
	l.endCapture()
}

func (l *lan) endCapture() {
	if l.dump != nil {
		l.dump.Process.Signal(syscall.SIGINT)
		l.dump.Wait()
		l.dump = nil
	}
}

// until polls what only the kernel knows.
func (l *lan) until(limit time.Duration, what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// addrs are the addresses of a host's eth0.
func (l *lan) addrs(host string) map[netip.Addr]bool {
	l.t.Helper()
	out := map[netip.Addr]bool{}
	h, err := netns.GetFromName(l.ns(host))
	if err != nil {
		l.t.Fatal(err)
	}
	defer h.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nl, err := netlink.NewHandleAt(h)
	if err != nil {
		l.t.Fatal(err)
	}
	defer nl.Close()
	link, err := nl.LinkByName("eth0")
	if err != nil {
		l.t.Fatal(err)
	}
	list, err := nl.AddrList(link, netlink.FAMILY_ALL)
	for errors.Is(err, netlink.ErrDumpInterrupted) { // something changed meanwhile: it may be any mixture
		list, err = nl.AddrList(link, netlink.FAMILY_ALL)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	for _, a := range list {
		if v, ok := netip.AddrFromSlice(a.IP); ok {
			out[v.Unmap()] = true
		}
	}
	return out
}

func (l *lan) has(host, vip string) bool { return l.addrs(host)[netip.MustParseAddr(vip)] }

// director is one of ours: a process in a host's namespace, with a conf (and a
// notify) of the test.
type director struct {
	l      *lan
	host   string
	dir    ipc.Dir
	conf   *ipc.Server
	notify *ipc.Server
	gen    uint64
	cmd    *exec.Cmd
	out    *locked.Buffer
}

func (l *lan) director(host string, c model.Config) *director {
	l.t.Helper()
	dir, err := os.MkdirTemp("", "vrrp")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { os.RemoveAll(dir) })
	d := &director{l: l, host: host, dir: ipc.Dir(dir), out: &locked.Buffer{}}
	d.conf, d.notify = ipc.NewServer("conf"), ipc.NewServer("notify")
	for name, s := range map[string]*ipc.Server{"conf": d.conf, "notify": d.notify} {
		s.Publish(nil)
		sock, err := net.Listen("unix", d.dir.Path(name))
		if err != nil {
			l.t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		l.t.Cleanup(cancel)
		go s.Serve(ctx, sock)
	}
	d.commit(c)
	l.t.Cleanup(func() {
		d.kill(syscall.SIGKILL)
		if out := d.out.String(); strings.Contains(out, "DATA RACE") || strings.Contains(out, "panic:") {
			l.t.Error("the process of " + host + " went wrong")
		}
		if l.t.Failed() {
			l.t.Logf("log of %s:\n%s", host, d.out.String())
		}
	})
	return d
}

func (d *director) commit(c model.Config) {
	d.gen++
	d.conf.Publish(status.Conf{Generation: d.gen, Config: c})
}

func (d *director) start() {
	d.l.t.Helper()
	d.cmd = exec.Command("ip", "netns", "exec", d.l.ns(d.host), os.Args[0])
	d.cmd.Env = append(os.Environ(), childEnv+"="+string(d.dir))
	d.cmd.Stderr, d.cmd.Stdout = d.out, d.out
	if err := d.cmd.Start(); err != nil {
		d.l.t.Fatal(err)
	}
}

func (d *director) kill(sig syscall.Signal) {
	if d.cmd != nil {
		d.cmd.Process.Signal(sig)
		d.cmd.Wait()
		d.cmd = nil
	}
}

// await waits for a state that satisfies ok and returns it.
func (d *director) await(limit time.Duration, what string, ok func(status.VRRP) bool) (got status.VRRP) {
	d.l.t.Helper()
	ctx, cancel := context.WithTimeout(d.l.t.Context(), limit)
	defer cancel()
	found := false
	ipc.Watch(ctx, d.dir.Client("vrrp"), func(_ uint64, v status.VRRP) {
		if found {
			return
		}
		if got = v; ok(v) {
			found = true
			cancel()
		}
	})
	if !found {
		d.l.t.Fatalf("%s: not within %s: %s; last state: %+v", d.host, limit, what, got.Instances)
	}
	return got
}

func (d *director) awaitState(limit time.Duration, state string) status.VRRPInstance {
	d.l.t.Helper()
	v := d.await(limit, "state "+state, func(v status.VRRP) bool {
		for _, i := range v.Instances {
			if i.State != state {
				return false
			}
		}
		return len(v.Instances) > 0 && v.Config == d.gen
	})
	return v.Instances[0]
}

// keepalived is Debian's, as the peer.
type keepalived struct {
	l    *lan
	host string
	dir  string
	cmd  *exec.Cmd
	out  *locked.Buffer
}

func (l *lan) keepalived(host, conf string) *keepalived {
	l.t.Helper()
	k := &keepalived{l: l, host: host, dir: l.t.TempDir(), out: &locked.Buffer{}}
	if err := os.WriteFile(filepath.Join(k.dir, "k.conf"), []byte(conf), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		k.kill()
		if l.t.Failed() {
			l.t.Logf("log of keepalived:\n%s", k.out.String())
		}
	})
	return k
}

func (k *keepalived) start() {
	k.l.t.Helper()
	p := func(name string) string { return filepath.Join(k.dir, name) }
	os.Remove(p("k.pid"))
	os.Remove(p("v.pid"))
	os.Remove(p("b.pid"))
	k.cmd = exec.Command("ip", "netns", "exec", k.l.ns(k.host), "keepalived", "-n", "-l", "-P", "-f", p("k.conf"), "-p", p("k.pid"), "-r", p("v.pid"), "-b", p("b.pid"))
	k.cmd.Stdout, k.cmd.Stderr = k.out, k.out
	if err := k.cmd.Start(); err != nil {
		k.l.t.Fatal(err)
	}
}

// kill ends keepalived's two processes at once.
func (k *keepalived) kill() {
	if k.cmd == nil {
		return
	}
	var child int
	if b, err := os.ReadFile(filepath.Join(k.dir, "v.pid")); err == nil {
		fmt.Sscan(string(b), &child)
	}
	// The child resigns when its parent dies, the parent starts another child:
	// stopped, it does neither.
	k.cmd.Process.Signal(syscall.SIGSTOP)
	if child > 1 {
		syscall.Kill(child, syscall.SIGKILL)
	}
	k.cmd.Process.Kill()
	k.cmd.Wait()
	k.cmd = nil
}

// stop is SIGTERM.
func (k *keepalived) stop() {
	k.cmd.Process.Signal(syscall.SIGTERM)
	k.cmd.Wait()
	k.cmd = nil
}

// watchAddrs records changes of addresses until the returned function is called.
func (l *lan) watchAddrs(host string) func() string {
	l.t.Helper()
	out := &locked.Buffer{}
	cmd := exec.Command("ip", "netns", "exec", l.ns(host), "ip", "monitor", "address")
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	// It listens once it reports a change that we make.
	l.until(30*time.Second, "ip monitor listens", func() bool {
		exec.Command("ip", "-n", l.ns(host), "addr", "replace", "127.9.9.9/32", "dev", "lo").Run()
		exec.Command("ip", "-n", l.ns(host), "addr", "replace", "127.9.9.9/32", "dev", "lo", "valid_lft", "1000", "preferred_lft", "1000").Run()
		return strings.Contains(out.String(), "127.9.9.9")
	})
	stop := func() {
		if cmd.Process != nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	l.t.Cleanup(stop)
	return func() string {
		// It has told of all that was before once it tells of one change more.
		exec.Command("ip", "-n", l.ns(host), "addr", "replace", "127.9.9.10/32", "dev", "lo").Run()
		l.until(30*time.Second, "ip monitor catches up", func() bool { return strings.Contains(out.String(), "127.9.9.10") })
		stop()
		return out.String()
	}
}
