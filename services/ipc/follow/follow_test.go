package follow_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/test/locked"
)

func server(i, weight int) model.VirtualServer {
	a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
	id := model.ServiceID{Addr: a, Port: 80, Protocol: model.TCP}
	return model.VirtualServer{Name: id.String(), Services: []model.ServiceID{id}, Scheduler: "rr", Quorum: 1,
		Real: []model.RealServer{{Addr: a.Next(), Port: 80, Weight: weight, Checks: []model.Check{{Kind: model.TCPCheck, Addr: a.Next(), Port: 80, ConnectTimeout: 3 * time.Second}}}}}
}

func config(n int) model.Config {
	c := model.Config{Instances: []model.Instance{{Name: "V", VRID: 7, AuthPass: []byte("pass")}}}
	for i := range n {
		c.VirtualServers = append(c.VirtualServers, server(i, 1))
	}
	return c
}

var needs = []follow.Need{follow.Whole, follow.Bare, follow.Slim, follow.Head}

// place is conf's socket, and whoever serves it.
type place struct {
	t    *testing.T
	dir  ipc.Dir
	srv  *ipc.Server
	book *follow.Book
	stop func()
	gen  uint64
}

func newPlace(t *testing.T) *place {
	dir, err := os.MkdirTemp("", "follow") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &place{t: t, dir: ipc.Dir(dir)}
	p.start()
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *place) start() {
	env, err := ipc.NewEnv(p.dir, "conf", slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	p.srv, p.book = ipc.NewServer("conf"), follow.NewBook()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.srv.Serve(ctx, env.Listener) }()
	p.stop = func() { cancel(); <-done }
}

func (p *place) publish(c model.Config, token string) {
	p.gen++
	p.srv.Publish(p.book.Publish(status.Conf{Generation: p.gen, Config: c, Source: "commit", Author: "me", Text: "auth_pass pass"}, token))
}

// reader is a service that follows.
type reader struct {
	t       *testing.T
	f       *follow.Follower
	updates chan follow.Update
}

func (p *place) read(need follow.Need) *reader {
	return p.with(follow.New(p.dir.Client("conf"), need))
}

