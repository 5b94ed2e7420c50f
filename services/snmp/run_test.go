package snmp

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// publish runs the socket of another service with a state.
func publish(t *testing.T, dir ipc.Dir, name string, state any) *ipc.Server {
	t.Helper()
	l, err := net.Listen("unix", dir.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	s := ipc.NewServer(name)
	s.Publish(state)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// freePort is a UDP port that nobody uses, on an address of loopback that no
// test of another process picks: until its user listens it stays free.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	pid := os.Getpid()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, byte(64+pid>>16&63), byte(pid>>8), byte(1+pid%254))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// lines are the lines that a program writes.
func lines(t *testing.T, r io.Reader) <-chan string {
	out := make(chan string, 100)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(r); s.Scan(); {
			out <- s.Text()
		}
	}()
	return out
}

// The tools of net-snmp walk the agent and receive its traps.
func TestNetSNMP(t *testing.T) {
	f := example()
	at, sink := freePort(t), freePort(t)
	f.conf.Global.SNMP = model.SNMP{VRRP: true, Checker: true, Traps: true, Listen: []netip.AddrPort{at}, Community: "c0mmunity", TrapSinks: []netip.AddrPort{sink}}
	dir := ipc.Dir(t.TempDir())
	publish(t, dir, "conf", status.Conf{Generation: 3, Config: f.conf})
	publish(t, dir, "init", status.Init{Version: "0.1"})
	publish(t, dir, "net", f.net)
	publish(t, dir, "ipvs", f.ipvs)
	publish(t, dir, "notify", f.notify)
	health := publish(t, dir, "health", f.health)
	vrrp := publish(t, dir, "vrrp", f.vrrp)

	trapd := exec.Command("snmptrapd", "-f", "-Lo", "-n", "-C", "-On", "--disableAuthorization=yes", "--doNotLogTraps=no", "udp:"+sink.String())
	trapd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := trapd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := trapd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trapd.Process.Kill(); trapd.Wait() })
	traps := lines(t, out)
	waitFor := func(want ...string) {
		t.Helper()
		deadline := time.After(time.Minute)
		for {
			select {
			case l, ok := <-traps:
				if !ok {
					t.Fatal("snmptrapd ended")
				}
				missing := false
				for _, w := range want {
					missing = missing || !strings.Contains(l, w)
				}
				if !missing {
					return
				}
			case <-deadline:
				t.Fatalf("no line with %q", want)
			}
		}
	}
	waitFor("NET-SNMP version")

	env, err := ipc.NewEnv(dir, "snmp", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, env) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	walked := func(tool, version, community, from string) (string, error) {
		b, err := exec.Command(tool, "-v"+version, "-c", community, "-On", "-Oe", "-r", "10", "-t", "1", at.String(), from).CombinedOutput()
		return string(b), err
	}
	for _, c := range []struct{ tool, version string }{{"snmpwalk", "1"}, {"snmpwalk", "2c"}, {"snmpbulkwalk", "2c"}} {
		got, err := walked(c.tool, c.version, "c0mmunity", ".1.3.6.1.4.1.9586.100.5")
		if err != nil {
			t.Fatalf("%s: %v\n%s", c.tool, err, got)
		}
		for _, want := range []string{
			".1.3.6.1.4.1.9586.100.5.2.3.1.2.1 = STRING: \"VI_1\"", ".1.3.6.1.4.1.9586.100.5.2.3.1.4.1 = INTEGER: 2",
			".1.3.6.1.4.1.9586.100.5.3.4.1.7.1.2 = INTEGER: 3", ".1.3.6.1.4.1.9586.100.5.3.3.1.6.1 = Hex-STRING: 0A 00 00 64",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s -v%s: no %s in\n%s", c.tool, c.version, want, got)
			}
		}
		if wide := strings.Contains(got, "Counter64"); wide != (c.version == "2c") {
			t.Errorf("%s -v%s: Counter64 is there: %v", c.tool, c.version, wide)
		}
	}
	if got, err := exec.Command("snmpget", "-v2c", "-c", "public", "-r", "0", "-t", "0.3", at.String(), ".1.3.6.1.2.1.1.5.0").CombinedOutput(); err == nil {
		t.Errorf("a wrong community is answered: %s", got)
	}

	f.vrrp.Transitions = []status.Transition{{Seq: 1, Time: time.Now(), Kind: kindInstance, Object: "VI_1", To: status.VRRPFault}, {Seq: 2, Time: time.Now(), Kind: kindGroup, Object: "G1", To: status.VRRPBackup}}
	vrrp.Publish(f.vrrp)
	waitFor(".1.3.6.1.6.3.1.1.4.1.0 = OID: .1.3.6.1.4.1.9586.100.5.2.10.0.2", ".2.3.1.2.1 = STRING: \"VI_1\"", ".2.3.1.4.1 = INTEGER: 3", ".1.2.0 = STRING: \"lb1-id\"")
	waitFor(".2.10.0.1", ".2.1.1.2.1 = STRING: \"G1\"", ".2.1.1.3.1 = INTEGER: 1")
	name := f.conf.VirtualServers[0].Name
	f.health.Transitions = []status.Transition{
		{Seq: 1, Time: time.Now(), Kind: kindReal, Object: "[10.0.0.22]:tcp:80 of " + name, To: "DOWN"}, {Seq: 2, Time: time.Now(), Kind: kindVirtual, Object: name, To: "UP"}}
	health.Publish(f.health)
	waitFor(".3.5.0.1", ".3.4.1.6.1.2 = INTEGER: 2", ".3.3.1.21.1 = Gauge32: 1", ".3.3.1.7.1 = Gauge32: 80")
	waitFor(".3.5.0.2", ".3.3.1.23.1 = INTEGER: 1")
}
