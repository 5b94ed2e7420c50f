package ipc

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// ErrIdle is how Serve ends in a service on demand that nobody has asked for
// anything for a while. It is no fault: init starts the service again when
// somebody connects to its socket, which stays open.
var ErrIdle = errors.New("nobody asks for it any more")

// OnDemand makes the service end by itself when it has been idle for so long:
// Serve on its listener returns ErrIdle.
func (e *Env) OnDemand(idle time.Duration) {
	e.Listener = demandListener{e.Listener, idle}
}

type demandListener struct {
	net.Listener
	idle time.Duration
}

// use is what keeps a service on demand from ending: open connections, each of
// which is one request or watch, and work that nobody waits for.
type use struct {
	mu    sync.Mutex
	open  int
	idle  time.Duration // 0: it never ends
	close func()        // stops accepting
	timer *time.Timer   // runs while open is 0
	ended bool          // accepts nothing more
	none  chan struct{} // closed when it has ended and nothing is open
}

// Hold keeps a service on demand from ending until release is called: for work
// that goes on when the request that began it has been answered. It is called
// while a request is served, or before Serve. In any other service it does nothing.
func (s *Server) Hold() (release func()) {
	s.use.enter()
	return sync.OnceFunc(s.use.leave)
}

func (u *use) enter() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open++
	if u.timer != nil {
		u.timer.Stop()
	}
}

func (u *use) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open--; u.open > 0 {
		return
	}
	switch {
	case u.ended:
		close(u.none)
	case u.timer != nil:
		u.timer.Reset(u.idle)
	}
}

// begin starts to count what comes through l, and ends it after idle without use.
func (u *use) begin(l net.Listener, idle time.Duration) net.Listener {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.idle, u.none = idle, make(chan struct{})
	u.close = sync.OnceFunc(func() { l.Close() })
	u.timer = time.AfterFunc(idle, u.end)
	if u.open > 0 {
		u.timer.Stop()
	}
	return countedListener{l, u}
}

// end is called when the time is over.
func (u *use) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open > 0 || u.ended {
		return // somebody came at the last moment
	}
	u.ended = true
	// Accept may just have taken a connection that is not counted yet: enter
	// waits for this lock, and Serve serves it before it returns. Every other one
	// waits in the backlog of the socket, which init has open, for the next process.
	u.close()
}

// over waits, when it was the time that ended accepting, until what was
// accepted at the last moment is done, and reports true.
func (u *use) over() bool {
	u.mu.Lock()
	ended, open := u.ended, u.open
	u.mu.Unlock()
	if ended && open > 0 {
		<-u.none
	}
	return ended
}

// state is for http.Server.ConnState.
func (u *use) state(_ net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		u.leave()
	}
}

type countedListener struct {
	net.Listener
	use *use
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.use.enter()
	}
	return c, err
}
