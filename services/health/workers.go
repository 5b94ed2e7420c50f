package health

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// Workers. crypto/tls wants a net.Conn that blocks, and a script is a call to
// another service that lasts as long as the script; neither fits the epoll
// loop. They get goroutines, bounded in number, that exist only while busy.
const (
	maxTLS     = 256 // probes of SSL_GET at one time; about 60 KiB each
	maxScripts = 32  // scripts of MISC_CHECK at one time
)

// workers runs jobs, at most so many at one time, in the order given.
type workers struct {
	ctx    context.Context
	cancel context.CancelFunc
	most   int

	mu    sync.Mutex
	busy  int
	queue []func(context.Context)
	wg    sync.WaitGroup
}

func newWorkers(most int) *workers {
	ctx, cancel := context.WithCancel(context.Background())
	return &workers{ctx: ctx, cancel: cancel, most: most}
}

func (p *workers) do(job func(context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	if p.busy >= p.most {
		p.queue = append(p.queue, job) // at most one entry a check
		return
	}
	p.busy++
	p.wg.Add(1)
	go p.work(job)
}

func (p *workers) work(job func(context.Context)) {
	defer p.wg.Done()
	for job != nil {
		job(p.ctx)
		p.mu.Lock()
		job = nil
		if len(p.queue) > 0 && p.ctx.Err() == nil {
			job, p.queue = p.queue[0], p.queue[1:]
		} else {
			p.busy--
		}
		p.mu.Unlock()
	}
}

// close ends what runs and waits for it.
func (p *workers) close() {
	p.mu.Lock()
	p.cancel()
	p.queue = nil
	p.mu.Unlock()
	p.wg.Wait()
}

// runScript does a MISC_CHECK script through notify, which owns all scripts.
type runScript func(ctx context.Context, r status.Run) (status.RunResult, error)

// beginScript hands a MISC_CHECK to a worker.
func (l *loop) beginScript(c *check) {
	c.edge.phase = working
	spec := c.spec
	run := status.Run{Name: fmt.Sprintf("MISC_CHECK %s %x", target(spec), c.ident), Command: spec.Command, Timeout: spec.MiscTimeout}
	if run.Timeout <= 0 {
		run.Timeout = spec.DelayLoop
	}
	l.misc.do(func(ctx context.Context) {
		// The script's own limit is notify's; this one is for a notify that hangs.
		ctx, cancel := context.WithTimeout(ctx, run.Timeout+5*time.Second)
		defer cancel()
		res, err := l.run(ctx, run)
		o := scriptOutcome(spec, res, err)
		l.post(func(now time.Time) { l.finish(c, o, now) })
	})
}

// scriptOutcome: exit 0 is success. With misc_dynamic, 2..255 is success too
// and sets the weight to the code minus 2. A script that notify could not be
// asked to run says nothing about the server.
func scriptOutcome(spec *model.Check, res status.RunResult, err error) outcome {
	o := outcome{weight: -1}
	if err != nil {
		o.local, o.reason = true, "script not run: "+err.Error()
		return o
	}
	o.reason = res.Detail
	if o.reason == "" {
		o.reason = fmt.Sprintf("exit %d", res.Exit)
	}
	switch {
	case res.Exit == 0:
		o.ok = true
	case spec.Dynamic && res.Exit >= 2 && res.Exit <= 255:
		o.ok, o.weight = true, res.Exit-2
		o.reason = fmt.Sprintf("exit %d, weight %d", res.Exit, o.weight)
	}
	return o
}
