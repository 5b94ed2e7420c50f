package net

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// TestAsItsOwnUser runs the service as init does: with its own user id and no
// capability but CAP_NET_ADMIN and CAP_NET_RAW. Everything it owns must work so.
func TestAsItsOwnUser(t *testing.T) {
	if os.Getuid() == ipc.UIDNet {
		asItsOwnUser(t)
		return
	}
	if !inNamespace(t) {
		return
	}
	startDHCP(t, 4*time.Second)
	if err := os.Mkdir("/run/t", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/run/t", 0o777); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestAsItsOwnUser$", "-test.v", "-test.timeout=200s")
	cmd.Env = append(os.Environ(), "TMPDIR=/run/t")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ipc.UIDNet, Gid: ipc.GroupBallast, NoSetGroups: true},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		t.Fatalf("as user %d: %v\n%s", ipc.UIDNet, err, out.Bytes())
	}
}

func asItsOwnUser(t *testing.T) {
	caps, err := os.ReadFile("/proc/self/status")
	if err != nil || !strings.Contains(string(caps), "CapEff:\t0000000000003000\n") {
		t.Fatalf("not the capabilities that init gives: %v\n%s", err, caps)
	}
	c := model.Config{
		Interfaces: []model.Interface{{Name: "wan", Match: model.Match{MAC: "02:00:00:00:00:07"}, DHCP: true, MTU: 1400,
			Addresses: []netip.Prefix{prefix("192.0.2.1/24"), prefix("2001:db8::1/64")}}},
		StaticRoutes: []model.Route{{Dst: prefix("198.51.100.0/24"), Via: ip("192.0.2.254")}},
		Marks:        []model.Mark{{Mark: 6, Rules: []model.MarkRule{{Protocol: model.UDP, Dst: prefix("2001:db8::1/128")}}}},
	}
	b := newBox(t)
	if st := b.commit(c); st.Error != "" {
		t.Fatalf("faults: %s", st.Error)
	}
	st := b.await("the lease", func(n status.Net) bool {
		return slices.Equal(addrsOf(n, "wan"), []string{"10.7.0.7/24 dhcp", "192.0.2.1/24 static", "2001:db8::1/64 static"})
	})
	if st.Error != "" || len(st.Marks) != 1 || linkNamed(st, "wan").MTU != 1400 {
		t.Errorf("state %+v", st)
	}
	b.log.await(t, "renew: 10.7.0.7/24") // by unicast
	if got := readFile(t, "/proc/sys/net/ipv4/ip_forward"); got != "1" {
		t.Errorf("ip_forward %q", got)
	}
}
