package vrrp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
)

// linkNames are the interfaces that there are, sorted, without loopback.
func (s *service) linkNames() []string {
	var names []string
	for name := range s.links {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// prepare says whether a configuration could run here, with all faults at once.
// links are the interfaces that exist; those that the configuration makes
// itself (bonds, VLANs, names given to NICs) count as well.
func prepare(c *model.Config, links []string) error {
	have := slices.Clone(links)
	for _, i := range c.Interfaces {
		have = append(have, i.Name)
	}
	for _, b := range c.Bonds {
		have = append(have, b.Name)
	}
	for _, v := range c.VLANs {
		have = append(have, v.Name)
	}
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("vrrp_instance %s: %s", name, fmt.Sprintf(format, args...)))
	}
	exists := func(inst, what, name string) {
		if name == "" || c.Global.DynamicInterfaces || slices.Contains(have, name) {
			return
		}
		bad(inst, "%s %s does not exist; there are: %s. Correct the name, or write dynamic_interfaces in global_defs if it comes later",
			what, name, strings.Join(slices.DeleteFunc(slices.Clone(links), func(n string) bool { return n == "lo" }), ", "))
	}
	for i := range c.Instances {
		n := &c.Instances[i]
		exists(n.Name, "interface", n.Interface)
		for _, v := range slices.Concat(n.VIPs, n.ExcludedVIPs) {
			exists(n.Name, "dev", v.Interface)
		}
		for _, t := range n.TrackInterfaces {
			exists(n.Name, "tracked interface", t.Interface)
		}
		if n.VRID == 0 {
			bad(n.Name, "virtual_router_id is 0; it must be 1 to 255, the same on both boxes")
		}
		if n.Version != 2 && n.Version != 3 {
			bad(n.Name, "version %d; it must be 2 or 3", n.Version)
		}
		if n.Version == 2 && n.IPv6 {
			bad(n.Name, "version 2 knows IPv4 only; write version 3")
		}
		switch {
		case n.Version == 2 && (n.AdvertInt < time.Second || n.AdvertInt > 255*time.Second):
			bad(n.Name, "advert_int %s; version 2 takes whole seconds from 1 to 255", n.AdvertInt)
		case n.Version == 3 && (n.AdvertInt < 10*time.Millisecond || n.AdvertInt > 40950*time.Millisecond):
			bad(n.Name, "advert_int %s; version 3 takes 0.01 to 40.95 seconds", n.AdvertInt)
		}
		if n.Interface == "" && !n.Unicast {
			bad(n.Name, "no interface")
		}
		for _, v := range n.VIPs {
			if v.Prefix.Addr().Is4() == n.IPv6 {
				bad(n.Name, "%s is of the other family than the instance; move it to virtual_ipaddress_excluded", v.Prefix)
			}
		}
		for j := range i {
			if o := &c.Instances[j]; clash(n, o) {
				bad(n.Name, "virtual_router_id %d on %s is that of vrrp_instance %s; give one of them another", n.VRID, n.Interface, o.Name)
			}
		}
	}
	return errors.Join(errs...)
}

// clash tells whether two instances could not tell their advertisements apart.
func clash(a, b *model.Instance) bool {
	if a.VRID != b.VRID || a.IPv6 != b.IPv6 || a.Unicast != b.Unicast {
		return false
	}
	if !a.Unicast {
		return a.Interface == b.Interface && a.McastGroup == b.McastGroup
	}
	peers := map[netip.Addr]bool{}
	for _, p := range a.Peers {
		peers[p.Addr] = true
	}
	for _, p := range b.Peers {
		if peers[p.Addr] {
			return true
		}
	}
	return false
}
