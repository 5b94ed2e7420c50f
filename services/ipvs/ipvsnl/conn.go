package ipvsnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

const (
	// BatchSize is how many requests go out in one send. Larger batches gain
	// nothing: the kernel works through them one by one while we wait.
	BatchSize = 100
	// readBuffer holds the answers to one batch that is refused altogether:
	// each takes a socket buffer of about 1 KiB.
	readBuffer = 1 << 20
	// receiveSize is more than the largest part of a dump (32 KiB).
	receiveSize = 64 << 10
	// maxEntries bounds one dump.
	maxEntries = 1 << 20
	// timeout bounds one request or one part of a dump. Binding a scheduler
	// may wait for an RCU grace period, so it is generous.
	timeout = 10 * time.Second
)

// ErrNoIPVS says that the kernel has no generic netlink family "IPVS".
var ErrNoIPVS = errors.New("the kernel has no IPVS: module ip_vs is not loaded")

// ErrUnknown is the outcome of a request whose answer was lost.
var ErrUnknown = errors.New("outcome unknown: the connection to the kernel was lost")

// Error is a refusal by the kernel.
type Error struct {
	Errno unix.Errno
	Text  string // the kernel's own explanation, often empty
}

func (e *Error) Error() string {
	if e.Text != "" {
		return e.Errno.Error() + ": " + e.Text
	}
	return e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

// Conn is a connection to IPVS in the network namespace of the thread that
// dialed. It is not safe for concurrent use. After an error of a method
// itself, as against an error of one request, close it and dial anew.
type Conn struct {
	c      *genetlink.Conn
	raw    syscall.RawConn
	family uint16
	seq    uint32
	out    buffer
	in     []byte
	dests  []DestState // of the dump under way
}

// Dial connects to IPVS. The error is ErrNoIPVS where the kernel has none.
func Dial() (*Conn, error) {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("ipvs: open generic netlink: %w", err)
	}
	f, err := c.GetFamily("IPVS")
	if err != nil {
		c.Close()
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("ipvs: %w", ErrNoIPVS)
		}
		return nil, fmt.Errorf("ipvs: find generic netlink family IPVS: %w", err)
	}
	// Both options are older than any kernel we run on, and only make the
	// answers smaller and clearer: an error is no reason to stop.
	_ = c.SetOption(netlink.CapAcknowledge, true)
	_ = c.SetOption(netlink.ExtendedAcknowledge, true)
	if err := c.SetReadBuffer(readBuffer); err != nil {
		c.Close()
		return nil, fmt.Errorf("ipvs: size the receive buffer: %w", err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("ipvs: %w", err)
	}
	return &Conn{c: c, raw: raw, family: f.ID, in: make([]byte, receiveSize)}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.c.Close() }

// Do sends the requests, BatchSize at a time, and returns the outcome of each:
// nil or an *Error at the same index. progress, if not nil, is called after
// each batch with the number done so far. The second result is a fault of the
// connection; requests without an answer then have ErrUnknown.
func (c *Conn) Do(reqs []Request, progress func(done int)) ([]error, error) {
	errs := make([]error, len(reqs))
	for from := 0; from < len(reqs); from += BatchSize {
		to := min(from+BatchSize, len(reqs))
		if err := c.batch(reqs[from:to], errs[from:to]); err != nil {
			for i := to; i < len(reqs); i++ {
				errs[i] = ErrUnknown
			}
			return errs, err
		}
		if progress != nil {
			progress(to)
		}
	}
	return errs, nil
}

// batch sends up to BatchSize requests at once. The kernel works on them in
// their order, answers each one that it refuses, and the last one always: what
// has no answer by then is done. That saves an acknowledgement, a system call
// and a wake-up for nearly every request.
func (c *Conn) batch(reqs []Request, errs []error) error {
	c.out.b = c.out.b[:0]
	base := c.seq + 1
	c.seq += uint32(len(reqs))
	last, lastAt := -1, 0
	for i := range reqs {
		at := len(c.out.b)
		if errs[i] = c.out.request(c.family, base+uint32(i), &reqs[i]); errs[i] == nil {
			errs[i] = ErrUnknown
			last, lastAt = i, at
		}
	}
	if last < 0 {
		return nil
	}
	c.out.acknowledge(lastAt)
	if err := c.send(); err != nil {
		return err
	}
	deadline := time.Now().Add(timeout)
	for errs[last] == ErrUnknown {
		b, err := c.receive(deadline)
		if err != nil {
			return err
		}
		err = messages(b, func(m message) error {
			i := m.seq - base
			if m.typ != unix.NLMSG_ERROR || i >= uint32(len(reqs)) || errs[i] != ErrUnknown {
				return nil // an answer to nothing that we wait for
			}
			var err error
			errs[i], err = m.outcome()
			return err
		})
		if err != nil {
			return fmt.Errorf("ipvs: answer of the kernel: %w", err)
		}
	}
	for i := range errs {
		if errs[i] == ErrUnknown {
			errs[i] = nil
		}
	}
	return nil
}

