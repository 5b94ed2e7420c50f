package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/test/locked"
)

// inNamespace runs the rest of the test in a network namespace of its own, by
// starting the test binary again. It returns false in the first process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("CAPTURE_TEST_IN") == t.Name() {
		for _, c := range []string{"ip link set lo up", "ip link add a0 type veth peer name b0", "ip link set a0 address 02:00:00:00:00:0a",
			"ip link set b0 address 02:00:00:00:00:0b", "sysctl -qw net.ipv6.conf.a0.disable_ipv6=1 net.ipv6.conf.b0.disable_ipv6=1", "ip link set a0 up", "ip link set b0 up", "ip addr add 10.9.0.1/24 dev a0",
			"ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:0b dev a0"} {
			if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", c, err, out)
			}
		}
		// a0 came up without its other end. The kernel lets it send a little after that
		// is there, and drops what comes before.
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			out, err := exec.Command("ip", "link", "show", "a0").CombinedOutput()
			if err == nil && bytes.Contains(out, []byte("state UP")) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("a0 does not come up: %v: %s", err, out)
			}
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=300s")
	cmd.Env = append(os.Environ(), "CAPTURE_TEST_IN="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in its namespace: %v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}

// box is the service and its caller.
type box struct {
	t   *testing.T
	dir ipc.Dir
}

func newBox(t *testing.T) *box {
	t.Helper()
	dir := ipc.Dir(t.TempDir())
	env, err := ipc.NewEnv(dir, "capture", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, env) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &box{t, dir}
}

// running is one capture under way.
type running struct {
	t     *testing.T
	out   locked.Buffer
	stop  *io.PipeWriter
	done  chan error
	mu    sync.Mutex
	notes []string
}

// start begins a capture and returns when the kernel takes packets for it.
func (b *box) start(r status.CaptureRequest) *running {
	b.t.Helper()
	x := &running{t: b.t, done: make(chan error, 1)}
	in, stop := io.Pipe()
	x.stop = stop
	go func() {
		x.done <- b.dir.Client("capture").Stream(context.Background(), "capture", r, in, &x.out, func(s string) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.notes = append(x.notes, s)
		})
	}()
	for end := time.Now().Add(30 * time.Second); ; {
		select {
		case err := <-x.done:
			b.t.Fatalf("%+v: %v", r, err)
		default:
		}
		list, err := os.ReadFile("/proc/self/net/packet")
		if err != nil {
			b.t.Fatal(err)
		}
		if bytes.Contains(list, []byte(" 0003 ")) { // bound, for all protocols
			return x
		}
		if time.Now().After(end) {
			b.t.Fatal("no packet socket")
		}
		time.Sleep(time.Millisecond)
	}
}

// end ends it as Ctrl-C does, and returns what came.
func (x *running) end() ([]byte, string) {
	x.t.Helper()
	x.stop.Close()
	return x.wait()
}

func (x *running) wait() ([]byte, string) {
	x.t.Helper()
	select {
	case err := <-x.done:
		if err != nil {
			x.t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		x.t.Fatal("it does not end")
	}
	return []byte(x.out.String()), strings.Join(x.notes, "\n")
}

// tshark reads a file of packets.
func tshark(t *testing.T, file []byte, fields ...string) []string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(name, file, 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-r", name, "-T", "fields", "-E", "separator=,"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v; make test-tools installs it", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func sum(b []byte) uint16 {
	var n uint32
	for ; len(b) > 1; b = b[2:] {
		n += uint32(binary.BigEndian.Uint16(b))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}

// ip4 makes a frame from the far end of the cable.
func ip4(proto byte, dst string, tag int, payload []byte) []byte {
	f := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xb}
	if tag > 0 {
		f = append(f, 0x81, 0, 0x60|byte(tag>>8), byte(tag))
	}
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, 255, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], []byte{10, 9, 0, 2})
	copy(h[16:], netip.MustParseAddr(dst).AsSlice())
	binary.BigEndian.PutUint16(h[10:], sum(h))
	return append(append(append(f, 8, 0), h...), payload...)
}

func vrrp(vrid byte) []byte { return []byte{0x31, vrid, 100, 1, 0, 100, 0, 0, 10, 9, 0, 80} }

func udp(dport uint16) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint16(b, 4000)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], 12)
	return b
}

