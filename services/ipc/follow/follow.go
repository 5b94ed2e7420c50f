// Package follow is how a service keeps up with the configuration. conf does
// not send megabytes again because one weight changed: a reader says which
// configuration it holds and gets what is different, and each of its virtual
// servers that did not change stays the very same value in memory.
//
// A configuration has a token, which names it as long as conf runs. conf
// announces tokens in the summary of its state; a reader then asks for
// "GET /state?have=TOKEN&need=PART" and gets a patch (patch.go) on what it has,
// or the whole where conf no longer knows that. At a commit conf asks with the
// verb prepare, which names the token of the candidate; what a service then
// fetched to judge it is what it applies when the token is announced.
package follow

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Need is the part of a configuration that a service has use for. The rest is
// neither sent to it nor decoded by it.
type Need string

// Needs.
const (
	Whole Need = "whole"
	Bare  Need = "bare" // real servers without their checks
	Slim  Need = "slim" // virtual servers without their real servers
	Head  Need = "head" // no virtual servers; Update.Servers counts them
)

// of is v as somebody with this need sees it.
func (n Need) of(v model.VirtualServer) model.VirtualServer {
	switch n {
	case Slim:
		v.Real = nil
	case Bare:
		v.Real = slices.Clone(v.Real)
		for i := range v.Real {
			v.Real[i].Checks = nil
		}
	}
	return v
}

func (n Need) valid() bool { return n == Whole || n == Bare || n == Slim || n == Head }

// Update is a configuration and how it differs from the one before. It is
// shared with what comes later: nobody may change anything in it.
type Update struct {
	Conf status.Conf
	// All is set when there is nothing to compare with: the first one.
	All bool
	// Changed and Removed name virtual servers, in the order of the file. Those
	// that are new count as changed.
	Changed, Removed []string
	// Rest is set when anything else differs, the order of the virtual servers
	// included.
	Rest bool
	// Servers is how many virtual servers there are, whatever the Need.
	Servers int
	// List are the virtual servers, in the order of the file: one that did not
	// change is the very same value as before.
	List []*model.VirtualServer
}

// Conf calls fn with the configuration of conf, now and after each change,
// until ctx ends. fn always gets the newest, compared with the one that it got
// before. It is not called before conf has a configuration. It returns ctx's
// error.
func Conf(ctx context.Context, client *ipc.Client, fn func(Update)) error {
	return New(client, Whole).Run(ctx, fn)
}

// Follower keeps the configuration for one service.
type Follower struct {
	client *ipc.Client
	need   Need
	lean   bool

	mu       sync.Mutex
	now      *held // what fn got last; nil: nothing yet
	prepared *held // what prepare fetched and nobody has announced yet
	expire   *time.Timer

	senseless bool // the last answer of conf could not be decoded
}

// held is a configuration that a reader has.
type held struct {
	token   string
	conf    status.Conf // without virtual servers
	list    []*model.VirtualServer
	values  []model.VirtualServer // the same, for a follower that is not lean
	servers int

	base  string // token of what delta compares with
	delta *delta
}

// New returns a follower. client is one of conf.
func New(client *ipc.Client, need Need) *Follower { return &Follower{client: client, need: need} }

// Lean makes the follower tell virtual servers as Update.List only, and leave
// the list of the configuration empty: ten thousand are megabytes to copy, of
// which mostly one is new.
func (f *Follower) Lean() *Follower {
	f.lean = true
	return f
}

// Run is Conf for this follower.
func (f *Follower) Run(ctx context.Context, fn func(Update)) error {
	return ipc.WatchSummary(ctx, f.client, func(_ uint64, raw json.RawMessage) {
		var news status.ConfNews
		if json.Unmarshal(raw, &news) != nil || news.Generation == 0 {
			return // conf has none yet, which is not an empty one
		}
		wait := 20 * time.Millisecond
		for ctx.Err() == nil {
			next, err := f.next(ctx, news, raw)
			if err == nil {
				fn(f.take(next))
				return
			}
			if news.Token == "" {
				return // what came will not become better
			}
			// conf went away between its word and our question, or moved on.
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			wait = min(2*wait, time.Second)
		}
	})
}

// next is the configuration that was announced, or a newer one.
func (f *Follower) next(ctx context.Context, news status.ConfNews, raw []byte) (*held, error) {
	f.mu.Lock()
	now, prepared := f.now, f.prepared
	f.mu.Unlock()
	switch {
	case news.Token == "": // somebody who publishes a status.Conf as it is
		h, err := f.made(decodeConf(raw, f.need))
		f.decoded(err)
		return h, err
	case prepared != nil && prepared.token == news.Token:
		h := *prepared
		h.conf = news.Conf(h.conf.Config)
		return &h, nil // nothing is decoded again
	}
	return f.fetch(ctx, now, "")
}

// take makes next what the follower has and says how it differs.
func (f *Follower) take(next *held) Update {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.compare(f.now, next)
	f.now = next
	f.drop()
	return u
}

// drop forgets what was prepared. Called with mu held.
func (f *Follower) drop() {
	if f.expire != nil {
		f.expire.Stop()
	}
	f.prepared, f.expire = nil, nil
}

