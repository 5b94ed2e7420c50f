// Package capture gives packets of the box's interfaces to an administrator: a
// file of pcapng, or a line a packet. It has CAP_NET_RAW and nothing else, runs
// while somebody captures, and reads no packet further than its own lines need.
package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"ballast/configs/printable"
	"ballast/services/capture/filter"
	"ballast/services/capture/line"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// most is how many captures there may be at a time: each has a ring in the
// kernel's memory.
const most = 4

// Idle is how long the process stays when nobody captures.
const Idle = 20 * time.Second

type service struct {
	env    *ipc.Env
	server *ipc.Server

	mu    sync.Mutex
	state status.Capture
}

// Run is the capture process. It ends with ctx, or when it is idle.
func Run(ctx context.Context, env *ipc.Env) error {
	s := &service{env: env, server: ipc.NewServer("capture")}
	s.server.Publish(s.state)
	s.server.HandleStream("capture", s.capture, ipc.GroupAdmin)
	env.Ready()
	return s.server.Serve(ctx, env.Listener)
}

// enter notes a capture, and returns what ends it.
func (s *service) enter(r status.CaptureRun) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.state.Running) >= most {
		var who []string
		for _, r := range s.state.Running {
			who = append(who, r.By+" on "+r.Interface)
		}
		return nil, fmt.Errorf("%d captures run, more at a time are not possible: end one of %s", most, strings.Join(who, ", "))
	}
	s.state.Running = append(slices.Clone(s.state.Running), r)
	s.server.Publish(s.state)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		i := slices.Index(s.state.Running, r)
		s.state.Running = slices.Delete(slices.Clone(s.state.Running), i, i+1)
		s.server.Publish(s.state)
	}, nil
}

// capture is the verb. It ends when it has what it was asked for, when its
// input ends, and when its caller is gone.
func (s *service) capture(ctx context.Context, _ ipc.Peer, st *ipc.Stream) error {
	var r status.CaptureRequest
	if err := json.Unmarshal(st.Argument, &r); err != nil {
		return fmt.Errorf("argument: %w", err)
	}
	k, err := prepare(r)
	if err != nil {
		return err
	}
	leave, err := s.enter(status.CaptureRun{By: r.By, Interface: r.Interface, Filter: r.Filter, Since: time.Now()})
	if err != nil {
		return err
	}
	defer leave()
	ring, err := open(k.index, k.cooked, r.Promiscuous, k.program)
	if err != nil {
		return err
	}
	defer ring.close()
	what := printable.Line(strings.TrimSpace(r.Interface + " " + r.Filter))
	s.env.Log.Info(fmt.Sprintf("%s captures %s", printable.Line(r.By), what))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if r.For > 0 {
		defer time.AfterFunc(r.For, stop).Stop()
	}
	go func() {
		io.Copy(io.Discard, st.In)
		stop()
	}()
	for _, n := range k.notes {
		st.Note("%s", n)
	}
	total, dropped, err := k.run(ctx, ring, st)
	s.env.Log.Info(fmt.Sprintf("%s captured %d packets of %s, %d were dropped", printable.Line(r.By), total, what, dropped))
	if err != nil {
		return err
	}
	return st.Note("%d packets, %d dropped because they came faster than they were taken", total, dropped)
}

// plan is a request made ready.
type plan struct {
	status.CaptureRequest
	index   int
	cooked  bool
	program []bpf.RawInstruction
	notes   []string
	names   map[int32]string
}

