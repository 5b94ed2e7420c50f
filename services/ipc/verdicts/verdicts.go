// Package verdicts is how ipvs keeps up with health. The state of health has
// megabytes on a large box, most of it detail for show commands; what ipvs acts
// on is a few bytes of each real server, and of ten thousand mostly one is new.
//
// The verdicts have a token, which names them as long as health runs. health
// announces it in the summary of its state; a reader then asks for
// "GET /state?have=TOKEN" and gets those virtual servers whose verdicts are
// younger than the ones that it has, or all of them.
package verdicts

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Server is what is known about one virtual server.
type Server struct {
	Name     string
	QuorumUp bool
	Real     []Real
}

// Real is the verdict on one real server.
type Real struct {
	Addr  netip.Addr
	Port  uint16 // model.RealServer.ConfPort
	Alive bool
	// Settled is set when the verdict rests on a probe: one check at least has
	// spoken, and one that failed if the verdict is down. A health process that
	// has just started says what it assumes.
	Settled bool
	Weight  int // -1: as configured
}

// settled is Real.Settled of a verdict.
func settled(r *status.RealServerHealth) bool {
	if len(r.Checks) == 0 {
		return true
	}
	for i := range r.Checks {
		if c := &r.Checks[i]; c.Known && (r.Alive || !c.Up) {
			return true
		}
	}
	return false
}

// same reports whether two states are the same verdict.
func same(a, b *status.VirtualServerHealth) bool {
	if a.QuorumUp == b.QuorumUp && len(a.Real) == len(b.Real) && unsafe.SliceData(a.Real) == unsafe.SliceData(b.Real) {
		return true // the very same in memory: health tells anew only what is new
	}
	return a.QuorumUp == b.QuorumUp && slices.EqualFunc(a.Real, b.Real, func(x, y status.RealServerHealth) bool {
		return x.Addr == y.Addr && x.Port == y.Port && x.Alive == y.Alive && x.Weight == y.Weight && settled(&x) == settled(&y)
	})
}

// Book knows since when each verdict is as it is.
type Book struct {
	epoch string // no other run of health makes the same tokens
	n     uint64 // of the verdicts now
	from  uint64 // patches are possible on these and later ones
	now   *Published
}

// NewBook returns an empty book.
func NewBook() *Book { return &Book{epoch: rand.Text()[:10]} }

// Published is a state of health as it goes to ipc.Server.Publish.
type Published struct {
	health *status.Health
	epoch  string
	n      uint64
	from   uint64
	since  []uint64 // parallel to health.Servers: with which verdicts it came
}

// Enter takes in a state. Nobody may change anything in it any more.
func (b *Book) Enter(h *status.Health) *Published {
	p := &Published{health: h, epoch: b.epoch}
	next := b.n + 1
	news := b.now == nil
	if old := b.now; old != nil && slices.EqualFunc(old.health.Servers, h.Servers, func(x, y status.VirtualServerHealth) bool { return x.Name == y.Name }) {
		p.since = old.since
		for i := range h.Servers {
			if same(&old.health.Servers[i], &h.Servers[i]) {
				continue
			}
			if !news {
				news, p.since = true, slices.Clone(old.since)
			}
			p.since[i] = next
		}
	} else {
		news = b.renamed(p, next) || news
	}
	if news {
		b.n = next
	}
	p.n, p.from = b.n, b.from
	b.now = p
	return p
}

// renamed fills in p.since where virtual servers came or went.
func (b *Book) renamed(p *Published, next uint64) (news bool) {
	var before []status.VirtualServerHealth
	if b.now != nil {
		before = b.now.health.Servers
	}
	at := make(map[string]int, len(before))
	for i := range before {
		at[before[i].Name] = i
	}
	p.since = make([]uint64, len(p.health.Servers))
	for i := range p.health.Servers {
		v := &p.health.Servers[i]
		j, ok := at[v.Name]
		delete(at, v.Name)
		if ok && same(&before[j], v) {
			p.since[i] = b.now.since[j]
			continue
		}
		p.since[i], news = next, true
	}
	if len(at) > 0 {
		b.from, news = next, true // a patch does not tell who is gone
	}
	return news
}

