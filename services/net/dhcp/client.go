package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"
)

// ErrNAK is what an Exchange returns when the server refused the address.
var ErrNAK = errors.New("the server refused the address (DHCPNAK)")

// errNoAnswer is what an Exchange returns when nobody answered in time.
var errNoAnswer = errors.New("no answer")

// How says which of RFC 2131's requests is meant (table 4).
type How int

// Requests for an address that the client has or had.
const (
	Reboot How = iota // INIT-REBOOT: broadcast, is the address still mine?
	Renew             // unicast to the server that granted it
	Rebind            // broadcast to any server
)

func (h How) String() string { return [...]string{"confirm", "renew", "rebind"}[h] }

// Exchange does one exchange with a server. Each call sends, waits at most
// timeout for the answer, and leaves no socket open.
type Exchange interface {
	// Discover gets a new lease (DISCOVER, OFFER, REQUEST, ACK).
	Discover(ctx context.Context, timeout time.Duration) (Lease, error)
	// Request asks for the address of a lease.
	Request(ctx context.Context, how How, l Lease, timeout time.Duration) (Lease, error)
}

// Client keeps the lease of one interface. Make it with New, then Run it; the
// other methods may be called from any goroutine.
type Client struct {
	iface  string
	x      Exchange
	log    *slog.Logger
	notify func(*Lease) // nil: no lease

	carrier chan bool     // newest carrier state
	renew   chan struct{} // the operator asks
	up      bool
	lease   *Lease
}

// New makes a client. adopted is a lease found in the kernel (only Addr,
// Routes and Expires are known), or nil. notify is called from Run with each new
// lease and with nil when it is lost; it must not block.
func New(iface string, x Exchange, adopted *Lease, log *slog.Logger, notify func(*Lease)) *Client {
	return &Client{iface: iface, x: x, log: log, notify: notify, lease: adopted,
		carrier: make(chan bool, 1), renew: make(chan struct{}, 1)}
}

// SetCarrier tells the client whether the link has carrier.
func (c *Client) SetCarrier(up bool) {
	for {
		select {
		case c.carrier <- up:
			return
		default:
		}
		select { // drop the older word
		case <-c.carrier:
		default:
		}
	}
}

// Renew asks the client to renew now.
func (c *Client) Renew() {
	select {
	case c.renew <- struct{}{}:
	default:
	}
}

// Retransmission (RFC 2131 4.1): 4 s, doubled up to 64 s, each with up to a
// second of jitter either way.
const (
	firstWait = 4 * time.Second
	lastWait  = 64 * time.Second
)

func jitter(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(2*time.Second))) - time.Second
}

// confirmTries is how often the old address is asked for before a new lease is
// sought or, if it has not expired, the old one is kept.
const confirmTries = 3

// Run works until ctx ends. It does not release the lease: the box that comes
// back asks for the same address.
func (c *Client) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if !c.awaitCarrier(ctx) {
			continue
		}
		if c.lease != nil {
			c.confirm(ctx)
		}
		if c.lease == nil {
			c.acquire(ctx)
		}
		if c.lease != nil && c.up {
			c.keep(ctx)
		}
	}
}

// awaitCarrier waits until there is carrier; a lease that expires meanwhile is
// given up.
func (c *Client) awaitCarrier(ctx context.Context) bool {
	for !c.up {
		if !c.sleep(ctx, c.untilExpiry()) && c.lease != nil && !c.up && ctx.Err() == nil && c.untilExpiry() <= 0 {
			c.lose("expired without carrier")
		}
		if ctx.Err() != nil {
			return false
		}
	}
	return true
}

func (c *Client) untilExpiry() time.Duration {
	if c.lease == nil {
		return 24 * time.Hour
	}
	return time.Until(c.lease.Expires)
}

// sleep waits for d. It returns true early when carrier changed or the operator
// asks; false when d is over or ctx ended.
func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return false
		case up := <-c.carrier:
			if up != c.up {
				c.up = up
				return true
			}
		case <-c.renew:
			return true
		}
	}
}