// sender puts frames onto b0, the far end.
func sender(t *testing.T) func(...[]byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	i, err := net.InterfaceByName("b0")
	if err != nil {
		t.Fatal(err)
	}
	return func(frames ...[]byte) {
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFile(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b, send := newBox(t), sender(t)
	x := b.start(status.CaptureRequest{By: "admin", Interface: "a0", Filter: "vrrp", Count: 3})
	send(ip4(112, "224.0.0.18", 0, vrrp(51)), ip4(17, "10.9.0.1", 0, udp(9)), ip4(112, "224.0.0.18", 0, vrrp(52)), ip4(112, "224.0.0.18", 5, vrrp(53)), ip4(112, "224.0.0.18", 0, vrrp(54)))
	file, notes := x.wait()
	got := strings.Join(tshark(t, file, "frame.interface_name", "ip.src", "vrrp.virt_rtr_id", "vlan.id", "frame.len", "frame.packet_flags_direction"), "\n")
	if want := "a0,10.9.0.2,51,,46,0x00000001\na0,10.9.0.2,52,,46,0x00000001\na0,10.9.0.2,53,5,50,0x00000001"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if notes != "3 packets, 0 dropped because they came faster than they were taken" {
		t.Error(notes)
	}
	if age := time.Since(stamped(t, file)); age < 0 || age > time.Minute {
		t.Errorf("a packet of %v ago", age)
	}

	// Each piece of a packet, in VLAN 5 only, and what this box sends.
	x = b.start(status.CaptureRequest{By: "admin", Interface: "a0", Filter: "vlan 5 and udp or outbound", Snap: 40})
	send(ip4(17, "10.9.0.1", 5, append(udp(9), make([]byte, 500)...)), ip4(17, "10.9.0.1", 0, udp(9)), ip4(17, "10.9.0.1", 6, udp(9)))
	ping(t, "10.9.0.2")
	file = x.until(2)
	got = strings.Join(tshark(t, file, "vlan.id", "frame.len", "frame.cap_len", "ip.proto", "frame.packet_flags_direction"), "\n")
	if want := "5,550,44,17,0x00000001\n,50,40,17,0x00000002"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// ping sends something of this box.
func ping(t *testing.T, to string) {
	t.Helper()
	c, err := net.Dial("udp", to+":9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("12345678")); err != nil {
		t.Fatal(err)
	}
}

// until ends a capture when it has so many packets, or blocks of them.
func (x *running) until(n int) []byte {
	x.t.Helper()
	for end := time.Now().Add(30 * time.Second); packets([]byte(x.out.String())) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			x.t.Fatalf("%d packets only", packets([]byte(x.out.String())))
		}
	}
	file, _ := x.end()
	return file
}

// each calls f with the blocks of a file.
func each(b []byte, f func(kind uint32, body []byte)) {
	for len(b) >= 12 {
		n := binary.LittleEndian.Uint32(b[4:])
		if int(n) > len(b) {
			return
		}
		f(binary.LittleEndian.Uint32(b), b[8:n-4])
		b = b[n:]
	}
}

func packets(b []byte) (n int) {
	each(b, func(kind uint32, _ []byte) {
		if kind == 6 {
			n++
		}
	})
	return n
}

func stamped(t *testing.T, b []byte) (at time.Time) {
	each(b, func(kind uint32, body []byte) {
		if kind == 6 {
			at = time.Unix(0, int64(uint64(binary.LittleEndian.Uint32(body[4:]))<<32|uint64(binary.LittleEndian.Uint32(body[8:]))))
		}
	})
	return at
}

// A tunnel has no Ethernet, and all interfaces are of several kinds.
func TestCooked(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tun)
	req, _ := unix.NewIfreq("t0")
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(tun, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", "ip link set t0 up && ip addr add 10.8.0.1/24 dev t0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, send := newBox(t), sender(t)
	x := b.start(status.CaptureRequest{By: "admin", Interface: "t0", Filter: "udp port 9"})
	ping(t, "10.8.0.2")
	if got := strings.Join(tshark(t, x.until(1), "frame.interface_name", "ip.dst", "udp.dstport"), "\n"); got != "t0,10.8.0.2,9" {
		t.Error(got)
	}
	x = b.start(status.CaptureRequest{By: "admin", Interface: "any", Filter: "udp port 9 or vrrp"})
	send(ip4(112, "224.0.0.18", 0, vrrp(51)))
	ping(t, "127.0.0.1")
	got := tshark(t, x.until(4), "frame.interface_name", "ip.dst", "sll.pkttype")
	// b0 sends it, a0 gets it; lo sends and gets.
	want := []string{"b0,224.0.0.18,4", "a0,224.0.0.18,1", "lo,127.0.0.1,4", "lo,127.0.0.1,0"}
	for _, w := range want {
		if !strings.Contains(strings.Join(got, "\n"), w) {
			t.Errorf("%q, want %q", got, want)
			break
		}
	}
}

func TestText(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b, send := newBox(t), sender(t)
	x := b.start(status.CaptureRequest{By: "admin", Interface: "a0", Text: true, Filter: "host 10.9.0.2", For: 3 * time.Second})
	send(ip4(112, "224.0.0.18", 0, vrrp(51)), ip4(17, "10.9.0.1", 7, udp(3784)))
	out, notes := x.wait()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], " in  IP 10.9.0.2 > 224.0.0.18: VRRPv3 vrid 51 prio 100 intvl 100cs addrs 10.9.0.80") || !strings.Contains(lines[1], "in  vlan 7 IP 10.9.0.2:4000 > 10.9.0.1:3784: UDP BFD") {
		t.Errorf("%s", out)
	}
	if !strings.HasPrefix(notes, "2 packets") {
		t.Error(notes)
	}
}

