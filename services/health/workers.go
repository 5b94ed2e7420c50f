package health

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// Workers. crypto/tls wants a net.Conn that blocks, and a script is a call to
// another service that lasts as long as the script; neither fits the epoll
// loop. They get goroutines, bounded in number, that exist only while busy.
const (
	maxTLS     = 1024 // probes of SSL_GET at one time; one that waits for a silent server holds about 15 KiB
	maxScripts = 32   // scripts of MISC_CHECK at one time
	maxThinks  = 1    // regexes over long answers at one time
)

// workers runs jobs, at most so many at one time. There are two queues: who
// took too long the last time stands in one of its own. It has at most three
// quarters of the places, so that silent servers, however many, do not keep the
// others from being asked on time; and at least a quarter, so that they are
// asked at all.
type workers struct {
	ctx    context.Context
	cancel context.CancelFunc
	most   int

	mu    sync.Mutex
	busy  [2]int // ordinary, slow
	queue [2][]func(context.Context)
	wg    sync.WaitGroup
}

func newWorkers(most int) *workers {
	ctx, cancel := context.WithCancel(context.Background())
	return &workers{ctx: ctx, cancel: cancel, most: most}
}

func (p *workers) do(slow bool, job func(context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	lane := 0
	if slow {
		lane = 1
	}
	p.queue[lane] = append(p.queue[lane], job) // at most one entry a check
	if job, lane := p.next(); job != nil {
		p.wg.Add(1)
		go p.work(job, lane)
	}
}

// next takes the job that may begin now, nil: none.
func (p *workers) next() (job func(context.Context), lane int) {
	room := p.busy[0]+p.busy[1] < p.most
	switch {
	case !room || p.ctx.Err() != nil:
		return nil, 0
	case len(p.queue[1]) > 0 && p.busy[1] < max(p.most/4, 1) && (p.most > 1 || len(p.queue[0]) == 0):
		lane = 1
	case len(p.queue[0]) > 0:
	case len(p.queue[1]) > 0 && p.busy[1] < p.most-p.most/4:
		lane = 1
	default:
		return nil, 0
	}
	q := p.queue[lane]
	job, q[0] = q[0], nil
	p.queue[lane] = q[1:]
	p.busy[lane]++
	return job, lane
}

func (p *workers) work(job func(context.Context), lane int) {
	defer p.wg.Done()
	for job != nil {
		job(p.ctx)
		p.mu.Lock()
		p.busy[lane]--
		job, lane = p.next()
		p.mu.Unlock()
	}
}

// close ends what runs and waits for it.
func (p *workers) close() {
	p.mu.Lock()
	p.cancel()
	p.queue = [2][]func(context.Context){}
	p.mu.Unlock()
	p.wg.Wait()
}

// tokens are held while TLS computes, not while it waits: a thousand handshakes
// that go on at one time would keep the loop from its turn.
type tokens chan struct{}

func newTokens() tokens { return make(tokens, 2) }

func (t tokens) take() { t <- struct{}{} }
func (t tokens) give() { <-t }

// politeConn gives its token away while it waits for the server. Writing does
// not wait: what a probe says fits the socket's buffer.
type politeConn struct {
	net.Conn
	cores tokens
}

func (c politeConn) Read(b []byte) (int, error) {
	c.cores.give()
	defer c.cores.take()
	return c.Conn.Read(b)
}

// runScript does a MISC_CHECK script through notify, which owns all scripts.
type runScript func(ctx context.Context, r status.Run) (status.RunResult, error)

// scriptLimit is how long the script of a MISC_CHECK may take.
func (c *check) scriptLimit() time.Duration {
	if c.spec.MiscTimeout > 0 {
		return c.spec.MiscTimeout
	}
	return c.spec.DelayLoop
}

// beginScript hands a MISC_CHECK to a worker.
func (l *loop) beginScript(c *check) {
	c.edge.phase = working
	spec := c.spec
	run := status.Run{Name: fmt.Sprintf("MISC_CHECK %s %x", target(spec), c.ident), Command: spec.Command, Timeout: c.scriptLimit()}
	l.misc.do(c.edge.slow, func(ctx context.Context) {
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