// prepare checks a request.
func prepare(r status.CaptureRequest) (*plan, error) {
	k := &plan{CaptureRequest: r, names: map[int32]string{}}
	if k.Snap == 0 {
		k.Snap = filter.Snap
	}
	if r.Interface == status.AnyInterface {
		k.cooked = true
		if r.Promiscuous {
			return nil, fmt.Errorf("promiscuous: name one interface for it")
		}
	} else {
		i, err := net.InterfaceByName(r.Interface)
		if err != nil {
			return nil, fmt.Errorf("there is no interface %q: \"show interfaces\" lists them; \"any\" is all of them", printable.Line(r.Interface))
		}
		kind, err := hardware(r.Interface)
		if err != nil {
			return nil, err
		}
		k.index, k.cooked = i.Index, kind != unix.ARPHRD_ETHER && kind != unix.ARPHRD_LOOPBACK
	}
	link := filter.Ethernet
	if k.cooked {
		link = filter.Cooked
	}
	var but []string
	if c, s := r.Client, r.Server; c.IsValid() && s.IsValid() {
		// The packets that carry this capture would be captured, and so on.
		but = append(but, fmt.Sprintf("tcp port %d and tcp port %d and host %s and host %s", c.Port(), s.Port(), c.Addr().Unmap().WithZone(""), s.Addr().Unmap().WithZone("")))
		k.notes = append(k.notes, fmt.Sprintf("the packets of this session (%s) are left out; \"own\" takes them in", c))
	}
	p, err := filter.Compile(r.Filter, link, k.Snap, but...)
	if err != nil {
		return nil, err
	}
	k.program = p.Raw
	return k, nil
}

// hardware is what kind of link an interface is (ARPHRD_…).
func hardware(name string) (uint16, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, req)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: what kind of link it is: %w", name, err)
	}
	return req.Uint16(), nil
}

func (k *plan) name(index int32) string {
	if n, ok := k.names[index]; ok {
		return n
	}
	n := fmt.Sprintf("if%d", index)
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		n = i.Name
	}
	k.names[index] = n
	return n
}

// beat is how long a wait for packets takes at most: the end is noticed then.
const beat = 200 * time.Millisecond

// sink takes packets, and gives what it has made of them to the caller.
type sink interface {
	packet(*frame)
	end(now time.Time, dropped uint64)
	take() []byte // what there is to send; it is not used after the next packet
}

func (p *pcapng) take() []byte {
	b := p.buf
	p.buf = p.buf[:0]
	return b
}

// run copies packets until ctx ends or there are enough.
func (k *plan) run(ctx context.Context, ring *ring, out io.Writer) (total, dropped uint64, err error) {
	var to sink
	start := time.Now()
	if k.Text {
		to = &lines{plan: k}
	} else {
		p := &pcapng{snap: uint32(k.Snap), link: linkEthernet, name: k.name, note: k.Filter}
		if k.cooked {
			p.link = linkSLL2
		}
		p.begin("Ballast", start)
		if k.index != 0 {
			p.iface(int32(k.index))
		}
		to = p
	}
	send := func() error {
		if b := to.take(); len(b) > 0 {
			if _, err := out.Write(b); err != nil {
				return fmt.Errorf("nobody takes the packets any more: %w", err)
			}
		}
		return nil
	}
	enough := func() bool { return k.Count > 0 && total >= k.Count }
	for err = send(); err == nil && ctx.Err() == nil && !enough(); {
		if err = ring.wait(beat); err != nil {
			break
		}
		for ring.read(func(f *frame) bool {
			to.packet(f)
			total++
			return !enough()
		}) {
			if err = send(); err != nil || enough() || ctx.Err() != nil {
				break
			}
		}
		dropped += ring.drops()
	}
	if err != nil {
		return total, dropped, err
	}
	to.end(time.Now(), dropped)
	return total, dropped, send()
}

// lines tells packets to people.
type lines struct {
	plan *plan
	buf  bytes.Buffer
}

func (l *lines) packet(f *frame) {
	l.buf.WriteString(f.time.Format("15:04:05.000000 "))
	if l.plan.index == 0 {
		l.buf.WriteString(l.plan.name(f.index) + " ")
	}
	way := "in  "
	if f.way == unix.PACKET_OUTGOING {
		way = "out "
	}
	l.buf.WriteString(way)
	text := ""
	if l.plan.cooked {
		text = line.Network(f.protocol, f.data, f.length)
	} else {
		text = line.Ethernet(f.data, f.tag, f.length)
	}
	l.buf.WriteString(printable.Line(text) + "\n")
}

func (l *lines) end(time.Time, uint64) {}

func (l *lines) take() []byte {
	b := bytes.Clone(l.buf.Bytes())
	l.buf.Reset()
	return b
}
