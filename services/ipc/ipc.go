// Package ipc is how the processes of a director talk: HTTP with JSON over
// unix sockets in one folder.
//
//	GET  /state         the service's whole state, with its generation
//	GET  /state?watch   a stream of whole states, one JSON object a line
//	GET  /state?summary the small part of a state that tells how far it has got
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
	brief, watch := q.Has("summary"), q.Has("watch")
	read := s.snapshot
	if brief {
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
		if !brief || told == nil || !bytes.Equal(raw, told) {
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
// Texter, it takes what Call sends for a T: JSON, a zero byte, the text.
func Argument(body []byte, v any) error {
	if t, ok := v.(interface{ SetText(text string) }); ok {
		if rest, text, ok := bytes.Cut(body, []byte{0}); ok { // JSON has no zero byte
			if err := json.Unmarshal(rest, v); err != nil {
				return err
			}
			if !utf8.Valid(text) {
				text = bytes.ToValidUTF8(text, []byte(string(utf8.RuneError))) // as a JSON string would have it
			}
			t.SetText(string(text))
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

func watch[T any](ctx context.Context, c *Client, path string, fn func(gen uint64, state T)) error {
	backoff := 20 * time.Millisecond
	for ctx.Err() == nil {
		if watchOnce(ctx, c, path, fn) {
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
func watchOnce[T any](ctx context.Context, c *Client, path string, fn func(uint64, T)) bool {
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
	lines := make(chan []byte, 1) // the newest line not yet handed over
	go func() {
		defer close(lines)
		r := bufio.NewReader(resp.Body)
		for {
			b, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			select {
			case <-lines:
			default:
			}
			lines <- b
		}
	}()
	got := false
	for b := range lines {
		var e struct { // Envelope, decoded in one pass
			Generation uint64 `json:"generation"`
			State      T      `json:"state"`
		}
		if json.Unmarshal(b, &e) != nil {
			continue
		}
		got = true
		fn(e.Generation, e.State)
	}
	return got
}
