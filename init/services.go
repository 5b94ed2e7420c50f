package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ballast/console"
	"ballast/init/jail"
	"ballast/services/capture"
	"ballast/services/conf"
	"ballast/services/firmware"
	"ballast/services/health"
	"ballast/services/ipc"
	"ballast/services/ipvs"
	"ballast/services/net"
	"ballast/services/netboot"
	"ballast/services/notify"
	"ballast/services/peer"
	"ballast/services/snmp"
	"ballast/services/vrrp"
	"ballast/services/vrrp/pacer"
)

// service is one row of the table of services.
type service struct {
	name string
	run  func(context.Context, *ipc.Env) error
	uid  uint32
	caps []uintptr // what it, and all that it starts, may do

	memory int64 // of the cgroup, MiB
	// soft is what Go's collector keeps to, in MiB: well below memory, and well
	// above what a table of 10,000 real servers needs. A heap that lives at this
	// limit is collected without end. gc (GOGC) keeps a small one small.
	soft  int64
	gc    int // GOGC; -1: off
	oom   int
	files uint64 // descriptors
	// weight is its share of the processors beside the other services; 0: 100,
	// as the kernel has it. The threads that help vrrp's real-time one are
	// ordinary ones, and while such a thread waits for a processor, the other may
	// wait for it.
	weight int
	// procs is how many processors it uses at a time at most; 0: procsFew, -1: all.
	// Go keeps memory ready for each: on a machine with 64 of them services that
	// do nothing had 80 % more than with two.
	procs    int
	realtime uint64 // real-time priority that it may run at; 0: none
	watched  bool   // the hardware's watchdog wants its progress
	hangs    bool   // it is started anew when it makes none, and that is all
	packets  bool   // its socket is not for HTTP
	fast     bool   // never far from its next restart
	optional bool   // runs only while the configuration asks for it
	roles    bool   // calls the others in the names of users, by their roles
	// idle is after how long without use a service on demand ends; it is started
	// when somebody asks it. 0: it runs all the time.
	idle time.Duration
}

const mib = 1 << 20

// What all scripts that notify runs may take together: its own memory, which
// the limit of the cgroup around both leaves to it, is not theirs.
const (
	scriptMemory = 128 // MiB
	scriptPIDs   = 256
)

// services is the table, in the order in which they are started.
var services = []service{
	{name: "conf", run: conf.Run, uid: ipc.UIDConf, procs: 4,
		memory: 256, soft: 192, gc: 50, oom: -500, files: 1024},
	{name: "net", run: net.Run, uid: ipc.UIDNet, caps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
		memory: 128, soft: 96, gc: 50, oom: -700, files: 1024, watched: true},
	// Before vrrp: it is there when that process is master again after a crash.
	{name: "pacer", run: pacer.Run, uid: ipc.UIDPacer,
		memory: 48, soft: 32, gc: -1, procs: -1, weight: 10000, oom: -950, files: 2048, realtime: pacer.Priority, hangs: true, packets: true, fast: true},
	{name: "vrrp", run: vrrp.Run, uid: ipc.UIDVRRP, caps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
		memory: 64, soft: 40, gc: -1, procs: -1, weight: 10000, oom: -900, files: 4096, realtime: 50, watched: true, fast: true},
	{name: "ipvs", run: ipvs.Run, uid: ipc.UIDIPVS, caps: []uintptr{unix.CAP_NET_ADMIN}, procs: 4,
		memory: 256, soft: 192, gc: 40, oom: -800, files: 1024, watched: true, fast: true},
	{name: "health", run: health.Run, uid: ipc.UIDHealth, caps: []uintptr{unix.CAP_NET_RAW}, procs: 8, // handshakes of TLS
		memory: 256, soft: 192, gc: 50, oom: -300, files: 65536},
	{name: "notify", run: notify.Run, uid: ipc.UIDNotify, caps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL},
		memory: 256, soft: 160, gc: 50, weight: 25, oom: 300, files: 4096},
	// It runs without a peer block too: its key is what goes into that of the
	// other box, and a fresh box pulls its configuration through it.
	{name: "peer", run: peer.Run, uid: ipc.UIDPeer,
		memory: 256, soft: 160, gc: 50, oom: 200, files: 256},
	// CAP_SETGID is for ipc.TakeRoles, which gives it up.
	{name: "console", run: console.Run, uid: ipc.UIDConsole, caps: []uintptr{unix.CAP_SETGID}, roles: true,
		memory: 128, soft: 96, gc: 50, files: 1024},
	{name: "capture", run: capture.Run, uid: ipc.UIDCapture, caps: []uintptr{unix.CAP_NET_RAW},
		memory: 64, soft: 32, gc: 50, weight: 25, oom: 600, files: 128, idle: capture.Idle},
	// On demand; it stays while it writes a slot or holds a trial.
	{name: "firmware", run: firmware.Run, uid: ipc.UIDFirmware,
		memory: 192, soft: 96, gc: 50, files: 256, idle: firmware.IdleTime},
	{name: "netboot", run: netboot.Run, uid: ipc.UIDNetboot, caps: []uintptr{unix.CAP_NET_BIND_SERVICE},
		memory: 384, soft: 256, gc: 50, oom: 500, files: 256, idle: time.Minute},
	{name: "snmp", run: snmp.Run, uid: ipc.UIDSNMP, caps: []uintptr{unix.CAP_NET_BIND_SERVICE},
		memory: 256, soft: 160, gc: 50, oom: 500, files: 256, optional: true},
}

