package tftp

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// File is what a client gets.
type File interface {
	io.ReaderAt
	Size() int64
}

// Server gives files.
type Server struct {
	// Open finds a file for a client. An error that wraps os.ErrNotExist is told
	// as "not found"; any other as "access violation", without its text.
	Open func(from netip.AddrPort, name string) (File, error)
	// Dial makes the socket of one transfer: from a port of its own to the client.
	Dial func(to netip.AddrPort) (net.Conn, error)
	// Progress is told how a transfer goes, by its first and its last call and
	// about each second between; sent grows. done: it ended, well if err is nil.
	Progress func(from netip.AddrPort, name string, sent, size int64, done bool, err error)

	timeout time.Duration // of a window; 0: a second
	tries   int           // of a window; 0: maxTries
}

// Bounds.
const (
	defaultTimeout = time.Second
	maxTries       = 6  // of one window
	maxTransfers   = 16 // at a time
)

// Serve answers requests that come in by conn until ctx ends. It closes conn.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxTransfers)
	running := transfers{of: map[netip.AddrPort]*transfer{}}
	b := make([]byte, maxRequest+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tftp: %w", err)
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		r, err := parseRequest(b[:n])
		if err != nil {
			var f fault
			if errors.As(err, &f) {
				conn.WriteToUDPAddrPort(f.packet(), from)
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			continue // it asks again
		}
		ctx, t := running.begin(ctx, from, b[:n])
		if t == nil {
			<-slots
			continue // the request once more: the first answer is under way
		}
		wg.Go(func() {
			defer func() { running.end(from, t); <-slots }()
			s.transfer(ctx, from, r)
		})
	}
}

// transfers are those that run, by the address and port of the client.
type transfers struct {
	mu sync.Mutex
	of map[netip.AddrPort]*transfer
}

type transfer struct {
	request string
	stop    context.CancelCauseFunc
}

// anew is why a transfer ends when its client asks for something else.
var anew = &Ended{Text: "asks for something else"}

// begin notes a request; nil: it is being answered. Another one from the same port
// ends what was: a boot ROM may ask for the size of a file, and then for the file, from
// one port and without a word between.
func (t *transfers) begin(ctx context.Context, a netip.AddrPort, request []byte) (context.Context, *transfer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.of[a]; old != nil {
		if old.request == string(request) {
			return nil, nil
		}
		old.stop(anew)
	}
	ctx, stop := context.WithCancelCause(ctx)
	t.of[a] = &transfer{string(request), stop}
	return ctx, t.of[a]
}

