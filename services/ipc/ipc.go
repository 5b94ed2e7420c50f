// Package ipc is how the processes of a director talk: HTTP with JSON over
// unix sockets in one folder.
//
//	GET  /state         the service's whole state, with its generation
//	GET  /state?watch   a stream of whole states, one JSON object a line
//	GET  /state?summary the small part of a state that tells how far it has got
//	GET  /state?brief   the same without the transitions, which are most of it
//	GET  /state?have=X  what is new to a reader that has X, of the state of conf (package follow)
//	POST /verb/NAME     do NAME; the body is its argument
//
// States are always whole: a reader that missed ten of them loses nothing. Who
// is calling comes from SO_PEERCRED, never from the message.
package ipc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Dir is the folder that holds the sockets, one "NAME.sock" for each service.
type Dir string

// DefaultDir is where init puts the sockets on a director.
const DefaultDir Dir = "/run/ballast"

// Path is the socket of a service.
func (d Dir) Path(service string) string { return filepath.Join(string(d), service+".sock") }

// Peer is who is at the other end of a call, as the kernel tells it.
type Peer struct {
	PID int32
	UID uint32
	GID uint32
}

// Envelope is what GET /state answers: the state and its generation, which
// grows by one with every Publish.
type Envelope struct {
	Generation uint64          `json:"generation"`
	State      json.RawMessage `json:"state"`
}

// VerbFunc does one verb. The returned value is the JSON answer. An error
// becomes status 422, a *Refused its own status, and its text reaches the
// caller unchanged.
type VerbFunc func(ctx context.Context, peer Peer, body json.RawMessage) (any, error)

// Server publishes the state of one service and answers its verbs. Make it
// with NewServer. Its methods may be called from any goroutine.
type Server struct {
	name string

	mu      sync.Mutex
	state   any // latest, marshalled only when somebody asks
	gen     uint64
	cache   []byte        // State of gen in JSON, nil: not marshalled yet
	changed chan struct{} // closed at the next Publish
	verbs   map[string]verb
}

type verb struct {
	fn    VerbFunc
	allow []uint32
}

// NewServer returns a server with no verbs and a null state.
func NewServer(name string) *Server {
	return &Server{name: name, changed: make(chan struct{}), verbs: map[string]verb{}}
}

// Lazy is a state that is made only when somebody reads it: State answers it.
type Lazy interface{ State() any }

// Summarizer is a state that has a small part by which most changes can be
// followed: "GET /state?summary" answers Summary in place of the whole.
type Summarizer interface{ Summary() any }

// Briefer is a Summarizer whose summary holds transitions. Brief is it with
// those only whose number is above after, and last the number of the newest.
// "GET /state?brief" answers Brief without any; with "tail" as well, a watcher
// gets with each summary the transitions that it has not got before.
type Briefer interface {
	Brief(after uint64) (summary any, last uint64)
}

// Patcher is a state that can tell a reader what is new to it, in a form of its
// own: "GET /state?have=…" answers Patch. An error may be a *Refused, for its
// status.
type Patcher interface {
	Patch(peer Peer, query url.Values) ([]byte, error)
}

// Publish makes state the service's state. It never blocks on a reader. The
// value must not be changed afterwards: it is marshalled later.
func (s *Server) Publish(state any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.cache = state, nil
	s.gen++
	close(s.changed)
	s.changed = make(chan struct{})
}

// Handle adds a verb. It may be called by uid 0, by the uid that serves, and
// by the uids in allow; AnyUID allows everybody who can open the socket.
func (s *Server) Handle(name string, fn VerbFunc, allow ...uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verbs[name] = verb{fn, allow}
}

// AnyUID lets every caller use a verb.
const AnyUID = ^uint32(0)

// snapshot is the state in JSON and its generation.
func (s *Server) snapshot() (raw []byte, gen uint64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cache == nil {
		state := s.state
		if l, ok := state.(Lazy); ok {
			state = l.State()
		}
		raw, err := json.Marshal(state)
		if err != nil {
			return nil, 0, s.changed, fmt.Errorf("%s: marshal state: %w", s.name, err)
		}
		s.cache = raw
	}
	return s.cache, s.gen, s.changed, nil
}

