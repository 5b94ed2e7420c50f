package follow

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Book holds what conf has published lately, so that it can tell each reader
// what is new to it.
type Book struct {
	epoch string // no other run of conf makes the same tokens

	mu    sync.Mutex
	count uint64
	pages []*page // oldest first
}

// page is one configuration.
type page struct {
	token    string
	config   *model.Config
	draft    bool            // not published
	news     status.ConfNews // without problems
	problems []model.Problem

	mu     sync.Mutex
	bodies map[question]*body // of answers that were given: many ask the same
	base   string             // token of the page that delta compares with
	delta  *delta
}

// question is what a reader asks for.
type question struct {
	have string
	need Need
	form string
}

// body is what all get who ask the same, whatever secrets they may have.
type body struct {
	runs [][2]int
	b    []byte
}

// pages that are kept: what runs, what ran before it, and a candidate.
const kept = 3

// NewBook returns an empty book.
func NewBook() *Book { return &Book{epoch: rand.Text()[:10]} }

// Draft enters a configuration that services are going to be asked about, and
// returns its token and the configuration itself with all that it has in common
// with the one before shared.
func (b *Book) Draft(c model.Config) (token string, shared model.Config) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.enter(c)
	p.draft = true
	return p.token, *p.config
}

// Published is a configuration as it goes to ipc.Server.Publish.
type Published struct {
	book *Book
	page *page
	news status.ConfNews
	// others is the same for those who have no use for problems; nil: it is for
	// them itself.
	others *Published
}

// For implements ipc.Reserved: problems may quote what the text says, so they
// are for those who show them.
func (p *Published) For(peer ipc.Peer) any {
	if p.others == nil || concerned(peer.UID, uint32(os.Getuid())) {
		return p
	}
	return p.others
}

// Publish enters a configuration that runs from now on. token is the one of its
// draft; empty: it had none. The text is not part of what is published: every
// service may read that, and the text holds the secrets of them all.
func (b *Book) Publish(c status.Conf, token string) *Published {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.find(token)
	if p == nil || !p.draft {
		p = b.enter(c.Config)
	}
	p.draft = false
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bodies = nil // those who were asked about the draft have it now
	p.news = status.ConfNews{Token: p.token, Generation: c.Generation, Source: c.Source, Author: c.Author, Time: c.Time,
		Pending: c.Pending, Reverted: c.Reverted, Pair: c.Pair}
	published := &Published{book: b, page: p, news: p.news}
	if p.problems = c.Problems; len(c.Problems) > 0 {
		published.news.Problems = c.Problems
		published.others = &Published{book: b, page: p, news: p.news}
	}
	return published
}

func (b *Book) find(token string) *page {
	for _, p := range b.pages {
		if p.token == token {
			return p
		}
	}
	return nil
}

// enter adds a page. Called with mu held.
func (b *Book) enter(c model.Config) *page {
	var before *page
	for _, p := range b.pages {
		if !p.draft {
			before = p
		}
	}
	var d *delta
	base := ""
	if before != nil {
		base, d = before.token, share(before.config, &c)
	}
	b.count++
	p := &page{base: base, delta: d, token: b.epoch + "." + strconv.FormatUint(b.count, 10), config: &c}
	// A draft that was never published goes first.
	if i := len(b.pages) - 1; i >= 0 && b.pages[i].draft {
		b.pages = b.pages[:i]
	}
	b.pages = append(b.pages, p)
	if n := len(b.pages) - kept; n > 0 {
		b.pages = append([]*page{}, b.pages[n:]...)
	}
	return p
}

// share makes next use the values of old where they are the same, and says
// where that is so.
func share(old, next *model.Config) *delta {
	d := difference(old.VirtualServers, next.VirtualServers)
	for i, j := range d.from {
		if j < 0 {
			continue
		}
		// Nothing is written where that changes nothing: the list may be one
		// that was published before.
		v, o := &next.VirtualServers[i], &old.VirtualServers[j]
		if unsafe.SliceData(v.Real) != unsafe.SliceData(o.Real) || unsafe.SliceData(v.Services) != unsafe.SliceData(o.Services) {
			*v = *o
		}
	}
	return d
}

