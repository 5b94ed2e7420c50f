package health

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/test/stall"
)

// TestRegexBesideOthers: while a hard regex goes through a long answer, other
// checks are on time; also where there is one processor only.
func TestRegexBesideOthers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	body := "HTTP/1.0 200 OK\r\n\r\n" + strings.Repeat("abcdefgh", 1<<17)
	hard := testCheck(model.HTTPGet, server(t, func(c net.Conn) {
		readRequest(c)
		c.Write([]byte(body))
	}))
	hard.URLs[0].Regex = "[a-q][^u-z]{20}x"
	quick := testCheck(model.TCPCheck, server(t, func(net.Conn) {}))
	quick.DelayLoop = 10 * time.Millisecond
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if errs := applyIn(l, configOf(hard, quick), time.Now()); errs != nil {
		t.Fatal(errs)
	}
	c, q := w.checks[keyOf(&hard)], w.checks[keyOf(&quick)]
	var began time.Time
	var thought, late time.Duration
	probes, last := 0, time.Time{}
	witness := stall.Watch(t)
	for end := time.Now().Add(2 * time.Minute); !c.m.known; {
		if err := l.turn(100 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if now.After(end) {
			t.Fatal("the probe did not end")
		}
		if c.edge.phase == working {
			if began.IsZero() {
				began, last = now, now
			}
			if q.last.After(last) {
				probes, late = probes+1, max(late, q.last.Sub(last))
				last = q.last
			}
			thought = now.Sub(began)
		}
	}
	if c.detail != "regex does not match the 1048576 bytes of the body" {
		t.Fatal(c.detail)
	}
	// One processor for two is half of it, and this machine has other work as well.
	thought -= min(thought, witness.Longest(began))
	t.Logf("%d probes in %s of thinking, the longest gap %s", probes, thought, late)
	if want := int(thought / (100 * time.Millisecond)); probes < want {
		t.Errorf("%d probes in %s, want %d at least", probes, thought, want)
	}
}

// TestSilentTLS: servers that take a connection and say nothing do not keep the
// check of another one from its turn.
func TestSilentTLS(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	silent := server(t, func(net.Conn) { <-hold })
	const n = 300
	var checks []model.Check
	for i := range n {
		c := testCheck(model.SSLGet, silent)
		c.ConnectTimeout, c.URLs = 10*time.Minute, []model.URL{{Path: fmt.Sprintf("/%d", i)}}
		checks = append(checks, c)
	}
	w := newWorld()
	l, err := newLoop(w, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	good := testCheck(model.SSLGet, serverTLS(t, tls.VersionTLS13, say("HTTP/1.0 200 OK\r\n\r\n")))
	good.DelayLoop, good.Warmup = 10*time.Millisecond, 0
	cfg := configOf(checks...)
	applyIn(l, cfg, time.Now())
	if err := l.turn(time.Second); err != nil { // all of them begin
		t.Fatal(err)
	}
	applyIn(l, configOf(append(checks, good)...), time.Now())
	c := w.checks[keyOf(&good)]
	for end := time.Now().Add(time.Minute); w.probes < 5; {
		if err := l.turn(100 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("%d probes of the server that is well in a minute", w.probes)
		}
	}
	wantVerdict(t, "the server that is well", c, true, "status 200")
}

// TestWorkersLanes: who was slow the last time has three quarters of the places
// at most, and a quarter at least.
func TestWorkersLanes(t *testing.T) {
	p := newWorkers(8)
	defer p.close()
	began := make(chan string, 100)
	hold := map[string]chan struct{}{"slow": make(chan struct{}), "fresh": make(chan struct{})}
	job := func(name string) func(context.Context) {
		return func(ctx context.Context) {
			began <- name
			select {
			case <-hold[name]:
			case <-ctx.Done():
			}
		}
	}
	want := func(name string, n int) {
		t.Helper()
		for range n {
			select {
			case got := <-began:
				if got != name {
					t.Fatalf("a %s one began, want %s", got, name)
				}
			case <-time.After(time.Minute):
				t.Fatalf("no %s one began", name)
			}
		}
	}
	for range 20 {
		p.do(true, job("slow"))
	}
	want("slow", 6)
	for range 20 {
		p.do(false, job("fresh"))
	}
	want("fresh", 2)
	for range 4 {
		hold["slow"] <- struct{}{}
		want("fresh", 1)
	}
	hold["slow"] <- struct{}{} // now there are fewer than a quarter
	want("slow", 1)
	hold["fresh"] <- struct{}{}
	want("fresh", 1)
	select {
	case name := <-began:
		t.Fatalf("one too many: %s", name)
	default:
	}
}
