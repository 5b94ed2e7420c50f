package netboot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/layout"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/netboot/seed"
	"ballast/test/locked"
	"ballast/test/probe"
)

// childEnv makes the test binary the service process: the folder of its sockets.
const childEnv = "BALLAST_NETBOOT_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(serviceProcess(dir))
	}
	os.Exit(m.Run())
}

// serviceProcess is what init would start.
func serviceProcess(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	probeAge = 4 * time.Second
	env, err := ipc.NewEnv(ipc.Dir(dir), "netboot", slog.New(ipc.NewLogHandler(os.Stderr)))
	if err == nil {
		env.Data, env.Run = filepath.Join(dir, "data"), filepath.Join(dir, "own")
		err = run(ctx, env, places{hostName: func() string { return "lb1" }, links: kernelLinks, arp: "/proc/net/arp",
			disks: filepath.Join(dir, "disks"), cmdline: filepath.Join(dir, "cmdline"), image: filepath.Join(dir, "image")})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var labs atomic.Int32

// lan is a switch, the box that serves, and machines that boot, in network
// namespaces of their own.
type lan struct {
	t    *testing.T
	name string
	dir  string
	conf *ipc.Server
	book *follow.Book
	gen  uint64
	log  *locked.Buffer

	bundle   []byte
	firmware []byte
	config   disk.SlotConfig

	mu     sync.Mutex
	refuse string // what conf says to netboot-seed
	asked  []status.NetbootQuery
}

const (
	serverAddr = "192.0.2.11"
	boxAddr    = "192.0.2.12"
	boxMAC     = "02:00:00:00:00:0c"
	strangeMAC = "02:00:00:00:00:0d"
)

func newLAN(t *testing.T) *lan {
	t.Helper()
	t.Parallel()
	dir, err := os.MkdirTemp("", "netboot") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lan{t: t, name: fmt.Sprintf("nb%d-%d", os.Getpid(), labs.Add(1)), dir: dir, log: &locked.Buffer{}}
	l.addNS("sw")
	l.run("sw", "ip link add br0 type bridge mcast_snooping 0 forward_delay 0")
	l.run("sw", "ip link set br0 up")
	l.host("server", "02:00:00:00:00:0b", serverAddr+"/24")
	l.host("box", boxMAC, "")
	l.host("stranger", strangeMAC, "192.0.2.13/24")
	l.makeSlot()
	l.makeConf()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.log.String())
		}
	})
	return l
}

func (l *lan) ns(host string) string { return l.name + "-" + host }

func (l *lan) addNS(host string) {
	l.t.Helper()
	ns := l.ns(host)
	if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	l.run(host, "ip link set lo up")
}

var ports atomic.Int32

func (l *lan) host(name, mac, addr string) {
	l.t.Helper()
	l.addNS(name)
	port := fmt.Sprintf("p%d", ports.Add(1))
	l.run("sw", fmt.Sprintf("ip link add %s type veth peer name eth0 address %s netns %s", port, mac, l.ns(name)))
	l.run("sw", fmt.Sprintf("ip link set %s master br0 up", port))
	if addr != "" {
		l.run(name, "ip addr add "+addr+" broadcast + dev eth0")
	}
	l.run(name, "ip link set eth0 up")
}

// try runs a command on a host.
func (l *lan) try(host, cmd string) (string, error) {
	args := append([]string{"netns", "exec", l.ns(host)}, strings.Fields(cmd)...)
	out, err := exec.Command("ip", args...).CombinedOutput()
	return string(out), err
}

func (l *lan) run(host, cmd string) string {
	l.t.Helper()
	out, err := l.try(host, cmd)
	if err != nil {
		l.t.Fatalf("%s: %s: %v\n%s", host, cmd, err, out)
	}
	return out
}

// in runs f on a thread that is in the namespace of a host.
func (l *lan) in(host string, f func()) {
	l.t.Helper()
	if err := probe.Inside(l.ns(host), func() error { f(); return nil }); err != nil {
		l.t.Fatal(err)
	}
}

