package scenario

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/console/show"
	"ballast/services/ipc/status"
	"ballast/test/lab"
)

// TestLookInside: packets of a box open in the user's tshark, its support bundle is
// whole.
func TestLookInside(t *testing.T) {
	s := begin(t, lab.Options{Config: web(), Blocks: "snmp {\n    listen 0.0.0.0\n    community scenario1\n}\n"}, 51)
	d := s.Directors[a]
	capture := s.process(d, "capture")
	if capture.PID != 0 || capture.State != "idle" {
		t.Errorf("before anybody captures: %+v", capture)
	}
	for _, c := range []struct {
		command string
		fields  []string
		want    func([]string) bool
	}{
		{"capture eth0 vrrp and ip count 5", []string{"frame.interface_name", "ip.src", "vrrp.virt_rtr_id"}, func(l []string) bool {
			return len(l) == 5 && !slices.ContainsFunc(l, func(l string) bool { return l != "eth0,10.10.0.251,51" })
		}},
		// The checks of its real servers.
		{"capture any 'tcp port 80 and tcp[tcpflags] & tcp-syn != 0' count 4 snap 80", []string{"frame.interface_name", "tcp.flags.syn"}, func(l []string) bool {
			return len(l) == 4 && !slices.ContainsFunc(l, func(l string) bool {
				return !strings.HasPrefix(l, "eth") || !strings.HasSuffix(l, ",1") && !strings.HasSuffix(l, ",True")
			})
		}},
	} {
		s.measured(s.settle, func() (faults []string) { // a box that stands still is no master any more
			out, err := s.OpenSSH(s.ctx, a, c.command)
			s.must(err)
			if got := tshark(t, out, c.fields...); !c.want(got) {
				faults = append(faults, fmt.Sprintf("%s: %q", c.command, got))
			}
			return faults
		})
	}
	s.measured(s.settle, func() (faults []string) {
		out, err := s.OpenSSH(s.ctx, a, "capture eth0 vrrp and ip count 1 text")
		s.must(err)
		if !strings.Contains(out, "out IP 10.10.0.251 > 224.0.0.18: VRRPv3 vrid 51 prio 100 intvl 20cs addrs 10.10.0.80") {
			faults = append(faults, fmt.Sprintf("a line: %s", out))
		}
		t.Log(strings.TrimSpace(out))
		return faults
	})

	begun := time.Now()
	out, err := s.OpenSSH(s.ctx, a, "support bundle")
	s.must(err)
	t.Logf("support bundle: %d KiB after %v", len(out)>>10, time.Since(begun).Round(time.Millisecond))
	files := untar(t, out)
	for name, part := range map[string]string{
		"README.txt": "Support bundle of", "box.json": `"version"`, "configuration/running.conf": "community ********", "configuration/history.json": "generation", "journal.json": "outside",
		"log/vrrp.txt": "master", "log/kernel.txt": "Linux version", "state/ipvs.json": "10.10.0.80", "show/vrrp.txt": "MASTER", "show/status.txt": "", "show/firmware.txt": "",
		"kernel/ipvs.json": `"10.10.0.80"`, "kernel/nftables.txt": "table", "kernel/links.json": `"eth1"`, "kernel/routes.txt": "10.10.0.0/24", "kernel/neighbours.txt": "10.10.0.", "kernel/ethtool.txt": "eth0: driver virtio_net",
		"kernel/proc/interrupts": "CPU0", "kernel/proc/net/softnet_stat": " ", "kernel/proc/net/ip_vs_stats": "Conns", "kernel/sysctl-net.txt": "/proc/sys/net/ipv4/vs/", "kernel/hardware/pci.txt": "virtio-pci",
	} {
		if text, ok := files[name]; !ok || !strings.Contains(text, part) {
			t.Errorf("%s (there: %v) has no %q: %.300s", name, ok, part, text)
		}
	}
	for name, text := range files {
		if strings.Contains(text, "scenario1") {
			t.Errorf("%s has the community", name)
		}
	}
	if m, ok := files["missing.txt"]; ok {
		t.Errorf("missing: %s", m)
	}

	s.must(s.Apply(s.ctx, lab.Options{Config: web()}))
	s.until("capture is idle again", func() (bool, string) {
		p := s.process(d, "capture")
		return p.State == "idle" && p.PID == 0 && p.Restarts == 0, p.State
	})
	st, err := lab.Show[status.Init](s.ctx, d, "processes")
	s.must(err)
	var rss, pss uint64
	for _, p := range st.Services {
		rss, pss = rss+p.RSS, pss+p.PSS
	}
	t.Logf("after all that: RSS %.1f MiB, PSS %.1f MiB\n%s", float64(rss)/(1<<20), float64(pss)/(1<<20), show.Processes(st, time.Now()))
}

// tshark reads a file of packets as a user would.
func tshark(t *testing.T, file string, fields ...string) []string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(name, []byte(file), 0o644); err != nil {
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

func untar(t *testing.T, archive string) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		files[name] = string(text)
	}
}