// Services lists all services in the kernel's order.
func (c *Conn) Services() ([]ServiceState, error) {
	var out []ServiceState
	err := c.dump("list services", cmdGetService, nil, func(b []byte) error {
		s, err := decodeService(b)
		out = append(out, s)
		return err
	})
	return out, err
}

// Service reads one service. The error is ESRCH where there is none.
func (c *Conn) Service(id model.ServiceID) (s ServiceState, err error) {
	err = c.get("read service "+id.String(), cmdGetService, &id, func(b []byte) error {
		s, err = decodeService(b)
		return err
	})
	return s, err
}

// Dests lists the destinations of a service in the kernel's order; none where
// there is no such service.
func (c *Conn) Dests(id model.ServiceID) ([]DestState, error) {
	c.dests = c.dests[:0]
	err := c.dump("list destinations of "+id.String(), cmdGetDest, &id, func(b []byte) error {
		d, err := decodeDest(b)
		c.dests = append(c.dests, d)
		return err
	})
	if len(c.dests) == 0 {
		return nil, err
	}
	// As long as needed and no longer: a director may hold tens of thousands.
	out := make([]DestState, len(c.dests))
	copy(out, c.dests)
	return out, err
}

// Daemons lists the connection sync daemons that run.
func (c *Conn) Daemons() ([]Daemon, error) {
	var out []Daemon
	err := c.dump("list sync daemons", cmdGetDaemon, nil, func(b []byte) error {
		d, err := decodeDaemon(b)
		out = append(out, d)
		return err
	})
	return out, err
}

// Timeouts reads the connection timeouts.
func (c *Conn) Timeouts() (t Timeouts, err error) {
	err = c.get("read timeouts", cmdGetConfig, nil, func(b []byte) error {
		t, err = decodeTimeouts(b)
		return err
	})
	return t, err
}

// Info reads the version and the size of the connection table.
func (c *Conn) Info() (i Info, err error) {
	err = c.get("read version", cmdGetInfo, nil, func(b []byte) error {
		i, err = decodeInfo(b)
		return err
	})
	return i, err
}

func (c *Conn) query(cmd uint8, flags uint16, id *model.ServiceID) error {
	c.out.b = c.out.b[:0]
	c.seq++
	k := c.out.message(c.family, flags, c.seq, cmd)
	if id != nil {
		c.out.service(&Service{ID: *id}, false)
	}
	c.out.end(k)
	return c.send()
}