func (c *Client) got(l Lease, how string) {
	if c.lease == nil || c.lease.Addr != l.Addr {
		c.log.Info(fmt.Sprintf("dhcp %s: %s from %s for %v", c.iface, l.Addr, l.Server, l.Expires.Sub(l.Start)))
	} else if how != "" {
		c.log.Debug(fmt.Sprintf("dhcp %s: %s: %s for %v", c.iface, how, l.Addr, l.Expires.Sub(l.Start)))
	}
	c.lease = &l
	c.notify(&l)
}

func (c *Client) lose(why string) {
	c.log.Warn(fmt.Sprintf("dhcp %s: lost %s: %s", c.iface, c.lease.Addr, why))
	c.lease = nil
	c.notify(nil)
}

// confirm asks for the address that the client had (INIT-REBOOT).
func (c *Client) confirm(ctx context.Context) {
	for i := range confirmTries {
		l, err := c.x.Request(ctx, Reboot, *c.lease, min(jitter(firstWait/2<<i), max(c.untilExpiry(), time.Second)))
		switch {
		case err == nil:
			c.got(l, "confirmed")
			return
		case errors.Is(err, ErrNAK):
			c.lose(err.Error())
			return
		case ctx.Err() != nil:
			return
		}
		if c.untilExpiry() <= 0 {
			c.lose("expired, " + err.Error())
			return
		}
		if !errors.Is(err, errNoAnswer) && c.sleep(ctx, jitter(firstWait)) && !c.up {
			return
		}
	}
	// RFC 2131 3.2: with no answer the client may use the address for the rest of
	// its lease.
	if c.lease.T1.IsZero() || !c.lease.T1.After(time.Now()) {
		left := c.untilExpiry()
		c.lease.T1, c.lease.T2 = time.Now().Add(left/4), time.Now().Add(left/2)
	}
}

// acquire gets a new lease, however long it takes, while there is carrier.
func (c *Client) acquire(ctx context.Context) {
	wait, said := firstWait, ""
	for ctx.Err() == nil && c.up {
		select { // news that came while the exchange ran
		case c.up = <-c.carrier:
			continue
		default:
		}
		start := time.Now()
		l, err := c.x.Discover(ctx, wait)
		if err == nil {
			c.got(l, "")
			return
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			c.log.Warn(fmt.Sprintf("dhcp %s: no lease yet: %v", c.iface, err))
		}
		// An exchange that failed at once must not turn the loop into a busy one.
		if c.sleep(ctx, jitter(wait)-time.Since(start)) {
			wait = firstWait
		} else {
			wait = min(2*wait, lastWait)
		}
	}
}

// keep holds the lease: BOUND, RENEWING, REBINDING. It returns when the lease is
// lost, when carrier came and went (then the address is confirmed anew), or
// when ctx ends.
func (c *Client) keep(ctx context.Context) {
	ask := false
	for ctx.Err() == nil && c.lease != nil {
		now := time.Now()
		l := c.lease
		switch {
		case !now.Before(l.Expires):
			c.lose("expired, no server renewed it")
			return
		case now.Before(l.T1) && !ask:
			if c.sleep(ctx, l.T1.Sub(now)) {
				if !c.up {
					return
				}
				ask = true
			}
			continue
		}
		how, until := Renew, l.T2
		if !now.Before(l.T2) {
			how, until = Rebind, l.Expires
		}
		// RFC 2131 4.4.5: half of what remains, not below a minute; a short lease
		// cannot afford the minute.
		wait := max(until.Sub(now)/2, min(time.Minute, until.Sub(now)), 100*time.Millisecond)
		if !l.Server.IsValid() && how == Renew {
			how = Rebind // adopted: nobody to ask in particular
		}
		n, err := c.x.Request(ctx, how, *l, min(wait, 10*time.Second))
		switch {
		case err == nil:
			c.got(n, how.String())
			ask = false
			continue
		case errors.Is(err, ErrNAK):
			c.lose(err.Error())
			return
		}
		ask = false
		if c.sleep(ctx, wait-time.Since(now)) && !c.up {
			return
		}
	}
}

// Held is the lease that an address in the kernel stands for, after a restart.
func Held(addr netip.Prefix, expires time.Time, routes []Route) *Lease {
	return &Lease{Addr: addr, Expires: expires, Routes: routes}
}
