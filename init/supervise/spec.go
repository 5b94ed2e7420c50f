package supervise

import (
	"os"
	"time"
)

// Spec is how one service is run.
type Spec struct {
	Name string
	UID  uint32
	GID  uint32

	// Caps are the capabilities that the process has, and the only ones that it
	// or anything it starts can ever have (numbers of linux/capability.h). It
	// runs with no_new_privs and without root's magic: a program that it starts
	// as root has none of root's capabilities.
	Caps []uintptr

	// Packets makes its socket one of packets (SOCK_SEQPACKET) in place of one
	// for HTTP.
	Packets bool

	Memory int64 // limit of its cgroup in bytes; 0: none
	// Scripts is the cgroup that the service starts others in; nil: its own.
	Scripts *Scripts
	OOM     int // oom_score_adj, -1000 (never killed) to 1000
	Env     []string
	// Weight is the share of the processors that its cgroup has beside the
	// others', 1 to 10000; 0: the kernel's default of 100. It is what counts
	// between services: niceness only does within one.
	Weight int

	// Files opens what else the process is handed, by name, before each start.
	// The files are closed in init when the process has them.
	Files func() (map[string]*os.File, error)

	// Optional makes a service that runs only while Want asks for it.
	Optional bool

	// Idle makes a service on demand: it is started when somebody connects to its
	// socket, and ends by itself, with exit 0, when nobody has had a use for it for
	// so long (see ipc.Env.OnDemand). 0: it always runs.
	Idle time.Duration

	// MaxBackoff bounds the pause between restarts; 0: 30 s.
	MaxBackoff time.Duration
	// StopTimeout is how long it may take to end after SIGTERM; 0: 3 s.
	StopTimeout time.Duration
	// Hang is how long a service that was ready may go without progress before it
	// is made to dump its goroutines and starts anew; 0: for ever.
	Hang time.Duration
	// Lost is called when the service has ended and is not ready again within
	// LostAfter; once for each time that happens.
	Lost      func()
	LostAfter time.Duration
}

func (s Spec) maxBackoff() time.Duration {
	if s.MaxBackoff > 0 {
		return s.MaxBackoff
	}
	return 30 * time.Second
}

func (s Spec) stopTimeout() time.Duration {
	if s.StopTimeout > 0 {
		return s.StopTimeout
	}
	return 3 * time.Second
}

// backoff is the pause before the n-th restart in a row, n from 1. The first
// comes at once: a crash that does not repeat must cost nothing.
func (s Spec) backoff(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	d := 100 * time.Millisecond << min(n-2, 16)
	return min(d, s.maxBackoff())
}

// Scripts bounds what a service starts for others: the service goes on when
// they take all that they may. The cgroup reaches it as the file "scripts".
type Scripts struct {
	Memory int64 // bytes; 0: bounded by the service's own limit only
	PIDs   int   // processes and threads; 0: no bound
}