// summary is the summary of the state in JSON; the whole state when it has none.
func (s *Server) summary() (raw []byte, gen uint64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	sum, ok := s.state.(Summarizer)
	gen, changed = s.gen, s.changed
	s.mu.Unlock()
	if !ok {
		return s.snapshot()
	}
	raw, err = json.Marshal(sum.Summary())
	if err != nil {
		err = fmt.Errorf("%s: marshal summary: %w", s.name, err)
	}
	return raw, gen, changed, err
}

// brief is the summary of the state, as of Briefer, in JSON; as of Summarizer
// when it has none.
func (s *Server) brief(after uint64) (raw []byte, last, gen uint64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	b, ok := s.state.(Briefer)
	gen, changed = s.gen, s.changed
	s.mu.Unlock()
	if !ok {
		raw, gen, changed, err = s.summary()
		return raw, 0, gen, changed, err
	}
	sum, last := b.Brief(after)
	if raw, err = json.Marshal(sum); err != nil {
		err = fmt.Errorf("%s: marshal summary: %w", s.name, err)
	}
	return raw, last, gen, changed, err
}

// Serve answers on l until ctx ends. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute, // a caller that forgets its connections costs none for ever
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			p, err := peerOf(c)
			if err != nil {
				return ctx // no identity: every verb is refused
			}
			return context.WithValue(ctx, peerKey{}, p)
		},
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: serve %s: %w", s.name, l.Addr(), err)
}

type peerKey struct{}

func peerOf(c net.Conn) (Peer, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return Peer{}, errors.New("not a unix socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var serr error
	if err := raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if serr != nil {
		return Peer{}, serr
	}
	return Peer{cred.Pid, cred.Uid, cred.Gid}, nil
}

// maxBody bounds one verb's argument: a configuration of 100,000 lines is
// about 5 MB of text.
const maxBody = 64 << 20

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/state":
		s.serveState(w, r)
	case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/verb/"):
		s.serveVerb(w, r, strings.TrimPrefix(r.URL.Path, "/verb/"))
	default:
		http.Error(w, "want GET /state or POST /verb/NAME", http.StatusNotFound)
	}
}

