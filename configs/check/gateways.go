package check

import (
	"fmt"
	"net/netip"
	"slices"

	"ballast/configs/model"
)

// gateways finds NAT services whose real servers stand behind the VIP of
// another instance. Their answers go to the box that holds that VIP; where the
// two instances can part, that is not the box that knows the connection.
func (k *checker) gateways(list []model.VirtualServer) {
	if len(k.c.Instances) < 2 {
		return
	}
	group := map[string]string{}
	for _, g := range k.c.SyncGroups {
		for _, name := range g.Instances {
			group[name] = g.Name
		}
	}
	holder := map[netip.Addr]*model.Instance{}
	for i := range k.c.Instances {
		in := &k.c.Instances[i]
		for _, a := range slices.Concat(in.VIPs, in.ExcludedVIPs) {
			holder[a.Prefix.Addr()] = in
		}
	}
	told := map[[2]string]bool{}
	for i := range list {
		v := &list[i]
		var front *model.Instance
		for _, id := range v.Services {
			if front == nil {
				front = holder[id.Addr]
			}
		}
		if front == nil {
			continue
		}
		for l := range v.Real {
			r := &v.Real[l]
			if r.Forward != model.NAT || near(front, r.Addr) {
				continue
			}
			for j := range k.c.Instances {
				back := &k.c.Instances[j]
				pair := [2]string{front.Name, back.Name}
				if back == front || told[pair] || !near(back, r.Addr) || group[back.Name] != "" && group[back.Name] == group[front.Name] {
					continue
				}
				told[pair] = true
				k.report(model.Warning, fmt.Sprintf("add vrrp_sync_group NAME { group { %s %s } }", front.Name, back.Name),
					fmt.Sprintf("%s and %s can be master on different boxes: if real servers of %s have the VIP of %s as their gateway, NAT then loses their answers",
						front.Name, back.Name, v.Name, back.Name), instance(back.Name), "vs/"+v.Name)
			}
		}
	}
}

// near tells whether an instance has a VIP in the subnet of a. A VIP without a
// subnet of its own (/32, /128) counts for the usual one.
func near(in *model.Instance, a netip.Addr) bool {
	return slices.ContainsFunc(slices.Concat(in.VIPs, in.ExcludedVIPs), func(v model.Address) bool {
		bits := v.Prefix.Bits()
		if v.Prefix.IsSingleIP() {
			if bits = 24; v.Prefix.Addr().Is6() {
				bits = 64
			}
		}
		return netip.PrefixFrom(v.Prefix.Addr(), bits).Masked().Contains(a)
	})
}
