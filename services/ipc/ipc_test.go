package ipc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

type state struct{ N int }

// serve runs a server on a socket of its own and returns its folder.
func serve(t *testing.T, s *ipc.Server) ipc.Dir {
	t.Helper()
	dir := ipc.Dir(t.TempDir())
	env, err := ipc.NewEnv(dir, "svc", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, env.Listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return dir
}

func TestStateIsTheLatestPublished(t *testing.T) {
	s := ipc.NewServer("svc")
	dir := serve(t, s)
	for i := 1; i <= 3; i++ {
		s.Publish(state{i})
		var got state
		gen, err := dir.Client("svc").State(t.Context(), &got)
		if err != nil || got.N != i || gen != uint64(i) {
			t.Fatalf("after publish %d: state %+v generation %d, %v", i, got, gen, err)
		}
	}
}

// A slow reader must get the newest state, never a backlog, and must never
// hold up the publisher.
func TestWatchSkipsToTheNewest(t *testing.T) {
	s := ipc.NewServer("svc")
	dir := serve(t, s)
	s.Publish(state{0})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, release, last := make(chan struct{}), make(chan struct{}), make(chan int, 1000)
	go ipc.Watch(ctx, dir.Client("svc"), func(_ uint64, st state) {
		if st.N == 0 {
			close(first)
			<-release
			return
		}
		last <- st.N
	})
	<-first
	const n = 500
	for i := 1; i <= n; i++ {
		s.Publish(state{i})
	}
	close(release)
	seen := 0
	for v := range last {
		seen++
		if v == n {
			break
		}
	}
	if seen == n {
		t.Errorf("a reader that slept through %d states got each of them", n)
	}
}

// The watched process may die and come back on the same path.
func TestWatchOutlivesARestart(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	got := make(chan int, 16)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go ipc.Watch(ctx, dir.Client("svc"), func(_ uint64, st state) { got <- st.N })
	for i := 1; i <= 2; i++ {
		l, err := net.Listen("unix", dir.Path("svc"))
		if err != nil {
			t.Fatal(err)
		}
		s := ipc.NewServer("svc")
		s.Publish(state{i})
		sctx, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- s.Serve(sctx, l) }()
		select {
		case v := <-got:
			if v != i {
				t.Fatalf("run %d: state %d", i, v)
			}
		case <-time.After(time.Minute):
			t.Fatalf("run %d: no state", i)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func TestVerb(t *testing.T) {
	s := ipc.NewServer("svc")
	dir := serve(t, s)
	s.Handle("double", func(_ context.Context, p ipc.Peer, b json.RawMessage) (any, error) {
		if int(p.PID) != os.Getpid() || int(p.UID) != os.Getuid() {
			return nil, fmt.Errorf("peer is %+v", p)
		}
		var v state
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, err
		}
		return state{2 * v.N}, nil
	})
	s.Handle("refuse", func(context.Context, ipc.Peer, json.RawMessage) (any, error) {
		return nil, errors.New("eth7: no such interface")
	})
	c := dir.Client("svc")
	var out state
	if err := c.Call(t.Context(), "double", state{21}, &out); err != nil || out.N != 42 {
		t.Errorf("double: %+v %v", out, err)
	}
	var r *ipc.Refused
	if err := c.Call(t.Context(), "refuse", nil, nil); !errors.As(err, &r) || r.Status != 422 || err.Error() != "eth7: no such interface" {
		t.Errorf("refuse: %v", err)
	}
	if err := c.Call(t.Context(), "nosuch", nil, nil); !errors.As(err, &r) || r.Status != 404 || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("unknown verb: %v", err)
	}
}

// TestVerbIsRefusedToOthers runs the caller as another user: identity is the
// kernel's word, not the message's.
func TestVerbIsRefusedToOthers(t *testing.T) {
	if os.Getenv("IPC_CALL") != "" {
		err := ipc.Dir(os.Getenv("IPC_CALL")).Client("svc").Call(context.Background(), os.Getenv("IPC_VERB"), nil, nil)
		fmt.Printf("answer: %v\n", err)
		return
	}
	if os.Getuid() != 0 {
		t.Fatal("needs root: it calls as another user")
	}
	s := ipc.NewServer("svc")
	dir := serve(t, s)
	ok := func(context.Context, ipc.Peer, json.RawMessage) (any, error) { return nil, nil }
	s.Handle("root-only", ok)
	s.Handle("for-health", ok, ipc.UIDHealth)
	s.Handle("for-all", ok, ipc.AnyUID)
	for p := string(dir); p != "/" && p != "/tmp"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir.Path("svc"), 0o666); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := string(dir) + "/caller"
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		uid  uint32
		verb string
		want bool
	}{
		{ipc.UIDHealth, "for-health", true}, {ipc.UIDHealth, "root-only", false},
		{ipc.UIDScript, "for-health", false}, {ipc.UIDScript, "for-all", true},
	} {
		var out bytes.Buffer
		cmd := exec.Command(exe, "-test.run=^TestVerbIsRefusedToOthers$")
		cmd.Env = []string{"IPC_CALL=" + string(dir), "IPC_VERB=" + tt.verb}
		cmd.Stdout = &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: ipc.GroupBallast}}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "answer: <nil>"); got != tt.want {
			t.Errorf("uid %d %s: allowed %v, want %v; %s", tt.uid, tt.verb, got, tt.want, out.String())
		}
	}
}

