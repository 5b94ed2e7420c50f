package ipc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Role is what a user of the console may do; each includes the ones before it.
type Role int

// Roles.
const (
	None    Role = iota
	View         // look, with secrets masked
	Operate      // and drain, resign, resume, restart services
	Admin        // and change the configuration, reboot
)

var roleNames = []string{"none", "view", "operate", "admin"}

func (r Role) String() string {
	if r < None || r > Admin {
		return roleNames[None]
	}
	return roleNames[r]
}

// ParseRole reads a role as the configuration names it; anything unknown is None.
func ParseRole(s string) Role {
	if i := slices.Index(roleNames, s); i > 0 {
		return Role(i)
	}
	return None
}

// roleGroups are the groups by which a call of the console carries a role.
var roleGroups = [...]int{View: GroupView, Operate: GroupOperate, Admin: GroupAdmin}

// roleOf is the role that a group stands for.
func roleOf(gid uint32) Role {
	if i := slices.Index(roleGroups[1:], int(gid)); i >= 0 {
		return Role(i + 1)
	}
	return None
}

// TakeRoles makes the groups of the three roles the real, effective and saved
// one of this process, and gives up every capability. From then on a thread may
// change among these three (setresgid(2)), and to no other, whatever the
// process is made to do: what it asks of a service without a word about roles
// it asks as one who may look. It needs CAP_SETGID.
func TakeRoles() error {
	if err := syscall.Setresgid(GroupOperate, GroupView, GroupAdmin); err != nil { // all threads
		return fmt.Errorf("take the groups of the roles: %w", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := capset(&hdr, &none); err != nil {
		return fmt.Errorf("give up the capabilities: %w", err)
	}
	return nil
}

// mayTake reports whether this process holds the groups of all roles.
func mayTake() bool {
	have := make([]int, 3)
	have[0], have[1], have[2] = unix.Getresgid()
	slices.Sort(have)
	return slices.Equal(have, roleGroups[1:])
}

// as runs f with the group of a role as the effective one of its thread.
func as(role Role, f func() error) error {
	// A thread that cannot be put back ends with its goroutine (it stays locked),
	// and while it is locked the runtime makes no thread from it that would
	// inherit the group.
	runtime.LockOSThread()
	r, e, s := unix.Getresgid()
	if err := setresgid(turned(r, e, s, roleGroups[role])); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("take role %s: %w", role, err)
	}
	err := f()
	if back := setresgid(r, e, s); back != nil {
		return errors.Join(err, fmt.Errorf("give back role %s: %w", role, back))
	}
	runtime.UnlockOSThread()
	return err
}

// turned are the three groups of a thread with the effective one changed for
// want: none gets lost.
func turned(r, e, s, want int) (int, int, int) {
	switch want {
	case r:
		r, e = e, r
	case s:
		s, e = e, s
	}
	return r, e, s
}

// setresgid is of the calling thread alone, where syscall.Setresgid is of all.
func setresgid(r, e, s int) error {
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(r), uintptr(e), uintptr(s)); errno != 0 {
		return errno
	}
	return nil
}

// ClientAs returns a client whose calls carry a role, where this process holds
// the groups of the roles (TakeRoles); otherwise it is Client, and what it may
// is what its process may.
func (d Dir) ClientAs(service string, role Role) *Client {
	if role <= None || role > Admin {
		return &Client{service, &http.Client{Transport: nobody{service}}}
	}
	path := d.Path(service)
	return &Client{service, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
			var nd net.Dialer
			if !mayTake() {
				return nd.DialContext(ctx, "unix", path)
			}
			// The kernel notes who connects at this moment; the connection
			// keeps that for all calls over it.
			err = as(role, func() error {
				c, err = nd.DialContext(ctx, "unix", path)
				return err
			})
			if err != nil && c != nil {
				c.Close()
				c = nil
			}
			return c, err
		},
		MaxIdleConns: 1, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}}
}

// nobody refuses all calls of one who has no role.
type nobody struct{ service string }

// RoundTrip implements http.RoundTripper.
func (n nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s is not asked for a user without a role", n.service)
}
