// Package vrrp is the VRRP service of a director: virtual routers of version 2
// and 3, IPv4 and IPv6, multicast and unicast, as keepalived runs them. It is
// the only writer of virtual addresses, their routes, gratuitous ARP and
// unsolicited neighbour advertisements.
//
// Three parts: packet is the codec, core the pure state machine, kernel the
// edge to Linux. This package is the loop around them: one goroutine on one
// locked thread, in the real-time class where that is allowed, that never
// waits for another goroutine. Configuration, script results and verbs come in
// through its mailbox, states and log lines leave through channels.
package vrrp

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/vrrp/kernel"
)

// memoryLimit is what the Go runtime may use before it collects garbage by
// itself, which collect forestalls at collectAt. The hot path makes none; what
// there is comes from states and configurations.
const (
	memoryLimit = 40 << 20
	collectAt   = 6 << 20 // bytes allocated since the last collection
)

var tuned atomic.Bool

// settleMemory gives back what taking over a configuration used. A limit that
// what lives comes close to would mean collecting without end, so it grows with
// the configuration.
func settleMemory() {
	if !tuned.Load() {
		return
	}
	collect()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetMemoryLimit(max(memoryLimit, 2*int64(m.Sys-m.HeapReleased)))
}

// realtime is the thread of the loop while it has real-time priority, else 0.
var realtime struct {
	sync.Mutex
	tid int
}

// collect collects garbage while the loop's thread has no real-time priority.
// A real-time thread that returns from the kernel while the collector scans its
// stack waits for it by spinning; on a box with one processor it spins on the
// processor that the collector needs, until the kernel's throttling steps in a
// second later, and the peer has called us dead.
func collect() {
	realtime.Lock()
	defer realtime.Unlock()
	defer func() { collectedAt.Store(allocated()) }()
	if realtime.tid != 0 {
		kernel.Normal(realtime.tid)
		defer kernel.RealTime(realtime.tid, kernel.Priority)
	}
	debug.FreeOSMemory()
}

// help keeps the other threads of the process from being what the loop waits
// for.
func help() {
	if tuned.Load() {
		kernel.Help()
	}
}

// collectedAt is how much had been allocated since the start of the process
// when garbage was last collected, for whatever reason.
var collectedAt atomic.Uint64

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// tidy collects before the runtime would, which knows nothing of priorities.
func tidy(ctx context.Context) {
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			help()
			if allocated()-collectedAt.Load() > collectAt {
				collect()
			}
		case <-ctx.Done():
			return
		}
	}
}

// Tune sets the process up for a small hard real-time service. Run calls it in
// a process that init started; a test's process keeps its own settings.
func Tune() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(2)
	tuned.Store(true)
}

