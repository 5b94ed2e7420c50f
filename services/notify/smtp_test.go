package notify

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
)

// strictMail is a mail server that takes nothing for granted: commands in
// order, TLS before a login, one login, CRLF, no bare dot. What it does not
// like ends the session with a word of why.
type strictMail struct {
	tls      *tls.Config
	mode     string // tlsStart, tlsWhole or tlsNever
	auth     string // words behind AUTH; empty: none offered
	noTLS    bool   // STARTTLS is not offered
	inject   bool   // bytes in clear behind the answer to STARTTLS
	echo     bool   // a refused login is repeated in the answer
	user     string
	password string
}

type delivery struct {
	seen []string // commands, "TLS", and the message in one piece
	why  string   // what the server did not like
}

func certificate(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, ca
}

func (s *strictMail) serve(t *testing.T) (port string, sessions <-chan delivery) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ch := make(chan delivery, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d := delivery{}
			d.why = s.session(c, &d)
			c.Close()
			ch <- d
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, ch
}

func (s *strictMail) session(c net.Conn, d *delivery) string {
	c.SetDeadline(time.Now().Add(time.Minute))
	secure := false
	if s.mode == tlsWhole {
		tc := tls.Server(c, s.tls)
		if err := tc.Handshake(); err != nil {
			return "handshake"
		}
		c, secure = tc, true
		d.seen = append(d.seen, "TLS")
	}
	r := bufio.NewReader(c)
	say := func(lines ...string) { io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n") }
	line := func() (string, bool) {
		l, err := r.ReadString('\n')
		if err != nil || !strings.HasSuffix(l, "\r\n") {
			return l, false
		}
		return strings.TrimSuffix(l, "\r\n"), true
	}
	say("220 strict ESMTP")
	var helo, logged, mail, rcpt bool
	for {
		l, ok := line()
		if !ok {
			return fmt.Sprintf("bare line %q", l)
		}
		verb, arg, _ := strings.Cut(l, " ")
		if verb != "AUTH" {
			d.seen = append(d.seen, l)
		}
		switch verb {
		case "EHLO":
			helo = true
			offers := []string{"250-strict greets " + arg, "250-SIZE 1000000"}
			if s.mode == tlsStart && !secure && !s.noTLS {
				offers = append(offers, "250-STARTTLS")
			}
			if s.auth != "" && secure {
				offers = append(offers, "250-AUTH "+s.auth)
			}
			say(append(offers, "250 HELP")...)
		case "HELO":
			helo = true
			say("250 strict")
		case "STARTTLS":
			if secure || s.mode != tlsStart || !helo {
				return "STARTTLS out of place"
			}
			if s.inject {
				say("220 go", "250 injected")
				io.Copy(io.Discard, r)
				return "injected"
			}
			say("220 go")
			tc := tls.Server(c, s.tls)
			if err := tc.Handshake(); err != nil {
				return "handshake"
			}
			c, secure, helo = tc, true, false
			r = bufio.NewReader(c)
			d.seen = append(d.seen, "TLS")
		case "AUTH":
			if !secure || !helo || logged {
				say("530 first things first")
				return "AUTH out of place: " + l
			}
			how, ok := s.login(arg, say, line)
			d.seen = append(d.seen, "AUTH "+how)
			if !ok {
				answer := "535 5.7.8 authentication failed"
				if s.echo {
					answer += " for " + l + " " + s.password
				}
				say(answer)
				continue
			}
			logged = true
			say("235 welcome")
		case "MAIL":
			if !helo || s.auth != "" && !logged {
				say("530 5.7.0 authentication required")
				return "MAIL before the login"
			}
			mail = true
			say("250 ok")
		case "RCPT":
			if !mail {
				return "RCPT before MAIL"
			}
			rcpt = true
			say("250 ok")
		case "DATA":
			if !rcpt {
				return "DATA before RCPT"
			}
			say("354 go")
			var msg strings.Builder
			for {
				l, ok := line()
				if !ok {
					return "torn message"
				}
				if l == "." {
					break
				}
				msg.WriteString(strings.TrimPrefix(l, ".") + "\r\n")
			}
			d.seen = append(d.seen, msg.String())
			mail, rcpt = false, false
			say("250 queued")
		case "QUIT":
			say("221 bye")
			return ""
		default:
			return "unknown command " + l
		}
	}
}

// login checks what a client proves, and by which way.
func (s *strictMail) login(arg string, say func(...string), line func() (string, bool)) (how string, ok bool) {
	how, first, _ := strings.Cut(arg, " ")
	b64 := base64.StdEncoding
	decode := func(x string) string { b, _ := b64.DecodeString(x); return string(b) }
	switch how {
	case "PLAIN":
		return how, decode(first) == "\x00"+s.user+"\x00"+s.password
	case "LOGIN":
		say("334 " + b64.EncodeToString([]byte("Username:")))
		u, _ := line()
		say("334 " + b64.EncodeToString([]byte("Password:")))
		p, _ := line()
		return how, decode(u) == s.user && decode(p) == s.password
	case "CRAM-MD5":
		challenge := "<1896.697170952@strict>"
		say("334 " + b64.EncodeToString([]byte(challenge)))
		a, _ := line()
		h := hmac.New(md5.New, []byte(s.password))
		h.Write([]byte(challenge))
		return how, decode(a) == s.user+" "+hex.EncodeToString(h.Sum(nil))
	}
	return how, false
}

func TestMailTLS(t *testing.T) {
	cert, ca := certificate(t, "localhost")
	other, _ := certificate(t, "mail.example.com")
	const password = "pa55 wörd, secret"
	type fate struct {
		seen  []string // before the message
		fault string   // part of the error; empty: delivered
		perm  bool
	}
	ok := func(s ...string) fate { return fate{seen: s} }
	for _, c := range []struct {
		name   string
		server strictMail
		g      model.Global
		want   fate
	}{
		{"starttls without a login", strictMail{mode: tlsStart}, model.Global{SMTPTLS: "starttls"},
			ok("EHLO lb1", "STARTTLS", "TLS", "EHLO lb1")},
		{"tls without a login", strictMail{mode: tlsWhole}, model.Global{SMTPTLS: "tls"}, ok("TLS", "EHLO lb1")},
		{"starttls, PLAIN", strictMail{mode: tlsStart, auth: "LOGIN PLAIN CRAM-MD5"}, model.Global{SMTPTLS: "starttls", SMTPUser: "box", SMTPPassword: password},
			ok("EHLO lb1", "STARTTLS", "TLS", "EHLO lb1", "AUTH PLAIN")},
		{"tls, LOGIN", strictMail{mode: tlsWhole, auth: "login CRAM-MD5"}, model.Global{SMTPTLS: "tls", SMTPUser: "box", SMTPPassword: password},
			ok("TLS", "EHLO lb1", "AUTH LOGIN")},
		{"tls, CRAM-MD5", strictMail{mode: tlsWhole, auth: "GSSAPI CRAM-MD5"}, model.Global{SMTPTLS: "tls", SMTPUser: "box", SMTPPassword: password},
			ok("TLS", "EHLO lb1", "AUTH CRAM-MD5")},
		{"a name of its own, not verified", strictMail{mode: tlsWhole, tls: &tls.Config{Certificates: []tls.Certificate{other}}}, model.Global{SMTPTLS: "tls", SMTPNoVerify: true},
			ok("TLS", "EHLO lb1")},
		{"the certificate of somebody else", strictMail{mode: tlsStart, tls: &tls.Config{Certificates: []tls.Certificate{other}}}, model.Global{SMTPTLS: "starttls"},
			fate{fault: "the certificate of localhost"}},
		{"TLS of old", strictMail{mode: tlsWhole, tls: &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS11}}, model.Global{SMTPTLS: "tls"},
			fate{fault: "TLS: "}},
		{"STARTTLS taken out of the offer", strictMail{mode: tlsStart, noTLS: true}, model.Global{SMTPTLS: "starttls", SMTPUser: "box", SMTPPassword: password},
			fate{fault: "STARTTLS is not offered"}},
		{"bytes behind STARTTLS", strictMail{mode: tlsStart, inject: true}, model.Global{SMTPTLS: "starttls"},
			fate{fault: "came in clear"}},
		{"a password in clear", strictMail{mode: tlsNever, auth: "PLAIN"}, model.Global{SMTPUser: "box", SMTPPassword: password},
			fate{fault: "only sent over TLS", perm: true}},
		{"a wrong password, repeated by the server", strictMail{mode: tlsWhole, auth: "PLAIN", echo: true, password: "x" + password}, model.Global{SMTPTLS: "tls", SMTPUser: "box", SMTPPassword: password},
			fate{fault: "535 5.7.8", perm: true}},
		{"no login offered", strictMail{mode: tlsWhole}, model.Global{SMTPTLS: "tls", SMTPUser: "box", SMTPPassword: password},
			fate{fault: "offers none"}},
		{"no login that we know", strictMail{mode: tlsWhole, auth: "GSSAPI"}, model.Global{SMTPTLS: "tls", SMTPUser: "box", SMTPPassword: password},
			fate{fault: "AUTH GSSAPI"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.server.tls == nil {
				c.server.tls = &tls.Config{Certificates: []tls.Certificate{cert}}
			}
			c.server.user = "box"
			if c.server.password == "" {
				c.server.password = password
			}
			port, sessions := c.server.serve(t)
			g := c.g
			g.SMTPServer, g.SMTPHELO, g.NotificationEmailFrom, g.SMTPConnectTimeout = "localhost:"+port, "lb1", "a@b", time.Minute
			_, err := deliver(t.Context(), &g, ca, mail{to: []string{"x@y", "z@y"}, subject: "hello", body: ".dot\nend", at: t0})
			if c.want.fault != "" {
				var perm permanent
				if err == nil || !strings.Contains(err.Error(), c.want.fault) || errors.As(err, &perm) != c.want.perm {
					t.Errorf("error %v", err)
				}
				for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte(password)), base64.StdEncoding.EncodeToString([]byte("\x00box\x00" + password))} {
					if err != nil && strings.Contains(err.Error(), secret) {
						t.Errorf("the password is in the error: %v", err)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d := <-sessions
			want := append(slices.Clone(c.want.seen), "MAIL FROM:<a@b>", "RCPT TO:<x@y>", "RCPT TO:<z@y>", "DATA",
				"Date: Fri, 02 Jan 2026 03:04:05 +0100\r\nFrom: a@b\r\nSubject: hello\r\nX-Mailer: Keepalived\r\nTo: x@y, z@y\r\n\r\n.dot\r\nend\r\n\r\n", "QUIT")
			if d.why != "" || !slices.Equal(d.seen, want) {
				t.Errorf("%s\ngot  %q\nwant %q", d.why, d.seen, want)
			}
		})
	}
}

// TestMailPatience: a server that stands still costs a step's timeout, one that
// never ends its answer is left.
func TestMailPatience(t *testing.T) {
	for name, talk := range map[string]func(net.Conn){
		"silent":         func(c net.Conn) { io.Copy(io.Discard, c) },
		"endless line":   func(c net.Conn) { io.WriteString(c, strings.Repeat("x", 3*replyMax)); io.Copy(io.Discard, c) },
		"endless answer": func(c net.Conn) { io.WriteString(c, strings.Repeat("220-more\r\n", 300)); io.Copy(io.Discard, c) },
		"TLS that stops": func(c net.Conn) { io.WriteString(c, "\x16\x03"); io.Copy(io.Discard, c) },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				talk(c)
				c.Close()
			}
		}()
		g := model.Global{SMTPServer: l.Addr().String(), SMTPConnectTimeout: 200 * time.Millisecond}
		if strings.HasPrefix(name, "TLS") {
			g.SMTPTLS = "tls"
		}
		began := time.Now()
		if _, err := deliver(t.Context(), &g, "", mail{to: []string{"x@y"}}); err == nil {
			t.Errorf("%s: delivered", name)
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("%s: took %s", name, d)
		}
		l.Close()
	}
}