// makeSlot writes a firmware of random bytes into a slot.
func (l *lan) makeSlot() {
	l.t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	l.firmware = make([]byte, 3<<20+123)
	for i := range l.firmware {
		l.firmware[i] = byte(rng.Uint32())
	}
	l.config = disk.SlotConfig{Identity: layout.Identity{Version: "v7", Build: 7, Board: "qemu", Kernel: "6.12.1"},
		Linux: disk.Range{Offset: 1024, Size: 100_000}, Initrd: disk.Range{Offset: 102400, Size: 2_000_001}, Args: "console=ttyS0 panic=10"}
	cfg, err := l.config.Bytes()
	if err != nil {
		l.t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	var b bytes.Buffer
	err = bundle.Write(&b, bundle.Manifest{Identity: l.config.Identity}, []bundle.File{{Name: bundle.SlotConfig, Data: cfg}, {Name: bundle.Firmware, Data: l.firmware},
		{Name: bundle.CoreImage, Data: []byte("core")}}, key)
	if err != nil {
		l.t.Fatal(err)
	}
	l.bundle = b.Bytes()
	r, err := bundle.Open(bytes.NewReader(l.bundle), []bundle.Key{{Public: key.Public().(ed25519.PublicKey)}})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, d := range []string{"disks", "data", "own", "image"} {
		if err := os.Mkdir(filepath.Join(l.dir, d), 0o755); err != nil {
			l.t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(l.dir, "disks", layout.PartSlotB))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	f.Truncate(layout.SizeSlot << 20)
	if err := disk.WriteSlot(f, disk.FromBundle(r), disk.Options{}); err != nil {
		l.t.Fatal(err)
	}
	for name, text := range map[string]string{"cmdline": "quiet ballast.slot=B\n", "image/" + layout.NetUndionly: "undionly"} {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, d := range []string{"", "data", "own"} {
		if err := os.Chown(filepath.Join(l.dir, d), ipc.UIDNetboot, ipc.GroupBallast); err != nil {
			l.t.Fatal(err)
		}
	}
}

// makeConf stands in for conf.
func (l *lan) makeConf() {
	l.t.Helper()
	env, err := ipc.NewEnv(ipc.Dir(l.dir), "conf", slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	os.Chmod(ipc.Dir(l.dir).Path("conf"), 0o777)
	l.conf, l.book = ipc.NewServer("conf"), follow.NewBook()
	l.conf.Handle("netboot-seed", func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var q status.NetbootQuery
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.asked = append(l.asked, q)
		if l.refuse != "" {
			return nil, errors.New(l.refuse)
		}
		c := status.NetbootContent{Server: "lb1", Generation: l.gen, Addresses: []status.NetbootAddress{
			{Interface: "eth9", Prefix: netip.MustParsePrefix("10.0.0.1/8")}, {Interface: "eth0", Prefix: netip.MustParsePrefix(boxAddr + "/24")}}}
		if q.Whole {
			c.Text = "secret of " + q.Name + "\n"
			c.Files = []status.File{{Path: "/etc/keepalived/x.sh", Content: []byte("#!/bin/sh\n")}}
		}
		return c, nil
	}, ipc.UIDNetboot)
	l.publish(model.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { l.conf.Serve(ctx, env.Listener); close(done) }()
	l.t.Cleanup(func() { cancel(); <-done })
}

func (l *lan) publish(c model.Config) {
	l.gen++
	l.conf.Publish(l.book.Publish(status.Conf{Generation: l.gen, Config: c}, ""))
}

// start starts the service as init does: as its own user, with one capability.
func (l *lan) start() (stop func()) {
	l.t.Helper()
	exe := filepath.Join(l.dir, "exe")
	if _, err := os.Stat(exe); err != nil { // the test binary's folder is root's
		if out, err := exec.Command("cp", "/proc/"+fmt.Sprint(os.Getpid())+"/exe", exe).CombinedOutput(); err != nil {
			l.t.Fatalf("%v: %s", err, out)
		}
	}
	os.Remove(ipc.Dir(l.dir).Path("netboot"))
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+l.dir)
	cmd.Stdout, cmd.Stderr = l.log, l.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ipc.UIDNetboot, Gid: ipc.GroupBallast, NoSetGroups: true},
		AmbientCaps: []uintptr{unix.CAP_NET_BIND_SERVICE}}
	var err error
	l.in("server", func() { err = cmd.Start() })
	if err != nil {
		l.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			l.t.Errorf("the service: %v", err)
		}
	})
	l.t.Cleanup(stop)
	return stop
}

