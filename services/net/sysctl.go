package net

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ballast/configs/model"
)

// Sysctl is one value under /proc/sys. Key is a path ("net/ipv4/ip_forward"):
// a dotted name could not hold an interface called eth0.5. Value is its words
// with one space between them. Or is what the kernel may turn Value into by
// itself.
type Sysctl struct{ Key, Value, Or string }

// Sysctls are the values that a director needs, in the order in which they are
// written: forwarding first, because it resets others. docs/network.md gives the
// reason of each.
func Sysctls(c model.Config, links []Link) []Sysctl {
	out := []Sysctl{
		{Key: "net/ipv4/ip_forward", Value: "1"},
		{Key: "net/ipv6/conf/all/forwarding", Value: "1"},
	}
	set := func(key, value string) { out = append(out, Sysctl{Key: key, Value: value}) }
	for _, who := range []string{"all", "default"} {
		v4 := "net/ipv4/conf/" + who + "/"
		set(v4+"rp_filter", "0")
		set(v4+"send_redirects", "0")
		set(v4+"accept_redirects", "0")
		set(v4+"accept_source_route", "0")
		set(v4+"arp_ignore", "1")
		set(v4+"arp_announce", "2")
		set(v4+"promote_secondaries", "1")
	}
	// disable_local_igmp: no reports for groups such as VRRP's own 224.0.0.18.
	reports := "1"
	if c.Global.DisableLocalIGMP {
		reports = "0"
	}
	set("net/ipv4/igmp_link_local_mcast_reports", reports)
	set("net/ipv6/conf/default/accept_ra", "0")
	set("net/ipv6/conf/default/accept_redirects", "0")
	for _, fam := range []string{"ipv4", "ipv6"} {
		set("net/"+fam+"/neigh/default/gc_thresh3", "16384")
		set("net/"+fam+"/neigh/default/gc_thresh2", "8192")
		set("net/"+fam+"/neigh/default/gc_thresh1", "4096")
	}

	ra := map[string]bool{}
	for _, i := range c.Interfaces {
		ra[i.Name] = i.Accept == model.RAOn || i.DHCP6
	}
	names := make([]string, 0, len(links))
	for _, l := range links {
		if l.Kind != "loopback" {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		// rp_filter is the larger, send_redirects the or, of "all" and the
		// interface; the IPv6 ones look at the interface alone.
		set("net/ipv4/conf/"+n+"/rp_filter", "0")
		set("net/ipv4/conf/"+n+"/send_redirects", "0")
		set("net/ipv6/conf/"+n+"/accept_redirects", "0")
		accept := "0"
		if ra[n] {
			accept = "2" // 1 would stop with forwarding on
		}
		set("net/ipv6/conf/"+n+"/accept_ra", accept)
	}

	vs := "net/ipv4/vs/"
	sloppy := "0"
	for i := range c.VirtualServers {
		if hashes(&c.VirtualServers[i]) {
			sloppy = "1"
			break
		}
	}
	set(vs+"conntrack", "0")
	set(vs+"expire_nodest_conn", "1")
	set(vs+"expire_quiescent_template", "1")
	set(vs+"sloppy_tcp", sloppy)
	set(vs+"sloppy_sctp", sloppy)
	// With 1 the kernel refuses whatever a NAT real server sends outside of a
	// balanced connection: the answers to our own health checks too.
	set(vs+"nat_icmp_send", "0")
	out = append(out, Sysctl{Key: vs + "drop_entry", Value: "1", Or: "2"}) // 2: under attack now
	set(vs+"sync_threshold", "0 0")
	set(vs+"sync_refresh_period", "10")
	set(vs+"sync_retries", "1")
	return out
}

// hashes tells whether a virtual server chooses by the client's address, as it
// does on the other box: a connection may then be taken over in its middle.
func hashes(v *model.VirtualServer) bool { return v.Scheduler == "sh" || v.Scheduler == "mh" }

// sysctlPath is the file of a key. A key holds names of interfaces, which the
// kernel keeps free of slashes.
func sysctlPath(key string) string { return filepath.Join("/proc/sys", key) }

// readSysctls reads the keys of want. What does not exist (a module that is not
// loaded, an interface that just went) is left out.
func readSysctls(want []Sysctl) map[string]string {
	out := make(map[string]string, len(want))
	for _, s := range want {
		if b, err := os.ReadFile(sysctlPath(s.Key)); err == nil {
			out[s.Key] = strings.Join(strings.Fields(string(b)), " ")
		}
	}
	return out
}

func writeSysctl(s Sysctl) error {
	f, err := os.OpenFile(sysctlPath(s.Key), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone since it was read: the next pass sees to it
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(s.Value + "\n")
	return errors.Join(err, f.Close())
}
