package vip

import (
	"net"
	"runtime"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ballast/services/ipc/status"
)

// add puts an address on the loopback of the thread's network namespace.
func add(t *testing.T, family byte, bits byte, ip net.IP, proto byte) {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.IFA_LOCAL, ip)
	e.Bytes(unix.IFA_ADDRESS, ip)
	if proto != 0 {
		e.Uint8(ifaProto, proto)
	}
	attrs, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, unix.SizeofIfAddrmsg)
	head[0], head[1], head[4] = family, bits, 1
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWADDR, Flags: netlink.Request | netlink.Create | netlink.Acknowledge},
		Data:   append(head, attrs...),
	})
	if err != nil {
		t.Fatalf("add %v: %v", ip, err)
	}
}

func TestDrop(t *testing.T) {
	// The thread ends with the test, and its namespace with it.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	add(t, unix.AF_INET, 24, net.IPv4(10, 0, 0, 2).To4(), 0)
	add(t, unix.AF_INET, 32, net.IPv4(10, 0, 0, 100).To4(), status.AddrProtoVIP)
	add(t, unix.AF_INET, 24, net.IPv4(10, 0, 0, 101).To4(), status.AddrProtoVIP)
	add(t, unix.AF_INET, 24, net.IPv4(10, 1, 0, 1).To4(), status.AddrProtoNet)
	add(t, unix.AF_INET6, 128, net.ParseIP("2001:db8::1"), status.AddrProtoVIP)
	add(t, unix.AF_INET6, 64, net.ParseIP("2001:db8::2"), 0)
	n, err := Drop()
	if err != nil || n != 3 {
		t.Errorf("removed %d, %v; want 3", n, err)
	}
	lo, err := net.InterfaceByIndex(1)
	if err != nil {
		t.Fatal(err)
	}
	as, err := lo.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, a := range as {
		left = append(left, a.String())
	}
	slices.Sort(left)
	if want := []string{"10.0.0.2/24", "10.1.0.1/24", "2001:db8::2/64"}; !slices.Equal(left, want) {
		t.Errorf("left %v, want %v", left, want)
	}
	if n, err := Drop(); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
}

func FuzzRemoval(f *testing.F) {
	f.Add(make([]byte, 8))
	f.Add([]byte{2, 32, 0, 0, 1, 0, 0, 0, 5, 0, 11, 0, 0xb1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) { removal(b) })
}
