package supervise

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/init/journal"
	"ballast/services/ipc"
)

// process is one run of a service.
type process struct {
	pid   int
	exit  <-chan Exit
	ready chan struct{} // closed when it said so
	pipes sync.WaitGroup
	ends  []*os.File // our ends of the pipes
}

// run keeps the service running until stop is closed. It closes started after
// the first attempt.
func (v *service) run(started chan<- struct{}) {
	defer close(v.ended)
	lost := newAbsence(v)
	defer lost.end()
	rest := v.spec.Idle > 0
	for fails := 0; ; {
		if rest {
			if started != nil {
				close(started)
				started = nil
			}
			if !v.awaitUse() {
				v.set(func() { v.state = Stopped })
				return
			}
		}
		select {
		case <-v.wake: // what it was for is met by this start
		default:
		}
		begin := time.Now()
		p, err := v.start()
		if started != nil {
			close(started)
			started = nil
		}
		if err == nil {
			err = v.watch(p, lost)
			v.finish(p)
		}
		select {
		case <-v.stop:
			v.set(func() { v.pid, v.state, v.lastExit = 0, Stopped, err.Error() })
			v.say(journal.Notice, "%s stopped: %v", v.spec.Name, err)
			return
		default:
		}
		if rest = p != nil && v.rested(p, begin, err); rest {
			fails = 0
			v.say(journal.Info, "%s has nothing to do and ends", v.spec.Name)
			continue
		}
		if fails++; time.Since(begin) >= stable {
			fails = 1
		}
		wait := v.spec.backoff(fails)
		v.set(func() { v.pid, v.state, v.lastExit = 0, Backoff, err.Error(); v.restarts++ })
		lost.begin(fails)
		if wait == 0 {
			v.say(journal.Warning, "%s ended: %v; starting it again", v.spec.Name, err)
			continue
		}
		v.say(journal.Warning, "%s ended: %v; starting it again in %v", v.spec.Name, err, wait)
		select {
		case <-time.After(wait):
		case <-v.stop:
			v.set(func() { v.state = Stopped })
			return
		}
	}
}

// absence measures how long a service is away that others must not wait for.
type absence struct {
	v     *service
	timer *time.Timer
	armed bool
}

// hopeless is how many restarts in a row, each of a process that ran for less
// than stable, count as being away although it may be ready now and then.
const hopeless = 5

func newAbsence(v *service) *absence {
	a := &absence{v: v}
	if v.spec.Lost != nil {
		a.timer = time.AfterFunc(time.Hour, func() {
			v.say(journal.Error, "%s is not back after %v", v.spec.Name, v.spec.LostAfter)
			v.spec.Lost()
		})
		a.timer.Stop()
	}
	return a
}

// begin is called when the service has ended, for the n-th time in a row.
func (a *absence) begin(n int) {
	switch {
	case a.timer == nil:
	case n >= hopeless:
		a.v.say(journal.Error, "%s has ended %d times in a row", a.v.spec.Name, n)
		a.v.spec.Lost()
	case !a.armed:
		a.timer.Reset(a.v.spec.LostAfter)
		a.armed = true
	}
}

// end is called when the service is ready.
func (a *absence) end() {
	if a.timer != nil {
		a.timer.Stop()
		a.armed = false
	}
}

func (v *service) say(pri int, format string, a ...any) {
	v.sup.cfg.Journal.Print(pri, format, a...)
}

// start forks the process with everything it is handed.
func (v *service) start() (*process, error) {
	cfg := v.sup.cfg
	p := &process{ready: make(chan struct{})}
	var theirs []*os.File // closed when the process has them, or has failed
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, null)
	logR, logW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, logW)
	p.ends = append(p.ends, logR)
	notifyR, notifyW, err := os.Pipe()
	if err != nil {
		p.close()
		return nil, err
	}
	theirs = append(theirs, notifyW)
	p.ends = append(p.ends, notifyR)

	fds := []uintptr{null.Fd(), logW.Fd(), logW.Fd(), v.listen.Fd(), notifyW.Fd()}
	env := slices.Concat(cfg.Env, v.spec.Env, []string{ipc.EnvDir + "=" + string(cfg.Dir)})
	if v.own != "" {
		env = append(env, ipc.EnvOwn+"="+v.own)
	}
	if v.data != "" {
		env = append(env, ipc.EnvData+"="+v.data)
	}
	if v.spec.Idle > 0 {
		env = append(env, ipc.EnvIdle+"="+v.spec.Idle.String())
	}
	files := map[string]*os.File{}
	if v.spec.Files != nil {
		got, err := v.spec.Files()
		if err != nil { // the service may do without
			v.say(journal.Error, "%s: %v", v.spec.Name, err)
		}
		maps.Copy(files, got)
	}
	if v.scripts != "" {
		if f, err := os.Open(string(v.scripts)); err != nil {
			v.say(journal.Error, "%s: cgroup for scripts: %v", v.spec.Name, err)
		} else {
			files[cgroupScripts] = f
		}
	}
	if len(files) > 0 {
		var words []string
		for _, name := range sortedKeys(files) {
			theirs = append(theirs, files[name])
			words = append(words, fmt.Sprintf("%s:%d", name, len(fds)))
			fds = append(fds, files[name].Fd())
		}
		env = append(env, ipc.EnvFiles+"="+strings.Join(words, " "))
	}
	cg, closeCgroup := v.home.open()
	defer closeCgroup()
	c := command{
		exe: cfg.Exe, args: cfg.Args(v.spec.Name), env: env, files: fds,
		uid: v.spec.UID, gid: v.spec.GID, caps: v.spec.Caps, cgroup: cg,
	}
	// The state is set under the reaper's lock by nobody else, so a process that
	// ends at once is seen as started first.
	p.pid, p.exit, err = cfg.Reaper.start(func() (int, error) { return spawn(c) })
	if err != nil {
		p.close()
		return nil, fmt.Errorf("start: %w", err)
	}
	if v.spec.OOM != 0 {
		os.WriteFile("/proc/"+itoa(p.pid)+"/oom_score_adj", []byte(itoa(v.spec.OOM)), 0o644)
	}
	v.set(func() {
		v.pid, v.state, v.started = p.pid, Starting, time.Now()
		if v.first.IsZero() {
			v.first = v.started
		}
	})
	p.pipes.Go(func() {
		w := cfg.Journal.Writer(v.spec.Name)
		copyLog(w, logR)
		io.WriteString(w, "\n") // a last line that does not end is a line too
	})
	p.pipes.Go(func() { v.listenTo(p, notifyR) })
	return p, nil
}

