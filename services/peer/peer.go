// Package peer is the wire between the two boxes of a pair: TLS 1.3 on which
// each side knows the other by one ed25519 key and by nothing else. It reads no
// message and owns nothing but its key: what the other box sends goes to conf as
// it is, and what conf has to say goes to the other box. It listens only while
// the configuration has a peer block, talks only to the address named there, and
// closes every other connection before a byte of cryptography. A second service
// of both boxes, firmware, talks to its like in the same way over a channel.
package peer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

const (
	retry     = time.Second      // between attempts to listen: the address may still be coming
	shake     = 5 * time.Second  // a handshake
	dial      = 5 * time.Second  // a connection
	idle      = 2 * time.Minute  // an open connection on which nothing comes
	answering = 3 * time.Minute  // an answer: the other box may be committing
	sending   = 60 * time.Second // a message on its way
	most      = 8                // connections of the other box at a time
	spare     = 2                // own connections kept open
	burst     = 50.0             // handshakes at once
	refill    = 5.0              // and more of them each second
)

type service struct {
	env    *ipc.Env
	key    ed25519.PrivateKey
	cert   tls.Certificate
	server *ipc.Server
	conf   *ipc.Client
	others map[string]*ipc.Client // by channel

	mu    sync.Mutex
	state status.Peer
	pair  *model.Pair
	stop  context.CancelFunc // of the listener, and of what it accepted once that is answered
	done  *sync.WaitGroup
	open  sync.WaitGroup // connections
	told  time.Time      // when the log was last told of a stranger

	calls pool
}

// Run is the peer process. It ends with ctx.
func Run(ctx context.Context, env *ipc.Env) error {
	key, err := identity(env.Data, env.Log)
	if err != nil {
		return fmt.Errorf("peer: key of this box: %w", err)
	}
	cert, err := certificate(key)
	if err != nil {
		return fmt.Errorf("peer: certificate: %w", err)
	}
	s := &service{env: env, key: key, cert: cert, server: ipc.NewServer("peer"), conf: env.Dir.Client("conf"), others: map[string]*ipc.Client{}, done: &sync.WaitGroup{}}
	for name := range channels {
		s.others[name] = env.Dir.Client(name)
	}
	s.state.PublicKey = publicLine(key.Public().(ed25519.PublicKey))
	s.calls.cert = cert
	s.change(func(*status.Peer) {})
	s.server.Handle("send", s.send, ipc.UIDConf, ipc.UIDFirmware)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	tasks.Go(func() {
		follow.New(env.Dir.Client("conf"), follow.Head).Run(ctx, func(u follow.Update) { s.configure(ctx, u.Conf.Config.Pair) })
	})
	env.Ready()
	err = s.server.Serve(ctx, env.Listener)
	cancel()
	tasks.Wait()
	s.configure(ctx, nil)
	s.open.Wait()
	s.calls.close()
	return err
}

// change publishes the state with something new in it.
func (s *service) change(f func(*status.Peer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.state)
	s.server.Publish(s.state)
}

// configure takes over the peer block.
func (s *service) configure(ctx context.Context, p *model.Pair) {
	s.mu.Lock()
	same := p == s.pair || p != nil && s.pair != nil && *p == *s.pair
	stop, done := s.stop, s.done
	s.mu.Unlock()
	if same {
		return
	}
	if stop != nil {
		stop()
		done.Wait()
	}
	s.calls.close()
	s.mu.Lock()
	s.pair, s.stop = p, nil
	s.mu.Unlock()
	s.change(func(st *status.Peer) { st.Listening, st.Error = "", "" })
	if p == nil {
		return
	}
	want, err := parsePublic(p.Key)
	if err != nil {
		s.change(func(st *status.Peer) { st.Error = "the key of the peer block: " + err.Error() })
		return
	}
	listening, stop := context.WithCancel(ctx)
	done = &sync.WaitGroup{}
	s.mu.Lock()
	s.stop, s.done = stop, done
	s.mu.Unlock()
	done.Go(func() { s.listen(ctx, listening, *p, want) })
}

// address is where a box listens for its peer.
func address(p model.Pair) (network, addr string) {
	network, from := "tcp4", p.From
	if p.Addr.Is6() {
		network = "tcp6"
	}
	if !from.IsValid() {
		from = netip.IPv4Unspecified()
		if p.Addr.Is6() {
			from = netip.IPv6Unspecified()
		}
	}
	return network, netip.AddrPortFrom(from, p.Port).String()
}