// mandatory is how many services always run.
func mandatory() (n int) {
	for _, s := range services {
		if !s.optional && s.idle == 0 {
			n++
		}
	}
	return n
}

func serviceNamed(name string) (service, bool) {
	i := slices.IndexFunc(services, func(s service) bool { return s.name == name })
	if i < 0 {
		return service{}, false
	}
	return services[i], true
}

// procsFew is enough for a service that works now and then.
const procsFew = 2

// processors is how many of a machine's it may use at a time.
func (s service) processors(machine int) int {
	most := s.procs
	switch {
	case s.procs < 0:
		return machine
	case s.procs == 0:
		most = procsFew
	}
	return min(most, machine)
}

// environ is what a service is told.
func (s service) environ(machine int) []string {
	return append(slices.Clone(environment), fmt.Sprintf("GOMAXPROCS=%d", s.processors(machine)))
}

// environment is what every service is told.
var environment = []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", "GOTRACEBACK=all"}

// tidied is how often a service gives back what a commit, a look at its state or
// a support bundle has left behind. It costs a collection of a small heap, a few
// milliseconds, and some hundred pages that come back when they are used.
const tidied = time.Minute

// tidy does that until ctx ends. A large heap is left to the collector's own pace.
func tidy(ctx context.Context, shed func()) {
	t := time.NewTicker(tidied)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if liveHeap() < largeHeap {
			debug.FreeOSMemory()
		}
		shed()
	}
}

// settled is when a service has done what it does only once.
const settled = 10 * time.Second

// runService is the process of one service, started by init.
func runService(name string) int {
	s, ok := serviceNamed(name)
	if !ok {
		var names []string
		for _, s := range services {
			names = append(names, s.name)
		}
		fmt.Fprintf(os.Stderr, "<3>there is no service %q: there are %s\n", name, strings.Join(names, ", "))
		return 2
	}
	pages, perr := openPages() // before anything takes the right to
	debug.SetGCPercent(s.gc)
	debug.SetMemoryLimit(s.soft * mib)
	env, err := ipc.FromInit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "<3>"+err.Error())
		return 2
	}
	if err := s.restrict(); err != nil {
		env.Log.Warn(err.Error())
	}
	if s.roles {
		if err := ipc.TakeRoles(); err != nil {
			env.Log.Error(err.Error()) // it goes on, and may nothing
		}
	}
	if err := jail.Apply(s.policy(env)); err != nil {
		env.Log.Error(err.Error()) // it goes on: a director that does its job with less protection is better than none
	}
	slog.SetDefault(env.Log) // what a library logs ends up in the same ring
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	signal.Ignore(unix.SIGHUP)
	shedLogged := func() {
		if err := shed(); err != nil {
			env.Log.Warn("resident pages of the program: " + err.Error())
		}
	}
	shedLogged()
	if s.realtime == 0 {
		go tuneCollector(ctx, s.gc)
	}
	defer time.AfterFunc(settled, func() {
		if s.realtime == 0 { // it collects by itself, with its thread's priority in mind
			debug.FreeOSMemory() // what taking over the first configuration used
		}
		if err := errors.Join(perr, pages.alone()); err != nil {
			env.Log.Info("more pages of the program than it needs are resident: " + err.Error())
		}
		shedLogged()
		if s.realtime == 0 {
			go tidy(ctx, shedLogged)
		}
	}).Stop()
	if err := s.run(ctx, env); errors.Is(err, ipc.ErrIdle) {
		return 0
	} else if err != nil {
		env.Log.Error(err.Error())
		return 1
	}
	if ctx.Err() == nil {
		env.Log.Error("ended without being told to")
		return 1
	}
	return 0
}

// restrict gives up what the process had from init and does not need.
func (s service) restrict() error {
	// What it starts inherits no capability through the ambient set; its own
	// stay.
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("clear the ambient capabilities: %w", e)
	}
	limits := map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: s.files, unix.RLIMIT_RTPRIO: 0, unix.RLIMIT_NICE: 0, unix.RLIMIT_MEMLOCK: 64 << 10,
	}
	if s.realtime > 0 {
		limits[unix.RLIMIT_RTPRIO], limits[unix.RLIMIT_NICE] = s.realtime, 40 // its other threads may go to -20
	}
	for which, n := range limits {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit %d to %d: %w", which, n, err)
		}
	}
	return nil
}

// stopOrder is how the services end: vrrp first, so that the other box takes
// over while this one still forwards; pacer when there is nobody left to stand
// in for; notify after those whose changes it tells.
var stopOrder = [][]string{{"vrrp"}, {"pacer", "health", "ipvs"}, {"notify"}, {"capture", "snmp", "netboot", "console", "firmware", "peer"}, {"net", "conf"}}

// stopTime bounds the stop of one service.
func (s service) stopTime() time.Duration {
	if s.name == "notify" {
		return 16 * time.Second // its last scripts, shutdown_script, the last mail
	}
	return 3 * time.Second
}