func (t *transfers) end(a netip.AddrPort, tr *transfer) {
	tr.stop(nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[a] == tr {
		delete(t.of, a)
	}
}

func (s *Server) transfer(ctx context.Context, to netip.AddrPort, r request) {
	f, err := s.Open(to, r.name)
	if c, ok := f.(io.Closer); ok {
		defer c.Close()
	}
	if ctx.Err() != nil {
		return
	}
	conn, derr := s.Dial(to)
	if derr != nil {
		s.tell(to, r.name, 0, 0, true, derr)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() {
		if context.Cause(ctx) != anew {
			conn.Write(fault{errUndefined, "the server ends"}.packet())
		}
		conn.Close()
	})()
	if err != nil {
		no := fault{errAccess, "refused"}
		if errors.Is(err, os.ErrNotExist) {
			no = fault{errNotFound, "there is no such file"}
		}
		conn.Write(no.packet())
		s.tell(to, r.name, 0, 0, true, err)
		return
	}
	t := sender{conn: conn, file: f, size: f.Size(), request: r, timeout: cmp.Or(s.timeout, defaultTimeout), tries: cmp.Or(s.tries, maxTries)}
	if r.timeout > 0 {
		t.timeout = min(r.timeout, 10*time.Second)
	}
	said := time.Now()
	t.progress = func(sent int64) {
		if now := time.Now(); now.Sub(said) >= time.Second {
			said = now
			s.tell(to, r.name, sent, t.size, false, nil)
		}
	}
	s.tell(to, r.name, 0, t.size, false, nil)
	err = t.run()
	if err != nil && ctx.Err() != nil {
		if err = context.Cause(ctx); err == anew && t.sent > 0 {
			return // the next one has told of itself already
		}
	}
	s.tell(to, r.name, t.sent, t.size, true, err)
}

func (s *Server) tell(from netip.AddrPort, name string, sent, size int64, done bool, err error) {
	if s.Progress != nil {
		s.Progress(from, name, sent, size, done, err)
	}
}

// sender sends one file.
type sender struct {
	request
	conn     net.Conn
	file     io.ReaderAt
	size     int64
	timeout  time.Duration
	tries    int
	sent     int64 // bytes that the client has acknowledged
	progress func(int64)

	out []byte
	in  [512]byte
}

func (t *sender) run() error {
	if oack := t.oack(t.size); oack != nil {
		if err := t.begin(oack); err != nil {
			return err
		}
	}
	// Blocks count from 1, and their number is that of the protocol's 16 bits and
	// what has wrapped around. The last one is shorter than a block, and empty
	// when the size divides.
	last := t.size/int64(t.block) + 1
	for acked := int64(0); acked < last; {
		n, err := t.sendWindow(acked, last)
		if err != nil {
			return err
		}
		acked = n
		t.sent = min(acked*int64(t.block), t.size)
		t.progress(t.sent)
	}
	return nil
}

// begin sends the answer to the options until the client acknowledges it as block 0.
func (t *sender) begin(oack []byte) error {
	for range t.tries {
		if _, err := t.conn.Write(oack); err != nil {
			return err
		}
		deadline := time.Now().Add(t.timeout)
		for {
			r, ok, err := t.read(deadline)
			switch {
			case err != nil:
				return err
			case ok && r.block == 0:
				return nil
			}
			if !time.Now().Before(deadline) {
				break
			}
		}
	}
	return errors.New("the client does not answer")
}

// sendWindow sends the blocks after acked, at most a window of them, and returns
// the newest that was acknowledged.
func (t *sender) sendWindow(acked, last int64) (int64, error) {
	for range t.tries {
		end := min(acked+int64(t.window), last)
		for n := acked + 1; n <= end; n++ {
			if err := t.sendBlock(n); err != nil {
				return 0, err
			}
		}
		deadline := time.Now().Add(t.timeout)
		for time.Now().Before(deadline) {
			r, ok, err := t.read(deadline)
			if err != nil {
				return 0, err
			}
			if !ok {
				continue
			}
			// How far behind acked the acknowledged block is, modulo 2^16. An old one,
			// acked itself too, changes nothing: to answer it with data would double
			// all that follows (RFC 1123, section 4.2.3.1).
			if ahead := int64(uint16(int64(r.block) - acked)); ahead >= 1 && acked+ahead <= end {
				return acked + ahead, nil
			}
		}
	}
	return 0, errors.New("the client does not answer")
}

func (t *sender) sendBlock(n int64) error {
	at := (n - 1) * int64(t.block)
	size := int(min(int64(t.block), t.size-at))
	if t.out == nil {
		t.out = make([]byte, 4+t.block)
	}
	binary.BigEndian.PutUint16(t.out, opData)
	binary.BigEndian.PutUint16(t.out[2:], uint16(n))
	if size > 0 {
		if _, err := t.file.ReadAt(t.out[4:4+size], at); err != nil && !errors.Is(err, io.EOF) {
			t.conn.Write(fault{errUndefined, "the file cannot be read"}.packet())
			return fmt.Errorf("read: %w", err)
		}
	}
	_, err := t.conn.Write(t.out[:4+size])
	return err
}

// read waits for one packet of the client; ok is false when none came, or none
// that means anything.
func (t *sender) read(deadline time.Time) (r reply, ok bool, err error) {
	if err := t.conn.SetReadDeadline(deadline); err != nil {
		return r, false, err
	}
	n, err := t.conn.Read(t.in[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err // ECONNREFUSED: the client is gone
	}
	if r, ok = parseReply(t.in[:n]); ok && r.ended != nil {
		return r, false, r.ended
	}
	return r, ok, nil
}
