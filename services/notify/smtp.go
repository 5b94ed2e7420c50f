package notify

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
)

// Values of model.Global.SMTPTLS.
const (
	tlsNever = ""
	tlsStart = "starttls"
	tlsWhole = "tls"
)

// permanent is a refusal that another try will not change (SMTP 5yz), or a
// setting under which no try is made.
type permanent struct{ error }

// authorities are who may sign a mail server's certificate: those of the file
// that the SSL block's ca names, else those of the system (nil), of which a
// director has none.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("SSL ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("SSL ca %s: no certificate in it: a PEM file is needed", file)
	}
	return pool, nil
}

// deliver hands a message to the mail server. Without TLS and a login it
// speaks as keepalived does, HELO and nothing but RFC 821. A recipient that the
// server refuses for good (refused) does not keep the message from the others.
func deliver(ctx context.Context, g *model.Global, ca string, m mail) (refused, err error) {
	timeout := g.SMTPConnectTimeout
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	host, _, err := net.SplitHostPort(g.SMTPServer)
	if err != nil {
		return nil, permanent{fmt.Errorf("smtp_server %s: %w", g.SMTPServer, err)}
	}
	if g.SMTPUser != "" && g.SMTPTLS == tlsNever {
		return nil, permanent{errors.New("smtp_server: a password is only sent over TLS: add smtp_tls starttls (port 587) or smtp_tls on (port 465) to global_defs")}
	}
	var roots *x509.CertPool
	if g.SMTPTLS != tlsNever && !g.SMTPNoVerify {
		if roots, err = authorities(ca); err != nil {
			return nil, err
		}
	}
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(ctx, "tcp", g.SMTPServer)
	if err != nil {
		return nil, err
	}
	s := &session{c: c, host: host, timeout: timeout, config: &tls.Config{
		ServerName: host, MinVersion: tls.VersionTLS12, RootCAs: roots, InsecureSkipVerify: g.SMTPNoVerify,
	}}
	s.r = bufio.NewReaderSize(c, replyMax)
	defer func() { s.c.Close() }()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := s.hello(ctx, g); err != nil {
		return nil, err
	}
	from := g.NotificationEmailFrom
	if from == "" {
		from = "keepalived@" + hostName()
	}
	if err := s.want("MAIL", "MAIL FROM:<"+envelope(from)+">", "250"); err != nil {
		return nil, err
	}
	var none []error
	for _, to := range m.to {
		err := s.want("RCPT "+clean(to), "RCPT TO:<"+envelope(to)+">", "250", "251")
		var perm permanent
		switch {
		case errors.As(err, &perm):
			none = append(none, err)
		case err != nil:
			return nil, err
		}
	}
	if len(none) == len(m.to) && len(none) > 0 {
		return nil, none[0]
	}
	if err := s.want("DATA", "DATA", "354"); err != nil {
		return nil, err
	}
	if err := s.want("message", message(from, m), "250"); err != nil {
		return nil, err
	}
	s.say("QUIT") // delivered already: whatever comes back is not our trouble
	return errors.Join(none...), nil
}

// session is one connection to a mail server.
type session struct {
	c       net.Conn
	r       *bufio.Reader
	host    string
	config  *tls.Config
	timeout time.Duration // of each step
	offers  []string      // extensions that the last EHLO was answered with
	secret  []string      // what must not stand in an error, should the server repeat it
}

// hello greets, with TLS and the login that are configured.
func (s *session) hello(ctx context.Context, g *model.Global) error {
	name := g.SMTPHELO
	if name == "" {
		name = hostName()
	}
	name = clean(name)
	if g.SMTPTLS == tlsWhole {
		if err := s.secure(ctx); err != nil {
			return err
		}
	}
	if err := s.want("connect", "", "220"); err != nil {
		return err
	}
	if g.SMTPTLS == tlsNever {
		return s.want("HELO", "HELO "+name, "250")
	}
	if err := s.ehlo(name); err != nil {
		return err
	}
	if g.SMTPTLS == tlsStart {
		// Required: a server, or somebody in between, that does not offer it gets
		// neither the message nor the password.
		if !s.offered("STARTTLS") {
			return fmt.Errorf("%s: STARTTLS is not offered, and smtp_tls starttls asks for it", s.c.RemoteAddr())
		}
		if err := s.want("STARTTLS", "STARTTLS", "220"); err != nil {
			return err
		}
		if s.r.Buffered() > 0 {
			return fmt.Errorf("%s: STARTTLS: bytes came in clear behind the answer", s.c.RemoteAddr())
		}
		if err := s.secure(ctx); err != nil {
			return err
		}
		if err := s.ehlo(name); err != nil { // what was said in clear does not count (RFC 3207 section 4.2)
			return err
		}
	}
	if g.SMTPUser == "" {
		return nil
	}
	return s.login(g.SMTPUser, g.SMTPPassword)
}

