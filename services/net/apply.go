package net

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ballast/services/ipc/iprule"
)

// Apply does one op. Names are resolved against facts, the dump that the op was
// planned from.
func (k *Kernel) Apply(o Op, f Facts) error {
	if err := k.apply(o, f); err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}
	return nil
}

var errNoLink = errors.New("the link is not there")

// dev makes the library's handle for a link: it needs the index only.
func dev(f Facts, name string) (netlink.Link, error) {
	for _, l := range f.Links {
		if l.Name == name {
			return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: l.Name, Index: l.Index}}, nil
		}
	}
	for _, l := range f.Links {
		for _, a := range l.AltNames {
			if a == name {
				return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: l.Name, Index: l.Index}}, nil
			}
		}
	}
	return nil, errNoLink
}

func (k *Kernel) apply(o Op, f Facts) error {
	switch o := o.(type) {
	case Rename:
		return k.rename(o, f)
	case AddVLAN:
		return k.addVLAN(o.VLAN, f)
	case AddBond:
		return k.setBond(o.Bond, f, true)
	case SetBond:
		return k.setBond(o.Bond, f, false)
	case DelLink:
		return onDev(f, o.Name, k.h.LinkDel)
	case SetMTU:
		return onDev(f, o.Link, func(l netlink.Link) error { return k.h.LinkSetMTU(l, o.To) })
	case SetMaster:
		if o.Master == "" {
			return onDev(f, o.Link, k.h.LinkSetNoMaster)
		}
		m, err := dev(f, o.Master)
		if err != nil {
			return err
		}
		return onDev(f, o.Link, func(l netlink.Link) error { return k.h.LinkSetMasterByIndex(l, m.Attrs().Index) })
	case SetUp:
		if o.Up {
			return onDev(f, o.Link, k.h.LinkSetUp)
		}
		return onDev(f, o.Link, k.h.LinkSetDown)
	case SetAddr:
		return k.addr(o.Addr, f, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	case DelAddr:
		return ignore(k.addr(o.Addr, f, unix.RTM_DELADDR, unix.NLM_F_ACK), unix.EADDRNOTAVAIL, unix.ENODEV)
	case SetRoute:
		how := unix.NLM_F_REPLACE
		if o.Append {
			how = unix.NLM_F_APPEND
		}
		return k.route(o.Route, f, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|how|unix.NLM_F_ACK)
	case DelRoute:
		// ENODEV, errNoLink: the link went and took the route along.
		return ignore(k.route(o.Route, f, unix.RTM_DELROUTE, unix.NLM_F_ACK), unix.ESRCH, unix.ENODEV, errNoLink)
	case SetRule:
		return ignore(k.raw(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, iprule.Marshal(o.Rule.Rule, o.Proto)), unix.EEXIST)
	case DelRule:
		return ignore(k.raw(unix.RTM_DELRULE, unix.NLM_F_ACK, iprule.Marshal(o.Rule.Rule, o.Proto)), unix.ENOENT)
	case SetSysctl:
		return writeSysctl(o.Sysctl)
	}
	return errors.New("unknown op")
}

func onDev(f Facts, name string, fn func(netlink.Link) error) error {
	l, err := dev(f, name)
	if err != nil {
		return err
	}
	return fn(l)
}

func ignore(err error, these ...error) error {
	for _, e := range these {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// rename tries the live rename of newer kernels, then one with the link down
// for a moment; if both are refused, the name becomes an alternative one.
func (k *Kernel) rename(o Rename, f Facts) error {
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: o.From, Index: o.Index}}
	err := k.h.LinkSetName(l, o.To)
	if err == nil || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) {
		return err // EEXIST: the plan is of an older world, the next pass makes a new one
	}
	up := false
	for _, have := range f.Links {
		up = up || have.Index == o.Index && have.Up
	}
	if up {
		if derr := k.h.LinkSetDown(l); derr == nil {
			err = k.h.LinkSetName(l, o.To)
			err = errors.Join(err, k.h.LinkSetUp(l))
		}
	}
	if err == nil {
		return nil
	}
	if aerr := k.h.LinkAddAltName(l, o.To); aerr != nil {
		return fmt.Errorf("%w; as an alternative name: %w", err, aerr)
	}
	return nil
}

func (k *Kernel) addVLAN(v VLAN, f Facts) error {
	if l, err := dev(f, v.Name); err == nil { // there already, not yet marked as ours
		return k.h.LinkSetAlias(l, OwnAlias)
	}
	p, err := dev(f, v.Parent)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = v.Name, p.Attrs().Index
	if err := k.h.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: v.ID}); err != nil {
		return err
	}
	return k.mark(v.Name)
}

// mark puts OwnAlias on a link that was just made.
func (k *Kernel) mark(name string) error {
	l, err := k.h.LinkByName(name)
	if err != nil {
		return err
	}
	return k.h.LinkSetAlias(l, OwnAlias)
}

func (k *Kernel) setBond(b Bond, f Facts, create bool) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = b.Name
	bond := netlink.NewLinkBond(attrs)
	if create {
		bond.Mode = netlink.StringToBondMode(b.Mode)
		if bond.Mode == netlink.BOND_MODE_UNKNOWN {
			return fmt.Errorf("unknown mode %q", b.Mode)
		}
		if rate, ok := netlink.StringToBondLacpRateMap[b.LACPRate]; ok && bond.Mode == netlink.BOND_MODE_802_3AD {
			bond.LacpRate = rate
		}
	} else if l, err := dev(f, b.Name); err == nil {
		bond.Index = l.Attrs().Index
	}
	bond.Miimon = int(b.MIIMon / time.Millisecond)
	if p, ok := netlink.StringToBondXmitHashPolicyMap[b.HashPolicy]; ok {
		bond.XmitHashPolicy = p
	}
	if !create && primaryMode(b.Mode) {
		bond.Primary = 0 // none
		if p, err := dev(f, b.Primary); err == nil {
			bond.Primary = p.Attrs().Index
		}
	}
	if create {
		if err := k.h.LinkAdd(bond); err != nil {
			return err
		}
	} else if err := k.h.LinkModify(bond); err != nil {
		return err
	}
	return k.mark(b.Name)
}

// primaryMode tells whether a mode knows a primary member.
func primaryMode(mode string) bool {
	return mode == "active-backup" || mode == "balance-tlb" || mode == "balance-alb"
}

func (k *Kernel) addr(a Addr, f Facts, typ, flags int) error {
	l, err := dev(f, a.Link)
	if err != nil {
		return err
	}
	return k.raw(typ, flags, marshalAddr(a, l.Attrs().Index, time.Now()))
}

func (k *Kernel) route(r Route, f Facts, typ, flags int) error {
	b, err := marshalRoute(r, func(name string) (int, error) {
		l, err := dev(f, name)
		if err != nil {
			return 0, err
		}
		return l.Attrs().Index, nil
	})
	if err != nil {
		return err
	}
	return k.raw(typ, flags, b)
}

// raw sends a message that is coded here.
func (k *Kernel) raw(typ, flags int, body []byte) error {
	req := nl.NewNetlinkRequest(typ, flags)
	req.AddRawData(body)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
