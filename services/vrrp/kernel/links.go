package kernel

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ballast/services/vrrp/packet"
)

// Attributes of macvlan and ipvlan (linux/if_link.h).
const (
	iflaMacvlanMode = 1
	iflaIPVLANMode  = 1
	iflaIPVLANFlags = 2
)

// MacvlanPrivate is MACVLAN_MODE_PRIVATE: links on one parent do not hear one
// another.
const MacvlanPrivate = 1

// Flags of an ipvlan, which keepalived calls its mode.
const (
	IPVLANBridge  = 0
	IPVLANPrivate = 1
	IPVLANVEPA    = 2
)

const (
	ipvlanL2           = 0 // IPVLAN_MODE_L2
	in6AddrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE
)

// NewLink is a macvlan in private mode, or an ipvlan in L2 mode with Mode as
// its flags, on the link of index Parent.
type NewLink struct {
	Name   string
	Parent int
	IPVLAN bool
	Mode   uint32
	MAC    packet.MAC // macvlan only
	Group  uint32
	Alias  string // tells whose it is
}

// Kind is the rtnetlink kind.
func (n NewLink) Kind() string {
	if n.IPVLAN {
		return "ipvlan"
	}
	return "macvlan"
}

// AddLink makes the link, down. One of that name that is there already stays
// as it is: the next dump tells what it is.
func AddLink(n NewLink) Op {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.IFLA_IFNAME, n.Name)
	ae.Uint32(unix.IFLA_LINK, uint32(n.Parent))
	if !n.IPVLAN {
		ae.Bytes(unix.IFLA_ADDRESS, n.MAC[:])
	}
	if n.Group != 0 {
		ae.Uint32(unix.IFLA_GROUP, n.Group)
	}
	ae.Nested(unix.IFLA_LINKINFO, func(i *netlink.AttributeEncoder) error {
		i.String(unix.IFLA_INFO_KIND, n.Kind())
		i.Nested(unix.IFLA_INFO_DATA, func(d *netlink.AttributeEncoder) error {
			if n.IPVLAN {
				d.Uint16(iflaIPVLANMode, ipvlanL2)
				d.Uint16(iflaIPVLANFlags, uint16(n.Mode))
			} else {
				d.Uint32(iflaMacvlanMode, MacvlanPrivate)
			}
			return nil
		})
		return nil
	})
	return linkOp("add "+n.Kind()+" "+n.Name, unix.RTM_NEWLINK, netlink.Create|netlink.Excl, 0, 0, ae, unix.EEXIST)
}

// MarkLink writes the alias, and keeps the kernel from giving the link an IPv6
// address of its own: two boxes with one virtual MAC would make the same.
func MarkLink(name, alias string) Op {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.IFLA_IFNAME, name)
	ae.String(unix.IFLA_IFALIAS, alias)
	ae.Nested(unix.IFLA_AF_SPEC, func(f *netlink.AttributeEncoder) error {
		f.Nested(unix.AF_INET6, func(v *netlink.AttributeEncoder) error {
			v.Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, in6AddrGenModeNone)
			return nil
		})
		return nil
	})
	return linkOp("mark "+name, unix.RTM_SETLINK, 0, 0, 0, ae, 0)
}

// UpLink sets a link up.
func UpLink(name string) Op {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.IFLA_IFNAME, name)
	return linkOp("set "+name+" up", unix.RTM_SETLINK, 0, unix.IFF_UP, unix.IFF_UP, ae, 0)
}

// RemoveLink removes a link, with all that is on it.
func RemoveLink(name string) Op {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.IFLA_IFNAME, name)
	return linkOp("remove "+name, unix.RTM_DELLINK, 0, 0, 0, ae, unix.ENODEV)
}

func linkOp(what string, typ uint16, flags netlink.HeaderFlags, set, change uint32, ae *netlink.AttributeEncoder, ok unix.Errno) Op {
	b := make([]byte, unix.SizeofIfInfomsg)

	binary.NativeEndian.PutUint32(b[8:], set)
	binary.NativeEndian.PutUint32(b[12:], change)
	return Op{what: what, msg: message(typ, flags, b, ae), ok: ok}
}

// Sysctl reads a value under /proc/sys; empty: it is not there.
func Sysctl(key string) string {
	b, err := os.ReadFile(filepath.Join("/proc/sys", key))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// SetSysctl writes a value under /proc/sys if it differs.
func SetSysctl(key, value string) error {
	if Sysctl(key) == value {
		return nil
	}
	f, err := os.OpenFile(filepath.Join("/proc/sys", key), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value + "\n"); err != nil {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}
