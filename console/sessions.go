package console

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"ballast/configs/printable"
	"ballast/console/cli"
	"ballast/services/ipc"
	"ballast/services/ipc/status"

	gossh "golang.org/x/crypto/ssh"
)

// session is one session that is open.
type session struct {
	info status.ConsoleSession
	key  []byte // that the user proved, in wire form; nil: the serial line
	shut func(why string)
}

// shutTime is how long the client of a session that is closed has to take in
// why, and its connection to go away by itself.
const shutTime = 3 * time.Second

// begin registers a session over SSH, or of the serial line where key is nil.
// shut ends it; it must not block. end must be called when it is over. begin fails,
// and says why, when there are too many, or when the key is no longer one of the
// user's: a connection may be older than the configuration.
func (c *console) begin(user, address, kind string, key gossh.PublicKey, shut func(why string)) (end func(), touch func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &session{info: status.ConsoleSession{User: user, Address: address, Kind: kind, Since: time.Now()}, shut: shut}
	s.info.Last = s.info.Since
	if key != nil {
		s.key, s.info.Key = key.Marshal(), gossh.FingerprintSHA256(key)
		if !c.users.has(user, s.key) {
			return nil, nil, fmt.Errorf("the key of %s was taken out of the configuration", user)
		}
		n := 0
		for _, o := range c.open {
			if o.key != nil { // the serial line is always free
				n++
			}
		}
		if n >= maxSessions {
			return nil, nil, fmt.Errorf("%d sessions are open, which is as many as can be", n)
		}
	}
	c.lastID++
	s.info.ID = c.lastID
	c.open[s.info.ID] = s
	c.publishLocked()
	end = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, s.info.ID)
		c.publishLocked()
	}
	touch = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.info.Last = time.Now()
		c.publishLocked()
	}
	return end, touch, nil
}

func (c *console) publish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.publishLocked()
}

func (c *console) publishLocked() {
	st := status.Console{Fingerprint: c.hostKey.fingerprint(), Sessions: []status.ConsoleSession{}}
	for _, s := range c.open {
		info := s.info
		if info.Role = cli.Admin.String(); s.key != nil {
			info.Role = c.users[info.User].role.String()
		}
		st.Sessions = append(st.Sessions, info)
	}
	slices.SortFunc(st.Sessions, func(a, b status.ConsoleSession) int { return int(int64(a.ID) - int64(b.ID)) })
	c.server.Publish(st)
}

// revokedLocked finds what was opened with a key that the configuration no
// longer has, and returns what ends it. Called with mu held; what it returns
// without.
func (c *console) revokedLocked() func() {
	var sessions []*session
	for _, s := range c.open {
		if s.key != nil && !c.users.has(s.info.User, s.key) {
			sessions = append(sessions, s)
		}
	}
	var connections []*connection
	for conn := range c.connections {
		conn.mu.Lock()
		if conn.key != nil && !c.users.has(conn.user, conn.key.Marshal()) {
			connections = append(connections, conn)
		}
		conn.mu.Unlock()
	}
	return func() {
		for _, s := range sessions {
			why := fmt.Sprintf("the key of %s was taken out of the configuration", s.info.User)
			c.note(s.info, "session closed", why)
			s.shut(why + ": session closed")
		}
		for _, conn := range connections {
			time.AfterFunc(shutTime, func() { conn.Close() })
		}
	}
}

// verbKick ends a session, whoever has it.
func (c *console) verbKick(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var k status.Kick
	if err := json.Unmarshal(body, &k); err != nil {
		return nil, fmt.Errorf("console kick: argument: %w", err)
	}
	c.mu.Lock()
	s := c.open[k.ID]
	c.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("there is no session %d; \"show sessions\" lists them", k.ID)
	}
	by := printable.Short(printable.Line(k.By), 100)
	if by == "" {
		by = "an administrator"
	}
	c.note(s.info, "session closed", "kicked by "+by)
	s.shut("session closed by " + by)
	return s.info, nil
}

// note writes what happened to a session to the log and the audit log.
func (c *console) note(s status.ConsoleSession, what, result string) {
	c.env.Log.Info(fmt.Sprintf("%s from %s: %s: %s", s.User, s.Address, what, result))
	c.auditor.add(status.AuditEntry{Time: time.Now(), User: s.User, Address: s.Address, Key: s.Key, Command: what, Result: result})
}

// idleTime is how long a session may be silent now.
func (c *console) idleTime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle
}
