package notify

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
)

// Bounds of notify scripts. keepalived has none, and runs them in no order;
// here one object's scripts run one after the other, so one that hangs must
// not hold up the news for ever.
const (
	queueSize   = 64
	notifyLimit = 10 * time.Minute
	waitedLimit = time.Minute // once the next one waits
	// sideBySide bounds what a site that loses a thousand real servers at once
	// starts. Scripts of instances and groups never wait for those.
	sideBySide = 32
)

// job is one notify script to run.
type job struct {
	object string
	what   string // "notify_master"
	cmd    model.Command
	extra  []string
	lvs    bool // of a virtual or real server
}

// queues run jobs: in order for one object, never two of one object at a
// time, side by side for different ones. Goroutines exist only while there is
// work.
type queues struct {
	run *runner
	log *slog.Logger
	did func() // after each job

	hold <-chan struct{} // closed: jobs may run; nil: at once

	ctx    context.Context // ends what runs
	cancel context.CancelFunc
	mu     sync.Mutex
	byName map[string]*queue
	wg     sync.WaitGroup
	places chan struct{} // of jobs of virtual and real servers that run now

	dropped uint64
}

type queue struct {
	jobs []job
	more chan struct{} // a job waits
}

func newQueues(run *runner, log *slog.Logger, did func()) *queues {
	ctx, cancel := context.WithCancel(context.Background())
	return &queues{run: run, log: log, did: did, ctx: ctx, cancel: cancel, byName: map[string]*queue{}, places: make(chan struct{}, sideBySide)}
}

// add puts a job at the end of its object's queue. A full queue loses its
// oldest job: the newest state is what counts.
func (q *queues) add(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ctx.Err() != nil {
		return
	}
	o := q.byName[j.object]
	if o == nil {
		o = &queue{more: make(chan struct{}, 1)}
		q.byName[j.object] = o
		q.wg.Add(1)
		go q.work(o, j)
		return
	}
	if len(o.jobs) >= queueSize {
		q.log.Warn(fmt.Sprintf("%s: %s dropped: %d scripts of it are waiting already", j.object, o.jobs[0].what, len(o.jobs)))
		o.jobs = o.jobs[1:]
		q.dropped++
	}
	o.jobs = append(o.jobs, j)
	select {
	case o.more <- struct{}{}:
	default:
	}
}

func (q *queues) work(o *queue, j job) {
	defer q.wg.Done()
	for {
		q.do(o, j)
		q.mu.Lock()
		if len(o.jobs) == 0 || q.ctx.Err() != nil {
			delete(q.byName, j.object)
			q.mu.Unlock()
			return
		}
		j, o.jobs = o.jobs[0], o.jobs[1:]
		select {
		case <-o.more:
		default:
		}
		if len(o.jobs) > 0 {
			o.more <- struct{}{}
		}
		q.mu.Unlock()
	}
}

// lost is how many jobs were dropped.
func (q *queues) lost() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

func (q *queues) do(o *queue, j job) {
	if q.hold != nil {
		select {
		case <-q.hold:
		case <-q.ctx.Done():
			return
		}
	}
	if j.lvs {
		select {
		case q.places <- struct{}{}:
			defer func() { <-q.places }()
		case <-q.ctx.Done():
			return
		}
	}
	ctx, cancel := context.WithCancel(q.ctx)
	defer cancel()
	done, over := make(chan struct{}), make(chan struct{})
	defer func() { close(done); <-over }()
	go func() {
		defer close(over)
		began := time.Now()
		select {
		case <-done:
			return
		case <-o.more:
		}
		t := time.NewTimer(time.Until(began.Add(waitedLimit)))
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
			cancel()
		}
	}()
	res := q.run.run(ctx, j.cmd, j.extra, notifyLimit)
	q.did()
	text := fmt.Sprintf("%s: %s %s: %s in %s", j.object, j.what, commandText(j.cmd), res.detail, res.took.Round(time.Millisecond))
	if out := lastLine(res.output); out != "" {
		text += ": " + out
	}
	if res.exit != 0 {
		q.log.Warn(text)
	} else {
		q.log.Info(text)
	}
}

// drain waits for what is queued, then ends what still runs.
func (q *queues) drain(most time.Duration) {
	done := make(chan struct{})
	go func() { q.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(most):
	}
	q.mu.Lock()
	waiting, of := 0, []string(nil)
	for name, o := range q.byName {
		if len(o.jobs) > 0 {
			waiting, of = waiting+len(o.jobs), append(of, name)
		}
	}
	q.cancel()
	q.mu.Unlock()
	if waiting > 0 {
		slices.Sort(of)
		q.log.Warn(fmt.Sprintf("%d scripts that waited for one before them are not run, of: %s", waiting, strings.Join(of[:min(len(of), 8)], ", ")))
	}
	<-done
}

// commandText names a command in a log line. Arguments may hold secrets.
func commandText(c model.Command) string {
	if c.Shell != "" {
		return "sh -c"
	}
	if len(c.Argv) > 0 {
		return c.Argv[0]
	}
	return ""
}
