// Package scenario holds the tests of the whole: two directors booted from the
// image, a client and real servers around them, and what their users do to
// them. One pair serves all tests, which commit their configurations to it over
// SSH; with -short all of them skip.
package scenario

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ballast/test/lab"
	"ballast/test/stall"
)

// The directors by index.
const (
	a = 0
	b = 1
)

var (
	imageDir = flag.String("image", filepath.Join("..", "..", lab.DefaultImage), "folder with the image to test")
	pairOnce sync.Once
	thePair  *lab.Lab
	pairErr  error
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if thePair != nil {
		thePair.Close()
	}
	os.Exit(code)
}

// scenario is one test on the pair.
type scenario struct {
	*testing.T
	*lab.Lab
	ctx   context.Context
	began time.Time
}

// begin brings the pair into a known state with a configuration: both boxes on,
// cables in, every real server up, director-a master of the VRIDs.
func begin(t *testing.T, o lab.Options, vrids ...uint8) scenario {
	t.Helper()
	if testing.Short() {
		t.Skip("a pair of virtual machines takes too long for -short")
	}
	if o.Name == "" {
		o.Name = t.Name()
	}
	first := false
	pairOnce.Do(func() {
		first = true
		o := o
		o.Image = *imageDir
		start := time.Now()
		// The pair outlives this test, and may have to wait for its turn.
		if thePair, pairErr = lab.Start(context.Background(), o); pairErr != nil {
			thePair = nil
		}
		t.Logf("the pair is up after %v", time.Since(start).Round(100*time.Millisecond))
	})
	if pairErr != nil {
		t.Fatal(pairErr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	s := scenario{t, thePair, ctx, time.Now()}
	t.Cleanup(func() {
		if t.Failed() {
			s.tell()
		}
	})
	for _, d := range s.Directors {
		if !d.Running() {
			s.must(d.Boot(ctx))
		}
		s.must(d.Unplug(ctx, false))
	}
	for _, d := range s.Directors {
		s.must(d.WaitConsole(ctx))
		d.Console(ctx, "resume", nil) // a box that has not resigned may refuse
	}
	if !first {
		s.must(s.Apply(ctx, o))
	}
	for _, v := range vrids {
		s.waitMaster(v, a)
	}
	return s
}

func (s scenario) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// tell logs what a failed test leaves its reader to wonder about.
func (s scenario) tell() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, e := range s.since(s.began) {
		s.Log(e.At.Format("15:04:05.000 "), e)
	}
	for _, d := range s.Directors {
		if !d.Running() {
			s.Logf("%s has no power", d.Name())
			continue
		}
		out, err := d.Console(ctx, "show log 60", nil)
		s.Logf("%s: log: %v\n%s", d.Name(), err, out)
	}
}

func (s scenario) waitMaster(vrid uint8, d int) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.must(s.Roles.WaitMaster(ctx, vrid, d))
}

// in is the scenario in a subtest.
func (s scenario) in(t *testing.T) scenario {
	s.T = t
	return s
}

// patience is how long what is waited for may take on a busy machine: a box that
// boots and hears of the connections, a commit that goes back after a minute.
const patience = 4 * time.Minute

// until polls what nothing announces.
func (s scenario) until(what string, ok func() (bool, string)) {
	s.Helper()
	end := time.Now().Add(patience)
	last := ""
	for {
		done, now := ok()
		if done {
			return
		}
		last = now
		if time.Now().After(end) {
			s.Fatalf("not within %v: %s; last: %s", patience, what, last)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-s.ctx.Done():
			s.Fatalf("%s: %v; last: %s", what, s.ctx.Err(), last)
		}
	}
}

// answers waits until the client gets an answer from a real server that want
// accepts.
func (s scenario) answers(target string, want func(server string) bool) {
	s.Helper()
	s.until(target+" answers as it should", func() (bool, string) {
		g, err := s.Node.Get(s.ctx, target, "/", 2*time.Second)
		if err != nil {
			return false, err.Error()
		}
		return want(g.Server), fmt.Sprintf("%+v", g)
	})
}

// pings waits until an address answers a ping: a box advertises a moment before
// it has the address, and the client may still know the MAC of the other one.
func (s scenario) pings(addr string) {
	s.Helper()
	s.until(addr+" answers a ping", func() (bool, string) {
		err := s.Node.Ping(s.ctx, addr)
		return err == nil, fmt.Sprint(err)
	})
}

// stalled is how long a processor of this machine may stand still while something
// is measured against the clock: the boxes advertise every 200 ms.
const stalled = 100 * time.Millisecond

// measured does what a machine that stands still spoils, and does it again when it
// shows faults while one did. ready comes before, and is not measured.
func (s scenario) measured(ready func(), do func() (faults []string)) {
	s.Helper()
	w := stall.Watch(s.T)
	for try := 1; ; try++ {
		ready()
		begin := time.Now()
		faults := do()
		if len(faults) == 0 {
			return
		}
		stood := w.Longest(begin)
		if stood <= stalled || try == tries {
			s.Errorf("run %d (no processor stood still for longer than %v): %s", try, stood, strings.Join(faults, "; "))
			return
		}
		s.Logf("run %d is not judged, a processor stood still for %v: %s", try, stood, strings.Join(faults, "; "))
	}
}

// tries is how many runs measured makes before it believes what it sees.
const tries = 5

// since are the changes of masters after a moment.
func (s scenario) since(begin time.Time) (list []lab.RoleChange) {
	for _, e := range s.Roles.Events() {
		if e.At.After(begin) {
			list = append(list, e)
		}
	}
	return list
}

func anybody(string) bool { return true }

func only(names ...string) func(string) bool {
	return func(s string) bool {
		for _, n := range names {
			if n == s {
				return true
			}
		}
		return false
	}
}

// readCase returns one of the users' own files.
func readCase(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "configs", "testdata", "cases", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// vrrp writes an instance of the tests' own configurations. An advertisement
// every 200 ms puts the master-down interval at 0.72 s.
func vrrp(name string, vrid int, itf string, vips ...string) string {
	return fmt.Sprintf(`vrrp_instance %s {
    state MASTER
    interface %s
    virtual_router_id %d
    priority 100
    advert_int 0.2
    virtual_ipaddress {
        %s
    }
}
`, name, itf, vrid, strings.Join(vips, "\n        "))
}

// service writes a virtual_server with an HTTP check a second.
func service(addr string, port int, kind string, real ...string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "virtual_server %s %d {\n    delay_loop 1\n    lb_algo rr\n    lb_kind %s\n    protocol TCP\n", addr, port, kind)
	for _, r := range real {
		fmt.Fprintf(&w, `    real_server %s %d {
        HTTP_GET {
            url {
                path /health
                status_code 200
            }
            connect_timeout 1
            retry 1
            delay_before_retry 1
        }
    }
`, r, port)
	}
	w.WriteString("}\n")
	return w.String()
}

const global = "global_defs {\n    vrrp_version 3\n%s}\n"

func config(globals string, blocks ...string) []byte {
	return []byte(fmt.Sprintf(global, globals) + strings.Join(blocks, ""))
}
