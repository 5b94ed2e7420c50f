// Package net is the service that owns links, static and leased addresses,
// routes, sysctls and nftables: it is the only writer of them. (The host name is
// init's, which has the capability for it.)
//
// Desired says what the configuration asks for, Kernel.Dump what there is, Diff
// what to change: the first and the last are pure. A pass dumps, decides and
// applies until nothing is left to do. Events (netlink, a new configuration, a
// lease) only trigger a pass; a timer triggers one every few seconds, so that a
// lost event costs seconds. A second pass over an unchanged world does nothing.
//
// services/firewall is part of this process: net is the only writer of nftables,
// so it calls that package, which has no process of its own. It is the one
// import from one folder of services to another.
package net

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/firewall"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/ipc/support"
)

const (
	// debounce gathers a burst of events into one pass.
	debounce = 30 * time.Millisecond
	// refresh is how often a pass runs without an event: counters, lifetimes,
	// sysctls of modules that came late, drift that nobody announced.
	refresh = 5 * time.Second
	// progress is how often init is told that the main loop goes round.
	progress = time.Second
	// maxRounds bounds one pass: names, then bonds, VLANs on them, members, addresses, routes.
	maxRounds = 8
)

// Run is the service. It returns nil when ctx ends and leaves the kernel as it is.
func Run(ctx context.Context, env *ipc.Env) error {
	k, err := OpenKernel()
	if err != nil {
		return err
	}
	defer k.Close()
	fw, err := firewall.Open()
	if err != nil {
		return err
	}
	s := &service{env: env, k: k, fw: fw, srv: ipc.NewServer("net"), config: make(chan confNews, 1), kick: make(chan struct{}, 1)}
	s.leases = newLeases(env.Log, s.trigger)

	events, err := mdnetlink.Dial(unix.NETLINK_ROUTE, &mdnetlink.Config{Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR |
		unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_IPV4_RULE | 1<<(unix.RTNLGRP_IPV6_RULE-1)})
	if err != nil {
		return fmt.Errorf("net: subscribe to rtnetlink: %w", err)
	}
	defer events.Close()

	// The first state goes out before a configuration is known: conf asks for the
	// NICs that are present.
	if err := s.observe(); err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	conf := follow.New(env.Dir.Client("conf"), follow.Slim).Lean()
	s.srv.Handle("prepare", conf.Prepare(s.prepare), ipc.UIDConf)
	s.srv.Handle("renew", s.renew, ipc.GroupOperate)
	s.srv.HandleStream("support", support.Tell(s.support), ipc.GroupAdmin)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.srv.Serve(ctx, env.Listener) })
	g.Go(func() error { return s.listen(ctx, events) })
	g.Go(func() error {
		err := conf.Run(ctx, func(u follow.Update) {
			n := newsOf(&u, s.sloppy)
			s.sloppy = n.sloppy()
			select {
			case before := <-s.config: // not taken yet
				n.same = n.same && before.same
			default:
			}
			s.config <- n
		})
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error { return s.loop(ctx) })
	return g.Wait()
}

// service is the state of one Run. Only loop touches the fields below kick.
type service struct {
	env    *ipc.Env
	k      *Kernel
	fw     *firewall.Table
	srv    *ipc.Server
	leases *leases
	config chan confNews
	kick   chan struct{}
	sloppy bool // what the follower of the configuration said last

	conf  *status.Conf // nil: none yet; of its virtual servers, see confNews
	facts Facts
	marks []status.MarkCount

	noAccept []status.NoAccept
	filter   *status.Firewall
	missing  []status.Missing
	foreign  Foreign           // set with a protocol of its own, by this process
	why      map[string]string // why an op failed in the last round, by its text
	applied  status.Applied
	ring     []status.Transition
	seq      uint64
	carrier  map[string]bool // as last told
	said     map[string]bool // faults that were logged and still hold
}

// confNews is what net has use for in an update of the configuration.
type confNews struct {
	conf status.Conf // of its virtual servers at most one, that makes it sloppy
	same bool        // nothing that concerns net is new
}

// newsOf reads an update; sloppy is what the configuration before was.
func newsOf(u *follow.Update, sloppy bool) confNews {
	n := confNews{conf: u.Conf}
	// Of ten thousand virtual servers only this is asked: does one choose by the
	// client's address (Sysctls)?
	for _, v := range u.List {
		if hashes(v) {
			n.conf.Config.VirtualServers = []model.VirtualServer{*v}
			break
		}
	}
	n.same = !u.All && !u.Rest && n.sloppy() == sloppy
	return n
}

func (n *confNews) sloppy() bool { return len(n.conf.Config.VirtualServers) > 0 }

// trigger asks for a pass. It never blocks.
func (s *service) trigger() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// listen turns netlink events into triggers. Their content is not looked at: a
// burst that overran the socket (ENOBUFS) says as much as one event.
func (s *service) listen(ctx context.Context, events *mdnetlink.Conn) error {
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	for {
		_, err := events.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("net: read rtnetlink events: %w", err)
		}
		s.trigger()
	}
}