func TestOnlyStateAndVerbs(t *testing.T) {
	s := ipc.NewServer("svc")
	dir := serve(t, s)
	h := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", dir.Path("svc"))
	}}}
	resp, err := h.Get("http://svc/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET /etc/passwd: %s", resp.Status)
	}
}

func TestLogLineIsOneLine(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(ipc.NewLogHandler(&b)).With("instance", "VI_1")
	log.Warn("two\nlines", "why", "a b", "n", 3)
	log.Debug("not shown")
	if got, want := b.String(), "<4>two | lines instance=VI_1 why=\"a b\" n=3\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type heavy struct {
	Part int
	Rest []byte
}

func (h heavy) Summary() any { return state{h.Part} }

// Who follows the summary hears nothing of changes elsewhere in the state.
func TestWatchSummary(t *testing.T) {
	s := ipc.NewServer("svc")
	dir := serve(t, s)
	s.Publish(heavy{1, make([]byte, 1<<20)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan int, 100)
	go ipc.WatchSummary(ctx, dir.Client("svc"), func(_ uint64, st state) { got <- st.N })
	if n := <-got; n != 1 {
		t.Fatalf("summary %d", n)
	}
	for i := range 50 {
		s.Publish(heavy{1, []byte{byte(i)}})
	}
	s.Publish(heavy{2, nil})
	if n := <-got; n != 2 {
		t.Errorf("after 50 changes elsewhere and one of the summary: %d", n)
	}
	var v state
	if err := dir.Client("svc").Summary(t.Context(), &v); err != nil || v.N != 2 {
		t.Errorf("%+v %v", v, err)
	}
}

type paper struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

func (p paper) Apart() (any, string) { t := p.Text; p.Text = ""; return p, t }
func (p *paper) SetText(t string)    { p.Text = t }

// TestTexter: a long text goes beside the JSON and comes out the same, whatever
// is in it; plain JSON is taken as well.
func TestTexter(t *testing.T) {
	dir := ipc.Dir(t.TempDir())
	env, err := ipc.NewEnv(dir, "press", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	srv := ipc.NewServer("press")
	srv.Handle("print", func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var p paper
		err := ipc.Argument(body, &p)
		return []string{p.Title, p.Text}, err
	}, ipc.AnyUID)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, env.Listener) }()
	defer func() { cancel(); <-served }()
	for _, x := range []struct {
		in   any
		want string
	}{
		{paper{"a", "line \"one\"\nline two\x00 and ü"}, "line \"one\"\nline two\x00 and ü"},
		{paper{"a", ""}, ""},
		{paper{"a", "bad \xff byte"}, "bad � byte"},
		{json.RawMessage(`{"title":"a","text":"plain"}`), "plain"},
	} {
		var got []string
		if err := dir.Client("press").Call(ctx, "print", x.in, &got); err != nil || len(got) != 2 || got[0] != "a" || got[1] != x.want {
			t.Errorf("%+v: %q, %v", x.in, got, err)
		}
	}
}

func FuzzArgument(f *testing.F) {
	f.Add([]byte(`{"title":"a"}` + "\x00text"))
	f.Add([]byte(`{"title":"a","text":"b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p paper
		if ipc.Argument(b, &p) == nil && !utf8.ValidString(p.Text) {
			t.Errorf("%q", p.Text)
		}
	})
}

// news is a state with a ring, as health publishes one.
type news struct {
	Config uint64              `json:"config"`
	Ring   []status.Transition `json:"transitions,omitempty"`
}

func (n news) Summary() any { return n }

func (n news) Brief(after uint64) (any, uint64) {
	all := n.Ring
	n.Ring = nil
	var last uint64
	for _, x := range all {
		if last = x.Seq; x.Seq > after {
			n.Ring = append(n.Ring, x)
		}
	}
	return n, last
}

// TestWatchTail: each transition comes once, also where states come faster than
// they are taken; and WatchBrief has none.
func TestWatchTail(t *testing.T) {
	s := ipc.NewServer("svc")
	c := serve(t, s).Client("svc")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var ring []status.Transition
	publish := func() {
		n := uint64(len(ring) + 1)
		ring = append(ring[:len(ring):len(ring)], status.Transition{Seq: n})
		s.Publish(news{Config: n, Ring: ring})
	}
	publish()
	publish()
	const last = 200
	entered, release := make(chan struct{}), make(chan struct{})
	go func() {
		<-entered // fn has the first and is busy
		for len(ring) < last {
			publish()
		}
		close(release)
	}()
	var got []uint64
	calls := 0
	join := func(a, b news) news {
		b.Ring = append(a.Ring, b.Ring...)
		return b
	}
	ipc.WatchTail(ctx, c, join, func(_ uint64, n news) {
		for _, x := range n.Ring {
			got = append(got, x.Seq)
		}
		if calls++; calls == 1 {
			close(entered)
			<-release
		}
		if n.Config == last {
			cancel()
		}
	})
	for i, n := range got {
		if n != uint64(i+1) {
			t.Fatalf("transition %d at place %d of %v", n, i+1, got)
		}
	}
	if len(got) != last {
		t.Errorf("%d transitions of %d in %d calls", len(got), last, calls)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ipc.WatchBrief(ctx, c, func(_ uint64, n news) {
		if n.Config != last || len(n.Ring) > 0 {
			t.Errorf("brief: configuration %d, %d transitions", n.Config, len(n.Ring))
		}
		cancel()
	})
}