// copyLog copies what a process says until nobody has the other end, or the
// deadline of r passes: then with what is in the pipe, which on a machine that
// stood still for as long may be its last words.
func copyLog(w io.Writer, r *os.File) {
	buf := make([]byte, 4<<10) // io.Copy would hold 32 KiB for each service for ever
	for {
		n, err := r.Read(buf)
		w.Write(buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return
		}
	}
	raw, err := r.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		for left := pipeSize; left > 0; { // who holds the other end may go on writing
			n, err := unix.Read(int(fd), buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n <= 0 || err != nil {
				return
			}
			w.Write(buf[:n])
			left -= n
		}
	})
}

// pipeSize is what a pipe of Linux holds.
const pipeSize = 64 << 10

func sortedKeys(m map[string]*os.File) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// listenTo reads what the process says of itself.
func (v *service) listenTo(p *process, r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64), 1024) // longer is not what ipc.Env writes
	for s.Scan() {
		switch s.Text() {
		case "ready":
			select {
			case <-p.ready:
				continue
			default:
			}
			var took time.Duration
			v.set(func() {
				if v.pid == p.pid {
					v.state, v.progress = Ready, time.Now()
					took = time.Since(v.started)
				}
			})
			v.say(journal.Info, "%s is ready after %v", v.spec.Name, took.Round(time.Millisecond))
			close(p.ready)
		case "progress":
			v.sup.mu.Lock()
			if v.pid == p.pid {
				v.progress = time.Now()
			}
			v.sup.mu.Unlock()
		}
	}
	io.Copy(io.Discard, r)
}

// errOrderly is the end of a process that says that nothing is wrong.
var errOrderly = errors.New("exit 0")

// watch waits for the end of a process, and brings it about when the service
// is stopped or hangs. The error says how it ended.
func (v *service) watch(p *process, lost *absence) error {
	var hang <-chan time.Time
	ready := p.ready
	stop := v.stop
	var kill <-chan time.Time
	why := ""
	for {
		select {
		case e := <-p.exit:
			switch {
			case why != "":
				return fmt.Errorf("%s, %s", why, e)
			case e.Status.Exited() && e.Status.ExitStatus() == 0:
				return errOrderly
			}
			return errors.New(e.String())
		case <-ready:
			ready = nil
			lost.end()
			if v.spec.Hang > 0 {
				t := time.NewTicker(time.Second)
				defer t.Stop()
				hang = t.C
			}
		case <-hang:
			v.sup.mu.Lock()
			silent := time.Since(v.progress)
			v.sup.mu.Unlock()
			if silent > v.spec.Hang {
				why = fmt.Sprintf("no progress for %v", silent.Round(time.Second))
				v.say(journal.Error, "%s: %s; ending it", v.spec.Name, why)
				unix.Kill(p.pid, unix.SIGQUIT) // Go prints its goroutines, which the log keeps
				kill = time.After(time.Second)
				hang = nil
			}
		case <-stop:
			stop, hang = nil, nil
			unix.Kill(p.pid, unix.SIGTERM)
			unix.Kill(p.pid, unix.SIGCONT) // a stopped one would not notice
			kill = time.After(v.spec.stopTimeout())
		case <-kill:
			if why == "" {
				why = fmt.Sprintf("did not end within %v", v.spec.stopTimeout())
			}
			kill = nil
			v.cgroup.kill()
			unix.Kill(p.pid, unix.SIGKILL)
		}
	}
}

// finish cleans up behind a process that has ended.
func (v *service) finish(p *process) {
	v.cgroup.kill()
	// Something that it started may hold the pipes open without being in the
	// cgroup (there is none in a test): do not wait for it.
	for _, f := range p.ends {
		f.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	}
	p.pipes.Wait()
	p.close()
}

func (p *process) close() {
	for _, f := range p.ends {
		f.Close()
	}
}
