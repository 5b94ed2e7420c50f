package netseed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"ballast/image/layout"
	"ballast/services/ipc"
	"ballast/services/netboot/seed"
	"ballast/test/probe"
)

func TestMain(m *testing.M) {
	if os.Getenv(EnvOut) != "" {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

func TestCards(t *testing.T) {
	sys := t.TempDir()
	for name, mac := range map[string]string{"eth0": "52:54:00:00:00:01", "eth1": "52:54:00:00:00:02"} {
		if err := os.MkdirAll(filepath.Join(sys, name, "device"), 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(sys, name, "address"), []byte(mac+"\n"), 0o644)
	}
	os.MkdirAll(filepath.Join(sys, "lo"), 0o755)
	for bootIF, want := range map[string]string{"": "eth0 eth1", "01-52-54-00-00-00-02": "eth1", "01-52-54-00-00-00-0A": "eth0 eth1", "x": "eth0 eth1"} {
		got, err := cards(sys, bootIF)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %v %v, want %s", bootIF, got, err, want)
		}
	}
	if _, err := cards(t.TempDir(), ""); err == nil {
		t.Error("a box without a card has one")
	}
}

func offerWith(t testing.TB, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithNetmask(net.CIDRMask(24, 32))}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	m.OpCode = dhcpv4.OpcodeBootReply
	return m
}

func from(server string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(server)))
}

func knows(url string) dhcpv4.Modifier {
	return func(d *dhcpv4.DHCPv4) {
		d.UpdateOption(dhcpv4.OptClassIdentifier(layout.VendorClass))
		d.UpdateOption(dhcpv4.OptBootFileName(url))
	}
}

func TestOffers(t *testing.T) {
	a := func(s string) dhcpv4.Modifier { return dhcpv4.WithYourIP(net.ParseIP(s)) }
	stranger := offerWith(t, a("192.0.2.50"), from("192.0.2.1"), dhcpv4.WithOption(dhcpv4.OptBootFileName("pxelinux.0")))
	own := offerWith(t, a("192.0.2.12"), from("192.0.2.11"), knows("http://192.0.2.11:1914/W/"))
	proxy := offerWith(t, from("192.0.2.11"), knows("http://192.0.2.11:1914/W/"))
	nothing := offerWith(t, from("192.0.2.1"))
	for _, tt := range []struct {
		in           []*dhcpv4.DHCPv4
		addr, source string
		whole        bool
	}{
		{[]*dhcpv4.DHCPv4{stranger}, "192.0.2.50", "", false},
		{[]*dhcpv4.DHCPv4{stranger, own}, "192.0.2.12", "http://192.0.2.11:1914/W/", true},
		{[]*dhcpv4.DHCPv4{own, stranger}, "192.0.2.12", "http://192.0.2.11:1914/W/", true},
		{[]*dhcpv4.DHCPv4{proxy, stranger}, "192.0.2.50", "http://192.0.2.11:1914/W/", true},
		{[]*dhcpv4.DHCPv4{proxy, nothing}, "", "http://192.0.2.11:1914/W/", false},
	} {
		var best offer
		for _, m := range tt.in {
			if o, ok := offerOf(m); ok {
				best.join(o)
			}
		}
		addr := ""
		if best.message != nil {
			addr = best.message.YourIPAddr.String()
		}
		if addr != tt.addr || best.source != tt.source || best.whole != tt.whole {
			t.Errorf("%q %q %v, want %q %q %v", addr, best.source, best.whole, tt.addr, tt.source, tt.whole)
		}
	}
}

// Whatever comes, an address that is taken is one of a host.
func FuzzOffer(f *testing.F) {
	f.Add(offerWith(f, dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 12)), from("192.0.2.11"), knows("http://192.0.2.11/"), dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1))).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		o, ok := offerOf(m)
		if !ok {
			return
		}
		if len(o.source) > 200 {
			t.Errorf("a URL of %d bytes", len(o.source))
		}
		if o.message == nil {
			return
		}
		l, _ := addressOf(m)
		if !l.addr.Addr().IsGlobalUnicast() || l.addr.Bits() < 1 || l.router.IsValid() && !l.addr.Contains(l.router) {
			t.Errorf("%+v was taken", l)
		}
	})
}

func TestFetchRefuses(t *testing.T) {
	for source, want := range map[string]string{
		"https://192.0.2.1/": "http://", "http://boot.example/": "has a name", "http://u:p@192.0.2.1/": "http://", "\x00": "no URL",
	} {
		if _, err := fetch(t.Context(), "lo", source); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v, want %q", source, err, want)
		}
	}
}

var labs atomic.Int32

type lan struct {
	t    *testing.T
	name string
}

func (l lan) ns(host string) string { return l.name + "-" + host }

func (l lan) run(host, cmd string) string {
	l.t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", l.ns(host)}, strings.Fields(cmd)...)...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %s: %v\n%s", host, cmd, err, out)
	}
	return string(out)
}

func (l lan) in(host string, f func()) {
	l.t.Helper()
	if err := probe.Inside(l.ns(host), func() error { f(); return nil }); err != nil {
		l.t.Fatal(err)
	}
}

