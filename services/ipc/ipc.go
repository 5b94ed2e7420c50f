// Package ipc is how the processes of a director talk: HTTP with JSON over
// unix sockets in one folder.
//
//	GET  /state         the service's whole state, with its generation
//	GET  /state?watch   a stream of whole states, one JSON object a line
//	GET  /state?summary the small part of a state that tells how far it has got
//	GET  /state?brief   the same without the transitions, which are most of it
//	GET  /state?have=X  what is new to a reader that has X, of the state of conf (package follow)
//	POST /verb/NAME     do NAME; the body is its argument
//	POST /stream/NAME   do NAME, with bytes both ways while it works
//
// States are always whole: a reader that missed ten of them loses nothing. Who
// is calling comes from SO_PEERCRED, never from the message.
package ipc

import (
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
	"strconv"
	"strings"
	"sync"
	"time"

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

// Role is what the user may do in whose name the peer calls: of the console the
// one that its group carries, of anybody else Admin, since what others may is a
// matter of their uid.
func (p Peer) Role() Role {
	if p.UID != UIDConsole {
		return Admin
	}
	return roleOf(p.GID)
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
	seen    any           // of a Reserved state, whose JSON cache is
	changed chan struct{} // closed at the next Publish
	verbs   map[string]verb

	use use
}

type verb struct {
	fn     VerbFunc
	stream StreamFunc // of a verb that streams, which has no fn
	allow  []uint32
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

// Reserved is a state of which not everybody may see all. For is what a caller
// gets in its place: the state itself, or a pointer to what is left of it.
type Reserved interface{ For(peer Peer) any }

// Publish makes state the service's state. It never blocks on a reader. The
// value must not be changed afterwards: it is marshalled later.
func (s *Server) Publish(state any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.cache, s.seen = state, nil, nil
	s.gen++
	close(s.changed)
	s.changed = make(chan struct{})
}

// Handle adds a verb. It may be called by uid 0, by the uid that serves, and
// by the uids in allow; AnyUID allows everybody who can open the socket.
//
// What the console calls, it calls for a user: such a verb names the group of
// the lowest role that may (GroupView, GroupOperate, GroupAdmin). UIDConsole
// itself stands for GroupAdmin.
func (s *Server) Handle(name string, fn VerbFunc, allow ...uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verbs[name] = verb{fn: fn, allow: allow}
}

// AnyUID lets every caller use a verb.
const AnyUID = ^uint32(0)

// of is the state as a caller may see it. Called with mu held.
func (s *Server) of(peer Peer) any {
	if r, ok := s.state.(Reserved); ok {
		return r.For(peer)
	}
	return s.state
}

// snapshot is the state in JSON and its generation.
func (s *Server) snapshot(peer Peer) (raw []byte, gen uint64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	if r, ok := state.(Reserved); ok {
		if state = r.For(peer); state != s.seen {
			s.seen, s.cache = state, nil
		}
	}
	if s.cache == nil {
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
func (s *Server) summary(peer Peer) (raw []byte, gen uint64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	sum, ok := s.of(peer).(Summarizer)
	gen, changed = s.gen, s.changed
	s.mu.Unlock()
	if !ok {
		return s.snapshot(peer)
	}
	raw, err = json.Marshal(sum.Summary())
	if err != nil {
		err = fmt.Errorf("%s: marshal summary: %w", s.name, err)
	}
	return raw, gen, changed, err
}

// brief is the summary of the state, as of Briefer, in JSON; as of Summarizer
// when it has none.
func (s *Server) brief(peer Peer, after uint64) (raw []byte, last, gen uint64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	b, ok := s.of(peer).(Briefer)
	gen, changed = s.gen, s.changed
	s.mu.Unlock()
	if !ok {
		raw, gen, changed, err = s.summary(peer)
		return raw, 0, gen, changed, err
	}
	sum, last := b.Brief(after)
	if raw, err = json.Marshal(sum); err != nil {
		err = fmt.Errorf("%s: marshal summary: %w", s.name, err)
	}
	return raw, last, gen, changed, err
}

// Serve answers on l until ctx ends, or returns ErrIdle (see Env.OnDemand). It
// closes l.
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
	if d, ok := l.(demandListener); ok {
		l = s.use.begin(d.Listener, d.idle)
		srv.ConnState = s.use.state
		// A request on a connection that is kept open could meet the end of the
		// service; one on a new connection finds the next process.
		srv.SetKeepAlivesEnabled(false)
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	if s.use.over() {
		return ErrIdle
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
		s.serveVerb(w, r, strings.TrimPrefix(r.URL.Path, "/verb/"), false)
	case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/stream/"):
		s.serveVerb(w, r, strings.TrimPrefix(r.URL.Path, "/stream/"), true)
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
	peer, ok := r.Context().Value(peerKey{}).(Peer)
	if !ok {
		peer.UID = AnyUID // nobody
	}
	read := func() ([]byte, uint64, <-chan struct{}, error) { return s.snapshot(peer) }
	switch after := ^uint64(0); {
	case q.Has("brief"):
		tail := q.Has("tail")
		if tail {
			after = 0
		}
		read = func() ([]byte, uint64, <-chan struct{}, error) {
			raw, last, gen, changed, err := s.brief(peer, after)
			if tail {
				after = max(after, last)
			}
			return raw, gen, changed, err
		}
	case small:
		read = func() ([]byte, uint64, <-chan struct{}, error) { return s.summary(peer) }
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

func (s *Server) serveVerb(w http.ResponseWriter, r *http.Request, name string, stream bool) {
	s.mu.Lock()
	v, ok := s.verbs[name]
	s.mu.Unlock()
	if !ok || stream != (v.stream != nil) {
		http.Error(w, fmt.Sprintf("%s has no verb %q", s.name, name), http.StatusNotFound)
		return
	}
	p, ok := r.Context().Value(peerKey{}).(Peer)
	if !ok || !v.allows(p) {
		http.Error(w, v.refusal(s.name, name, p), http.StatusForbidden)
		return
	}
	if stream {
		s.serveStream(w, r, p, v.stream)
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
	if p.UID == UIDConsole {
		need := v.role()
		return need != None && p.Role() >= need
	}
	for _, u := range v.allow {
		if u == p.UID || u == AnyUID {
			return true
		}
	}
	return false
}

// role is the lowest role of a user of the console that may call the verb;
// None: no user may.
func (v verb) role() Role {
	least := None
	for _, u := range v.allow {
		r := roleOf(u)
		switch u {
		case UIDConsole:
			r = Admin
		case AnyUID:
			r = View
		}
		if r != None && (least == None || r < least) {
			least = r
		}
	}
	return least
}

// refusal says why p may not call the verb.
func (v verb) refusal(service, name string, p Peer) string {
	need := v.role()
	if p.UID != UIDConsole || need == None {
		return fmt.Sprintf("%s: user %d may not %s", service, p.UID, name)
	}
	return fmt.Sprintf("%s %s: permission denied: it needs role %s, this user has role %s", service, name, need, p.Role())
}
