package verdicts

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"
	"reflect"
	"testing"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

func server(name string, alive ...bool) status.VirtualServerHealth {
	v := status.VirtualServerHealth{Name: name, QuorumUp: true}
	for i, a := range alive {
		v.Real = append(v.Real, status.RealServerHealth{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Port: 80, Alive: a, Weight: -1,
			Checks: []status.CheckHealth{{Known: true, Up: a, Last: time.Now()}}})
	}
	return v
}

func state(gen uint64, v ...status.VirtualServerHealth) *status.Health {
	return &status.Health{Applied: status.Applied{Config: gen}, Servers: v}
}

// TestSettled: one check that has spoken is enough for a real server that
// lives, and only one that failed for one that is down.
func TestSettled(t *testing.T) {
	for _, x := range []struct {
		alive  bool
		checks []status.CheckHealth
		want   bool
	}{
		{true, nil, true},
		{true, []status.CheckHealth{{Up: true}}, false},
		{true, []status.CheckHealth{{Up: true, Known: true}, {Up: true}}, true},
		{false, []status.CheckHealth{{Up: true, Known: true}, {}}, false},
		{false, []status.CheckHealth{{Known: true}, {Up: true}}, true},
	} {
		if got := settled(&status.RealServerHealth{Alive: x.alive, Checks: x.checks}); got != x.want {
			t.Errorf("alive %v, checks %+v: settled %v", x.alive, x.checks, got)
		}
	}
}

// TestBook asks with each token that was ever given for what is new to it.
func TestBook(t *testing.T) {
	b := NewBook()
	ask := func(p *Published, have string) (names []string, all bool) {
		t.Helper()
		raw, err := p.Patch(ipc.Peer{}, url.Values{"have": {have}})
		if err != nil {
			t.Fatal(err)
		}
		u, token, err := decode(raw, have)
		if err != nil || token != p.token() {
			t.Fatalf("%v, token %q, want %q", err, token, p.token())
		}
		for _, s := range u.Servers {
			names = append(names, s.Name)
		}
		return names, u.All
	}
	first := b.Enter(state(1, server("a", true), server("b", true, true), server("c", true)))
	later := server("b", true, true)
	later.Real[0].Checks[0].Detail = "more of the same"
	if again := b.Enter(state(2, server("a", true), later, server("c", true))); again.token() != first.token() {
		t.Error("detail makes other verdicts")
	}
	second := b.Enter(state(2, server("a", true), server("b", true, false), server("c", true)))
	third := b.Enter(state(3, server("c", true), server("a", true), server("d", true), server("b", true, false)))
	fourth := b.Enter(state(4, server("c", false), server("d", true), server("b", true, false)))
	quorum := server("d", true)
	quorum.QuorumUp = false
	fifth := b.Enter(state(4, server("c", false), quorum, server("b", true, false)))
	for i, x := range []struct {
		p    *Published
		have string
		want []string
		all  bool
	}{
		{first, "", []string{"a", "b", "c"}, true},
		{first, first.token(), nil, false},
		{second, first.token(), []string{"b"}, false},
		{third, first.token(), []string{"d", "b"}, false},
		{third, second.token(), []string{"d"}, false},
		{fourth, third.token(), []string{"c", "d", "b"}, true}, // one is gone
		{fifth, fourth.token(), []string{"d"}, false},
		{fifth, third.token(), []string{"c", "d", "b"}, true},
		{second, third.token(), []string{"a", "b", "c"}, true}, // of the future
		{first, NewBook().Enter(state(1)).token(), []string{"a", "b", "c"}, true},
		{first, "nonsense", []string{"a", "b", "c"}, true},
	} {
		if names, all := ask(x.p, x.have); !reflect.DeepEqual(names, x.want) || all != x.all {
			t.Errorf("%d: %v, all %v; want %v, %v", i, names, all, x.want, x.all)
		}
	}
}

// TestFollow is the way through a socket, over a health that starts anew.
func TestFollow(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	env, err := ipc.NewEnv(dir, "health", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	srv := ipc.NewServer("health")
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, env.Listener) }()
	b := NewBook()
	srv.Publish(b.Enter(state(1, server("a", true), server("b", true))))
	news := make(chan Update)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		Follow(ctx, dir.Client("health"), func(u Update) {
			select {
			case news <- u:
			case <-ctx.Done():
			}
		})
	}()
	want := func(gen uint64, all bool, names ...string) {
		t.Helper()
		select {
		case u := <-news:
			var got []string
			for _, s := range u.Servers {
				got = append(got, s.Name)
			}
			if u.Config != gen || u.All != all || !reflect.DeepEqual(got, names) {
				t.Errorf("%d %v %v, want %d %v %v", u.Config, u.All, got, gen, all, names)
			}
		case <-ctx.Done():
			t.Fatal("no news")
		}
	}
	want(1, true, "a", "b")
	srv.Publish(b.Enter(state(1, server("a", true), server("b", false))))
	want(1, false, "b")
	srv.Publish(b.Enter(state(2, server("a", true), server("b", false))))
	want(2, false)
	srv.Publish(NewBook().Enter(state(2, server("a", true), server("b", false))))
	want(2, true, "a", "b")
	cancel()
	<-followed
	<-served
}

func FuzzDecode(f *testing.F) {
	b := NewBook()
	p := b.Enter(state(1, server("a", true, false)))
	raw, _ := p.Patch(ipc.Peer{}, url.Values{})
	f.Add(raw, "")
	raw, _ = p.Patch(ipc.Peer{}, url.Values{"have": {p.token()}})
	f.Add(raw, p.token())
	f.Fuzz(func(t *testing.T, b []byte, have string) {
		if u, token, err := decode(b, have); err == nil && (token == "" || !u.All && have == "") {
			t.Errorf("accepted %q", b)
		}
	})
}

// TestPack: every field arrives, and nothing that is cut short is taken.
func TestPack(t *testing.T) {
	v := status.VirtualServerHealth{Name: "[10.0.0.2]:tcp:80", QuorumUp: true, Real: []status.RealServerHealth{
		{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80, Alive: true, Weight: -1},
		{Addr: netip.MustParseAddr("::ffff:10.0.0.2"), Port: 65535, Weight: 0},
		{Addr: netip.MustParseAddr("2001:db8::1"), Weight: 1<<31 - 1, Checks: []status.CheckHealth{{}}},
		{Addr: netip.MustParseAddr("fe80::1%eth0"), Port: 1, Alive: true, Weight: 7},
	}}
	want := []Server{{Name: v.Name, QuorumUp: true, Real: []Real{
		{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80, Alive: true, Settled: true, Weight: -1},
		{Addr: netip.MustParseAddr("10.0.0.2"), Port: 65535, Settled: true},
		{Addr: netip.MustParseAddr("2001:db8::1"), Weight: 1<<31 - 1},
		{Addr: netip.MustParseAddr("fe80::1%eth0"), Port: 1, Alive: true, Settled: true, Weight: 7},
	}}, {Name: "empty"}}
	one := pack(nil, &v)
	b := pack(one, &status.VirtualServerHealth{Name: "empty"})
	got, err := unpack(b, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got[1].Real = nil; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for n := range b {
		if _, err := unpack(b[:n], 2); err == nil {
			t.Errorf("%d bytes of %d are taken", n, len(b))
		}
	}
	if _, err := unpack(b, 1); err == nil {
		t.Error("more than was said is taken")
	}
}