func (s *Server) serveState(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Has("have") && s.servePatch(w, r, q) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	watch := q.Has("watch")
	small := q.Has("summary") || q.Has("brief")
	read := s.snapshot
	switch after := ^uint64(0); {
	case q.Has("brief"):
		tail := q.Has("tail")
		if tail {
			after = 0
		}
		read = func() ([]byte, uint64, <-chan struct{}, error) {
			raw, last, gen, changed, err := s.brief(after)
			if tail {
				after = max(after, last)
			}
			return raw, gen, changed, err
		}
	case small:
		read = s.summary
	}
	rc := http.NewResponseController(w)
	var told []byte
	for {
		raw, gen, changed, err := read()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if !small || told == nil || !bytes.Equal(raw, told) {
			told = raw
			// An Envelope in three pieces: a state may have megabytes.
			fmt.Fprintf(w, `{"generation":%d,"state":`, gen)
			w.Write(raw)
			if _, err := io.WriteString(w, "}\n"); err != nil || !watch || rc.Flush() != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// servePatch answers by the state's Patch, and reports whether it has one.
func (s *Server) servePatch(w http.ResponseWriter, r *http.Request, q url.Values) bool {
	s.mu.Lock()
	p, ok := s.state.(Patcher)
	s.mu.Unlock()
	if !ok {
		return false
	}
	peer, ok := r.Context().Value(peerKey{}).(Peer)
	if !ok {
		http.Error(w, s.name+": who asks is not known", http.StatusForbidden)
		return true
	}
	b, err := p.Patch(peer, q)
	if err != nil {
		fail(w, err)
		return true
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
	return true
}

// fail answers with an error, under the status that it asks for.
func fail(w http.ResponseWriter, err error) {
	code := http.StatusUnprocessableEntity
	var r *Refused
	if errors.As(err, &r) && r.Status >= 400 && r.Status < 600 {
		code = r.Status
	}
	http.Error(w, err.Error(), code)
}

func (s *Server) serveVerb(w http.ResponseWriter, r *http.Request, name string) {
	s.mu.Lock()
	v, ok := s.verbs[name]
	s.mu.Unlock()
	if !ok {
		http.Error(w, fmt.Sprintf("%s has no verb %q", s.name, name), http.StatusNotFound)
		return
	}
	p, ok := r.Context().Value(peerKey{}).(Peer)
	if !ok || !v.allows(p) {
		http.Error(w, fmt.Sprintf("%s: user %d may not %s", s.name, p.UID, name), http.StatusForbidden)
		return
	}
	var body []byte
	var err error
	in := http.MaxBytesReader(w, r.Body, maxBody)
	if n := r.ContentLength; n > 0 && n <= maxBody {
		body = make([]byte, n)
		_, err = io.ReadFull(in, body)
	} else {
		body, err = io.ReadAll(in)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	out, err := v.fn(r.Context(), p, body)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(out)
}

func (v verb) allows(p Peer) bool {
	if p.UID == 0 || p.UID == uint32(unix.Getuid()) {
		return true
	}
	for _, u := range v.allow {
		if u == p.UID || u == AnyUID {
			return true
		}
	}
	return false
}

// Client calls one service.
type Client struct {
	service string
	http    *http.Client
}

// Client returns a client of a service. It holds no connection until used.
func (d Dir) Client(service string) *Client {
	path := d.Path(service)
	return &Client{service, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, "unix", path)
		},
		MaxIdleConns: 1, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}}
}

// State reads the whole state into v and returns its generation.
func (c *Client) State(ctx context.Context, v any) (uint64, error) {
	return c.read(ctx, "/state", v)
}

// Summary reads the summary of the state (see Summarizer) into v.
func (c *Client) Summary(ctx context.Context, v any) error {
	_, err := c.read(ctx, "/state?summary", v)
	return err
}

// Brief is Summary without transitions (see Briefer).
func (c *Client) Brief(ctx context.Context, v any) error {
	_, err := c.read(ctx, "/state?brief", v)
	return err
}

// Get reads a path of the service as it is: for package follow.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

func (c *Client) read(ctx context.Context, path string, v any) (uint64, error) {
	b, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	e := struct { // Envelope, decoded in one pass: a configuration has megabytes
		Generation uint64 `json:"generation"`
		State      any    `json:"state"`
	}{State: v}
	if err := json.Unmarshal(b, &e); err != nil {
		return 0, fmt.Errorf("%s: state: %w", c.service, err)
	}
	return e.Generation, nil
}

// Texter is an argument of a verb that is mostly one long text. That text goes
// as it is, behind the rest: megabytes need not be quoted, and read three times
// over, only to be a JSON string on the way.
type Texter interface {
	// Apart is the argument without its text, and the text.
	Apart() (rest any, text string)
}

// Argument decodes the argument of a verb into v. Where v is a *T and T a
// Texter, it takes what Call sends for a T: JSON, a zero byte, the text; body
// must then not be changed any more.
func Argument(body []byte, v any) error {
	if t, ok := v.(interface{ SetText(text string) }); ok {
		if rest, text, ok := bytes.Cut(body, []byte{0}); ok { // JSON has no zero byte
			if err := json.Unmarshal(rest, v); err != nil {
				return err
			}
			if !utf8.Valid(text) {
				text = bytes.ToValidUTF8(text, []byte(string(utf8.RuneError))) // as a JSON string would have it
			}
			t.SetText(unsafe.String(unsafe.SliceData(text), len(text)))
			return nil
		}
	}
	return json.Unmarshal(body, v)
}

// Call does a verb. in is marshalled as its argument (nil: none), the answer
// is stored in out (nil: dropped). A refusal is an error with the service's own
// text.
func (c *Client) Call(ctx context.Context, verb string, in, out any) error {
	var body []byte
	switch v := in.(type) {
	case nil:
	case json.RawMessage:
		body = v // Marshal would read megabytes once more only to copy them
	case Texter:
		rest, text := v.Apart()
		b, err := json.Marshal(rest)
		if err != nil {
			return fmt.Errorf("%s %s: %w", c.service, verb, err)
		}
		body = append(append(slices.Grow(b, len(text)+1), 0), text...)
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", c.service, verb, err)
		}
		body = b
	}
	b, err := c.do(ctx, http.MethodPost, "/verb/"+verb, body)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: answer: %w", c.service, verb, err)
	}
	return nil
}

