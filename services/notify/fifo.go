package notify

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// Bounds of a pipe. The kernel keeps another 64 KiB of it.
const (
	fifoQueue = 1024
	lineMax   = 2 << 10 // of a name in it; a line below PIPE_BUF (4096) is never torn
)

// readerPause is how long a reader that died is waited with, by how often in a
// row; the first comes back at once.
var readerPause = []time.Duration{0, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second}

// pipeConf is one pipe as it should be.
type pipeConf struct {
	Keyword   string
	Path      string
	VRRP, LVS bool
	Script    model.Command
}

// pipesOf are the pipes of a configuration. As in keepalived a pipe for all
// events comes first, and another one of its name is none; the two others may
// be one, with one reader.
func pipesOf(g *model.Global) (out []pipeConf, problems []string) {
	for _, c := range []pipeConf{
		{"notify_fifo", g.NotifyFIFO.Path, true, true, g.NotifyFIFO.Script},
		{"vrrp_notify_fifo", g.VRRPFIFO.Path, true, false, g.VRRPFIFO.Script},
		{"lvs_notify_fifo", g.LVSFIFO.Path, false, true, g.LVSFIFO.Script},
	} {
		if c.Path == "" {
			continue
		}
		i := slices.IndexFunc(out, func(o pipeConf) bool { return o.Path == c.Path })
		if i < 0 {
			out = append(out, c)
			continue
		}
		o := &out[i]
		if o.VRRP && o.LVS {
			problems = append(problems, fmt.Sprintf("%s: %s is notify_fifo already: this line is left out", c.Keyword, c.Path))
			continue
		}
		o.LVS = o.LVS || c.LVS
		o.VRRP = o.VRRP || c.VRRP
		switch {
		case o.Script.IsZero():
			o.Script = c.Script
		case !c.Script.IsZero():
			problems = append(problems, fmt.Sprintf("%s_script: %s has a reader already: this one is left out", c.Keyword, c.Path))
		}
	}
	return out, problems
}

// fifos are the pipes that are open.
type fifos struct {
	run  *runner
	user *scriptUser
	log  *slog.Logger
	did  func()                 // the state of one is another one
	tell func(name, why string) // a reader died

	mu   sync.Mutex
	list []*fifo
}

type fifo struct {
	conf   pipeConf
	file   *os.File
	cancel context.CancelFunc
	more   chan struct{}
	wg     sync.WaitGroup

	// under fifos.mu
	queue            []string
	busy             int // lines that are being written: 0 or 1
	written, dropped uint64
	reader           string
	problem          string
	full             bool // said so in the log
}

// apply opens what is new, closes what is gone, and leaves alone what is as it
// was: its reader goes on.
func (s *fifos) apply(ctx context.Context, g *model.Global) {
	want, problems := pipesOf(g)
	for _, p := range problems {
		s.log.Warn(p)
	}
	s.mu.Lock()
	old := s.list
	s.list = nil
	s.mu.Unlock()
	var list []*fifo
	for _, c := range want {
		i := slices.IndexFunc(old, func(o *fifo) bool { return reflect.DeepEqual(o.conf, c) && o.file != nil })
		if i >= 0 {
			list = append(list, old[i])
			old = slices.Delete(old, i, i+1)
			continue
		}
		list = append(list, nil)
	}
	for _, o := range old {
		s.close(o, time.Second)
	}
	for i, c := range want {
		if list[i] == nil {
			list[i] = s.open(ctx, c)
		}
	}
	s.mu.Lock()
	s.list = list
	s.mu.Unlock()
}

func (s *fifos) open(ctx context.Context, c pipeConf) *fifo {
	f := &fifo{conf: c, more: make(chan struct{}, 1)}
	file, err := s.user.makePipe(c.Path)
	if err != nil {
		f.problem = err.Error()
		s.log.Error(c.Keyword + ": " + err.Error())
		return f
	}
	f.file = file
	// Not ctx: what is queued at the end is still written (close).
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	f.wg.Go(func() { s.write(own, f) })
	if !c.Script.IsZero() {
		f.wg.Go(func() { s.read(own, f) })
	}
	return f
}

