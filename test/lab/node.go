package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"ballast/test/lab/ether"
	"ballast/test/lab/plan"
	"ballast/test/lab/rootfs"
	"ballast/test/lab/vm"
	"ballast/test/lab/wire"
)

// Node is the VM that holds the client and the real servers.
type Node struct {
	Ports []*ether.Port // by segment

	vm    *vm.VM
	agent *vm.Agent

	mu      sync.Mutex
	servers map[string]*Server
}

// Server is a real server's program in its namespace.
type Server struct {
	plan.Server
	node *Node
	mu   sync.Mutex
	proc *vm.Process
}

func newNode(ctx context.Context, l *Lab) (*Node, error) {
	n := &Node{servers: map[string]*Server{}}
	kernel, err := rootfs.Kernel(ctx)
	if err != nil {
		return nil, err
	}
	base, err := rootfs.Base(ctx, "bridge", "veth", "ipip", "sit")
	if err != nil {
		return nil, err
	}
	initrd := filepath.Join(l.Dir, "node.initrd")
	if err := os.WriteFile(initrd, base, 0o600); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	c := vm.Config{
		Name: "node", Dir: l.Dir, Kernel: kernel, Initrd: initrd, NoReboot: true, Agent: true,
		Append: "console=ttyS0 quiet panic=-1",
	}
	for i, s := range l.Switches {
		p, err := s.Port("node")
		if err != nil {
			return nil, err
		}
		n.Ports = append(n.Ports, p)
		c.NICs = append(c.NICs, vm.NIC{Netdev: p.Netdev(), MAC: plan.NodeMAC(i)})
	}
	n.vm, err = vm.Start(c)
	return n, err
}

func (n *Node) start(ctx context.Context, p plan.Plan) error {
	actx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var err error
	if n.agent, err = n.vm.Agent(actx); err != nil {
		return err
	}
	return n.apply(ctx, p)
}

func (n *Node) close() {
	if n.vm != nil {
		n.vm.Kill()
	}
}

// apply makes the namespaces and starts the real servers in them.
func (n *Node) apply(ctx context.Context, p plan.Plan) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.servers {
		if err := s.Stop(ctx); err != nil {
			return err
		}
	}
	n.servers = map[string]*Server{}
	if err := n.agent.Net(ctx, p.Net()); err != nil {
		return err
	}
	var starts []func() error
	for _, ps := range p.Servers {
		s := &Server{Server: ps, node: n}
		n.servers[ps.Name] = s
		starts = append(starts, func() error { return s.Start(ctx) })
	}
	return parallel(starts...)
}

// Server returns a real server by name ("rs1"); nil when there is none.
func (n *Node) Server(name string) *Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[name]
}

// Servers returns all real servers in the order of the configuration.
func (n *Node) Servers() []*Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*Server
	for _, s := range n.servers {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Server) int { // rs2 before rs10, sorry servers last
		if a.Sorry != b.Sorry {
			if a.Sorry {
				return 1
			}
			return -1
		}
		if len(a.Name) != len(b.Name) {
			return len(a.Name) - len(b.Name)
		}
		return bytes.Compare([]byte(a.Name), []byte(b.Name))
	})
	return out
}

// Start starts the server's program and returns when all its ports are open.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		return nil
	}
	arg, err := json.Marshal(s.Serve())
	if err != nil {
		return err
	}
	ready := newWatcher("ready\n")
	words := newWatcher("")
	p, err := s.node.agent.Start(wire.Exec{Argv: []string{"node", "serve", string(arg)}, Space: s.Name}, ready, words)
	if err != nil {
		return err
	}
	select {
	case <-ready.seen:
		s.proc = p
		return nil
	case <-p.Done():
		return fmt.Errorf("lab: %s did not start: %s", s.Name, words.String())
	case <-ctx.Done():
		return fmt.Errorf("lab: %s did not start: %w", s.Name, ctx.Err())
	}
}

// Stop kills the server's program: its ports refuse, its connections break.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	if err := s.proc.Signal(int(syscall.SIGKILL)); err != nil {
		return err
	}
	select {
	case <-s.proc.Done():
		s.proc = nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lab: %s does not stop: %w", s.Name, ctx.Err())
	}
}

// Running tells whether the server's program runs.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil
}

// Control changes how the server answers HTTP.
func (s *Server) Control(c wire.ServeControl) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return fmt.Errorf("lab: %s does not run", s.Name)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.proc.Stdin(append(b, '\n'))
}

// Run runs a program in the client's namespace ("node" is the lab's own).
func (n *Node) Run(ctx context.Context, argv ...string) (string, error) {
	return n.RunIn(ctx, "client", argv...)
}

