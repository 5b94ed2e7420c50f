package notify

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc"
)

// smtpServer speaks just enough SMTP, and hands over each session's bytes.
func smtpServer(t *testing.T, replies func(line string) string) (string, <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveSMTP(t, l, replies)
}

func serveSMTP(t *testing.T, l net.Listener, replies func(line string) string) (string, <-chan string) {
	t.Cleanup(func() { l.Close() })
	sessions := make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var all strings.Builder
			r := bufio.NewReader(io.TeeReader(c, &all))
			io.WriteString(c, replies(""))
			data := false
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				if data && line != ".\r\n" {
					continue
				}
				data = line == "DATA\r\n"
				io.WriteString(c, replies(line))
			}
			c.Close()
			sessions <- all.String()
		}
	}()
	return l.Addr().String(), sessions
}

func goodSMTP(line string) string {
	switch {
	case line == "":
		return "220-hello\r\n220 there\r\n"
	case line == "DATA\r\n":
		return "354 go\r\n"
	case line == "QUIT\r\n":
		return "221 bye\r\n"
	}
	return "250-first\r\n250 ok\r\n"
}

func TestMailBytes(t *testing.T) {
	addr, sessions := smtpServer(t, goodSMTP)
	p := newPostman(discard(), func() {})
	p.configure(model.Global{
		SMTPServer: addr, SMTPHELO: "lb1", NotificationEmail: []string{"admin@example.com", "Ops <ops@example.com>"},
		NotificationEmailFrom: "root@example.com", SMTPConnectTimeout: time.Minute, RouterID: "LVS_DEVEL",
	}, "")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.work(ctx) }()
	if err := p.add(mail{subject: "[LVS_DEVEL] VRRP Instance VI_1 - Entering MASTER state",
		body: "=> VRRP Instance is now owning VRRP VIPs <=\r\n.hidden\nRCPT", at: t0}); err != nil {
		t.Fatal(err)
	}
	want := "HELO lb1\r\nMAIL FROM:<root@example.com>\r\nRCPT TO:<admin@example.com>\r\nRCPT TO:<ops@example.com>\r\nDATA\r\n" +
		"Date: Fri, 02 Jan 2026 03:04:05 +0100\r\nFrom: root@example.com\r\n" +
		"Subject: [LVS_DEVEL] VRRP Instance VI_1 - Entering MASTER state\r\nX-Mailer: Keepalived\r\n" +
		"To: admin@example.com, Ops <ops@example.com>\r\n\r\n" +
		"=> VRRP Instance is now owning VRRP VIPs <=\r\n..hidden\r\nRCPT\r\n\r\n.\r\nQUIT\r\n"
	if d := cmp.Diff(want, <-sessions); d != "" {
		t.Error(d)
	}
	// A subject cannot smuggle in a header or a command.
	p.add(mail{to: []string{"a@b\r\nDATA"}, subject: "x\r\nBcc: all@example.com", at: t0})
	if s := <-sessions; strings.Contains(s, "\nBcc") || strings.Count(s, "DATA\r\n") != 1 && !strings.Contains(s, "RCPT TO:<a@b  DATA>") {
		t.Errorf("%q", s)
	}
	await(t, "the count", func() bool { n, _, _ := p.counts(); return n == 2 })
	cancel()
	<-done
}

