package vrrp_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"ballast/services/ipc/status"
)

// wire takes the place of the switch between two ports of a lan: it drops,
// doubles, delays and reorders frames, from a seed.
type wire struct {
	fd    [2]int
	index [2]int

	mu   sync.Mutex
	rng  *rand.Rand
	loss float64
	dup  float64
	late time.Duration // each frame is up to this late, so that they overtake one another
	cut  bool
	lost int
	done bool
}

func (l *lan) wire(seed uint64, ports ...string) *wire {
	l.t.Helper()
	w := &wire{rng: rand.New(rand.NewPCG(seed, 6))}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		l.t.Fatal(err)
	}
	defer home.Close()
	sw, err := netns.GetFromName(l.ns("sw"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer sw.Close()
	if err := netns.Set(sw); err != nil {
		l.t.Fatal(err)
	}
	defer netns.Set(home)
	for i, port := range ports {
		l.run("sw", "ip link set "+port+" nomaster")
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			l.t.Fatal(err)
		}
		r, err := unix.NewIfreq(port)
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
		}
		if err != nil {
			l.t.Fatal(err)
		}
		w.fd[i], w.index[i] = fd, int(r.Uint32())
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000})
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			l.t.Fatal(err)
		}
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: w.index[i]}); err != nil {
			l.t.Fatal(err)
		}
	}
	var running sync.WaitGroup
	for i := range w.fd {
		running.Go(func() { w.carry(i) })
	}
	l.t.Cleanup(func() {
		w.mu.Lock()
		w.done = true
		w.mu.Unlock()
		running.Wait()
		for _, fd := range w.fd {
			unix.Close(fd)
		}
	})
	return w
}

func (w *wire) carry(from int) {
	b := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(w.fd[from], b, 0)
		w.mu.Lock()
		if w.done {
			w.mu.Unlock()
			return
		}
		if err != nil {
			w.mu.Unlock()
			continue
		}
		copies := 1
		if w.cut || w.rng.Float64() < w.loss {
			copies = 0
			w.lost++
		} else if w.rng.Float64() < w.dup {
			copies = 2
		}
		for range copies {
			frame := append([]byte(nil), b[:n]...)
			var late time.Duration
			if w.late > 0 {
				late = time.Duration(w.rng.Int64N(int64(w.late)))
			}
			time.AfterFunc(late, func() { w.send(1-from, frame) })
		}
		w.mu.Unlock()
	}
}

func (w *wire) send(to int, frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		unix.Sendto(w.fd[to], frame, 0, &unix.SockaddrLinklayer{Ifindex: w.index[to]})
	}
}

// be sets what happens to frames from now on.
func (w *wire) be(loss, dup float64, late time.Duration, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loss, w.dup, w.late, w.cut = loss, dup, late, cut
}

// stays asserts that one host has the address, and only that one, for a while.
func (l *lan) stays(k kind, host, other string, long time.Duration) {
	l.t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(k.adv / 4) {
		if vip := k.vips()[0]; !l.has(host, vip) || l.has(other, vip) {
			l.t.Fatalf("%s: the address left %s, or %s has it too", k.name, host, other)
		}
	}
}

// TestKeepalivedOverABadNetwork: keepalived and we, each as the better one,
// over a network that loses, doubles, delays and reorders frames, and falls
// apart. Frames that come late or twice move nothing; after each spell of
// trouble one of the two has the address: the one of higher priority, or the one
// that had it all the time where nobody preempts.
func TestKeepalivedOverABadNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute of trouble")
	}
	t.Parallel()
	// A backup waits for longer than the delays of this network and of a busy
	// virtual machine together.
	const patient = 600 * time.Millisecond
	for i, c := range []struct {
		k         kind
		ours      uint8 // our priority; keepalived has 100
		nopreempt bool
	}{
		{kind{"v3 IPv4", 3, false, false, "", patient}, 150, false},
		{kind{"v3 IPv4", 3, false, false, "", patient}, 50, false},
		{kind{"v3 IPv4 unicast", 3, false, true, "", patient}, 150, false},
		{kind{"v3 IPv6", 3, true, false, "", patient}, 50, false},
		{kind{"v3 IPv4", 3, false, false, "", patient}, 150, true},
		{kind{"v3 IPv4", 3, false, false, "", patient}, 50, true},
	} {
		name := fmt.Sprintf("%s, ours %d, nopreempt %v", c.k.name, c.ours, c.nopreempt)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := c.k
			l := newLAN(t)
			l.host("a", 1)
			l.host("b", 2)
			w := l.wire(uint64(i), "p1", "p2")
			inst := k.instance(1, c.ours)
			text := k.keepalivedConf(2, 100)
			if c.nopreempt {
				inst.NoPreempt = true
				text = strings.Replace(text, "vrrp_instance VI_1 {", "vrrp_instance VI_1 {\n nopreempt", 1)
			}
			better, worse := "a", "b"
			if c.ours < 100 {
				better, worse = "b", "a"
			}
			ka, d := l.keepalived("b", text), l.director("a", config(inst))
			start := map[string]func(){"a": d.start, "b": ka.start}
			down := k.down() + 2*time.Second
			holder, other := better, worse
			if c.nopreempt { // the worse one comes first and stays
				holder, other = worse, better
			}
			start[holder]()
			l.until(down, holder+" has the address", func() bool { return l.has(holder, k.vips()[0]) })
			start[other]()

			d.await(down, "it runs", func(v status.VRRP) bool { return len(v.Instances) > 0 && v.Instances[0].State != status.VRRPInit })
			w.be(0, 0.3, k.adv*3/4, false)
			l.stays(k, holder, other, 12*k.adv)

			for range 2 {
				w.be(0.6, 0.2, k.adv/2, false)
				time.Sleep(10 * k.adv) // trouble, whatever comes of it
				w.be(0, 0, 0, true)
				l.until(down, "both are master while they cannot hear one another", func() bool {
					return l.has("a", k.vips()[0]) && l.has("b", k.vips()[0])
				})
				w.be(0, 0, 0, false)
				// Of two masters the better one wins, also under nopreempt.
				l.until(down, "one of them yields", func() bool {
					return l.has(better, k.vips()[0]) && !l.has(worse, k.vips()[0])
				})
				l.stays(k, better, worse, 10*k.adv)
			}
			// The better one may have heard nobody: what the other sent as a master went
			// into the void, and it yielded to the first word that it heard.
			v := d.await(30*time.Second, "counters", func(v status.VRRP) bool {
				return v.Instances[0].Stats.AdvertSent > 0 && (better == "a" || v.Instances[0].Stats.AdvertRcvd > 0)
			})
			s := v.Instances[0].Stats
			if s.ChecksumErr+s.PacketLenErr+s.VersionErr+s.IPTTLErr+s.InvalidTypeRcvd+s.AddrListErr+s.AdvertIntervalErr+s.SendErr != 0 {
				t.Errorf("errors are counted: %+v", s)
			}
			if master := v.Instances[0].State == status.VRRPMaster; master != (better == "a") || s.BecomeMaster-s.ReleaseMaster != map[bool]uint64{true: 1}[master] {
				t.Errorf("%s: became master %d times, released %d times", v.Instances[0].State, s.BecomeMaster, s.ReleaseMaster)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Logf("%d frames lost on purpose; we became master %d times, heard %d, sent %d", w.lost, s.BecomeMaster, s.AdvertRcvd, s.AdvertSent)
		})
	}
}