func (s *service) listen(life, ctx context.Context, p model.Pair, want ed25519.PublicKey) {
	network, addr := address(p)
	for ctx.Err() == nil {
		l, err := new(net.ListenConfig).Listen(ctx, network, addr)
		if err == nil {
			s.change(func(st *status.Peer) { st.Listening, st.Error = l.Addr().String(), "" })
			err = s.accept(life, ctx, l, p, want)
		}
		if ctx.Err() != nil {
			return
		}
		s.change(func(st *status.Peer) { st.Listening, st.Error = "", err.Error() })
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// accept serves the peer until ctx ends or the listener fails. life is that of
// the process.
func (s *service) accept(life, ctx context.Context, l net.Listener, p model.Pair, want ed25519.PublicKey) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	slots := make(chan struct{}, most)
	how := pinned(s.cert, want)
	tokens, last := burst, time.Now()
	for {
		c, err := l.Accept()
		if err != nil {
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() {
				continue
			}
			return err
		}
		now := time.Now()
		tokens, last = min(burst, tokens+refill*now.Sub(last).Seconds()), now
		from := remote(c)
		if from != p.Addr.Unmap() {
			s.stranger(from, "it is not the address of the peer block")
			c.Close()
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		if tokens < 1 {
			<-slots
			c.Close()
			continue
		}
		tokens--
		s.open.Go(func() {
			defer func() { <-slots }()
			s.serve(life, ctx, c, how, from)
		})
	}
}

func remote(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// stranger counts a connection that is nobody's, and logs one a minute.
func (s *service) stranger(from netip.Addr, why string) {
	tell := false
	s.change(func(st *status.Peer) {
		st.Strangers++
		if tell = time.Since(s.told) > time.Minute; tell {
			s.told = time.Now()
		}
	})
	if tell {
		s.env.Log.Warn(fmt.Sprintf("a connection of %s was closed: %s", from, why))
	}
}

// serve answers the messages of one connection. When ctx ends, the message that
// is being answered still is: it may be the one that changes the peer block.
func (s *service) serve(life, ctx context.Context, raw net.Conn, how *tls.Config, from netip.Addr) {
	c := tls.Server(raw, how)
	defer raw.Close()
	var mu sync.Mutex
	busy := false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !busy {
			raw.Close()
		}
	})
	defer stop()
	quit := context.AfterFunc(life, func() { raw.Close() })
	defer quit()
	// work marks the connection, and reports whether to go on.
	work := func(now bool) bool {
		mu.Lock()
		defer mu.Unlock()
		busy = now
		return ctx.Err() == nil
	}
	raw.SetDeadline(time.Now().Add(shake))
	if err := c.HandshakeContext(ctx); err != nil {
		if ctx.Err() == nil {
			s.stranger(from, explain(err).Error())
		}
		return
	}
	s.change(func(st *status.Peer) { st.Inbound++ })
	defer s.change(func(st *status.Peer) { st.Inbound-- })
	for {
		raw.SetDeadline(time.Now().Add(idle))
		in, err := readFrame(c)
		if err != nil || !work(true) {
			return
		}
		s.change(func(st *status.Peer) { st.LastHeard = time.Now() })
		answered, cancel := context.WithTimeout(life, answering)
		out, err := s.answer(answered, in)
		cancel()
		if err != nil {
			// conf answers whatever it can read: it is not there, for now. The
			// connection stays: a handshake for each question would use up what is
			// allowed of them.
			out = nil
		}
		raw.SetDeadline(time.Now().Add(sending))
		if writeFrame(c, out) != nil || !work(false) {
			return
		}
	}
}

// send takes a message of conf, or of a service with a channel, to the other box
// and brings its answer.
func (s *service) send(ctx context.Context, caller ipc.Peer, body json.RawMessage) (any, error) {
	head, message, ok := bytes.Cut(body, []byte{0})
	var t status.PeerTarget
	if !ok || json.Unmarshal(head, &t) != nil || len(message) == 0 {
		return nil, errors.New("peer: send: want a target and a message")
	}
	if t.Channel != "" {
		return s.sendTo(ctx, caller, t.Channel, message)
	}
	if caller.UID == ipc.UIDFirmware || !t.Addr.IsValid() || t.Port == 0 || message[0] == addressed {
		return nil, errors.New("peer: send: want a target and a message")
	}
	out, err := s.calls.ask(ctx, t, message)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", t.Addr, plain(explain(err)))
	}
	return status.PeerMessage{Body: out}, nil
}

// plain leaves out what only repeats the addresses.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	text := err.Error()
	if text == "EOF" {
		text = "it closed the connection"
	}
	return strings.TrimPrefix(text, "connect: ")
}
