package net

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"ballast/configs/model"
	"ballast/services/firewall"
)

// Prepare says whether a configuration can be applied to the NICs present. It is
// pure and reports every fault. A NIC that an interface block merely names may
// come late and is no fault here; a bond without its member, a VLAN without
// its link, or a match that means two things is.
func Prepare(c model.Config, f Facts) error {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	names := Desired(c, nil, nil).Names
	known := map[string]bool{} // names that there will be
	for _, l := range f.Links {
		known[l.Name] = true
		for _, a := range l.AltNames {
			known[a] = true
		}
	}
	for _, r := range Renames(f.Links, names) {
		known[r.To] = true
	}
	for _, b := range c.Bonds {
		known[b.Name] = true
	}
	for _, v := range c.VLANs {
		known[v.Name] = true
	}

	nics := map[int]string{}
	for _, n := range names {
		l := pick(f.Links, n)
		if l == nil {
			continue
		}
		if other := nics[l.Index]; other != "" && other != n.Name {
			fault("interface %s and interface %s both mean the NIC %s; give each its own mac or pci", other, n.Name, l.Name)
		}
		nics[l.Index] = n.Name
	}
	made := map[string]string{}
	name := func(kind, n string) {
		switch {
		case n == "" || n == "." || n == ".." || len(n) > maxName || strings.ContainsAny(n, "/: \t\n%"):
			fault("%s %q: the kernel takes names of 1 to %d characters without space, slash or colon", kind, n, maxName)
		case made[n] != "":
			fault("%s %s: the name is that of a %s too", kind, n, made[n])
		}
		made[n] = kind
	}
	for _, b := range c.Bonds {
		name("bond", b.Name)
		mode := netlink.StringToBondMode(b.Mode)
		if mode == netlink.BOND_MODE_UNKNOWN {
			fault("bond %s: unknown mode %q; use active-backup, 802.3ad, balance-rr, balance-xor, broadcast, balance-tlb or balance-alb", b.Name, b.Mode)
		}
		if _, ok := netlink.StringToBondXmitHashPolicyMap[b.HashPolicy]; b.HashPolicy != "" && !ok {
			fault("bond %s: unknown hash policy %q; use layer2, layer2+3, layer3+4, encap2+3, encap3+4 or vlan+srcmac", b.Name, b.HashPolicy)
		}
		if _, ok := netlink.StringToBondLacpRateMap[b.LACPRate]; b.LACPRate != "" && (!ok || mode != netlink.BOND_MODE_802_3AD) {
			fault("bond %s: LACP rate %q; use slow or fast, with mode 802.3ad", b.Name, b.LACPRate)
		}
		if b.Primary != "" && (!slices.Contains(b.Members, b.Primary) || !primaryMode(b.Mode)) {
			fault("bond %s: primary %s must be a member, in mode active-backup, balance-tlb or balance-alb", b.Name, b.Primary)
		}
		for _, m := range b.Members {
			if !known[m] {
				fault("bond %s: its member %s is not there; NICs present: %s", b.Name, m, nicList(f))
			}
			for _, o := range c.Bonds {
				if o.Name != b.Name && slices.Contains(o.Members, m) && b.Name < o.Name {
					fault("%s is a member of bond %s and of bond %s", m, b.Name, o.Name)
				}
			}
		}
	}
	for _, v := range c.VLANs {
		name("vlan", v.Name)
		if v.ID < 1 || v.ID > 4094 {
			fault("vlan %s: id %d; want 1 to 4094", v.Name, v.ID)
		}
		if !known[v.Link] {
			fault("vlan %s: its link %s is not there; NICs present: %s", v.Name, v.Link, nicList(f))
		}
	}
	made = map[string]string{}
	for _, i := range c.Interfaces {
		name("interface", i.Name)
	}
	if err := firewall.Check(c.Marks); err != nil {
		faults = append(faults, err.Error())
	}
	if err := firewall.CheckFilter(&c); err != nil {
		faults = append(faults, err.Error())
	}
	if len(faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(faults, "\n"))
}

// nicList is the NICs for a message: "eth0 (52:54:00:00:00:01, 0000:00:02.0, virtio_net)".
func nicList(f Facts) string {
	var out []string
	for _, l := range f.Links {
		if l.Kind == "loopback" || l.Kind == "bond" || l.Kind == "vlan" {
			continue
		}
		what := []string{}
		for _, s := range []string{firstOf(l.PermMAC, l.MAC), l.PCI, l.Driver} {
			if s != "" {
				what = append(what, s)
			}
		}
		out = append(out, l.Name+" ("+strings.Join(what, ", ")+")")
	}
	if len(out) == 0 {
		return "none"
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
