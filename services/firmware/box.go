package firmware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/ipc/verdicts"
)

// others are the services of this box, as far as this one has to do with them.
type others interface {
	// conf is what runs of the configuration.
	conf(ctx context.Context) (status.ConfNews, error)
	// see is what all of them say at one moment.
	see(ctx context.Context) sight
	// greet does an SSH handshake with the console of this box.
	greet(ctx context.Context) error
	audit(ctx context.Context, e status.AuditEntry)
	reboot(ctx context.Context) error
	// stick hands out the bundle on a USB stick, as it is read.
	stick(ctx context.Context, take func(r io.Reader) error) error
}

// sight is what the services of a box say of themselves. nil: it did not answer.
type sight struct {
	Init   *status.InitNews
	Conf   *status.ConfNews
	VRRP   *status.VRRP
	IPVS   *status.Applied
	Net    *status.Net
	Health *status.Applied
	Real   reals    // as health sees them
	Silent []string // those that did not answer, and why
}

// reals are the real servers of a box, each as often as it is named.
type reals struct {
	All  int
	Live int // they pass their checks, or have none
	Open int // not checked yet, or not now: ipvs takes them for live, and nobody knows
}

// count takes in what health says of them.
func (n *reals) count(list []verdicts.Server) {
	for _, v := range list {
		n.All += len(v.Real)
		for _, r := range v.Real {
			switch {
			case !r.Settled:
				n.Open++
			case r.Alive:
				n.Live++
			}
		}
	}
}

// box are the services over their sockets.
type box struct {
	clients map[string]*ipc.Client
	ssh     string // where its console listens
}

func newBox(dir ipc.Dir) *box {
	b := &box{clients: map[string]*ipc.Client{}, ssh: "127.0.0.1:22"}
	for _, n := range []string{"init", "conf", "vrrp", "ipvs", "net", "health", "console", "notify"} {
		b.clients[n] = dir.Client(n)
	}
	return b
}

// patience is how long one look at a service may take.
const patience = 5 * time.Second

func (b *box) conf(ctx context.Context) (status.ConfNews, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var c status.ConfNews
	return c, b.clients["conf"].Summary(ctx, &c)
}

func (b *box) see(ctx context.Context) (s sight) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var in status.InitNews
	var c status.ConfNews
	var v status.VRRP
	var net status.Net
	var ipvs, health status.Applied
	var real reals
	// Side by side: one that does not answer takes none of the others' time.
	var wg sync.WaitGroup
	var mu sync.Mutex
	for name, ask := range map[string]struct {
		read func(*ipc.Client) error
		take func()
	}{
		"init": {func(c *ipc.Client) error { return c.Summary(ctx, &in) }, func() { s.Init = &in }},
		"conf": {func(cl *ipc.Client) error { return cl.Summary(ctx, &c) }, func() { s.Conf = &c }},
		"vrrp": {func(c *ipc.Client) error { _, err := c.State(ctx, &v); return err }, func() { v.Transitions, s.VRRP = nil, &v }},
		"ipvs": {func(c *ipc.Client) error { return c.Brief(ctx, &ipvs) }, func() { s.IPVS = &ipvs }},
		"net":  {func(c *ipc.Client) error { _, err := c.State(ctx, &net); return err }, func() { s.Net = &net }},
		"health": {func(c *ipc.Client) error {
			if err := c.Brief(ctx, &health); err != nil {
				return err
			}
			u, err := verdicts.Read(ctx, c)
			real.count(u.Servers)
			return err
		}, func() { s.Health, s.Real = &health, real }},
	} {
		wg.Go(func() {
			err := ask.read(b.clients[name])
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				s.Silent = append(s.Silent, fmt.Sprintf("%s does not answer within %v", name, patience))
			case err != nil:
				s.Silent = append(s.Silent, err.Error())
			default:
				ask.take()
			}
		})
	}
	wg.Wait()
	return s
}

// errGreeted ends a handshake that has told what there is to know.
var errGreeted = errors.New("that is it")

// greet goes as far as the host key: it is the box's own, and proved. A login
// would be one that fails, and the console counts those.
func (b *box) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var c struct{ Fingerprint string }
	if _, err := b.clients["console"].State(ctx, &c); err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.ssh)
	if err != nil {
		return err
	}
	defer conn.Close()
	if t, ok := ctx.Deadline(); ok {
		conn.SetDeadline(t)
	}
	greeted := false
	_, _, _, err = ssh.NewClientConn(conn, b.ssh, &ssh.ClientConfig{
		User: "firmware",
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if got := ssh.FingerprintSHA256(key); got != c.Fingerprint {
				return fmt.Errorf("its host key is %s, the console's is %s", got, c.Fingerprint)
			}
			greeted = true
			return errGreeted
		},
	})
	if greeted {
		return nil
	}
	return err
}

func (b *box) audit(ctx context.Context, e status.AuditEntry) {
	// A boot may still be on its way to a notify that answers.
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		b.clients["notify"].Call(ctx, "audit", []status.AuditEntry{e}, nil)
	}()
}

func (b *box) reboot(ctx context.Context) error {
	return b.clients["init"].Call(ctx, "reboot", status.Power{By: "firmware, into the other slot"}, nil)
}

func (b *box) stick(ctx context.Context, take func(r io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	found := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		err := b.clients["init"].Stream(ctx, "stick", nil, nil, w, func(string) { // what it is called
			select {
			case found <- struct{}{}:
			default:
			}
		})
		if err == nil {
			err = io.EOF
		}
		w.CloseWithError(err)
		done <- err
	}()
	defer r.Close()
	select {
	case <-found:
		return take(r)
	case err := <-done:
		return err
	}
}