// TestMailSecretInLog: the postman's log and state do not hold the password
// either.
func TestMailSecretInLog(t *testing.T) {
	var log strings.Builder
	p := newPostman(slog.New(ipc.NewLogHandler(&log)), func() {})
	p.configure(model.Global{SMTPServer: "127.0.0.1:1", SMTPUser: "box", SMTPPassword: "top secret", NotificationEmail: []string{"x@y"}}, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.work(ctx) }()
	if err := p.add(mail{subject: "s"}); err != nil {
		t.Fatal(err)
	}
	await(t, "the failure", func() bool { _, f, _ := p.counts(); return f == 1 })
	cancel()
	<-done
	_, _, last := p.counts()
	if strings.Contains(log.String()+last, "top secret") || !strings.Contains(last, "TLS") {
		t.Errorf("%s\n%s", log.String(), last)
	}
}

// FuzzReply: whatever a mail server answers.
func FuzzReply(f *testing.F) {
	f.Add("220 hi\r\n250-a\r\n250 AUTH PLAIN\r\n")
	f.Add("2\r\n-\r\n220-\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		ours, theirs := net.Pipe()
		go func() { io.WriteString(theirs, text); theirs.Close() }()
		s := &session{c: ours, r: bufio.NewReaderSize(ours, replyMax), timeout: time.Second}
		for range 5 {
			lines, err := s.ask("step", "", "2")
			if err != nil {
				break
			}
			s.offers = lines
			s.extension("AUTH")
		}
		ours.Close()
	})
}
