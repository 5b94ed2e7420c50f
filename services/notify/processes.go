package notify

import (
	"context"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// How processes are watched. The kernel's own news of them (the proc
// connector) take CAP_NET_ADMIN, which notify must not have; a director runs
// few processes, so that a look at /proc costs a few milliseconds, and the end
// of a process that counts is heard at once through its pidfd.
const (
	processLook   = 200 * time.Millisecond
	processWhole  = 25  // every so many looks kernel threads are looked at again, for a number that was given anew
	processFDs    = 256 // ends that are heard at once; of others the next look tells
	processArgMax = 64 << 10
)

// processes counts the processes of every vrrp_track_process.
type processes struct {
	proc string // "/proc"
	log  *slog.Logger
	did  func()
	now  func() time.Time
	tell func(name string, known, was, ok bool, reason string)

	mu     sync.Mutex
	list   []*tracked
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// apply takes a configuration. What stays as it was keeps its count and delays.
func (s *processes) apply(ctx context.Context, conf []model.TrackProcess) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.list
	s.list = nil
	for _, c := range conf {
		i := slices.IndexFunc(old, func(o *tracked) bool { return reflect.DeepEqual(o.conf, c) })
		if i >= 0 {
			s.list = append(s.list, old[i])
			continue
		}
		s.list = append(s.list, &tracked{conf: c})
	}
	switch {
	case len(s.list) == 0 && s.cancel != nil:
		s.cancel()
		s.cancel = nil
	case len(s.list) > 0 && s.cancel == nil:
		var own context.Context
		own, s.cancel = context.WithCancel(ctx)
		s.wg.Go(func() { s.work(own) })
	}
}

func (s *processes) stop() {
	s.mu.Lock()
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// work looks until ctx ends: every processLook, and when a process that
// counts has ended.
func (s *processes) work(ctx context.Context) {
	ends := map[int]int{} // pidfd by process
	defer func() {
		for _, fd := range ends {
			unix.Close(fd)
		}
	}()
	kernel := map[int]bool{} // threads of the kernel: they never match
	for n := 0; ctx.Err() == nil; n++ {
		if n%processWhole == 0 {
			clear(kernel)
		}
		began := time.Now()
		counted := s.count(s.scan(kernel))
		// Ends of processes that count now.
		for pid, fd := range ends {
			if !slices.Contains(counted, pid) {
				unix.Close(fd)
				delete(ends, pid)
			}
		}
		for _, pid := range counted {
			if _, have := ends[pid]; have || len(ends) >= processFDs {
				continue
			}
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				ends[pid] = fd
			}
		}
		s.await(ctx, began.Add(s.pause()), ends)
	}
}

// pause is until the next look, or until a delay has run out.
func (s *processes) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := processLook
	now := s.now()
	for _, t := range s.list {
		if !t.since.IsZero() {
			p = min(p, max(t.due.Sub(now), time.Millisecond))
		}
	}
	return p
}

// await waits for the end of one of the processes, no longer than until.
func (s *processes) await(ctx context.Context, until time.Time, ends map[int]int) {
	var list []unix.PollFd
	for _, fd := range ends {
		list = append(list, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for ctx.Err() == nil {
		left := time.Until(until)
		if left <= 0 {
			return
		}
		// In slices, so that the end of the service waits for nothing long.
		ms := int(min(left, 100*time.Millisecond)/time.Millisecond) + 1
		n, err := unix.Poll(list, ms)
		if n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

// count hands the processes to each tracker and returns those that count.
func (s *processes) count(all []process) (counted []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	news := false
	for _, t := range s.list {
		n := 0
		for i := range all {
			if matches(&t.conf, &all[i]) {
				n++
				counted = append(counted, all[i].pid)
			}
		}
		known, was := t.known, t.ok
		if t.observe(n, now) {
			news = true
		}
		if !known || was != t.ok {
			why := strconv.Itoa(n) + " processes, wanted " + wantedRange(&t.conf)
			s.log.Info("vrrp_track_process " + t.conf.Name + ": " + verdictName(known, was) + " -> " + verdictName(true, t.ok) + ": " + why)
			s.tell(t.conf.Name, known, was, t.ok, why)
		}
	}
	if news {
		s.did()
	}
	return counted
}

// scan reads every process. One that ends meanwhile is left out.
func (s *processes) scan(kernel map[int]bool) []process {
	s.mu.Lock()
	args := slices.ContainsFunc(s.list, func(t *tracked) bool { return needsArgs(&t.conf) })
	s.mu.Unlock()
	dir, err := os.Open(s.proc)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var out []process
	buf, argBuf := make([]byte, 1024), make([]byte, processArgMax)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || kernel[pid] {
			continue
		}
		b, err := readSmall(s.proc+"/"+name+"/stat", buf)
		if err != nil {
			continue
		}
		comm, parent, dead, ok := parseStat(b)
		if !ok || dead {
			continue
		}
		if pid == 2 || parent == 2 {
			kernel[pid] = true
			continue
		}
		p := process{pid: pid, comm: comm}
		if args {
			if p.args, err = readSmall(s.proc+"/"+name+"/cmdline", argBuf); err != nil {
				continue
			}
			p.args = slices.Clone(p.args)
		}
		out = append(out, p)
	}
	return out
}

// readSmall reads a file of the kernel in one go, as far as it fits.
func readSmall(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	return buf[:max(n, 0)], err
}

func (s *processes) results() []status.ProcessResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []status.ProcessResult
	for _, t := range s.list {
		if t.known {
			out = append(out, t.result())
		}
	}
	return out
}