// await waits for a state.
func (l *lan) await(what string, ok func(status.Netboot) bool) (last status.Netboot) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	seen := false
	ipc.Watch(ctx, ipc.Dir(l.dir).Client("netboot"), func(_ uint64, st status.Netboot) {
		if last = st; !seen && ok(st) {
			seen = true
			cancel()
		}
	})
	if !seen {
		b, _ := json.MarshalIndent(last, "", " ")
		l.t.Fatalf("%s: not so: %s", what, b)
	}
	return last
}

func (l *lan) served() {
	l.t.Helper()
	l.await("the box is served", func(st status.Netboot) bool {
		return len(st.Boxes) == 1 && st.Boxes[0].Error == "" && st.Boxes[0].Server.IsValid()
	})
}

// ask sends a DHCP request as a boot ROM would, again and again, and collects
// what is answered until enough says so.
func (l *lan) ask(host string, patience time.Duration, enough func([]*dhcpv4.DHCPv4) bool, mods ...dhcpv4.Modifier) (got []*dhcpv4.DHCPv4) {
	l.t.Helper()
	mac, _ := net.ParseMAC(boxMAC)
	if host == "stranger" {
		mac, _ = net.ParseMAC(strangeMAC)
	}
	var conn *net.UDPConn
	var err error
	l.in(host, func() {
		var c net.PacketConn
		c, err = bound("eth0").ListenPacket(context.Background(), "udp4", "0.0.0.0:68")
		if err == nil {
			conn = c.(*net.UDPConn)
		}
	})
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	m, err := dhcpv4.NewDiscovery(mac, append([]dhcpv4.Modifier{dhcpv4.WithBroadcast(true)}, mods...)...)
	if err != nil {
		l.t.Fatal(err)
	}
	to := &net.UDPAddr{IP: net.IPv4bcast, Port: 67}
	b := make([]byte, 4096)
	var again time.Time
	for end := time.Now().Add(patience); ; {
		if now := time.Now(); now.After(end) {
			return got
		} else if now.After(again) {
			if _, err := conn.WriteTo(m.ToBytes(), to); err != nil {
				l.t.Fatal(err)
			}
			again = now.Add(3 * time.Second)
			conn.SetReadDeadline(again)
		}
		n, err := conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			l.t.Fatal(err)
		}
		r, err := dhcpv4.FromBytes(bytes.Clone(b[:n]))
		if err != nil {
			l.t.Fatal(err)
		}
		if r.TransactionID != m.TransactionID {
			continue // somebody else's look
		}
		if got = append(got, r); enough(got) {
			return got
		}
	}
}

// patient is how long an answer may take on a machine that has much to do.
const patient = 30 * time.Second

func one(got []*dhcpv4.DHCPv4) bool { return len(got) == 1 }

func class(text string, arch iana.Arch) dhcpv4.Modifier {
	return func(d *dhcpv4.DHCPv4) {
		d.UpdateOption(dhcpv4.OptClassIdentifier(text))
		d.UpdateOption(dhcpv4.OptClientArch(arch))
	}
}

var theBox = model.Config{Netboot: []model.NetbootBox{{MAC: boxMAC, Name: "lb2"}, {MAC: "02:00:00:00:00:0b", Name: "lb1"}}}