// Refused is the error of a verb that the service declined.
type Refused struct {
	Status int
	Text   string
}

func (e *Refused) Error() string { return e.Text }

func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.service+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", c.service, err)
	}
	defer resp.Body.Close()
	var b []byte
	if n := resp.ContentLength; n > 0 && n <= maxBody {
		b = make([]byte, n)
		_, err = io.ReadFull(resp.Body, b)
	} else {
		b, err = io.ReadAll(resp.Body)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read answer: %w", c.service, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &Refused{resp.StatusCode, strings.TrimSpace(string(b))}
	}
	return b, nil
}

// Watch calls fn with the state of a service, now and after each change,
// until ctx ends. States that come faster than fn works are skipped: fn always
// gets the newest. A service that goes away is awaited; fn is not told. It
// returns ctx's error.
func Watch[T any](ctx context.Context, c *Client, fn func(gen uint64, state T)) error {
	return watch(ctx, c, "/state?watch", fn)
}

// WatchSummary is Watch for the summary of the state (see Summarizer); fn is
// called only when that changes.
func WatchSummary[T any](ctx context.Context, c *Client, fn func(gen uint64, summary T)) error {
	return watch(ctx, c, "/state?watch&summary", fn)
}

// WatchBrief is WatchSummary without transitions (see Briefer): for those who
// want to know how far a service is, or what is new in it.
func WatchBrief[T any](ctx context.Context, c *Client, fn func(gen uint64, summary T)) error {
	return watch(ctx, c, "/state?watch&brief", fn)
}

// WatchTail is WatchSummary for who wants transitions, each of them once: the
// first summary has all that the service keeps, each later one those that are
// new. Where states come faster than fn works, join puts the transitions of one
// that is skipped before those of the next.
func WatchTail[T any](ctx context.Context, c *Client, join func(skipped, next T) T, fn func(gen uint64, summary T)) error {
	return watchAll(ctx, c, "/state?watch&brief&tail", join, fn)
}

func watch[T any](ctx context.Context, c *Client, path string, fn func(gen uint64, state T)) error {
	return watchAll(ctx, c, path, nil, fn)
}

func watchAll[T any](ctx context.Context, c *Client, path string, join func(skipped, next T) T, fn func(gen uint64, state T)) error {
	backoff := 20 * time.Millisecond
	for ctx.Err() == nil {
		if watchOnce(ctx, c, path, join, fn) {
			backoff = 20 * time.Millisecond
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, time.Second)
	}
	return ctx.Err()
}

// watchOnce reports whether at least one state came.
func watchOnce[T any](ctx context.Context, c *Client, path string, join func(skipped, next T) T, fn func(uint64, T)) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.service+path, nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false
	}
	lines := make(chan [][]byte, 1) // not yet handed over: the newest, or with join all
	go func() {
		defer close(lines)
		r := bufio.NewReader(resp.Body)
		for {
			b, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			next := [][]byte{b}
			select {
			case before := <-lines:
				if join != nil {
					next = append(before, b)
				}
			default:
			}
			lines <- next
		}
	}()
	got := false
	for some := range lines {
		var now struct { // Envelope, decoded in one pass
			Generation uint64 `json:"generation"`
			State      T      `json:"state"`
		}
		had := false
		for _, b := range some {
			e := now
			var none T
			if e.State = none; json.Unmarshal(b, &e) != nil {
				continue
			}
			if had {
				e.State = join(now.State, e.State)
			}
			now, had = e, true
		}
		if had {
			got = true
			fn(now.Generation, now.State)
		}
	}
	return got
}