// write moves lines from the queue into the pipe, one write a line. The file
// is non-blocking, so that a reader that stands still costs a parked goroutine.
func (s *fifos) write(ctx context.Context, f *fifo) {
	stop := context.AfterFunc(ctx, func() { f.file.SetWriteDeadline(time.Now()) })
	defer stop()
	for {
		s.mu.Lock()
		if len(f.queue) == 0 {
			s.mu.Unlock()
			select {
			case <-f.more:
				continue
			case <-ctx.Done():
				return
			}
		}
		line := f.queue[0]
		f.queue, f.busy = f.queue[1:], 1
		s.mu.Unlock()
		_, err := f.file.WriteString(line)
		s.mu.Lock()
		f.busy = 0
		if err == nil {
			f.written++
			f.full = false
		} else {
			f.dropped++
		}
		s.mu.Unlock()
		s.did()
		if ctx.Err() != nil {
			return
		}
	}
}

// read keeps the reader script running.
func (s *fifos) read(ctx context.Context, f *fifo) {
	say := func(text string) {
		s.mu.Lock()
		f.reader = text
		s.mu.Unlock()
		s.did()
	}
	for n := 0; ctx.Err() == nil; {
		began := time.Now()
		say("running")
		res := s.run.run(ctx, f.conf.Script, []string{f.conf.Path}, 0)
		if ctx.Err() != nil {
			say("stopped")
			return
		}
		if time.Since(began) > time.Minute {
			n = 0
		}
		pause := readerPause[min(n, len(readerPause)-1)]
		n++
		why := res.detail
		if out := lastLine(res.output); out != "" {
			why += ": " + out
		}
		say(fmt.Sprintf("%s; started again in %v", why, pause))
		s.log.Warn(fmt.Sprintf("%s_script %s: %s; started again in %v", f.conf.Keyword, commandText(f.conf.Script), why, pause))
		s.tell(f.conf.Keyword+"_script", why)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// add queues a line for every pipe that takes such. It never waits: a full
// queue loses its oldest line.
func (s *fifos) add(line string, lvs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.list {
		if f.file == nil || lvs && !f.conf.LVS || !lvs && !f.conf.VRRP {
			continue
		}
		if len(f.queue) >= fifoQueue {
			f.queue = f.queue[1:]
			f.dropped++
			if !f.full {
				f.full = true
				s.log.Warn(fmt.Sprintf("%s %s: nobody reads it: %d lines wait, the oldest are dropped", f.conf.Keyword, f.conf.Path, fifoQueue))
			}
		}
		f.queue = append(f.queue, line)
		select {
		case f.more <- struct{}{}:
		default:
		}
	}
}

// close ends a pipe: what is queued is written if there is room, the reader
// gets the time to read it, then SIGTERM. The pipe stays: who else has it open
// finds it again.
func (s *fifos) close(f *fifo, grace time.Duration) {
	if f.file == nil {
		return
	}
	end := time.Now().Add(grace)
	for time.Now().Before(end) {
		s.mu.Lock()
		n := len(f.queue) + f.busy
		s.mu.Unlock()
		if n == 0 && (f.conf.Script.IsZero() || pipeEmpty(f.file)) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	f.cancel()
	f.wg.Wait()
	f.file.Close()
}

// stop ends all of them.
func (s *fifos) stop(grace time.Duration) {
	s.mu.Lock()
	list := s.list
	s.list = nil
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, f := range list {
		wg.Go(func() { s.close(f, grace) })
	}
	wg.Wait()
}

func (s *fifos) states() []status.FIFOState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []status.FIFOState
	for _, f := range s.list {
		out = append(out, status.FIFOState{
			Path: f.conf.Path, Written: f.written, Dropped: f.dropped, Waiting: len(f.queue) + f.busy, Reader: f.reader, Error: f.problem,
		})
	}
	return out
}