// get sends a request that has one reply.
func (c *Conn) get(op string, cmd uint8, id *model.ServiceID, fn func([]byte) error) error {
	if err := c.query(cmd, 0, id); err != nil {
		return fmt.Errorf("ipvs: %s: %w", op, err)
	}
	deadline := time.Now().Add(timeout)
	for done := false; !done; {
		b, err := c.receive(deadline)
		if err != nil {
			return fmt.Errorf("ipvs: %s: %w", op, err)
		}
		err = messages(b, func(m message) error {
			switch {
			case m.seq != c.seq || done:
				return nil
			case m.typ == c.family:
				done = true
				return fn(m.body)
			case m.typ == unix.NLMSG_ERROR:
				done = true
				refused, err := m.outcome()
				if err == nil && refused == nil {
					err = errors.New("no reply")
				}
				return errors.Join(err, refused)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("ipvs: %s: %w", op, err)
		}
	}
	return nil
}

// dump sends a request that has any number of replies and hands each to fn.
func (c *Conn) dump(op string, cmd uint8, id *model.ServiceID, fn func([]byte) error) error {
	if err := c.query(cmd, unix.NLM_F_DUMP, id); err != nil {
		return fmt.Errorf("ipvs: %s: %w", op, err)
	}
	var first error // the rest of a dump is read even after a fault
	entries := 0
	for done := false; !done; {
		b, err := c.receive(time.Now().Add(timeout))
		if err != nil {
			return fmt.Errorf("ipvs: %s: %w", op, err)
		}
		err = messages(b, func(m message) error {
			switch {
			case m.seq != c.seq || done:
				return nil
			case m.typ == unix.NLMSG_DONE:
				done = true
				if len(m.body) >= 4 {
					if e := int32(binary.NativeEndian.Uint32(m.body)); e < 0 {
						return &Error{Errno: unix.Errno(-e)}
					}
				}
			case m.typ == unix.NLMSG_ERROR:
				done = true
				refused, err := m.outcome()
				return errors.Join(err, refused)
			case m.typ == c.family:
				if entries++; entries > maxEntries {
					return fmt.Errorf("more than %d entries", maxEntries)
				}
				return fn(m.body)
			}
			return nil
		})
		if err != nil && first == nil {
			first = err
		}
		if entries > maxEntries {
			break
		}
	}
	if first != nil {
		return fmt.Errorf("ipvs: %s: %w", op, first)
	}
	return nil
}

func (c *Conn) send() error {
	if err := c.c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	var serr error
	err := c.raw.Write(func(fd uintptr) bool {
		serr = unix.Sendto(int(fd), c.out.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return serr != unix.EAGAIN && serr != unix.EINTR
	})
	if err = errors.Join(err, serr); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// receive returns the next datagram of the kernel, valid until the next call.
func (c *Conn) receive(deadline time.Time) ([]byte, error) {
	if err := c.c.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		err := c.raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), c.in, unix.MSG_TRUNC)
			return rerr != unix.EAGAIN && rerr != unix.EINTR
		})
		if err = errors.Join(err, rerr); err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // any process may send to our port; only the kernel counts
		}
		if n > len(c.in) {
			return nil, fmt.Errorf("receive: datagram of %d bytes", n)
		}
		return c.in[:n], nil
	}
}

// message is one netlink message of a reply.
type message struct {
	typ, flags uint16
	seq        uint32
	body       []byte
}

// messages hands each message of a datagram to f. The first error of f is
// returned after the last message.
func messages(b []byte, f func(message) error) error {
	var first error
	for len(b) > 0 {
		if len(b) < nlmsgHeader {
			return errors.Join(first, io.ErrUnexpectedEOF)
		}
		n := int(binary.NativeEndian.Uint32(b))
		if n < nlmsgHeader || n > len(b) {
			return errors.Join(first, fmt.Errorf("message of %d bytes in %d: %w", n, len(b), io.ErrUnexpectedEOF))
		}
		err := f(message{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			body:  b[nlmsgHeader:n],
		})
		if err != nil && first == nil {
			first = err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return first
}

// Flags of an acknowledgement (NLM_F_CAPPED, NLM_F_ACK_TLVS) and the
// attribute of the latter that holds a text.
const (
	flagCapped  = 0x100
	flagAckTLVs = 0x200
	ackText     = 1
)

// outcome reads an NLMSG_ERROR: nil for an acknowledgement, an *Error for a
// refusal. The second result is a malformed message.
func (m message) outcome() (refused, malformed error) {
	if len(m.body) < 4+nlmsgHeader {
		return nil, fmt.Errorf("acknowledgement of %d bytes", len(m.body))
	}
	e := int32(binary.NativeEndian.Uint32(m.body))
	if e == 0 {
		return nil, nil
	}
	if e > 0 || e < -4095 {
		return nil, fmt.Errorf("error number %d", e)
	}
	out := &Error{Errno: unix.Errno(-e)}
	if m.flags&flagAckTLVs == 0 {
		return out, nil
	}
	// The attributes follow the request, of which a capped reply has only the
	// header.
	at := 4 + nlmsgHeader
	if m.flags&flagCapped == 0 {
		at = 4 + int((binary.NativeEndian.Uint32(m.body[4:])+3)&^3)
	}
	if at < 0 || at > len(m.body) {
		return nil, errTruncated
	}
	err := attrs(m.body[at:], func(t uint16, d []byte) error {
		if t == ackText {
			for len(d) > 0 && d[len(d)-1] == 0 {
				d = d[:len(d)-1]
			}
			out.Text = string(d[:min(len(d), 200)])
		}
		return nil
	})
	return out, err
}