// RunIn runs a program in a machine of the lab.
func (n *Node) RunIn(ctx context.Context, machine string, argv ...string) (string, error) {
	return n.agent.Run(ctx, wire.Exec{Argv: argv, Space: machine})
}

// Get asks for a path once from the client.
func (n *Node) Get(ctx context.Context, target, path string, timeout time.Duration) (wire.Got, error) {
	var g wire.Got
	out, err := n.Run(ctx, "node", "get", target, path, timeout.String())
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		return g, fmt.Errorf("lab: get %s%s: %w", target, path, err)
	}
	return g, nil
}

// Ping sends one ICMP echo request from the client.
func (n *Node) Ping(ctx context.Context, addr string) error {
	_, err := n.Run(ctx, "node", "ping", addr, "2s")
	return err
}

// FTP opens a control connection, asks for a passive port and reads from it,
// as one client. It returns the names of the two real servers that answered.
func (n *Node) FTP(ctx context.Context, target string) (control, data string, err error) {
	out, err := n.Run(ctx, "node", "ftp", target, "10s")
	if err != nil {
		return "", "", err
	}
	_, err = fmt.Sscan(out, &control, &data)
	return control, data, err
}

// watcher is a writer that keeps what is written and tells when a text came.
type watcher struct {
	mu   sync.Mutex
	b    bytes.Buffer
	text string
	seen chan struct{}
	once sync.Once
}

func newWatcher(text string) *watcher { return &watcher{text: text, seen: make(chan struct{})} }

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.Write(p)
	if w.text != "" && bytes.Contains(w.b.Bytes(), []byte(w.text)) {
		w.once.Do(func() { close(w.seen) })
	}
	return len(p), nil
}

func (w *watcher) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// Probe is a client that asks at a fixed pace.
type Probe struct {
	wire.Probe
	proc *vm.Process

	mu      sync.Mutex
	partial []byte
	samples []wire.Sample
	onEach  func(wire.Sample)
	words   *watcher
	first   chan struct{} // closed at the first good answer
	once    sync.Once
}

// Probe starts a client. each, which may be nil, is called with every sample as
// it comes, and must be quick.
func (n *Node) Probe(p wire.Probe, each func(wire.Sample)) (*Probe, error) {
	arg, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	pr := &Probe{Probe: p, onEach: each, words: newWatcher(""), first: make(chan struct{})}
	pr.proc, err = n.agent.Start(wire.Exec{Argv: []string{"node", "probe", string(arg)}, Space: "client"}, (*probeOut)(pr), pr.words)
	return pr, err
}

// probeOut reads the samples, a line each.
type probeOut Probe

func (o *probeOut) Write(b []byte) (int, error) {
	p := (*Probe)(o)
	p.mu.Lock()
	p.partial = append(p.partial, b...)
	var fresh []wire.Sample
	for {
		line, rest, ok := bytes.Cut(p.partial, []byte("\n"))
		if !ok {
			break
		}
		var s wire.Sample
		if json.Unmarshal(line, &s) == nil {
			fresh = append(fresh, s)
		}
		p.partial = rest
	}
	if p.onEach == nil { // a view of hours keeps its own counts
		p.samples = append(p.samples, fresh...)
	}
	p.mu.Unlock()
	for _, s := range fresh {
		if s.Error == "" {
			p.once.Do(func() { close(p.first) })
		}
		if p.onEach != nil {
			p.onEach(s)
		}
	}
	return len(b), nil
}

var _ io.Writer = (*probeOut)(nil)

// Answered waits for the first good answer.
func (p *Probe) Answered(ctx context.Context) error {
	select {
	case <-p.first:
		return nil
	case <-p.proc.Done():
		return fmt.Errorf("lab: the probe of %s ended without an answer: %s", p.Target, p.words.String())
	case <-ctx.Done():
		return fmt.Errorf("lab: no answer from %s: %w; %s", p.Target, ctx.Err(), p.Report())
	}
}

// Stop ends the probe, waits for the requests that are under way, and reports.
func (p *Probe) Stop(ctx context.Context) (Report, error) {
	if err := p.proc.Signal(int(syscall.SIGTERM)); err != nil {
		return p.Report(), err
	}
	if _, err := p.proc.Wait(ctx); err != nil {
		return p.Report(), fmt.Errorf("lab: probe of %s: %w: %s", p.Target, err, p.words.String())
	}
	return p.Report(), nil
}

// Report sums up what came so far.
func (p *Probe) Report() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return NewReport(p.Every, p.samples)
}
