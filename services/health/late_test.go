package health

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

// TestOwnLateness: a box that stood still at the time of a deadline was not there
// to hear an answer, and gives the server that time once more; a server that is
// silent then too is down.
func TestOwnLateness(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	quiet, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	half := testCheck(model.TCPCheck, silentPort(t))
	half.HalfOpen = true
	datagram := testCheck(model.UDPCheck, quiet.LocalAddr().(*net.UDPAddr).AddrPort())
	datagram.RequireReply, datagram.MaxReply = true, 100
	for name, spec := range map[string]model.Check{
		"connecting": testCheck(model.TCPCheck, silentPort(t)),
		"reading":    testCheck(model.HTTPGet, server(t, func(net.Conn) { <-hold })),
		"asking":     datagram,
		"flying":     half,
	} {
		t.Run(name, func(t *testing.T) {
			for _, late := range []time.Duration{0, stoodStill, time.Second, time.Minute} {
				spec.ConnectTimeout = 500 * time.Millisecond
				l, err := newLoop(newWorld(), nil)
				if err != nil {
					t.Fatal(err)
				}
				applyIn(l, configOf(spec), time.Now())
				c := l.w.checks[keyOf(&spec)]
				now := time.Now()
				l.timers.remove(c)
				l.begin(c, now)
				if name == "reading" {
					poll(t, c.edge.fd, unix.POLLOUT)
					l.ready(c, unix.EPOLLOUT, now)
				}
				fires := func(late time.Duration) bool {
					l.timers.remove(c)
					l.due(c, c.edge.at.Add(late))
					return c.m.known
				}
				at := c.edge.at
				over := fires(late)
				if late <= stoodStill {
					if !over {
						t.Errorf("%s late: the server is waited for", late)
					}
				} else {
					if over {
						t.Errorf("%s late: %q", late, c.detail)
					} else if left := c.edge.at.Sub(at.Add(late)); left != spec.ConnectTimeout {
						t.Errorf("%s late: the server gets %s more", late, left)
					} else if !fires(2 * stoodStill) {
						t.Errorf("%s late: it is waited for a second time", late)
					}
				}
				if c.m.known && (c.m.up || !strings.Contains(c.detail, "500ms")) {
					t.Errorf("%s late: up %t, %q", late, c.m.up, c.detail)
				}
				l.close()
			}
		})
	}
}

// poll waits for an event of a descriptor.
func poll(t *testing.T, fd int, events int16) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 60_000)
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			t.Fatalf("nothing happens: %v", err)
		}
		return
	}
}