// TestServes: a box that the configuration names boots without any other DHCP
// server, with clients that are not ours; somebody else gets nothing.
func TestServes(t *testing.T) {
	l := newLAN(t)
	l.publish(theBox)
	l.start()
	l.served()

	// busybox's DHCP client, as UEFI's PXE.
	script := filepath.Join(l.dir, "udhcpc.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ $1 = bound ] && { echo \"$ip $boot_file $tftp $siaddr $mask\"; ip addr add $ip/$mask dev eth0; }\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := l.run("box", "busybox udhcpc -i eth0 -f -q -n -t 6 -T 4 -V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007 -O bootfile -O tftp -s "+script)
	if want := boxAddr + " fw.efi " + serverAddr + " " + serverAddr + " 24"; !strings.Contains(out, want) {
		t.Fatalf("udhcpc: want %q in\n%s", want, out)
	}
	// TFTP: busybox and curl.
	for _, cmd := range []string{"busybox tftp -g -b 1468 -r fw.efi -l %s " + serverAddr, "busybox tftp -g -r fw.efi -l %s " + serverAddr,
		"curl -sS --tftp-blksize 1428 -o %s tftp://" + serverAddr + "/fw.efi"} {
		got := filepath.Join(l.dir, "got")
		l.run("box", fmt.Sprintf(cmd, got))
		if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, l.firmware) {
			t.Errorf("%s: %v, %d bytes of %d", cmd, err, len(b), len(l.firmware))
		}
		os.Remove(got)
	}
	if out, err := l.try("box", "curl -sS tftp://"+serverAddr+"/undionly.kpxe"); err != nil || out != "undionly" {
		t.Errorf("undionly: %v %s", err, out)
	}
	if out, err := l.try("box", "curl -sS tftp://"+serverAddr+"/../../etc/passwd"); err == nil {
		t.Errorf("a file of the server: %s", out)
	}
	if out, err := l.try("stranger", "curl -sS tftp://"+serverAddr+"/fw.efi"); err == nil {
		t.Errorf("a stranger got %d bytes", len(out))
	}

	// HTTP.
	base := l.director()
	get := func(name string) string {
		t.Helper()
		out, err := l.try("box", "curl -sS -f "+base+name)
		if err != nil {
			t.Errorf("%s: %v %.200s", name, err, out)
		}
		return out
	}
	if !strings.HasPrefix(base, "http://"+serverAddr+":1914/") {
		t.Fatalf("base %q", base)
	}
	c := l.config
	for name, want := range map[string][]byte{layout.NetFirmware: l.firmware, layout.NetKernel: l.firmware[c.Linux.Offset : c.Linux.Offset+c.Linux.Size],
		layout.NetInitramfs: l.firmware[c.Initrd.Offset : c.Initrd.Offset+c.Initrd.Size], layout.NetBundle: l.bundle} {
		if got := get(name); got != string(want) {
			t.Errorf("%s: %d bytes, want %d", name, len(got), len(want))
		}
	}
	if got := get("boot.ipxe"); !strings.HasPrefix(got, "#!ipxe\n") || !strings.Contains(got, "kernel "+base+"vmlinuz "+layout.IPXEWord+" console=ttyS0 panic=10 ballast.source="+base+" BOOTIF=") {
		t.Errorf("the script:\n%s", got)
	}
	head := l.run("box", "curl -sS -I "+base+"fw.efi")
	if !strings.Contains(head, fmt.Sprintf("Content-Length: %d", len(l.firmware))) || !strings.Contains(head, "application/efi") {
		t.Errorf("HEAD:\n%s", head)
	}
	if out, err := l.try("box", "curl -sS -f "+base+"../seed.go"); err == nil {
		t.Errorf("another file: %s", out)
	}
	if out, err := l.try("stranger", "curl -sS -m 5 "+base+"seed"); err == nil {
		t.Errorf("a stranger got %.100q", out)
	}
	// A slot.cfg that is not of this firmware.
	own, err := places{cmdline: filepath.Join(l.dir, "cmdline"), disks: filepath.Join(l.dir, "disks")}.openSlot()
	if err != nil {
		t.Fatal(err)
	}
	defer own.f.Close()
	if _, err := own.piece(disk.Range{Offset: int64(len(l.firmware)) - 5, Size: 6}); err == nil {
		t.Error("a kernel that goes beyond the firmware")
	}
	// The configuration, once.
	s, err := seed.Decode([]byte(get("seed")))
	if err != nil || s.Name != "lb2" || s.Config != "secret of lb2\n" || s.Server != "lb1" || s.Generation != l.gen || len(s.Files) != 1 {
		t.Errorf("seed: %v, %+v", err, s)
	}
	if out, err := l.try("box", "curl -sS -f "+base+"seed"); err == nil || !strings.Contains(out, "410") {
		t.Errorf("the seed twice: %v %.100q", err, out)
	}
	if strings.Contains(l.log.String(), "secret of") || strings.Contains(l.log.String(), "PRIVATE") {
		t.Error("secrets are in the log")
	}
	st := l.await("it has its configuration", func(st status.Netboot) bool { return len(st.Boxes) == 1 && st.Boxes[0].Given == l.gen })
	b := st.Boxes[0]
	key, err := seed.Public(s.Keys.Peer)
	if err != nil || b.PublicKey != seed.Line(key) || b.DHCP != "server" || b.Address.String() != boxAddr || !st.Firmware.Bundle || st.Firmware.Version != "v7" {
		t.Errorf("%v: %+v", err, st)
	}
	// The next boot has another word, and is the same box, also after a restart of
	// the service.
	l.publish(model.Config{})
	l.await("nobody is served", func(st status.Netboot) bool { return len(st.Boxes) == 0 })
	l.publish(theBox)
	l.served()
	if again := l.director(); again == base || again == "" {
		t.Errorf("the second boot has the word of the first: %s", again)
	} else {
		base = again
	}
	if s2, err := seed.Decode([]byte(get("seed"))); err != nil || !bytes.Equal(s2.Keys.Peer, s.Keys.Peer) || !bytes.Equal(s2.Keys.SSH, s.Keys.SSH) {
		t.Errorf("another identity: %v", err)
	}
}

