package ether

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
)

// firstPort is the first that may be QEMU's end of a port: the reserved ones, and
// those that tests name, are below.
const firstPort = 12000

var (
	portMu   sync.Mutex
	nextPort int // behind firstPort; 0: none was given yet
)

// freePort finds a UDP port of the loopback interface that QEMU can bind, now and
// at each later start: one that the kernel gives to nobody by itself, and that
// nobody here was given for long.
func freePort() (netip.AddrPort, error) {
	portMu.Lock()
	defer portMu.Unlock()
	n := chosenPorts() - firstPort
	if n < 1 {
		return netip.AddrPort{}, fmt.Errorf("the kernel chooses ports from %d on: none is left", firstPort)
	}
	if nextPort == 0 { // other processes begin elsewhere
		nextPort = rand.IntN(n)
	}
	var err error
	for range n {
		nextPort = (nextPort + 1) % n
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(firstPort+nextPort))
		var c *net.UDPConn
		if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err == nil {
			c.Close()
			return at, nil
		}
	}
	return netip.AddrPort{}, err
}

// chosenPorts is the first port that the kernel chooses for who asks for any.
func chosenPorts() int {
	first := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(b), &first)
	}
	return first
}