// secure puts TLS around the connection.
func (s *session) secure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c := tls.Client(s.c, s.config)
	if err := c.HandshakeContext(ctx); err != nil {
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			return fmt.Errorf("%s: the certificate of %s: %w; store the file of its authority and name it by ca in an SSL block, or set smtp_verify off", s.c.RemoteAddr(), s.host, cert.Err)
		}
		return fmt.Errorf("%s: TLS: %w", s.c.RemoteAddr(), err)
	}
	s.c, s.r = c, bufio.NewReaderSize(c, replyMax)
	return nil
}

func (s *session) ehlo(name string) error {
	lines, err := s.ask("EHLO", "EHLO "+name, "250")
	s.offers = lines
	return err
}

// offered reports whether the server has an extension, and with which words.
func (s *session) offered(name string) bool {
	_, ok := s.extension(name)
	return ok
}

func (s *session) extension(name string) (words []string, ok bool) {
	for _, l := range s.offers[min(1, len(s.offers)):] { // the first is a greeting
		// "AUTH=PLAIN" is what some servers say for a client of old.
		f := strings.Fields(strings.ToUpper(strings.Replace(l, "=", " ", 1)))
		if len(f) > 0 && f[0] == name {
			words, ok = append(words, f[1:]...), true
		}
	}
	return words, ok
}

// login authenticates (RFC 4954) with the first of these that the server offers.
func (s *session) login(user, password string) error {
	if _, secure := s.c.(*tls.Conn); !secure {
		return permanent{errors.New("AUTH: a password is only sent over TLS")}
	}
	have, _ := s.extension("AUTH")
	b64 := base64.StdEncoding
	plain := b64.EncodeToString([]byte("\x00" + user + "\x00" + password))
	if password != "" {
		s.secret = []string{plain, b64.EncodeToString([]byte(password)), password}
	}
	switch {
	case slices.Contains(have, "PLAIN"): // RFC 4616
		return s.want("AUTH PLAIN", "AUTH PLAIN "+plain, "235")
	case slices.Contains(have, "LOGIN"):
		if err := s.want("AUTH LOGIN", "AUTH LOGIN", "334"); err != nil {
			return err
		}
		if err := s.want("AUTH LOGIN", b64.EncodeToString([]byte(user)), "334"); err != nil {
			return err
		}
		return s.want("AUTH LOGIN", b64.EncodeToString([]byte(password)), "235")
	case slices.Contains(have, "CRAM-MD5"): // RFC 2195
		lines, err := s.ask("AUTH CRAM-MD5", "AUTH CRAM-MD5", "334")
		if err != nil {
			return err
		}
		challenge, err := b64.DecodeString(strings.TrimSpace(lines[len(lines)-1]))
		if err != nil {
			return fmt.Errorf("%s: AUTH CRAM-MD5: the challenge is no base64", s.c.RemoteAddr())
		}
		h := hmac.New(md5.New, []byte(password))
		h.Write(challenge)
		return s.want("AUTH CRAM-MD5", b64.EncodeToString([]byte(user+" "+hex.EncodeToString(h.Sum(nil)))), "235")
	case len(have) == 0:
		return fmt.Errorf("%s: a login is configured (smtp_user), but the server offers none", s.c.RemoteAddr())
	}
	return fmt.Errorf("%s: the server offers AUTH %s; PLAIN, LOGIN and CRAM-MD5 are known here", s.c.RemoteAddr(), strings.Join(have, " "))
}

func (s *session) say(line string) error {
	s.c.SetDeadline(time.Now().Add(s.timeout))
	_, err := s.c.Write([]byte(line + "\r\n"))
	return err
}

// want sends a line (none when empty) and reads a reply with one of the codes.
func (s *session) want(step, line string, codes ...string) error {
	_, err := s.ask(step, line, codes...)
	return err
}

// ask is want, and returns the lines of the reply without their codes. Errors
// name the step and what came back, never what was sent: that may be a password.
func (s *session) ask(step, line string, codes ...string) (lines []string, err error) {
	if line != "" {
		if err := s.say(line); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s.c.RemoteAddr(), step, err)
		}
	}
	s.c.SetDeadline(time.Now().Add(s.timeout))
	for range 100 { // lines of one reply
		b, err := s.r.ReadSlice('\n')
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s.c.RemoteAddr(), step, err)
		}
		text := strings.TrimRight(string(b), "\r\n")
		lines = append(lines, text[min(4, len(text)):])
		if len(text) >= 4 && text[3] == '-' {
			continue
		}
		for _, c := range codes {
			if strings.HasPrefix(text, c) {
				return lines, nil
			}
		}
		for _, hide := range s.secret {
			text = strings.ReplaceAll(text, hide, "…")
		}
		err = fmt.Errorf("%s: %s: answered %.200q", s.c.RemoteAddr(), step, text)
		if strings.HasPrefix(text, "5") {
			return nil, permanent{err}
		}
		return nil, err
	}
	return nil, fmt.Errorf("%s: %s: endless reply", s.c.RemoteAddr(), step)
}