// The packets of the session that carries the capture are not in it.
func TestOwnSession(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b := newBox(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	r := status.CaptureRequest{By: "admin", Interface: "lo", Client: netip.MustParseAddrPort(c.LocalAddr().String()), Server: netip.MustParseAddrPort(c.RemoteAddr().String())}
	x := b.start(r)
	fmt.Fprint(c, "own")
	fmt.Fprint(s, "own")
	ping(t, "127.0.0.1")
	file := x.until(2)
	for _, p := range tshark(t, file, "ip.proto") {
		if p != "17" && !strings.HasPrefix(p, "1,") && p != "1" {
			t.Errorf("a packet of protocol %s", p)
		}
	}
	if !strings.Contains(strings.Join(x.notes, "\n"), "are left out") {
		t.Error(x.notes)
	}
}

// A reader that takes nothing costs packets, which are counted, and no memory
// but the ring.
func TestSlowReader(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	send := sender(t)
	k, err := prepare(status.CaptureRequest{Interface: "a0", Filter: "udp"})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := open(k.index, k.cooked, false, k.program)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.close()
	big := ip4(17, "10.9.0.1", 0, append(udp(9), make([]byte, 1400)...))
	const sent = 6000 // twice what the ring holds
	for range sent {
		send(big)
	}
	ctx, stop := context.WithCancel(t.Context())
	var file bytes.Buffer
	total, dropped, err := k.run(ctx, ring, writerFunc(func(p []byte) (int, error) {
		file.Write(p)
		// How full the blocks are is a matter of how fast they were sent: a block's time
		// may be over before it is full.
		if !ring.ready() {
			stop()
		}
		return len(p), nil
	}))
	if err != nil || dropped == 0 || total == 0 || total+dropped > sent || file.Len() > 2*blocks*blockSize {
		t.Errorf("%d packets, %d dropped, of %d; %d bytes; %v", total, dropped, sent, file.Len(), err)
	}
	counted := uint64(0)
	each(file.Bytes(), func(kind uint32, body []byte) {
		if kind == 5 {
			for o := body[12:]; len(o) >= 4; o = o[4+(int(binary.LittleEndian.Uint16(o[2:]))+3)&^3:] {
				if binary.LittleEndian.Uint16(o) == 5 {
					counted = binary.LittleEndian.Uint64(o[4:])
				}
			}
		}
	})
	if counted != dropped {
		t.Errorf("the file tells of %d dropped packets, it were %d", counted, dropped)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRefused(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	b := newBox(t)
	for want, r := range map[string]status.CaptureRequest{
		`there is no interface "eth9"`: {Interface: "eth9"},
		"names are not looked up":      {Interface: "a0", Filter: "host lb1"},
		"no Ethernet header":           {Interface: "any", Filter: "ether host 02:00:00:00:00:01"},
		"name one interface":           {Interface: "any", Promiscuous: true},
		"want 1 to 262144 bytes":       {Interface: "a0", Snap: -1},
	} {
		err := b.dir.Client("capture").Stream(t.Context(), "capture", r, nil, io.Discard, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
	var all []*running
	for range most {
		all = append(all, b.start(status.CaptureRequest{By: "eve", Interface: "a0"}))
	}
	awaitRunning(t, b, most)
	err := b.dir.Client("capture").Stream(t.Context(), "capture", status.CaptureRequest{Interface: "a0"}, nil, io.Discard, nil)
	if err == nil || !strings.Contains(err.Error(), "4 captures run") || !strings.Contains(err.Error(), "eve on a0") {
		t.Error(err)
	}
	for _, x := range all {
		x.end()
	}
	awaitRunning(t, b, 0)
}

func awaitRunning(t *testing.T, b *box, n int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	ipc.Watch(ctx, b.dir.Client("capture"), func(_ uint64, s status.Capture) {
		if len(s.Running) == n {
			stop()
		}
	})
	if ctx.Err() != context.Canceled {
		t.Fatalf("not %d captures", n)
	}
}
