package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/test/lab/wire"
)

// prober sends requests at a fixed pace, whether or not answers come, and
// prints a wire.Sample for each one.
type prober struct {
	wire.Probe
	start time.Time
	mu    sync.Mutex
	enc   *json.Encoder
	out   *bufio.Writer
}

func probe(args []string) error {
	if len(args) != 1 {
		return errors.New("probe: want a wire.Probe in JSON")
	}
	p := &prober{out: bufio.NewWriter(os.Stdout)}
	p.enc = json.NewEncoder(p.out)
	if err := json.Unmarshal([]byte(args[0]), &p.Probe); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if p.Every <= 0 {
		return errors.New("probe: every must be positive")
	}
	if p.Timeout <= 0 {
		p.Timeout = time.Second
	}
	if p.Path == "" {
		p.Path = "/"
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if p.For > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, p.For)
		defer cancel()
	}
	p.start = time.Now()
	switch p.Kind {
	case "http":
		p.pace(ctx, p.httpOnce)
	case "tcp":
		p.pace(ctx, p.tcpOnce)
	case "held":
		p.held(ctx)
	case "udp":
		return p.udp(ctx)
	default:
		return fmt.Errorf("probe: unknown kind %q", p.Kind)
	}
	return nil
}

func (p *prober) report(s wire.Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enc.Encode(s)
	p.out.Flush()
}

// pace calls once, each time on a goroutine of its own, and waits for all.
func (p *prober) pace(ctx context.Context, once func(ctx context.Context) (string, error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for due := p.start; ; due = due.Add(p.Every) {
		if !sleepUntil(ctx, due) {
			return
		}
		late := time.Since(due)
		wg.Go(func() {
			at := time.Now()
			// The end of the probe does not cut a request short: it would count as failed.
			ctx, cancel := context.WithTimeout(context.Background(), p.Timeout)
			defer cancel()
			name, err := once(ctx)
			p.report(sample(at.Sub(p.start), time.Since(at), late, name, err))
		})
	}
}

func sample(at, took, late time.Duration, name string, err error) wire.Sample {
	s := wire.Sample{At: at, Took: took, Late: late, Server: name}
	if err != nil {
		s.Error = reason(err)
	}
	return s
}

// sleepUntil reports whether ctx still holds at that time.
func sleepUntil(ctx context.Context, due time.Time) bool {
	t := time.NewTimer(time.Until(due))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *prober) dial(ctx context.Context, network string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, p.Target)
	if err != nil {
		return nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		c.SetDeadline(t)
	}
	return c, nil
}

// httpOnce asks over a connection of its own, as HTTP/1.0.
func (p *prober) httpOnce(ctx context.Context) (string, error) {
	c, err := p.dial(ctx, "tcp")
	if err != nil {
		return "", err
	}
	defer c.Close()
	r, err := request(c, p.Target, p.Path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return r.Header.Get(wire.ServerHeader), fmt.Errorf("status %d", r.StatusCode)
	}
	return r.Header.Get(wire.ServerHeader), nil
}

func request(c net.Conn, host, path string) (*http.Response, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(c), nil)
}

// tcpOnce exchanges one line over a connection of its own.
func (p *prober) tcpOnce(ctx context.Context) (string, error) {
	c, err := p.dial(ctx, "tcp")
	if err != nil {
		return "", err
	}
	defer c.Close()
	return line(c, bufio.NewReader(c))
}

func line(w io.Writer, r *bufio.Reader) (string, error) {
	if _, err := io.WriteString(w, "x\n"); err != nil {
		return "", err
	}
	s, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(s, " ")
	return name, nil
}

// held keeps connections open and exchanges a line over each at the pace. A
// connection that breaks is reported once, and stays broken.
func (p *prober) held(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range max(p.Conns, 1) {
		wg.Go(func() {
			fail := func(at time.Time, err error) {
				s := sample(at.Sub(p.start), time.Since(at), 0, "", err)
				s.Conn = i
				p.report(s)
			}
			at := time.Now()
			dctx, cancel := context.WithTimeout(ctx, p.Timeout)
			defer cancel()
			c, err := p.dial(dctx, "tcp")
			if err != nil {
				fail(at, err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for due := at; sleepUntil(ctx, due); due = due.Add(p.Every) {
				at := time.Now()
				if at.After(due.Add(p.Every)) {
					due = at // a stall is one slow answer, not a backlog of them
				}
				c.SetDeadline(at.Add(p.Timeout))
				name, err := line(c, r)
				if err != nil {
					fail(at, err)
					return
				}
				p.report(wire.Sample{At: at.Sub(p.start), Took: time.Since(at), Server: name, Conn: i})
			}
		})
	}
}

// udp sends numbered datagrams from one socket, so that they are one flow to
// IPVS, and reports each when its answer has come or its time is up.
func (p *prober) udp(ctx context.Context) error {
	c, err := net.Dial("udp", p.Target)
	if err != nil {
		return err
	}
	type sent struct{ at, late time.Duration }
	var mu sync.Mutex
	open := map[uint64]sent{}
	take := func(n uint64) (sent, bool) {
		mu.Lock()
		defer mu.Unlock()
		s, ok := open[n]
		delete(open, n)
		return s, ok
	}
	var wg sync.WaitGroup
	var reader sync.WaitGroup
	reader.Go(func() {
		b := make([]byte, 2048)
		for {
			n, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || n < 8 {
				continue // "connection refused" from an ICMP error: the next may do better
			}
			if s, ok := take(binary.BigEndian.Uint64(b)); ok {
				p.report(wire.Sample{At: s.at, Took: time.Since(p.start) - s.at, Late: s.late, Server: string(b[8:n])})
			}
		}
	})
	var n uint64
	for due := p.start; sleepUntil(ctx, due); due = due.Add(p.Every) {
		n++
		id := n
		mu.Lock()
		open[id] = sent{time.Since(p.start), time.Since(due)}
		mu.Unlock()
		c.Write(binary.BigEndian.AppendUint64(nil, id))
		wg.Add(1)
		time.AfterFunc(p.Timeout, func() {
			defer wg.Done()
			if s, ok := take(id); ok {
				p.report(wire.Sample{At: s.at, Took: p.Timeout, Late: s.late, Error: "timeout"})
			}
		})
	}
	wg.Wait()
	c.Close()
	reader.Wait()
	return nil
}

// reason is an error in a word or two.
func reason(err error) string {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET):
		return "reset"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	}
	return err.Error()
}

// get asks once, checks the body against wire.Body when the path is /bytes/N,
// and prints a wire.Got.
func get(args []string) error {
	if len(args) != 3 {
		return errors.New("get: want ADDRESS:PORT, PATH and a timeout")
	}
	timeout, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	p := &prober{Probe: wire.Probe{Target: args[0]}}
	c, err := p.dial(ctx, "tcp")
	if err != nil {
		return errors.New(reason(err))
	}
	defer c.Close()
	r, err := request(c, args[0], args[1])
	if err != nil {
		return errors.New(reason(err))
	}
	defer r.Body.Close()
	out := wire.Got{Status: r.StatusCode, Server: r.Header.Get(wire.ServerHeader), Differ: -1}
	if out.Bytes, out.Differ, err = wire.CheckBody(r.Body, args[1]); err != nil {
		return errors.New(reason(err))
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}