func (s *service) loop(ctx context.Context) error {
	defer s.leases.stop()
	tick := time.NewTicker(progress)
	defer tick.Stop()
	pass := time.NewTimer(0)
	defer pass.Stop()
	next := time.Now()   // when pass fires
	var rested time.Time // events do not start a pass before
	soon := func(d time.Duration) {
		if at := time.Now().Add(d); at.Before(next) {
			next = at
			pass.Reset(d)
		}
	}
	for {
		s.env.Progress()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.kick:
			soon(max(debounce, time.Until(rested)))
		case n := <-s.config:
			done := s.conf != nil && s.applied.Config == s.conf.Generation
			s.conf = &n.conf
			if n.same && done {
				// Nothing of ours is new: what the last pass said still holds, and the next one is seconds away.
				s.applied.Config = n.conf.Generation
				s.publish()
				continue
			}
			soon(0)
		case <-pass.C:
			start := time.Now()
			switch err := s.pass(ctx); {
			case errors.Is(err, netlink.ErrDumpInterrupted):
				s.trigger() // the kernel changes faster than it can be read: once more, after a rest
			case err != nil:
				return err
			default:
				s.env.Ready()
			}
			// A storm of events (a failover moves a thousand addresses) may take a
			// fifth of a processor, not more.
			rested = time.Now().Add(4 * time.Since(start))
			next = time.Now().Add(refresh)
			pass.Reset(refresh)
		}
	}
}

// observe dumps and publishes, and changes nothing.
func (s *service) observe() error {
	f, err := s.k.Dump()
	if err != nil {
		return err
	}
	s.facts = f
	s.publish()
	return nil
}

// pass makes the kernel what the configuration asks for, as far as it can be
// done now, and publishes.
func (s *service) pass(ctx context.Context) error {
	if s.conf == nil {
		return s.observe()
	}
	c := s.conf.Config
	var waiting, failed []string
	var before string
	var want World
	if s.filter == nil {
		// The first pass: no interface comes up before the filter is there.
		if err := s.observe(); err != nil {
			return err
		}
		s.applyFirewall(c) // below it is done again, and its faults are told
	}
	for range maxRounds {
		if ctx.Err() != nil {
			return nil
		}
		s.env.Progress()
		f, err := s.k.Dump()
		if err != nil {
			return err
		}
		s.facts = f
		s.leases.follow(c, f)
		want = Desired(c, f.Links, s.leases.held())
		want.Gone = s.foreign
		f.Sysctls = readSysctls(want.Sysctls)
		var ops []Op
		ops, waiting = Diff(f, want)
		if len(ops) == 0 {
			failed, s.why = nil, nil
			break
		}
		list := fmt.Sprint(ops)
		if list == before {
			break // the rest cannot be done now; failed says why
		}
		before = list
		failed = s.apply(ctx, ops, f)
	}
	s.foreign, s.missing = foreign(want), missing(want, s.facts, s.why)
	faults := slices.Concat(waiting, failed, s.applyFirewall(c))
	// A commit does not fail for a resolv.conf.
	s.report(append(s.writeResolv(), faults...))
	s.applied = status.Applied{Config: s.conf.Generation, Error: strings.Join(faults, "; ")}
	s.publish()
	return nil
}

func (s *service) apply(ctx context.Context, ops []Op, f Facts) (faults []string) {
	s.why = map[string]string{}
	for _, o := range ops {
		s.env.Progress()
		if err := s.k.Apply(o, f); err != nil {
			s.why[o.String()] = strings.TrimPrefix(err.Error(), o.String()+": ")
			faults = append(faults, err.Error())
			continue
		}
		level := slog.LevelInfo
		if _, many := o.(SetSysctl); many {
			level = slog.LevelDebug
		}
		s.env.Log.Log(ctx, level, "apply: "+o.String())
	}
	return faults
}

// applyFirewall writes marks, no_accept and the filter if they differ and reads
// their counters.
func (s *service) applyFirewall(c model.Config) (faults []string) {
	want := firewall.NoAccept(firewall.Desired(c.Marks), c.Instances)
	held, ops, err := s.fw.Apply(firewall.Filter(want, &c, s.facts.kernelName))
	if err != nil {
		return []string{err.Error()}
	}
	for _, o := range ops {
		s.env.Log.Info("apply: " + o)
	}
	s.marks, s.noAccept, s.filter = held.Marks(), held.NoAccepts(), held.Filter()
	return nil
}

// report logs each fault once, when it comes up.
func (s *service) report(faults []string) {
	now := make(map[string]bool, len(faults))
	for _, f := range faults {
		if !s.said[f] && !now[f] {
			s.env.Log.Warn(f)
		}
		now[f] = true
	}
	s.said = now
}

// prepare is the verb: can this configuration be applied here? The dump is its
// own, since it runs beside the main loop.
func (s *service) prepare(_ context.Context, u follow.Update) error {
	if !u.All && !u.Rest {
		return nil // virtual servers are nothing that the kernel could refuse here
	}
	k, err := OpenKernel()
	if err != nil {
		return err
	}
	defer k.Close()
	f, err := k.Dump()
	if err != nil {
		return err
	}
	return Prepare(u.Conf.Config, f)
}

// Renew is the argument of the verb renew: the interface whose lease is renewed
// now; empty means all of them.
type Renew struct {
	Interface string `json:"interface,omitempty"`
}

func (s *service) renew(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var r Renew
	if len(body) > 0 {
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, fmt.Errorf("net: renew: %w", err)
		}
	}
	names := s.leases.renew(r.Interface)
	if len(names) == 0 {
		if r.Interface == "" {
			return nil, errors.New("no interface uses DHCP")
		}
		return nil, fmt.Errorf("%s: no DHCP client runs there; write \"dhcp\" into its interface block", r.Interface)
	}
	slices.Sort(names)
	return names, nil
}
