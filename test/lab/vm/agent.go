package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"ballast/test/lab/wire"
)

const agentPort = wire.Port

// Agent is the host's end of the agent in a VM.
type Agent struct {
	name string
	c    net.Conn
	out  chan []byte // lines to send
	stop chan struct{}
	once sync.Once

	mu   sync.Mutex
	next uint64
	wait map[uint64]func(wire.Reply)
	err  error // why no reply will come any more
}

// Agent connects to the agent in the VM and waits until it answers.
func (v *VM) Agent(ctx context.Context) (*Agent, error) {
	v.amu.Lock()
	defer v.amu.Unlock()
	if v.agent != nil {
		return v.agent, nil
	}
	c, err := v.dial(ctx, ".agent")
	if err != nil {
		return nil, err
	}
	a := &Agent{name: v.Name, c: c, out: make(chan []byte, 16), stop: make(chan struct{}), wait: map[uint64]func(wire.Reply){}}
	go a.read()
	go a.write()
	// The port keeps what is sent until the guest opens it.
	if _, err := a.do(ctx, wire.Request{Op: wire.OpPing}, nil); err != nil {
		a.close()
		if !v.Running() {
			return nil, v.died()
		}
		return nil, fmt.Errorf("%w; the end of its console: %s", err, lastLines(v.Console(), 5))
	}
	v.agent = a
	return a, nil
}

// lastLines is the end of a console, or what is from a kernel's panic on.
func lastLines(s string, n int) string {
	if _, why, panicked := strings.Cut(s, "Kernel panic"); panicked {
		why, _, _ = strings.Cut(why, "\n")
		return "Kernel panic" + why
	}
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], " | ")
}

func (a *Agent) close() {
	a.once.Do(func() { close(a.stop) })
	a.c.Close()
}

func (a *Agent) read() {
	d := json.NewDecoder(a.c)
	for {
		var r wire.Reply
		if err := d.Decode(&r); err != nil {
			a.mu.Lock()
			a.err = fmt.Errorf("lab: %s: agent: %w", a.name, errGone)
			wait := a.wait
			a.wait = map[uint64]func(wire.Reply){}
			a.mu.Unlock()
			for id, fn := range wait {
				fn(wire.Reply{ID: id, Done: true, Code: -1, Error: errGone.Error()})
			}
			a.close()
			return
		}
		a.mu.Lock()
		fn := a.wait[r.ID]
		if r.Done {
			delete(a.wait, r.ID)
		}
		a.mu.Unlock()
		if fn != nil {
			fn(r)
		}
	}
}

func (a *Agent) write() {
	for {
		select {
		case b := <-a.out:
			if _, err := a.c.Write(b); err != nil {
				a.close() // ends read, which tells everybody
				return
			}
		case <-a.stop:
			return
		}
	}
}

// post sends a request; fn is called, on the reader's goroutine, with each
// reply to it.
func (a *Agent) post(r wire.Request, fn func(wire.Reply)) (uint64, error) {
	a.mu.Lock()
	if a.err != nil {
		a.mu.Unlock()
		return 0, a.err
	}
	a.next++
	r.ID = a.next
	if fn != nil {
		a.wait[r.ID] = fn
	}
	a.mu.Unlock()
	b, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	select {
	case a.out <- append(b, '\n'):
		return r.ID, nil
	case <-a.stop:
		return 0, fmt.Errorf("lab: %s: agent: %w", a.name, errGone)
	}
}

// do sends a request and waits for its last reply.
func (a *Agent) do(ctx context.Context, r wire.Request, out io.Writer) (wire.Reply, error) {
	done := make(chan wire.Reply, 1)
	_, err := a.post(r, func(p wire.Reply) {
		if out != nil && len(p.Out) > 0 {
			out.Write(p.Out)
		}
		if p.Done {
			done <- p
		}
	})
	if err != nil {
		return wire.Reply{}, err
	}
	select {
	case p := <-done:
		if p.Error != "" {
			return p, fmt.Errorf("lab: %s: %s: %s", a.name, r.Op, p.Error)
		}
		return p, nil
	case <-ctx.Done():
		return wire.Reply{}, fmt.Errorf("lab: %s: the agent did not answer %s: %w", a.name, r.Op, ctx.Err())
	}
}

// Put writes a file in the VM.
func (a *Agent) Put(ctx context.Context, path string, data []byte, mode uint32) error {
	_, err := a.do(ctx, wire.Request{Op: wire.OpPut, Path: path, Data: data, Mode: mode}, nil)
	return err
}

// Get reads a file of the VM.
func (a *Agent) Get(ctx context.Context, path string) ([]byte, error) {
	var b bytes.Buffer
	_, err := a.do(ctx, wire.Request{Op: wire.OpGet, Path: path}, &b)
	return b.Bytes(), err
}

// Net replaces the namespaces of the VM.
func (a *Agent) Net(ctx context.Context, n wire.Net) error {
	_, err := a.do(ctx, wire.Request{Op: wire.OpNet, Net: &n}, nil)
	return err
}

// Off powers the VM off.
func (a *Agent) Off() error {
	_, err := a.post(wire.Request{Op: wire.OpOff}, nil)
	return err
}

// Process is a program that runs in the VM.
type Process struct {
	a    *Agent
	id   uint64
	done chan struct{}
	last wire.Reply
}

// Start runs a program. Its output goes to stdout and stderr (either may be
// nil) as it comes.
func (a *Agent) Start(e wire.Exec, stdout, stderr io.Writer) (*Process, error) {
	p := &Process{a: a, done: make(chan struct{})}
	id, err := a.post(wire.Request{Op: wire.OpExec, Exec: &e}, func(r wire.Reply) {
		if w := stdout; len(r.Out) > 0 {
			if r.Err {
				w = stderr
			}
			if w != nil {
				w.Write(r.Out)
			}
		}
		if r.Done {
			p.last = r
			close(p.done)
		}
	})
	p.id = id
	return p, err
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the program and returns its exit status.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		if p.last.Error != "" {
			return p.last.Code, errors.New(p.last.Error)
		}
		return p.last.Code, nil
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// Signal sends a signal to the program's process group.
func (p *Process) Signal(n int) error {
	_, err := p.a.post(wire.Request{Op: wire.OpSignal, To: p.id, Signal: n}, nil)
	return err
}

// Stdin writes to the program's standard input.
func (p *Process) Stdin(b []byte) error {
	_, err := p.a.post(wire.Request{Op: wire.OpStdin, To: p.id, Data: b}, nil)
	return err
}

// Run runs a program to its end and returns what it printed. An exit status
// other than 0 is an error with the output in it. When ctx ends the program is
// killed.
func (a *Agent) Run(ctx context.Context, e wire.Exec) (string, error) {
	var b tail
	b.max = 1 << 20
	p, err := a.Start(e, &b, &b)
	if err != nil {
		return "", err
	}
	code, err := p.Wait(ctx)
	if ctx.Err() != nil {
		p.Signal(9)
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	if err != nil {
		return b.String(), fmt.Errorf("lab: %s: %s: %w: %s", a.name, strings.Join(e.Argv, " "), err, strings.TrimSpace(b.String()))
	}
	return b.String(), nil
}