func (p *place) with(f *follow.Follower) *reader {
	r := &reader{p.t, f, make(chan follow.Update, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.f.Run(ctx, func(u follow.Update) { r.updates <- u }) }()
	p.t.Cleanup(func() { cancel(); <-done })
	return r
}

func (r *reader) next() follow.Update {
	r.t.Helper()
	select {
	case u := <-r.updates:
		return u
	case <-time.After(time.Minute):
		r.t.Fatal("no update")
		panic("unreachable")
	}
}

// seen is what the part of a configuration that need names looks like.
func seen(c model.Config, need follow.Need) model.Config {
	switch need {
	case follow.Head:
		c.VirtualServers = nil
	case follow.Bare:
		c.VirtualServers = slices.Clone(c.VirtualServers)
		for i := range c.VirtualServers {
			c.VirtualServers[i].Real = slices.Clone(c.VirtualServers[i].Real)
			for j := range c.VirtualServers[i].Real {
				c.VirtualServers[i].Real[j].Checks = nil
			}
		}
	case follow.Slim:
		c.VirtualServers = slices.Clone(c.VirtualServers)
		for i := range c.VirtualServers {
			c.VirtualServers[i].Real = nil
		}
	}
	if len(c.VirtualServers) == 0 {
		c.VirtualServers = nil
	}
	return c
}

func TestFirstAndChangedWeight(t *testing.T) {
	for _, need := range needs {
		p := newPlace(t)
		r := p.read(need)
		c := config(20)
		p.publish(c, "")
		u := r.next()
		if !u.All || !u.Rest || u.Servers != 20 || u.Conf.Generation != p.gen || u.Conf.Author != "me" || u.Conf.Text != "" || !reflect.DeepEqual(u.Conf.Config, seen(c, need)) {
			t.Errorf("%s: first update: all %v, rest %v, servers %d, generation %d", need, u.All, u.Rest, u.Servers, u.Conf.Generation)
		}
		next := config(20)
		next.VirtualServers[7] = server(7, 9)
		p.publish(next, "")
		v := r.next()
		if v.All || v.Rest || len(v.Removed) > 0 || !reflect.DeepEqual(v.Conf.Config, seen(next, need)) {
			t.Errorf("%s: second update: all %v, rest %v, removed %v", need, v.All, v.Rest, v.Removed)
		}
		if want := need == follow.Whole || need == follow.Bare; want != slices.Equal(v.Changed, []string{next.VirtualServers[7].Name}) || !want && len(v.Changed) > 0 {
			t.Errorf("%s: changed %v", need, v.Changed)
		}
		if need == follow.Whole && &u.Conf.Config.VirtualServers[8].Real[0] != &v.Conf.Config.VirtualServers[8].Real[0] {
			t.Error("a virtual server that did not change was made anew")
		}
		if need == follow.Whole && u.Conf.Config.VirtualServers[7].Real[0].Weight != 1 {
			t.Error("the configuration before was changed")
		}
	}
}

// TestRandomEdits: whatever happens to a configuration, each reader ends up
// with exactly that, and is told of exactly what changed.
func TestRandomEdits(t *testing.T) {
	p := newPlace(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	readers := map[follow.Need]*reader{}
	for _, need := range needs {
		readers[need] = p.read(need)
	}
	c := config(30)
	before := model.Config{}
	for step := range 200 {
		var token string
		if rnd.IntN(2) == 0 {
			token, c = p.book.Draft(c)
			if rnd.IntN(4) == 0 {
				token = "" // another service refused it
			}
		}
		p.publish(c, token)
		for need, r := range readers {
			u := r.next()
			if !reflect.DeepEqual(u.Conf.Config, seen(c, need)) || u.Conf.Generation != p.gen || u.Servers != len(c.VirtualServers) {
				t.Fatalf("step %d, %s: another configuration arrived", step, need)
			}
			if step == 0 {
				continue
			}
			changed, removed, moved := brute(seen(before, need), seen(c, need))
			rest := moved || len(before.Instances) != len(c.Instances) || need == follow.Head && len(before.VirtualServers) != len(c.VirtualServers)
			if u.All || !slices.Equal(u.Changed, changed) || !slices.Equal(u.Removed, removed) || u.Rest != rest {
				t.Fatalf("step %d, %s: changed %v, want %v; removed %v, want %v; rest %v, want %v", step, need, u.Changed, changed, u.Removed, removed, u.Rest, rest)
			}
		}
		before = c
		c.VirtualServers = slices.Clone(c.VirtualServers)
		l := &c.VirtualServers
		for range rnd.IntN(4) {
			switch n := len(*l); rnd.IntN(7) {
			case 0:
				if n > 0 {
					i := rnd.IntN(n)
					*l = slices.Delete(*l, i, i+1)
				}
			case 1:
				v := server(rnd.IntN(1000), 1)
				if !slices.ContainsFunc(*l, func(x model.VirtualServer) bool { return x.Name == v.Name }) {
					*l = slices.Insert(*l, rnd.IntN(n+1), v)
				}
			case 2:
				rnd.Shuffle(n, func(i, j int) { (*l)[i], (*l)[j] = (*l)[j], (*l)[i] })
			case 3:
				c.Instances = append(slices.Clone(c.Instances), model.Instance{Name: fmt.Sprint(step)})
			default:
				if n > 0 {
					i := rnd.IntN(n)
					v := (*l)[i]
					v.Real = slices.Clone(v.Real)
					v.Real[0].Weight = rnd.IntN(3)
					(*l)[i] = v
				}
			}
		}
	}
}

// brute compares two configurations the long way.
func brute(a, b model.Config) (changed, removed []string, moved bool) {
	find := func(l []model.VirtualServer, name string) int {
		return slices.IndexFunc(l, func(v model.VirtualServer) bool { return v.Name == name })
	}
	last := -1
	for _, v := range b.VirtualServers {
		i := find(a.VirtualServers, v.Name)
		if i < 0 || !reflect.DeepEqual(a.VirtualServers[i], v) {
			changed = append(changed, v.Name)
		}
		if i >= 0 {
			moved = moved || i < last
			last = i
		}
	}
	for _, v := range a.VirtualServers {
		if find(b.VirtualServers, v.Name) < 0 {
			removed = append(removed, v.Name)
		}
	}
	return changed, removed, moved
}

// TestPreparedIsApplied: what a service fetched to judge it is what it gets
// when the configuration is announced.
func TestPreparedIsApplied(t *testing.T) {
	p := newPlace(t)
	r := p.read(follow.Whole)
	p.publish(config(5), "")
	r.next()
	next := config(5)
	next.VirtualServers[3] = server(3, 9)
	token, shared := p.book.Draft(next)
	var asked follow.Update
	prepare := r.f.Prepare(func(_ context.Context, u follow.Update) error { asked = u; return nil })
	body := []byte(fmt.Sprintf(`{"generation":%d,"token":%q}`, p.gen+1, token))
	if _, err := prepare(t.Context(), ipc.Peer{}, body); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(asked.Changed, []string{next.VirtualServers[3].Name}) || asked.Conf.Generation != p.gen+1 {
		t.Errorf("prepare was asked with %+v", asked)
	}
	p.publish(shared, token)
	u := r.next()
	if &u.Conf.Config.VirtualServers[0] != &asked.Conf.Config.VirtualServers[0] {
		t.Error("the configuration was decoded again")
	}
	if u.Conf.Generation != p.gen || u.Conf.Author != "me" || !slices.Equal(u.Changed, asked.Changed) {
		t.Errorf("applied %+v", u)
	}

	refusal := errors.New("no")
	if _, err := r.f.Prepare(func(context.Context, follow.Update) error { return refusal })(t.Context(), ipc.Peer{}, body); !errors.Is(err, refusal) {
		t.Errorf("refused with %v", err)
	}
	if _, err := prepare(t.Context(), ipc.Peer{}, []byte(`{"generation":9,"token":"x.1"}`)); err == nil || !strings.Contains(err.Error(), "no longer has") {
		t.Errorf("a token that nobody knows: %v", err)
	}
}

// TestLean: a lean follower gets each virtual server that did not change as the
// very same value, wherever it stands now.
func TestLean(t *testing.T) {
	p := newPlace(t)
	r := p.with(follow.New(p.dir.Client("conf"), follow.Whole).Lean())
	c := config(20)
	p.publish(c, "")
	first := r.next()
	next := config(20)
	next.VirtualServers[7] = server(7, 9)
	next.VirtualServers[2], next.VirtualServers[3] = next.VirtualServers[3], next.VirtualServers[2]
	p.publish(next, "")
	second := r.next()
	if !first.All || !slices.Equal(second.Changed, []string{next.VirtualServers[7].Name}) || !second.Rest {
		t.Errorf("all %v, changed %v, rest %v", first.All, second.Changed, second.Rest)
	}
	for _, u := range []struct {
		follow.Update
		want model.Config
	}{{first, c}, {second, next}} {
		if len(u.Conf.Config.VirtualServers) != 0 || len(u.List) != len(u.want.VirtualServers) {
			t.Fatalf("%d virtual servers copied, %d listed", len(u.Conf.Config.VirtualServers), len(u.List))
		}
		for i, v := range u.List {
			if !reflect.DeepEqual(*v, u.want.VirtualServers[i]) {
				t.Errorf("%d: %+v, want %+v", i, *v, u.want.VirtualServers[i])
			}
		}
	}
	for i, v := range second.List {
		was := first.List[i]
		switch i {
		case 2:
			was = first.List[3]
		case 3:
			was = first.List[2]
		}
		if same := v == was; same != (i != 7) {
			t.Errorf("%d: the same value: %v", i, same)
		}
	}
}

// TestConfRestarts: a conf that starts anew knows nothing of what readers have;
// they get the whole, and what is new in it all the same.
func TestConfRestarts(t *testing.T) {
	p := newPlace(t)
	r := p.read(follow.Whole)
	p.publish(config(5), "")
	r.next()
	p.stop()
	p.start()
	next := config(5)
	next.VirtualServers[2] = server(2, 4)
	p.publish(next, "")
	if u := r.next(); u.All || u.Rest || !slices.Equal(u.Changed, []string{next.VirtualServers[2].Name}) || !reflect.DeepEqual(u.Conf.Config, next) {
		t.Errorf("%+v", u)
	}
}

// senseless is a conf whose patches, or all of whose answers, cannot be decoded.
type senseless struct {
	*follow.Published
	always bool
	asked  chan struct{} // told of each question
}

func (s senseless) Patch(peer ipc.Peer, q url.Values) ([]byte, error) {
	s.asked <- struct{}{}
	if s.always || q.Get("have") != "" {
		return []byte("{}\nno patch"), nil
	}
	return s.Published.Patch(peer, q)
}

// TestSenselessPatch: a reader that cannot make sense of a patch says so once
// and asks for the whole, at a prepare as well.
func TestSenselessPatch(t *testing.T) {
	var said locked.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&said, nil)))
	t.Cleanup(func() { slog.SetDefault(was) })
	p := newPlace(t)
	r := p.read(follow.Whole)
	p.publish(config(5), "")
	r.next()
	asked := make(chan struct{}, 1000)
	publish := func(c model.Config, token string, always bool) {
		p.gen++
		p.srv.Publish(senseless{p.book.Publish(status.Conf{Generation: p.gen, Config: c}, token), always, asked})
	}
	next := config(5)
	next.VirtualServers[2] = server(2, 4)
	publish(next, "", false)
	if u := r.next(); u.All || !slices.Equal(u.Changed, []string{next.VirtualServers[2].Name}) || !reflect.DeepEqual(u.Conf.Config, next) {
		t.Errorf("%+v", u)
	}
	if n := strings.Count(said.String(), "asking for the whole"); n != 1 {
		t.Errorf("said %d times:\n%s", n, said.String())
	}
	token, _ := p.book.Draft(config(6))
	prepare := r.f.Prepare(func(_ context.Context, u follow.Update) error {
		if u.Servers != 6 || len(u.Changed) != 2 {
			t.Errorf("prepared %+v", u)
		}
		return nil
	})
	if _, err := prepare(t.Context(), ipc.Peer{}, []byte(`{"generation":9,"token":"`+token+`"}`)); err != nil {
		t.Error(err)
	}
	// Nothing makes sense: that is said once, and it is over when conf is mended.
	said.Reset()
	for len(asked) > 0 {
		<-asked
	}
	publish(config(7), "", true)
	for range 6 {
		<-asked
	}
	publish(config(8), "", false)
	if u := r.next(); u.Servers != 8 {
		t.Errorf("%d virtual servers", u.Servers)
	}
	if n := strings.Count(said.String(), "level=ERROR"); n != 1 {
		t.Errorf("said %d times:\n%s", n, said.String())
	}
}

// TestPlainState: a conf that publishes its state as it is can be followed too.
func TestPlainState(t *testing.T) {
	for _, need := range needs {
		p := newPlace(t)
		r := p.read(need)
		c := config(3)
		p.srv.Publish(status.Conf{Generation: 1, Config: c})
		if u := r.next(); !u.All || u.Servers != 3 || !reflect.DeepEqual(u.Conf.Config, seen(c, need)) {
			t.Errorf("%s: %+v", need, u)
		}
		body := []byte(`{"generation":2,"config":{"VirtualServers":[{"Name":"x","Real":[{"Weight":1}]}]}}`)
		var u follow.Update
		if _, err := r.f.Prepare(func(_ context.Context, got follow.Update) error { u = got; return nil })(t.Context(), ipc.Peer{}, body); err != nil {
			t.Fatal(err)
		}
		if u.Servers != 1 || u.Conf.Generation != 2 || need == follow.Slim && len(u.Conf.Config.VirtualServers[0].Real) > 0 || !u.Rest {
			t.Errorf("%s: prepared %+v", need, u)
		}
	}
}