// fetch asks conf for a patch on what base has; base may be nil. want is the
// token to go to, empty: the running one.
func (f *Follower) fetch(ctx context.Context, base *held, want string) (*held, error) {
	q := url.Values{"have": {""}, "need": {string(f.need)}, "form": {form()}}
	if base != nil {
		q.Set("have", base.token)
	}
	if want != "" {
		q.Set("want", want)
	}
	b, err := f.client.Get(ctx, "/state?"+q.Encode())
	if err != nil {
		return nil, err
	}
	h, err := f.made(patched(base, b, f.need))
	if err != nil && base != nil {
		f.decoded(fmt.Errorf("%w; asking for the whole", err))
		return f.fetch(ctx, nil, want) // it does not depend on what is here
	}
	f.decoded(err)
	return h, err
}

// decoded logs that an answer of conf makes no sense, once until one does.
func (f *Follower) decoded(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && !f.senseless {
		slog.Error(err.Error())
	}
	f.senseless = err != nil
}

// made adds what a follower that is not lean wants.
func (f *Follower) made(h *held, err error) (*held, error) {
	if err == nil && !f.lean {
		h.values = copies(h.list)
	}
	return h, err
}

// keep is how long a configuration that was prepared and then refused by
// another service stays in memory.
const keep = time.Minute

// Prepare makes the verb "prepare" out of check, which says whether the service
// could apply a configuration. It gets it compared with the one that runs. The
// verb also takes a whole status.Prepare.
func (f *Follower) Prepare(check func(ctx context.Context, u Update) error) ipc.VerbFunc {
	return func(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var arg struct {
			Generation uint64 `json:"generation"`
			Token      string `json:"token"`
		}
		if err := json.Unmarshal(body, &arg); err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		f.mu.Lock()
		now := f.now
		f.mu.Unlock()
		var h *held
		var err error
		if arg.Token != "" {
			h, err = f.fetch(ctx, now, arg.Token)
		} else {
			h, err = f.made(decodeConf(body, f.need))
		}
		if err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		h.conf.Generation = arg.Generation
		if err := check(ctx, f.compare(now, h)); err != nil {
			return nil, err
		}
		if arg.Token != "" {
			f.mu.Lock()
			f.drop()
			f.prepared = h
			f.expire = time.AfterFunc(keep, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.prepared == h {
					f.drop()
				}
			})
			f.mu.Unlock()
		}
		return struct{}{}, nil
	}
}

// compare says what is new in next.
func (f *Follower) compare(now, next *held) Update {
	u := Update{Conf: next.conf, Servers: next.servers, List: next.list}
	u.Conf.Config.VirtualServers = next.values
	if now == nil {
		u.All, u.Rest = true, true
		u.Changed = make([]string, 0, len(next.list))
		for _, v := range next.list {
			u.Changed = append(u.Changed, v.Name)
		}
		return u
	}
	d := next.delta
	if d == nil || next.base != now.token {
		d = difference(copies(now.list), copies(next.list))
	}
	u.Changed, u.Removed = d.changed, d.removed
	u.Rest = d.moved || now.servers != next.servers && len(next.list) == 0 || !sameRest(&now.conf.Config, &next.conf.Config)
	return u
}

// copies are virtual servers one after the other in memory.
func copies(list []*model.VirtualServer) []model.VirtualServer {
	if len(list) == 0 {
		return nil
	}
	out := make([]model.VirtualServer, len(list))
	for i, v := range list {
		out[i] = *v
	}
	return out
}

// decodeConf decodes a status.Conf or status.Prepare in JSON.
func decodeConf(raw []byte, need Need) (*held, error) {
	h := &held{}
	var err error
	switch need {
	case Head:
		var c struct {
			status.Conf
			Config struct {
				model.Config
				VirtualServers count
			} `json:"config"`
		}
		err = json.Unmarshal(raw, &c)
		h.conf, h.servers = c.Conf, int(c.Config.VirtualServers)
		h.conf.Config = c.Config.Config
	case Slim:
		var c struct {
			status.Conf
			Config json.RawMessage `json:"config"` // hides Conf's own
		}
		if err = json.Unmarshal(raw, &c); err == nil {
			var s status.Slim
			err = json.Unmarshal(raw, &s)
			h.conf = c.Conf
			h.conf.Config = s.Conf().Config
		}
		h.servers = len(h.conf.Config.VirtualServers)
	default:
		err = json.Unmarshal(raw, &h.conf)
		for i, v := range h.conf.Config.VirtualServers {
			h.conf.Config.VirtualServers[i] = need.of(v)
		}
		h.servers = len(h.conf.Config.VirtualServers)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	list := h.conf.Config.VirtualServers
	h.conf.Config.VirtualServers = nil
	for i := range list {
		h.list = append(h.list, &list[i])
	}
	return h, nil
}

// count counts the elements of a list without decoding them.
type count int

// UnmarshalJSON implements json.Unmarshaler.
func (n *count) UnmarshalJSON(b []byte) error {
	var l []struct{}
	err := json.Unmarshal(b, &l)
	*n = count(len(l))
	return err
}