// newLAN has a server with dnsmasq, of which the box knows nothing, and the box.
func newLAN(t *testing.T, dnsmasq ...string) lan {
	t.Helper()
	l := lan{t, fmt.Sprintf("ns%d-%d", os.Getpid(), labs.Add(1))}
	for _, host := range []string{"server", "box"} {
		if out, err := exec.Command("ip", "netns", "add", l.ns(host)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { exec.Command("ip", "netns", "del", l.ns(host)).Run() })
	}
	// A veth has no device behind it; netdevsim would, and is not everywhere.
	l.run("server", "ip link add eth0 type veth peer name eth0 address 02:00:00:00:00:0c netns "+l.ns("box"))
	l.run("server", "ip addr add 192.0.2.11/24 dev eth0")
	l.run("server", "ip link set eth0 up")
	args := append([]string{"netns", "exec", l.ns("server"), "dnsmasq", "-k", "-p0", "-C/dev/null", "--dhcp-range=192.0.2.100,192.0.2.110,1h", "--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"),
		"--interface=eth0", "--bind-interfaces", "--no-ping", "--user=root", "--pid-file="}, dnsmasq...)
	cmd := exec.Command("ip", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return l
}

// serve answers GET /W/seed.
func (l lan) serve(h http.HandlerFunc) {
	l.t.Helper()
	var ln net.Listener
	var err error
	l.in("server", func() { ln, err = net.Listen("tcp", "192.0.2.11:1914") })
	if err != nil {
		l.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(ln) })
	l.t.Cleanup(func() { srv.Close(); wg.Wait() })
}

// fetch runs the process as PID 1 does, but that its card is a veth: the list of
// cards is made for it.
func (l lan) fetch(t *testing.T, source string) (out string, log string, err error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "netseed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, ipc.UIDSeed, ipc.UIDSeed); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "exe")
	if b, err := exec.Command("cp", fmt.Sprintf("/proc/%d/exe", os.Getpid()), exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	out = filepath.Join(dir, "out")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = []string{EnvSource + "=" + source, EnvOut + "=" + out, envSys + "=" + l.sysfs(dir)}
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ipc.UIDSeed, Gid: ipc.UIDSeed},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE}}
	l.in("box", func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	return out, b.String(), err
}

// sysfs is a folder like /sys/class/net of the box, with a device behind eth0.
func (l lan) sysfs(dir string) string {
	d := filepath.Join(dir, "sys", "eth0")
	os.MkdirAll(filepath.Join(d, "device"), 0o755)
	os.WriteFile(filepath.Join(d, "address"), []byte("02:00:00:00:00:0c\n"), 0o644)
	os.WriteFile(filepath.Join(d, "carrier"), []byte("1\n"), 0o644)
	return filepath.Dir(d)
}

func example(t *testing.T) seed.Seed {
	t.Helper()
	keys, err := seed.MakeKeys()
	if err != nil {
		t.Fatal(err)
	}
	return seed.Seed{Name: "lb2", Server: "lb1", Generation: 3, Config: "secret\n", Keys: keys}
}

// A server that gives addresses and knows nothing of the box; the kernel's
// command line names the folder. The first answers are of no use.
func TestSourceOfTheCommandLine(t *testing.T) {
	t.Parallel()
	l := newLAN(t, "--dhcp-option=3,192.0.2.1")
	body, err := example(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	l.serve(func(w http.ResponseWriter, r *http.Request) {
		switch k := n.Add(1); {
		case r.URL.Path != "/W/seed":
			t.Errorf("asked for %s", r.URL.Path)
		case k == 1:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case k == 2:
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body[:len(body)/2]) // and breaks off
		default:
			w.Write(body)
		}
	})
	out, log, err := l.fetch(t, "http://192.0.2.11:1914/W/")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if b, err := os.ReadFile(filepath.Join(out, "config")); err != nil || string(b) != "secret\n" {
		t.Errorf("%v %q", err, b)
	}
	if !strings.Contains(log, "answers 503") || !strings.Contains(log, "<5>eth0: configuration of lb2, generation 3 of lb1") || strings.Contains(log, "/W/") || strings.Contains(log, "secret") {
		t.Errorf("it said:\n%s", log)
	}
	if a := l.run("box", "ip addr show dev eth0"); strings.Contains(a, "inet ") || !strings.Contains(a, "UP") {
		t.Errorf("the card is left with\n%s", a)
	}
}

// A server that knows the box says so in DHCP; the folder has nothing for it.
func TestSourceByDHCP(t *testing.T) {
	t.Parallel()
	l := newLAN(t, "--dhcp-vendorclass=set:b,"+layout.VendorClass, "--dhcp-option-force=tag:b,60,"+layout.VendorClass, "--dhcp-option-force=tag:b,67,http://192.0.2.11:1914/X/")
	var asked atomic.Value
	l.serve(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.Path)
		http.NotFound(w, r)
	})
	out, log, err := l.fetch(t, "")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != StatusNone || asked.Load() != "/X/seed" {
		t.Errorf("%v, asked for %v\n%s", err, asked.Load(), log)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("there is a seed")
	}
}
