package follow

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
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
	token  string
	config *model.Config
	draft  bool // not published
	news   status.ConfNews

	mu      sync.Mutex
	patches map[question][]byte // answers that were given: many ask the same
	base    string              // token of the page that delta compares with
	delta   *delta
}

type question struct {
	have    string
	need    Need
	form    string
	secrets secrets
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
	p.patches = map[question][]byte{} // those of a draft do not say who committed it
	p.news = status.ConfNews{Token: p.token, Generation: c.Generation, Source: c.Source, Author: c.Author, Time: c.Time, Problems: c.Problems}
	return &Published{b, p}
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
	p := &page{base: base, delta: d, token: b.epoch + "." + strconv.FormatUint(b.count, 10), config: &c, patches: map[question][]byte{}}
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
func (p *Published) State() any { return p.page.news.Conf(redact(*p.page.config, noSecrets)) }

// Summary announces the configuration.
func (p *Published) Summary() any { return p.page.news }

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
	ask := question{need: need, secrets: due(peer.UID, uint32(os.Getuid()))}
	if q.Get("form") == form {
		ask.form = form
	}
	return want.patch(base, ask)
}

// patch is the answer to a reader that has base; nil: nothing that is known.
func (p *page) patch(base *page, ask question) ([]byte, error) {
	need := ask.need
	if base != nil {
		ask.have = base.token
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.patches[ask]; b != nil {
		return b, nil
	}
	h := header{ConfNews: p.news, Base: ask.have, Need: need, Form: ask.form, Servers: len(p.config.VirtualServers)}
	h.Token = p.token
	if base == nil || !sameRest(base.config, p.config) {
		rest := redact(*p.config, ask.secrets)
		rest.VirtualServers = nil
		h.Rest = &rest
	}
	var fresh []int // in the list
	if need != Head {
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
		h.Runs, fresh = d.runs()
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	out := append(line, '\n')
	for _, i := range fresh {
		v := need.of(p.config.VirtualServers[i])
		if h.Form != "" {
			out = packServer(out, &v)
			continue
		}
		b, err := json.Marshal(&v)
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	if base != nil { // the whole is megabytes, and seldom asked for twice
		p.patches[ask] = out
	}
	return out, nil
}

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