// director is what this firmware itself is told; it gives the box its address.
func (l *lan) director() string {
	l.t.Helper()
	got := l.ask("box", patient, one, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(layout.VendorClass)))
	if len(got) != 1 || got[0].ClassIdentifier() != layout.VendorClass {
		l.t.Fatalf("the firmware is told %v", got)
	}
	return got[0].BootFileNameOption()
}

// Each kind of client is told what it can load; a stranger is told nothing.
func TestKindsOfClients(t *testing.T) {
	l := newLAN(t)
	c := theBox
	c.Netboot = []model.NetbootBox{{MAC: boxMAC, Name: "lb2", DHCP: model.DHCPServer}}
	l.publish(c)
	l.start()
	l.served()
	ipxeClass := func(d *dhcpv4.DHCPv4) {
		d.UpdateOption(dhcpv4.OptGeneric(optUserClass, []byte("iPXE")))
	}
	for _, tt := range []struct {
		name, file, class string
		mods              []dhcpv4.Modifier
	}{
		{"BIOS", "undionly.kpxe", classPXE, []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001", iana.INTEL_X86PC)}},
		{"UEFI", "fw.efi", classPXE, []dhcpv4.Modifier{class("PXEClient:Arch:00007:UNDI:003000", iana.EFI_BC)}},
		{"iPXE", "/boot.ipxe", classPXE, []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001", iana.INTEL_X86PC), ipxeClass}},
		{"HTTP", "/fw.efi", classHTTP, []dhcpv4.Modifier{class("HTTPClient:Arch:00016:UNDI:003001", iana.EFI_X86_64_HTTP)}},
	} {
		got := l.ask("box", patient, one, tt.mods...)
		if len(got) != 1 || !strings.HasSuffix(got[0].BootFileNameOption(), tt.file) || got[0].ClassIdentifier() != tt.class || got[0].YourIPAddr.String() != boxAddr || got[0].BootFileName != got[0].BootFileNameOption() {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	quiet := func(host string, mods ...dhcpv4.Modifier) {
		t.Helper()
		if got := l.ask(host, 3*time.Second, one, mods...); len(got) != 0 {
			t.Errorf("%s was answered: %v", host, got)
		}
	}
	quiet("stranger", class("PXEClient:Arch:00007:UNDI:003000", iana.EFI_BC))
	quiet("box", class("udhcp 1.35", iana.INTEL_X86PC)) // its operating system
	l.await("it is told why not", func(st status.Netboot) bool { return len(st.Boxes[0].Events) >= 4 })
}

// Beside another DHCP server this one only tells what to boot, without being told
// so, and for as long as there is one.
func TestBesideAnotherServer(t *testing.T) {
	l := newLAN(t)
	l.host("dhcp", "02:00:00:00:00:0e", "192.0.2.1/24")
	dnsmasq := exec.Command("ip", "netns", "exec", l.ns("dhcp"), "dnsmasq", "-k", "-p0", "-C/dev/null", "--dhcp-range=192.0.2.100,192.0.2.110,1h", "--dhcp-leasefile="+filepath.Join(l.dir, "leases"),
		"--interface=eth0", "--bind-interfaces", "--no-ping", "--user=root", "--pid-file=")
	dnsmasq.Stdout, dnsmasq.Stderr = l.log, l.log
	if err := dnsmasq.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dnsmasq.Process.Kill(); dnsmasq.Wait() })
	// It is up when somebody gets an address of it.
	l.run("stranger", "busybox udhcpc -i eth0 -f -q -n -t 30 -T 1 -s /bin/true")
	l.publish(theBox)
	l.start()
	l.served()
	// Who is late makes the box ask again: another one may answer twice then.
	from := func(o []*dhcpv4.DHCPv4) (servers map[string]bool) {
		servers = map[string]bool{}
		for _, x := range o {
			servers[x.ServerIdentifier().String()] = true
		}
		return servers
	}
	offers := l.ask("box", patient, func(o []*dhcpv4.DHCPv4) bool { return len(from(o)) == 2 }, class("PXEClient:Arch:00007:UNDI:003000", iana.EFI_BC))
	if servers := from(offers); !servers["192.0.2.1"] || !servers[serverAddr] {
		t.Errorf("offers: %v", offers)
	}
	for _, o := range offers {
		address := !o.YourIPAddr.IsUnspecified() && o.BootFileNameOption() == ""
		file := o.YourIPAddr.IsUnspecified() && o.BootFileNameOption() == "fw.efi" && o.ClassIdentifier() == classPXE
		if other := o.ServerIdentifier().String() == "192.0.2.1"; other != address || other == file {
			t.Errorf("an offer: %v", o)
		}
	}
	l.await("it knows the other server", func(st status.Netboot) bool {
		return st.Boxes[0].DHCP == "proxy" && st.Boxes[0].Other.String() == "192.0.2.1"
	})
	// With that address it gets what it needs.
	l.run("box", "ip addr add 192.0.2.105/24 dev eth0")
	if out := l.run("box", "curl -sS tftp://"+serverAddr+"/undionly.kpxe"); out != "undionly" {
		t.Errorf("TFTP: %q", out)
	}
	// When that server is gone, the box gets its address here.
	addressed := func() {
		t.Helper()
		got := l.ask("box", patient, func(o []*dhcpv4.DHCPv4) bool { return o[len(o)-1].YourIPAddr.String() == boxAddr }, class("PXEClient:Arch:00007:UNDI:003000", iana.EFI_BC))
		if len(got) == 0 || got[len(got)-1].YourIPAddr.String() != boxAddr {
			t.Fatalf("offers: %v", got)
		}
		l.await("it gives addresses itself", func(st status.Netboot) bool { return st.Boxes[0].DHCP == "server" && !st.Boxes[0].Other.IsValid() })
	}
	dnsmasq.Process.Kill()
	dnsmasq.Wait()
	addressed()
	// So it does after a request that names a server which is not there.
	l.ask("box", time.Second, one, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 77))))
	l.await("it believes the request", func(st status.Netboot) bool { return st.Boxes[0].Other.String() == "192.0.2.77" })
	addressed()
}

