package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
)

// mail is one message. Empty recipients mean notification_email.
type mail struct {
	to      []string
	subject string
	body    string
	at      time.Time // of what happened, by the box's clock
	queued  time.Time // with the monotonic clock: setting the clock makes no message old
}

// Bounds of the mail queue.
const (
	mailQueue = 100
	mailSize  = 1 << 20   // bytes of one message with its recipients
	mailOld   = time.Hour // a message that could not be delivered that long is dropped
	replyMax  = 4 << 10   // bytes of one SMTP reply
)

// mailRetry is how long to wait before each further try; the last one repeats.
var mailRetry = []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute}

func hostName() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "localhost"
	}
	return h
}

func routerID(g *model.Global) string {
	if g.RouterID != "" {
		return g.RouterID
	}
	return hostName()
}

// postman delivers mail one at a time, and counts.
type postman struct {
	log   *slog.Logger
	did   func()
	retry []time.Duration

	mu     sync.Mutex
	global model.Global
	ca     string // file of the authorities that are trusted
	queue  []mail
	kick   chan struct{}
	fresh  chan struct{} // the way to the mail server is another one

	sent, failed uint64
	last         string
	broken       bool   // the failure was logged
	partial      string // what was logged of a message that did not go to all
	tell         func(from, to, why string)
}

func newPostman(log *slog.Logger, did func()) *postman {
	return &postman{log: log, did: did, retry: mailRetry, kick: make(chan struct{}, 1), fresh: make(chan struct{}, 1), tell: func(string, string, string) {}}
}

func (p *postman) configure(g model.Global, ca string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if way(&p.global) != way(&g) || p.ca != ca {
		poke(p.fresh)
	}
	p.global, p.ca = g, ca
}

// way is what of a configuration decides whether mail is delivered.
func way(g *model.Global) [7]string {
	return [...]string{g.SMTPServer, g.SMTPHELO, g.SMTPTLS, g.SMTPUser, g.SMTPPassword, g.NotificationEmailFrom, strconv.FormatBool(g.SMTPNoVerify)}
}

// add queues a message. Without smtp_server or a recipient it is dropped, as
// in keepalived; the error says so.
func (p *postman) add(m mail) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(m.to) == 0 {
		m.to = p.global.NotificationEmail
	}
	size := len(m.subject) + len(m.body)
	for _, t := range m.to {
		size += len(t)
	}
	switch {
	case size > mailSize:
		return fmt.Errorf("no mail is sent: the message has %d bytes, at most %d are possible", size, mailSize)
	case p.global.SMTPServer == "":
		return errors.New("no mail is sent: smtp_server is not set in global_defs")
	case len(m.to) == 0:
		return errors.New("no mail is sent: notification_email is not set in global_defs")
	case len(p.queue) >= mailQueue:
		p.queue = p.queue[1:]
		p.failed++
		p.last = fmt.Sprintf("the oldest of %d waiting messages was dropped", mailQueue)
	}
	if m.at.IsZero() {
		m.at = time.Now()
	}
	m.queued = time.Now()
	p.queue = append(p.queue, m)
	poke(p.kick)
	return nil
}

// counts are for the published state.
func (p *postman) counts() (sent, failed uint64, last string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent, p.failed, p.last
}

// drain waits until everything is delivered, or something cannot be.
func (p *postman) drain(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		idle := len(p.queue) == 0 || p.broken
		p.mu.Unlock()
		if idle {
			return
		}
	}
}

// work delivers until ctx ends.
func (p *postman) work(ctx context.Context) {
	tries := 0
	for {
		p.mu.Lock()
		g, ca := p.global, p.ca
		var m mail
		some := len(p.queue) > 0
		if some {
			m = p.queue[0]
		}
		p.mu.Unlock()
		if !some {
			select {
			case <-p.kick:
				continue
			case <-ctx.Done():
				return
			}
		}
		refused, err := deliver(ctx, &g, ca, m)
		if ctx.Err() != nil {
			return
		}
		var perm permanent
		drop := err == nil || errors.As(err, &perm) || time.Since(m.queued) > mailOld
		p.account(m, refused, err, drop)
		p.did()
		if drop {
			tries = 0
			continue
		}
		wait := p.retry[min(tries, len(p.retry)-1)]
		tries++
		select {
		case <-time.After(wait):
		case <-p.fresh:
			tries = 0
		case <-ctx.Done():
			return
		}
	}
}

// account counts a try, and logs a failure once until the next success.
// refused tells of recipients that a delivered message did not go to.
func (p *postman) account(m mail, refused, err error, drop bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if drop && len(p.queue) > 0 && p.queue[0].subject == m.subject && p.queue[0].at.Equal(m.at) {
		p.queue = p.queue[1:]
	}
	if err == nil {
		p.sent++
		if p.broken {
			p.log.Info("mail works again through " + p.global.SMTPServer)
			p.tell("failed", "works", "through "+p.global.SMTPServer)
		}
		if p.broken, p.last = false, ""; refused != nil {
			p.last = "delivered to the other recipients only: " + refused.Error()
		}
		if p.last != p.partial && refused != nil {
			p.log.Warn("mail: " + p.last)
		}
		p.partial = p.last
		return
	}
	p.last = err.Error()
	if drop {
		p.failed++
	}
	if !p.broken {
		fate := fmt.Sprintf("tried again for %v", mailOld)
		if drop {
			fate = "dropped"
		}
		p.log.Warn("mail: " + p.last + "; " + fate)
		p.tell("works", "failed", p.last)
	}
	p.broken = true
}

// message is header and body in keepalived's order, with its ending; the final
// CRLF comes from say. A line that begins with a dot gets another one (RFC 5321
// section 4.5.2), which keepalived forgets.
func message(from string, m mail) string {
	to := make([]string, len(m.to))
	for i, t := range m.to {
		to[i] = clean(t)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Date: %s\r\nFrom: %s\r\nSubject: %s\r\nX-Mailer: Keepalived\r\nTo: %s\r\n\r\n",
		m.at.Format("Mon, 02 Jan 2006 15:04:05 -0700"), clean(from), clean(m.subject), strings.Join(to, ", "))
	body := strings.ReplaceAll(strings.ReplaceAll(m.body, "\r\n", "\n"), "\r", "\n")
	for line := range strings.SplitSeq(body, "\n") {
		if strings.HasPrefix(line, ".") {
			b.WriteByte('.')
		}
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n.")
	return b.String()
}

// clean keeps a header line one line.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, s)
}

// envelope is the address of "Name <a@b>".
func envelope(s string) string {
	s = clean(s)
	if i := strings.LastIndexByte(s, '<'); i >= 0 {
		if j := strings.IndexByte(s[i:], '>'); j > 0 {
			return s[i+1 : i+j]
		}
	}
	return strings.TrimSpace(s)
}
