// Package vip takes the virtual addresses down when the process that owns them
// cannot come back, so that two boxes never hold one address.
package vip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ballast/services/ipc/status"
)

// ifaProto is IFA_PROTO of linux/if_addr.h: who put an address there.
const ifaProto = 11

// Drop removes every address that vrrp has tagged as its own, and returns how
// many there were. It goes on when one cannot be removed.
func Drop() (int, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return 0, fmt.Errorf("vip: %w", err)
	}
	defer c.Close()
	// struct ifaddrmsg with family "any".
	all, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfAddrmsg),
	})
	if err != nil {
		return 0, fmt.Errorf("vip: list addresses: %w", err)
	}
	n := 0
	var errs []error
	for _, m := range all {
		req, ours := removal(m.Data)
		if !ours {
			continue
		}
		_, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.RTM_DELADDR, Flags: netlink.Request | netlink.Acknowledge},
			Data:   req,
		})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("vip: remove an address: %w", err))
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// removal makes the request that removes an address from the message that
// tells of it; false: it is not one of vrrp's.
func removal(msg []byte) ([]byte, bool) {
	if len(msg) < unix.SizeofIfAddrmsg {
		return nil, false
	}
	ad, err := netlink.NewAttributeDecoder(msg[unix.SizeofIfAddrmsg:])
	if err != nil {
		return nil, false
	}
	ours := false
	e := netlink.NewAttributeEncoder()
	for ad.Next() {
		switch ad.Type() {
		case ifaProto:
			b := ad.Bytes()
			ours = len(b) == 1 && b[0] == status.AddrProtoVIP
		case unix.IFA_LOCAL, unix.IFA_ADDRESS:
			e.Bytes(ad.Type(), ad.Bytes())
		}
	}
	if ad.Err() != nil || !ours {
		return nil, false
	}
	attrs, err := e.Encode()
	if err != nil {
		return nil, false
	}
	head := make([]byte, unix.SizeofIfAddrmsg)
	head[0], head[1] = msg[0], msg[1] // family, prefix length
	binary.NativeEndian.PutUint32(head[4:], binary.NativeEndian.Uint32(msg[4:]))
	return append(head, attrs...), true
}