// What was asked for by hand ends by itself, by hand, and outlives the process.
func TestByHand(t *testing.T) {
	l := newLAN(t)
	stop := l.start()
	l.await("it runs", func(st status.Netboot) bool { return st.Config == l.gen })
	call := func(verb string, in, out any) error {
		return ipc.Dir(l.dir).Client("netboot").Call(t.Context(), verb, in, out)
	}
	var b status.NetbootBox
	if err := call("serve", status.NetbootServe{MAC: strings.ToUpper(boxMAC), Name: "lb2", For: time.Minute, By: "ann"}, &b); err != nil {
		t.Fatal(err)
	}
	if b.MAC != boxMAC || b.Error != "" || b.Interface != "eth0" || b.Address.String() != boxAddr || !strings.HasPrefix(b.PublicKey, "ssh-ed25519 AAAA") {
		t.Errorf("%+v", b)
	}
	for _, tt := range []struct {
		in   status.NetbootServe
		want string
	}{
		{status.NetbootServe{MAC: "x", Name: "lb2"}, "is no MAC address"},
		{status.NetbootServe{MAC: boxMAC}, "is no name of a box"},
		{status.NetbootServe{MAC: boxMAC, Name: "../x"}, "is no name of a box"},
		{status.NetbootServe{MAC: boxMAC, Name: "lb2", For: 48 * time.Hour}, "at most 24h"},
		{status.NetbootServe{MAC: boxMAC, Name: "lb2", DHCP: "x"}, "want server or proxy"},
	} {
		if err := call("serve", tt.in, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.in, err, tt.want)
		}
	}
	stop()
	l.start()
	l.await("the new process goes on", func(st status.Netboot) bool {
		return len(st.Boxes) == 1 && st.Boxes[0].By == "ann" && st.Boxes[0].PublicKey == b.PublicKey
	})
	if err := call("stop", status.NetbootStop{Box: "lb9"}, nil); err == nil {
		t.Error("a box that is not served was stopped")
	}
	var said string
	if err := call("stop", status.NetbootStop{Box: "LB2"}, &said); err != nil || said != "stopped: 1" {
		t.Errorf("%v %q", err, said)
	}
	l.await("it is not served", func(st status.Netboot) bool { return len(st.Boxes) == 0 })
	var err error
	var conn io.Closer
	l.in("server", func() { conn, err = net.Listen("tcp", serverAddr+":1914") })
	if err != nil {
		t.Errorf("the port is still taken: %v", err)
	} else {
		conn.Close()
	}
	// A box that is forgotten is somebody else the next time.
	if err := call("forget", status.NetbootStop{Box: "lb2"}, nil); err != nil {
		t.Error(err)
	}
	if err := call("forget", status.NetbootStop{Box: "lb2"}, nil); err == nil || !strings.Contains(err.Error(), "no identity of lb2") {
		t.Errorf("forgotten twice: %v", err)
	}
	var again status.NetbootBox
	if err := call("serve", status.NetbootServe{MAC: boxMAC, Name: "lb2", By: "ann"}, &again); err != nil || again.PublicKey == b.PublicKey || again.PublicKey == "" {
		t.Errorf("%v: %+v", err, again)
	}
	if err := call("stop", status.NetbootStop{}, nil); err != nil {
		t.Error(err)
	}
	// What conf refuses is told.
	l.mu.Lock()
	l.refuse = "netboot of lb2 is neither in the configuration nor asked for"
	l.mu.Unlock()
	var no status.NetbootBox
	if err := call("serve", status.NetbootServe{MAC: boxMAC, Name: "lb2", By: "ann"}, &no); err != nil || !strings.Contains(no.Error, "neither") || no.PublicKey != "" {
		t.Errorf("%v %+v", err, no)
	}
}
