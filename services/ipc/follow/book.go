package follow

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"sync"

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
}

type question struct {
	have string
	need Need
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
	if before != nil {
		share(before.config, &c)
	}
	b.count++
	p := &page{token: b.epoch + "." + strconv.FormatUint(b.count, 10), config: &c, patches: map[question][]byte{}}
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

// share makes next use the values of old where they are the same.
func share(old, next *model.Config) {
	for i, j := range difference(old.VirtualServers, next.VirtualServers).from {
		if j >= 0 {
			next.VirtualServers[i] = old.VirtualServers[j]
		}
	}
}

// State is the whole, for whoever asks for that.
func (p *Published) State() any { return p.page.news.Conf(*p.page.config) }

// Summary announces the configuration.
func (p *Published) Summary() any { return p.page.news }

// Patch implements ipc.Patcher.
func (p *Published) Patch(_ ipc.Peer, q url.Values) ([]byte, error) {
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
	if need != Whole && need != Slim && need != Head {
		return nil, &ipc.Refused{Status: http.StatusBadRequest, Text: "need is one of whole, slim, head"}
	}
	return want.patch(base, need)
}

// patch is the answer to a reader that has base; nil: nothing that is known.
func (p *page) patch(base *page, need Need) ([]byte, error) {
	ask := question{need: need}
	if base != nil {
		ask.have = base.token
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.patches[ask]; b != nil {
		return b, nil
	}
	h := header{ConfNews: p.news, Base: ask.have, Need: need, Servers: len(p.config.VirtualServers)}
	h.Token = p.token
	if base == nil || !sameRest(base.config, p.config) {
		rest := *p.config
		rest.VirtualServers = nil
		h.Rest = &rest
	}
	var fresh []*model.VirtualServer
	if need != Head {
		var old []model.VirtualServer
		if base != nil {
			old = base.config.VirtualServers
		}
		for i, j := range difference(old, p.config.VirtualServers).from {
			last := len(h.Runs) - 1
			switch {
			case j < 0:
				fresh = append(fresh, &p.config.VirtualServers[i])
				if last >= 0 && h.Runs[last][0] < 0 {
					h.Runs[last][1]++
				} else {
					h.Runs = append(h.Runs, [2]int{-1, 1})
				}
			case last >= 0 && h.Runs[last][0] >= 0 && h.Runs[last][0]+h.Runs[last][1] == int(j):
				h.Runs[last][1]++
			default:
				h.Runs = append(h.Runs, [2]int{int(j), 1})
			}
		}
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Write(append(line, '\n'))
	enc := json.NewEncoder(&out)
	for _, v := range fresh {
		w := *v
		if need == Slim {
			w.Real = nil
		}
		if err := enc.Encode(&w); err != nil {
			return nil, err
		}
	}
	if base != nil { // the whole is megabytes, and seldom asked for twice
		p.patches[ask] = out.Bytes()
	}
	return out.Bytes(), nil
}
