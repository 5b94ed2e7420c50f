package supervise

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Once is a process that does one thing and ends, before there are services.
type Once struct {
	Exe  string
	Args []string // with argv[0]
	Env  []string
	UID  uint32
	GID  uint32
	Caps []uintptr // as of a Spec
	Log  io.Writer // what it says
}

// RunOnce runs it as a service would be run, without a cgroup, and waits for
// its end; it is killed when ctx ends. No other Reaper may be there.
func RunOnce(ctx context.Context, o Once) (Exit, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return Exit{}, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return Exit{}, err
	}
	defer r.Close()
	reaper := NewReaper()
	defer reaper.Stop()
	pid, exit, err := reaper.start(func() (int, error) {
		return spawn(command{exe: o.Exe, args: o.Args, env: slices.Clone(o.Env), files: []uintptr{null.Fd(), w.Fd(), w.Fd()},
			uid: o.UID, gid: o.GID, caps: o.Caps, cgroup: -1})
	})
	w.Close()
	if err != nil {
		return Exit{}, fmt.Errorf("start: %w", err)
	}
	said := make(chan struct{})
	go func() {
		io.Copy(o.Log, r)
		close(said)
	}()
	select {
	case e := <-exit:
		<-said
		return e, nil
	case <-ctx.Done():
		unix.Kill(-pid, unix.SIGKILL) // it leads a session of its own
		unix.Kill(pid, unix.SIGKILL)
		e := <-exit
		return e, fmt.Errorf("%w: %s", ctx.Err(), e)
	}
}
