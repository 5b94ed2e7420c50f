package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ballast/image"
	"ballast/image/archive"
)

// insideConfig has everything that listens. scan0 leads to the stranger who
// scans; 198.51.100.8 is the other box. Without an instance the daemon that listens
// runs on a master too.
const insideConfig = `global_defs {
    lvs_sync_daemon scan0
}
interface scan0 {
    address 198.51.100.1/24 2001:db8:5::1/64
}
peer 198.51.100.8 {
    key "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC other"
}
heartbeat {
    peer 198.51.100.8
    key 0123456789abcdef
}
snmp {
    listen 198.51.100.1
    community public
    client 198.51.100.64/26
}
bfd_instance B {
    neighbor_ip 198.51.100.8
}
vrrp_instance VI_1 {
    interface scan0
    virtual_router_id 51
    priority 200
    advert_int 1
    virtual_ipaddress {
        198.51.100.100/24
    }
}
virtual_server 198.51.100.100 80 {
    lb_algo rr
    lb_kind NAT
    protocol TCP
    real_server 198.51.100.200 80 {
        TCP_CHECK {
            connect_timeout 1
        }
    }
}
`

// What a box refuses: to its own root, to its services, and to strangers at
// every port. All of it is looked at from inside of one that runs.
func TestHardened(t *testing.T) {
	lab(t)
	exe := filepath.Join(t.TempDir(), "inside")
	if err := buildStatic(t.Context(), exe, "ballast/test/boot/inside"); err != nil {
		t.Fatal(err)
	}
	a := archive.New()
	for name, file := range map[string]string{"init": exe, "real": filepath.Join(built, image.BinaryFile)} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		a.File(name, b, 0o755)
	}
	a.File("seed/hostname", []byte("box-a\n"), 0o644)
	a.File("seed/config", []byte(insideConfig), 0o644)
	begin := time.Now()
	x := start(t, a)
	x.expect(slow, "ready: ")
	x.expect(6*time.Minute, "inside: done")
	t.Logf("took %v", time.Since(begin).Round(time.Second))
	x.ask("show log init")
	x.expect(time.Minute, "closed, ", "> ")
	t.Log(x.seen(`ready: .*`), x.seen(`modules: .* closed, .*`))

	got := map[string]string{}
	var listens, mounts []string
	for _, m := range regexp.MustCompile(`inside: (.*?): (.*)`).FindAllStringSubmatch(strings.ReplaceAll(x.Console(), "\r", ""), -1) {
		switch what := m[1]; {
		case what == "listens":
			listens = append(listens, m[2])
		case what == "took" || what == "modules":
			t.Log(m[0])
		case strings.HasPrefix(what, "mount "):
			mounts = append(mounts, strings.TrimSpace(strings.TrimPrefix(what, "mount ")+": "+m[2]))
		default:
			got[what] = m[2]
		}
	}
	if f := got["failed"]; f != "" {
		t.Errorf("inside: %s", f)
	}
	want := map[string]string{
		"write /x": "EROFS", "write /etc/x": "EROFS", "write /bin/x": "EROFS", "write /init.new": "EROFS", "write /lib/modules/x": "EROFS", "write /root/x": "EROFS",
		"write /etc/keepalived/x": "yes", "write /usr/local/bin/x": "yes", "write /opt/x": "yes", "write /run/x": "yes", "write /tmp/x": "yes", "write /var/tmp/x": "yes", "write /data/x": "yes",
		"lockdown": "none [integrity] confidentiality", "sig_enforce": "Y",
		"load a module": "EPERM", "take a module out": "EPERM", "read the memory": "EPERM", "another kernel": "EPERM", "ports of the machine": "EPERM", "ptrace": "EPERM",
		"sysctl kernel/kptr_restrict": `"2"`, "sysctl kernel/dmesg_restrict": `"1"`, "sysctl kernel/sysrq": `"0"`, "sysctl kernel/kexec_load_disabled": `"1"`,
		"sysctl kernel/unprivileged_bpf_disabled": `"1"`, "sysctl net/core/bpf_jit_harden": `"2"`, "sysctl kernel/yama/ptrace_scope": `"3"`,
		"sysctl kernel/io_uring_disabled": `"2"`, "sysctl user/max_user_namespaces": `"0"`, "sysctl fs/protected_symlinks": `"1"`, "sysctl fs/protected_regular": `"2"`,
		"sysctl net/ipv4/tcp_syncookies": `"1"`, "sysctl kernel/modprobe": `""`, "sysctl kernel/panic_on_oops": `"1"`,
		"pstore": "true",
		// What a commit may ask for is there; what nobody may ask for is not.
		"later bond": "yes", "later vlan": "yes", "later macvlan": "yes", "later ipvlan": "yes", "later dummy": "ENOTSUP", "later firewall with log": "yes",
		"TCP answers for stranger": "22 open", "TCP answers for stranger, IPv6": "22 open", "TCP answers for stranger, VIP": "22 open", "TCP answers for peer": "22 open, 1913 open",
		"UDP answers for stranger": "", "UDP answers for stranger, IPv6": "", "UDP answers for stranger, VIP": "",
	}
	for _, s := range strings.Fields("rr wrr lc wlc lblc sh mh dh fo ovf lblcr sed nq twos") {
		want["later scheduler "+s] = "yes"
	}
	for k, v := range want {
		if g, said := got[k]; g != v || !said {
			t.Errorf("%s: %q, want %q", k, g, v)
		}
	}
	n := 0
	for k, v := range got {
		if strings.HasPrefix(k, "process ") {
			n++
			if !strings.HasPrefix(v, "seccomp 2, no_new_privs 1, root false, ") {
				t.Errorf("%s: %s", k, v)
			}
		}
	}
	if n < 9 {
		t.Errorf("%d services were looked at", n)
	}
	// The sender of BFD has a port from 49152 on (RFC 5881 section 4), and hears nothing.
	listens = slices.DeleteFunc(listens, func(s string) bool {
		port, of := strings.CutPrefix(s, "udp 0.0.0.0:")
		n, err := strconv.Atoi(port)
		return of && err == nil && n >= 49152
	})
	slices.Sort(listens)
	if want := []string{
		"tcp 0.0.0.0:1913", "tcp6 [::]:22",
		"udp 0.0.0.0:1912", "udp 0.0.0.0:3784", "udp 198.51.100.1:161", "udp 224.0.0.81:8848",
	}; !slices.Equal(listens, want) {
		t.Errorf("sockets that listen: %q, want %q", listens, want)
	}
	// Folders with programs are the image's, and those of scripts.
	slices.Sort(mounts)
	if want := []string{
		"/: noexec", "/dev/pts: nodev", "/dev: nodev", "/etc/keepalived: noexec", "/opt: noexec", "/tmp: noexec", "/usr/libexec/keepalived: noexec", "/usr/local: noexec",
	}; !slices.Equal(slices.DeleteFunc(mounts, func(s string) bool { return strings.HasSuffix(s, ":") }), want) {
		t.Errorf("mounts without all of nosuid, nodev, noexec: %q, want %q", mounts, want)
	}
	if bytes.Contains([]byte(x.Console()), []byte("Kernel panic")) {
		t.Error("the kernel panicked")
	}
}
