// Package snmp is the box's own SNMP agent: KEEPALIVED-MIB, which monitoring
// of keepalived already knows, with the system group and the interface tables,
// by v1 and v2c, read only, and the traps of VRRP and of real servers. It owns
// its UDP sockets and nothing else, parses what strangers send, and runs only
// while the configuration has an snmp block.
package snmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// retry is the pause before an address that cannot be listened on is tried
// again: the network may still be coming up, or the address be a VIP.
const retry = time.Second

type service struct {
	env   *ipc.Env
	start time.Time

	mu      sync.Mutex
	conf    model.Config
	version string
	host    string

	agent  agent
	built  time.Time // of tree
	tree   tree
	trapID uint32

	stop context.CancelFunc // of the sockets
	done sync.WaitGroup
}

// Run is the snmp process. It ends with ctx.
func Run(ctx context.Context, env *ipc.Env) error {
	s := &service{env: env, start: time.Now()}
	s.host, _ = os.Hostname()
	srv := ipc.NewServer("snmp")
	srv.Publish(status.Applied{})
	// Without health checks, and without the secrets of others: conf keeps them
	// from a process that strangers talk to.
	conf := follow.New(env.Dir.Client("conf"), follow.Bare)
	srv.Handle("prepare", conf.Prepare(func(context.Context, follow.Update) error { return nil }), ipc.UIDConf)
	var init status.Init
	short, done := context.WithTimeout(ctx, 2*time.Second)
	if _, err := env.Dir.Client("init").State(short, &init); err == nil {
		s.version = init.Version
	}
	done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := srv.Serve(ctx, env.Listener); err != nil {
			env.Log.Error(err.Error())
			cancel()
		}
	})
	vrrpNews, healthNews := s.news(), s.news()
	tasks.Go(func() {
		ipc.Watch(ctx, env.Dir.Client("vrrp"), func(_ uint64, r ring) { vrrpNews(r.Transitions) })
	})
	tasks.Go(func() {
		ipc.WatchSummary(ctx, env.Dir.Client("health"), func(_ uint64, r ring) { healthNews(r.Transitions) })
	})
	conf.Run(ctx, func(u follow.Update) {
		s.apply(ctx, u.Conf.Config)
		srv.Publish(status.Applied{Config: u.Conf.Generation})
		env.Ready()
	})
	s.close()
	tasks.Wait()
	return nil
}

// apply takes over a configuration; sockets that stay are not closed.
func (s *service) apply(ctx context.Context, c model.Config) {
	s.mu.Lock()
	old := s.conf.Global.SNMP
	s.conf, s.built = c, time.Time{}
	s.mu.Unlock()
	if reflect.DeepEqual(old, c.Global.SNMP) && s.stop != nil {
		return
	}
	s.close()
	ctx, s.stop = context.WithCancel(ctx)
	n := c.Global.SNMP
	s.mu.Lock()
	s.agent = agent{community: n.Community, clients: n.Clients, tree: s.current}
	s.mu.Unlock()
	if n.Community == "" {
		return // the check of the configuration said so
	}
	for _, l := range n.Listen {
		s.done.Go(func() { s.serve(ctx, l) })
	}
}

func (s *service) close() {
	if s.stop != nil {
		s.stop()
	}
	s.done.Wait()
}

// serve answers on one address until ctx ends. An address that is not there yet
// is tried again: it may be a VIP, or come by DHCP.
func (s *service) serve(ctx context.Context, addr netip.AddrPort) {
	told := false
	for {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err == nil {
			s.env.Log.Info(fmt.Sprintf("SNMP: listening on %s", addr))
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			s.read(conn)
			stop()
			conn.Close()
			told = false
		} else if !told {
			s.env.Log.Warn(fmt.Sprintf("SNMP: %v; it is tried again", err))
			told = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

func (s *service) read(conn *net.UDPConn) {
	buf := make([]byte, maxRequest+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		s.mu.Lock()
		out := s.agent.answer(buf[:n], from.Addr())
		s.mu.Unlock()
		if out != nil {
			conn.WriteToUDPAddrPort(out, from)
		}
	}
}

// current is the tree, made anew when it is older than the configuration
// allows. s.mu is held.
func (s *service) current() tree {
	age := s.conf.Global.SNMP.ServiceAge
	if a := s.conf.Global.SNMP.ServerAge; a > 0 && (age == 0 || a < age) {
		age = a
	}
	if age == 0 {
		age = 5 * time.Second
	}
	if s.tree == nil || s.built.IsZero() || time.Since(s.built) > age {
		s.tree, s.built = makeTree(s.facts()), time.Now()
	}
	return s.tree
}

// facts reads the states of the services. What does not answer is left empty: a
// part of the box that is down must not hide the rest. s.mu is held.
func (s *service) facts() *facts {
	f := &facts{conf: s.conf, version: s.version, host: s.host, start: s.start, now: time.Now()}
	if s.conf.System.HostName != "" {
		f.host = s.conf.System.HostName
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var all sync.WaitGroup
	read := func(name string, v any) {
		all.Go(func() { s.env.Dir.Client(name).State(ctx, v) })
	}
	read("net", &f.net)
	if s.conf.Global.SNMP.VRRP {
		read("vrrp", &f.vrrp)
		read("notify", &f.notify)
	}
	if s.conf.Global.SNMP.Checker {
		read("ipvs", &f.ipvs)
		read("health", &f.health)
	}
	all.Wait()
	return f
}

// ring is the part of a state that traps are made of.
type ring struct {
	Transitions []status.Transition `json:"transitions"`
}

// news returns a function that sends traps for the transitions that it has not
// seen yet. What happened before the agent started is history.
func (s *service) news() func([]status.Transition) {
	last := status.Transition{Time: s.start}
	return func(list []status.Transition) {
		var fresh []status.Transition
		for _, t := range list {
			// A service that starts again counts from 1 again.
			if t.Time.After(last.Time) || t.Seq > last.Seq && !t.Time.Before(last.Time) {
				fresh = append(fresh, t)
			}
		}
		if n := len(fresh); n > 0 {
			last = fresh[n-1]
			s.send(fresh)
		}
	}
}

// send tells the trap sinks.
func (s *service) send(list []status.Transition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.conf.Global.SNMP
	if !c.Traps || c.Community == "" || len(c.TrapSinks) == 0 || len(list) == 0 {
		return
	}
	f := s.facts()
	for _, t := range list {
		s.trapID++
		out := trap(f, t, c.Community, s.trapID)
		if out == nil {
			continue
		}
		for _, sink := range c.TrapSinks {
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(sink))
			if err == nil {
				_, err = conn.Write(out)
				conn.Close()
			}
			if err != nil {
				s.env.Log.Warn(fmt.Sprintf("SNMP: trap to %s: %v", sink, err))
			}
		}
	}
}