// State is the whole, without secrets, for whoever asks for that.
func (p *Published) State() any { return p.news.Conf(redact(*p.page.config, noSecrets)) }

// Summary announces the configuration.
func (p *Published) Summary() any { return p.news }

// Patch implements ipc.Patcher.
func (p *Published) Patch(peer ipc.Peer, q url.Values) ([]byte, error) {
	p.book.mu.Lock()
	want, base := p.page, p.book.find(q.Get("have"))
	if t := q.Get("want"); t != "" {
		want = p.book.find(t)
	}
	p.book.mu.Unlock()
	if want == nil {
		return nil, &ipc.Refused{Status: http.StatusGone, Text: "conf no longer has the configuration that it asked about"}
	}
	need := Need(q.Get("need"))
	if !need.valid() {
		return nil, &ipc.Refused{Status: http.StatusBadRequest, Text: "need is one of whole, bare, slim, head"}
	}
	ask := question{need: need}
	if q.Get("form") == form() {
		ask.form = form()
	}
	return want.patch(base, ask, peer.UID, uint32(os.Getuid()))
}

// patch is the answer to a user that has base; nil: nothing that is known. own
// is the user that conf runs as.
func (p *page) patch(base *page, ask question, uid, own uint32) ([]byte, error) {
	if base != nil {
		ask.have = base.token
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var packed []byte
	h := header{ConfNews: p.news, Base: ask.have, Need: ask.need, Form: ask.form, Servers: len(p.config.VirtualServers)}
	h.Token = p.token
	if concerned(uid, own) {
		h.Problems = p.problems
	}
	if base == nil || !sameRest(base.config, p.config) {
		rest := redact(*p.config, due(uid, own))
		rest.VirtualServers = nil
		var err error
		if ask.form != "" {
			packed = packRest(&rest)
			h.Packed = len(packed)
		} else if h.Rest, err = json.Marshal(&rest); err != nil {
			return nil, err
		}
	}
	body, err := p.body(base, ask)
	if err != nil {
		return nil, err
	}
	h.Runs = body.runs
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return slices.Concat(line, []byte{'\n'}, packed, body.b), nil
}

// body is what follows the header of an answer. Called with mu held.
func (p *page) body(base *page, ask question) (*body, error) {
	if b := p.bodies[ask]; b != nil {
		return b, nil
	}
	out := &body{}
	if ask.need == Head {
		return out, nil
	}
	d := p.delta
	if base == nil || p.base != base.token {
		var old []model.VirtualServer
		if base != nil {
			old = base.config.VirtualServers
		}
		d = difference(old, p.config.VirtualServers)
		if base != nil {
			p.base, p.delta = base.token, d
		}
	}
	var fresh []int // in the list
	out.runs, fresh = d.runs()
	for n, i := range fresh {
		v := &p.config.VirtualServers[i]
		if ask.form != "" {
			if n == sample {
				out.b = slices.Grow(out.b, len(out.b)/sample*(len(fresh)-n)*9/8)
			}
			out.b = ask.need.pack(out.b, v)
			continue
		}
		seen := ask.need.of(*v)
		b, err := json.Marshal(&seen)
		if err != nil {
			return nil, err
		}
		out.b = append(out.b, b...)
	}
	if base != nil { // the whole is megabytes, and seldom asked for twice
		if p.bodies == nil {
			p.bodies = map[question]*body{}
		}
		p.bodies[ask] = out
	}
	return out, nil
}

// sample is how many virtual servers tell what room the others need.
const sample = 32

// runs is the delta as a header tells it, and the places of those virtual
// servers that have to go along.
func (d *delta) runs() (runs [][2]int, fresh []int) {
	for i, j := range d.from {
		last := len(runs) - 1
		switch {
		case j < 0:
			fresh = append(fresh, i)
			if last >= 0 && runs[last][0] < 0 {
				runs[last][1]++
			} else {
				runs = append(runs, [2]int{-1, 1})
			}
		case last >= 0 && runs[last][0] >= 0 && runs[last][0]+runs[last][1] == int(j):
			runs[last][1]++
		default:
			runs = append(runs, [2]int{int(j), 1})
		}
	}
	return runs, fresh
}