// Run is the service: until ctx ends, then it resigns everywhere, removes the
// virtual addresses and returns nil. It works in the network namespace of the
// calling thread and stays on it.
func Run(ctx context.Context, env *ipc.Env) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Getenv(ipc.EnvDir) != "" {
		Tune()
	}

	var tasks sync.WaitGroup
	defer tasks.Wait()
	// The tasks outlive ctx a little, so that the last states and log lines
	// reach their readers.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()

	log := newLogger()
	states := make(chan *status.VRRP, 1)
	s, err := newService(log, func(v *status.VRRP) {
		select {
		case <-states: // nobody took the last one: the newest counts
		default:
		}
		select {
		case states <- v:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer s.close()
	s.held, s.maintenance = loadHeld(env)
	s.stand.path = env.Dir.Path("pacer")

	srv := ipc.NewServer("vrrp")
	srv.Publish(&status.VRRP{})
	// Thousands of real servers are other services' matter.
	conf := follow.New(env.Dir.Client("conf"), follow.Head)
	s.verbs(srv, env, conf)
	served := make(chan error, 1)
	tasks.Go(func() { log.write(life, env.Log) })
	tasks.Go(func() { served <- srv.Serve(life, env.Listener) })
	tasks.Go(func() {
		for {
			select {
			case v := <-states:
				srv.Publish(v)
			case <-life.Done():
				return
			}
		}
	})
	tasks.Go(func() {
		conf.Run(life, func(u follow.Update) {
			if !u.All && !u.Rest {
				// Nothing but virtual servers, which are others' business.
				s.ask(life, func() { s.gen, s.dirty = u.Conf.Generation, true })
				return
			}
			if s.ask(life, func() { s.apply(u.Conf.Generation, &u.Conf.Config, u.Servers) }) == nil {
				env.Ready()
				settleMemory()
			}
		})
	})
	tasks.Go(func() {
		ipc.Watch(life, env.Dir.Client("notify"), func(_ uint64, n status.Notify) {
			s.do(life, func() { s.now = s.loop.Now(); s.setResults(&n) })
		})
	})
	tasks.Go(func() {
		ipc.WatchSummary(life, env.Dir.Client("net"), func(_ uint64, n status.NetNews) {
			if n.Config != 0 { // before its first pass net knows nothing
				s.do(life, func() { s.now = s.loop.Now(); s.setMissing(n.Missing) })
			}
		})
	})
	tasks.Go(func() { s.watchIPVS(life, env.Dir.Client("ipvs")) })
	tasks.Go(func() { progress(life, s, env) })

	if tuned.Load() {
		tasks.Go(func() { tidy(life) })
	}
	class, err := kernel.RealTime(0, kernel.Priority)
	if err != nil {
		log.info("no real-time scheduling here, going on without: %v", err)
	} else {
		realtime.Lock()
		realtime.tid = unix.Gettid()
		realtime.Unlock()
		defer func() {
			realtime.Lock()
			realtime.tid = 0
			realtime.Unlock()
			kernel.Normal(0)
		}()
		s.realTime = true
		help()
		log.info("started, %s", class)
	}
	loopCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tasks.Go(func() {
		select {
		case err := <-served:
			stop(err) // without a socket nobody can configure us
		case <-life.Done():
		}
	})
	err = s.run(loopCtx)
	if err == nil && ctx.Err() == nil {
		err = context.Cause(loopCtx)
	}
	time.Sleep(lastWords)
	end()
	return err
}

// lastWords is how long the sockets stay open after the last state, for those
// who watch (notify runs notify_stop from it).
const lastWords = 50 * time.Millisecond

// progress tells init that the loop goes round, as long as it does.
func progress(ctx context.Context, s *service, env *ipc.Env) {
	t := time.NewTicker(idleTurn)
	defer t.Stop()
	var last uint64
	for {
		select {
		case <-t.C:
			if n := s.turns.Load(); n != last {
				last = n
				env.Progress()
			}
		case <-ctx.Done():
			return
		}
	}
}

// verbs registers what others may ask for.
func (s *service) verbs(srv *ipc.Server, env *ipc.Env, conf *follow.Follower) {
	srv.Handle("prepare", conf.Prepare(func(ctx context.Context, u follow.Update) error {
		if !u.All && !u.Rest {
			return nil
		}
		var names []string
		if err := s.ask(ctx, func() { names = s.linkNames() }); err != nil {
			return err
		}
		return prepare(&u.Conf.Config, names)
	}), ipc.UIDConf)
	hold := func(word string) ipc.VerbFunc {
		return func(ctx context.Context, peer ipc.Peer, body json.RawMessage) (any, error) {
			var arg status.Resign
			if len(body) > 0 {
				if err := json.Unmarshal(body, &arg); err != nil {
					return nil, fmt.Errorf("vrrp %s: %w", word, err)
				}
			}
			by := ""
			if word == "resign" {
				if by = arg.By; by == "" {
					by = fmt.Sprintf("user %d", peer.UID)
				}
			}
			if arg.Keep && arg.Instance != "" {
				return nil, fmt.Errorf("vrrp %s: maintenance is of the whole box, not of an instance", word)
			}
			known, maintenance := false, false
			var held map[string]string
			if err := s.ask(ctx, func() {
				if known = s.hold(arg.Instance, by); known && arg.Instance == "" {
					s.maintenance = by != "" && (arg.Keep || s.maintenance)
				}
				held, maintenance = maps.Clone(s.held), s.maintenance
			}); err != nil {
				return nil, err
			}
			if !known {
				return nil, fmt.Errorf("vrrp %s: there is no instance %q", word, arg.Instance)
			}
			if err := saveHeld(env, held, maintenance); err != nil {
				env.Log.Warn("a restart will forget who resigned: " + err.Error())
			}
			return nil, nil
		}
	}
	srv.Handle("resign", hold("resign"), ipc.GroupOperate, ipc.UIDScript, ipc.UIDNotify, ipc.UIDFirmware)
	srv.Handle("resume", hold("resume"), ipc.GroupOperate, ipc.UIDScript, ipc.UIDNotify, ipc.UIDFirmware)
}
