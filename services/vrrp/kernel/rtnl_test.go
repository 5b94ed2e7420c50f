package kernel

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ballast/services/ipc/iprule"
	"ballast/services/vrrp/packet"
)

// inNamespace puts the test into a network namespace of its own.
func inNamespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	// Link "lo" carries the addresses.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, _ := unix.NewIfreq("lo")
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}

// wait is l's Wait over the signals by which Go's runtime interrupts calls.
func wait(l *Loop, d time.Duration) (ready []int, err error) {
	for at := l.Now() + d; ready == nil && err == nil; {
		ready, err = l.Wait(at)
	}
	return ready, err
}

func TestAddressesCarryTheirTag(t *testing.T) {
	inNamespace(t)
	r, err := DialRtnl()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	links, err := r.Links()
	if err != nil || len(links) == 0 || links[0].Name != "lo" || !links[0].Up {
		t.Fatalf("links %+v, %v", links, err)
	}
	lo := links[0].Index
	set := []NewAddr{
		{Index: lo, Prefix: netip.MustParsePrefix("10.0.0.1/32"), Proto: 0xb1, Label: "lo:vip"},
		{Index: lo, Prefix: netip.MustParsePrefix("10.0.1.1/24"), Proto: 0xb1, Broadcast: netip.MustParseAddr("10.0.1.255"), Scope: unix.RT_SCOPE_LINK},
		{Index: lo, Prefix: netip.MustParsePrefix("fd00::1/128"), Proto: 0xb1, Preferred: -1},
	}
	var ops, undo []Op
	for _, a := range set {
		ops, undo = append(ops, SetAddr(a)), append(undo, UnsetAddr(a))
	}
	for range 2 { // the second time nothing is to do, which is no error
		if err := r.Batch(ops); err != nil {
			t.Fatal(err)
		}
	}
	ours := func() (got []Addr) {
		list, err := r.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			if a.Proto == 0xb1 {
				got = append(got, a)
			}
		}
		return got
	}
	want := []Addr{
		// The kernel sorts by scope.
		{Index: lo, Prefix: set[1].Prefix, Proto: 0xb1, Flags: unix.IFA_F_PERMANENT, Scope: unix.RT_SCOPE_LINK},
		{Index: lo, Prefix: set[0].Prefix, Proto: 0xb1, Flags: unix.IFA_F_PERMANENT},
		// Deprecated: nobody's source address.
		{Index: lo, Prefix: set[2].Prefix, Proto: 0xb1, Flags: unix.IFA_F_PERMANENT | unix.IFA_F_NODAD | unix.IFA_F_DEPRECATED},
	}
	if d := cmp.Diff(want, ours(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for range 2 {
		if err := r.Batch(undo); err != nil {
			t.Fatal(err)
		}
	}
	if got := ours(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	err = r.Batch([]Op{SetAddr(NewAddr{Index: 4711, Prefix: set[0].Prefix}), SetAddr(set[0])})
	if err == nil || err.Error() != "add 10.0.0.1/32: no such device" {
		t.Errorf("address on no interface: %v", err)
	}
	if len(ours()) != 1 {
		t.Error("the address behind the failed one was not set")
	}
}

func TestBatchOfThousands(t *testing.T) {
	inNamespace(t)
	r, err := DialRtnl()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var ops []Op
	for i := range 3000 {
		ops = append(ops, SetAddr(NewAddr{Index: 1, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32), Proto: 0xb1}))
	}
	start := time.Now()
	if err := r.Batch(ops); err != nil {
		t.Fatal(err)
	}
	t.Logf("3000 addresses in %s", time.Since(start))
	list, err := r.Addrs()
	if err != nil || len(list) < 3000 {
		t.Errorf("%d addresses, %v", len(list), err)
	}
}

func TestWatchTells(t *testing.T) {
	inNamespace(t)
	w, err := OpenWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Add(w.FD()); err != nil {
		t.Fatal(err)
	}
	if w.Drain() {
		t.Error("something changed before anything did")
	}
	r, err := DialRtnl()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Batch([]Op{SetAddr(NewAddr{Index: 1, Prefix: netip.MustParsePrefix("10.0.0.1/32")})}); err != nil {
		t.Fatal(err)
	}
	ready, err := wait(l, time.Minute)
	if err != nil || !slices.Contains(ready, w.FD()) || !w.Drain() {
		t.Errorf("ready %v, %v", ready, err)
	}
}

func TestLoop(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Now() + 20*time.Millisecond
	if ready, err := wait(l, 20*time.Millisecond); err != nil || len(ready) != 0 || l.Now() < at {
		t.Errorf("deadline: ready %v at %s, %v", ready, l.Now()-at, err)
	}
	go l.Wake()
	start := l.Now()
	if _, err := l.Wait(start + time.Minute); err != nil || l.Now()-start > 30*time.Second {
		t.Errorf("wake: after %s, %v", l.Now()-start, err)
	}
}

// The hot path of the edge: send, wait, receive.
func TestSendAndReceiveDoNotAllocate(t *testing.T) {
	inNamespace(t)
	a, err := OpenUnicast(false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Add(a.FD()); err != nil {
		t.Fatal(err)
	}
	src, dst := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	adv := packet.Advert{Version: 3, VRID: 1, Priority: 100, AdvertInt: time.Second}
	buf := make([]byte, 0, 256)
	ring := NewRing()
	n := testing.AllocsPerRun(50, func() {
		b := packet.AppendIPv4(buf, packet.Protocol, 7, 255, src, dst, adv.Len())
		b = adv.Append(b, src, dst, false)
		if err := a.Send(b, src, dst, 255); err != nil {
			t.Fatal(err)
		}
		if _, err := wait(l, time.Minute); err != nil {
			t.Fatal(err)
		}
		ring.Anew()
		p, ok := a.Receive(ring)
		if !ok || p.Src != src || p.Dst != dst || p.TTL != 255 || p.Age < 0 || p.Age > time.Minute {
			t.Fatalf("received %+v, %v", p, ok)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	inNamespace(f)
	r, err := DialRtnl()
	if err != nil {
		f.Fatal(err)
	}
	for _, q := range []struct {
		typ uint16
		n   int
	}{{unix.RTM_GETLINK, unix.SizeofIfInfomsg}, {unix.RTM_GETADDR, unix.SizeofIfAddrmsg}, {unix.RTM_GETROUTE, unix.SizeofRtMsg}, {unix.RTM_GETRULE, unix.SizeofRtMsg}} {
		msgs, err := r.dump(q.typ, make([]byte, q.n))
		if err != nil {
			f.Fatal(err)
		}
		for _, m := range msgs {
			f.Add(m.Data)
		}
	}
	r.Close()
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := parseLink(b); ok && l.Name == "" {
			t.Error("a link without a name")
		}
		if a, ok := parseAddr(b); ok && !a.Prefix.IsValid() {
			t.Errorf("invalid prefix %v", a.Prefix)
		}
		if n, ok := parseRoute(b); ok && !n.Dst.IsValid() {
			t.Error("a route without a destination")
		}
		if n, _, ok := iprule.Parse(b); ok && iprule.Normal(n) != iprule.Normal(iprule.Normal(n)) {
			t.Errorf("rule %+v", n)
		}
		tap := &Socket{tap: true, ipv6: len(b)%2 == 0}
		if tap.intact(&Received{}, &unix.RawSockaddrLinklayer{}, b) && tap.ipv6 {
			readIPv6(&Received{}, b)
		}
		var r Received
		control(&r, b, 0)
	})
}