func TestMailTrouble(t *testing.T) {
	var mu sync.Mutex
	state := "busy"
	addr, sessions := smtpServer(t, func(line string) string {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case line == "" && state == "busy":
			return "421 try later\r\n"
		case strings.HasPrefix(line, "RCPT") && state == "refuse":
			return "550 no such user\r\n"
		}
		return goodSMTP(line)
	})
	var log strings.Builder
	p := newPostman(slog.New(ipc.NewLogHandler(&log)), func() {})
	p.retry = []time.Duration{time.Millisecond}
	if err := p.add(mail{}); err == nil || !strings.Contains(err.Error(), "smtp_server") {
		t.Errorf("no server: %v", err)
	}
	p.configure(model.Global{SMTPServer: addr, SMTPConnectTimeout: time.Minute}, "")
	if err := p.add(mail{}); err == nil || !strings.Contains(err.Error(), "notification_email") {
		t.Errorf("no recipient: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.work(ctx) }()
	// A message from before the clock was set is not an old one.
	p.add(mail{to: []string{"a@b"}, subject: "one", at: time.Unix(1000, 0)})
	<-sessions
	<-sessions
	<-sessions
	mu.Lock()
	state = "good"
	mu.Unlock()
	await(t, "delivery", func() bool { n, f, _ := p.counts(); return n == 1 && f == 0 })
	mu.Lock()
	state = "refuse"
	mu.Unlock()
	p.add(mail{to: []string{"a@b"}, subject: "two"})
	await(t, "refusal", func() bool {
		n, f, last := p.counts()
		return n == 1 && f == 1 && strings.Contains(last, "550 no such user")
	})
	cancel()
	<-done
	if n := strings.Count(log.String(), "421 try later"); n != 1 {
		t.Errorf("the failure was logged %d times:\n%s", n, log.String())
	}
	if !strings.Contains(log.String(), "mail works again") {
		t.Errorf("log:\n%s", log.String())
	}
	if l := log.String(); !strings.Contains(l, "550 no such user\"; dropped") || !strings.Contains(l, "421 try later\"; tried again for 1h0m0s") {
		t.Errorf("what becomes of a message is not told:\n%s", l)
	}
	if err := p.add(mail{to: []string{"a@b"}, body: strings.Repeat("x", mailSize+1)}); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("a message of more than %d bytes: %v", mailSize, err)
	}
	full := newPostman(discard(), func() {})
	full.configure(model.Global{SMTPServer: addr}, "")
	for range 3 * mailQueue {
		full.add(mail{to: []string{"a@b"}})
	}
	if _, f, _ := full.counts(); len(full.queue) != mailQueue || f != 2*mailQueue {
		t.Errorf("%d wait, %d dropped", len(full.queue), f)
	}
}

// A mail server that is put right is tried at once, not when the pause after
// the failure of the other one is over.
func TestMailGoesOnWithTheNextConfiguration(t *testing.T) {
	bad, tried := smtpServer(t, func(string) string { return "421 try later\r\n" })
	good, sessions := smtpServer(t, goodSMTP)
	p := newPostman(discard(), func() {})
	p.retry = []time.Duration{time.Hour}
	g := model.Global{SMTPServer: bad, NotificationEmail: []string{"a@b"}, SMTPConnectTimeout: time.Minute}
	p.configure(g, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.work(ctx) }()
	if err := p.add(mail{subject: "one"}); err != nil {
		t.Fatal(err)
	}
	<-tried
	await(t, "the failure", func() bool { _, _, last := p.counts(); return last != "" })
	p.configure(g, "") // a commit that is about other things
	g.SMTPServer = good
	p.configure(g, "")
	select {
	case <-sessions:
	case <-time.After(time.Minute):
		t.Error("the new server was not tried")
	}
	cancel()
	<-done
}

// One recipient that the server refuses for good does not keep the message
// from the others.
func TestMailToTheOthers(t *testing.T) {
	addr, sessions := smtpServer(t, func(line string) string {
		if strings.HasPrefix(line, "RCPT TO:<gone@") {
			return "550 no such user\r\n"
		}
		return goodSMTP(line)
	})
	var log strings.Builder
	p := newPostman(slog.New(ipc.NewLogHandler(&log)), func() {})
	p.configure(model.Global{SMTPServer: addr, NotificationEmail: []string{"gone@example.com", "b@example.com"}, SMTPConnectTimeout: time.Minute}, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.work(ctx) }()
	if err := p.add(mail{subject: "one"}); err != nil {
		t.Fatal(err)
	}
	if s := <-sessions; !strings.Contains(s, "RCPT TO:<b@example.com>\r\nDATA\r\n") {
		t.Errorf("session %q", s)
	}
	await(t, "the count", func() bool { n, _, _ := p.counts(); return n == 1 })
	if _, failed, last := p.counts(); failed != 0 || !strings.Contains(last, "gone@example.com") {
		t.Errorf("%d failed, last %q", failed, last)
	}
	cancel()
	<-done
	if n := strings.Count(log.String(), "gone@example.com"); n != 1 {
		t.Errorf("log:\n%s", log.String())
	}
}