// State is the whole.
func (p *Published) State() any { return p.health }

func (p *Published) token() string { return p.epoch + "." + strconv.FormatUint(p.n, 10) }

// Summary announces the verdicts.
func (p *Published) Summary() any {
	return status.HealthNews{Applied: p.health.Applied, Transitions: p.health.Transitions, Verdicts: p.token()}
}

// Brief is ipc.Briefer.
func (p *Published) Brief(after uint64) (any, uint64) {
	return status.HealthNews{Applied: p.health.Applied, Transitions: p.health.Transitions, Verdicts: p.token()}.Brief(after)
}

// answer is what a reader gets: this in JSON on a line, and behind it the
// virtual servers, packed (pack.go).
type answer struct {
	Token  string `json:"token"`
	Base   string `json:"base,omitempty"` // what it is a patch on; empty: these are all
	Config uint64 `json:"config"`
	Count  int    `json:"count"` // of virtual servers
}

// Patch implements ipc.Patcher.
func (p *Published) Patch(_ ipc.Peer, q url.Values) ([]byte, error) {
	a := answer{Token: p.token(), Config: p.health.Config}
	have := p.known(q.Get("have"))
	if have > 0 {
		a.Base = q.Get("have")
	}
	isNew := func(i int) bool { return have == 0 || p.since[i] > have }
	for i := range p.health.Servers {
		if isNew(i) {
			a.Count++
		}
	}
	line, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	out := append(slices.Grow(line, 1+64*a.Count), '\n')
	for i := range p.health.Servers {
		if isNew(i) {
			out = pack(out, &p.health.Servers[i])
		}
	}
	return out, nil
}

// known is the number in a token that a patch can be made on, 0: none.
func (p *Published) known(token string) uint64 {
	epoch, s, _ := strings.Cut(token, ".")
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || epoch != p.epoch || n < p.from || n > p.n {
		return 0
	}
	return n
}

// Update is what a reader is told.
type Update struct {
	Config  uint64 // generation of the configuration that health has applied
	All     bool   // Servers are all there are
	Servers []Server
}

// Follow calls fn with all verdicts, and then with those that are new, until
// ctx ends. It returns ctx's error.
func Follow(ctx context.Context, c *ipc.Client, fn func(Update)) error {
	have := ""
	return ipc.WatchBrief(ctx, c, func(_ uint64, n status.HealthNews) {
		wait := 20 * time.Millisecond
		for ctx.Err() == nil {
			u, token, err := fetch(ctx, c, n, have)
			if err == nil {
				have = token
				fn(u)
				return
			}
			// health went away between its word and our question.
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			wait = min(2*wait, time.Second)
		}
	})
}

// Read is all verdicts as they are now.
func Read(ctx context.Context, c *ipc.Client) (Update, error) {
	u, _, err := fetch(ctx, c, status.HealthNews{}, "")
	return u, err
}

func fetch(ctx context.Context, c *ipc.Client, n status.HealthNews, have string) (Update, string, error) {
	if n.Verdicts == have && have != "" {
		return Update{Config: n.Config}, have, nil // the same verdicts
	}
	b, err := c.Get(ctx, "/state?"+url.Values{"have": {have}}.Encode())
	if err != nil {
		return Update{}, "", err
	}
	return decode(b, have)
}

// decode reads an answer.
func decode(b []byte, have string) (Update, string, error) {
	line, packed, _ := bytes.Cut(b, []byte{'\n'})
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Update{}, "", fmt.Errorf("verdicts: %w", err)
	}
	if a.Token == "" || a.Base != "" && a.Base != have {
		return Update{}, "", fmt.Errorf("verdicts: a patch on %q, which is not here", a.Base)
	}
	servers, err := unpack(packed, a.Count)
	if err != nil {
		return Update{}, "", fmt.Errorf("verdicts: %w", err)
	}
	return Update{Config: a.Config, All: a.Base == "", Servers: servers}, a.Token, nil
}
