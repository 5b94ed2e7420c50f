package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"ballast/configs/model"
	"ballast/services/health/dialog"
)

// material is what the SSL block names: our certificate for real servers that
// ask for one, and the authorities that tls_verify trusts.
type material struct {
	certificate []tls.Certificate
	roots       *x509.CertPool // nil: those of the system
}

// loadMaterial reads the files of the SSL block. Errors name the file and never
// hold anything of the key or its password.
func loadMaterial(s *model.SSL) (*material, error) {
	m := &material{}
	if s.CA != "" {
		b, err := os.ReadFile(s.CA)
		if err != nil {
			return m, fmt.Errorf("SSL ca: %w", err)
		}
		m.roots = x509.NewCertPool()
		if !m.roots.AppendCertsFromPEM(b) {
			return m, fmt.Errorf("SSL ca %s: no certificate in it: a PEM file is needed", s.CA)
		}
	}
	if s.Certificate == "" {
		return m, nil
	}
	cert, err := os.ReadFile(s.Certificate)
	if err != nil {
		return m, fmt.Errorf("SSL certificate: %w", err)
	}
	key := cert
	name := s.Certificate
	if s.Key != "" {
		if key, err = os.ReadFile(s.Key); err != nil {
			return m, fmt.Errorf("SSL key: %w", err)
		}
		name = s.Key
	}
	if key, err = openKey(key, s.Password); err != nil {
		return m, fmt.Errorf("SSL key %s: %w", name, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return m, fmt.Errorf("SSL certificate %s and key %s: %w", s.Certificate, name, err)
	}
	m.certificate = []tls.Certificate{pair}
	return m, nil
}

// openKey decrypts a key in OpenSSL's own PEM encryption ("Proc-Type:
// 4,ENCRYPTED"); PKCS #8 encryption is not in the standard library.
func openKey(b []byte, password string) ([]byte, error) {
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return b, nil
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" {
			return nil, errors.New("its encryption is not supported: store it with \"openssl rsa -aes256 -traditional\", or without a password")
		}
		//lint:ignore SA1019 the format is weak, and what users have
		if !x509.IsEncryptedPEMBlock(block) {
			continue
		}
		//lint:ignore SA1019 as above
		der, err := x509.DecryptPEMBlock(block, []byte(password))
		if err != nil {
			return nil, errors.New("the password does not open it")
		}
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
	}
}

// beginTLS hands an SSL_GET probe to a worker.
func (l *loop) beginTLS(c *check) {
	c.edge.phase = working
	spec, u, talk, mat := c.spec, &c.spec.URLs[c.m.url], c.dialog(true), l.material
	l.tls.do(c.edge.slow, func(ctx context.Context) {
		began := time.Now() // time in the queue is ours, not the server's
		o := probeTLS(ctx, l.cores, spec, u, talk, mat)
		dialog.Release(talk)
		l.post(func(now time.Time) {
			c.edge.began = began
			l.finish(c, o, now)
		})
	})
}

// probeTLS does one SSL_GET: connect, handshake, request, answer. Certificates
// are verified with tls_verify only, as keepalived verifies none: the check asks
// whether the service answers, and real servers carry certificates for the
// virtual one.
func probeTLS(ctx context.Context, cores tokens, spec *model.Check, u *model.URL, talk dialog.Dialog, mat *material) outcome {
	whole := patience(spec)
	ctx, cancel := context.WithTimeout(ctx, whole)
	defer cancel()
	var optErr error
	d := net.Dialer{Timeout: spec.ConnectTimeout, KeepAlive: -1, Control: func(_, _ string, rc syscall.RawConn) error {
		if err := rc.Control(func(fd uintptr) { optErr = setOptions(int(fd), spec) }); err != nil {
			return err
		}
		return optErr
	}}
	raw, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(spec.Addr, spec.Port).String())
	if err != nil {
		return outcome{local: optErr != nil || isLocal(err), away: isAway(err), reason: netReason(err, spec)}
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	cores.take()
	defer cores.give()
	conn := tls.Client(politeConn{raw, cores}, tlsConfig(spec, u, mat))
	step := func() {
		// Not past the end of patience: AfterFunc has set a deadline long ago then.
		if end, _ := ctx.Deadline(); ctx.Err() == nil {
			at := time.Now().Add(spec.ConnectTimeout)
			if at.After(end) {
				at = end
			}
			raw.SetDeadline(at)
		}
	}
	step()
	if err := conn.HandshakeContext(ctx); err != nil {
		return outcome{reason: "TLS handshake: " + netReason(err, spec)}
	}
	if p := conn.ConnectionState().NegotiatedProtocol; spec.HTTP2 && p != "h2" {
		return outcome{reason: "TLS handshake: the server does not offer HTTP/2"}
	}
	if spec.TLSCompliant || u.TLSCompliant {
		defer conn.Close() // sends close_notify
	}
	step()
	if _, err := conn.Write(talk.Open()); err != nil {
		return outcome{reason: "request: " + netReason(err, spec)}
	}
	buf := make([]byte, 16<<10)
	for {
		step()
		n, err := conn.Read(buf)
		if n > 0 {
			say, done := talk.Hear(buf[:n])
			if done {
				break
			}
			if len(say) > 0 {
				step()
				if _, err := conn.Write(say); err != nil {
					return broken(talk, netReason(err, spec))
				}
			}
		}
		var ne net.Error
		switch {
		case err == nil:
			continue
		// Many servers close without close_notify; keepalived takes that as the end.
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return verdict(talk)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
			t := spec.ConnectTimeout
			if ctx.Err() != nil {
				t = 0
			}
			ok, reason := talk.Stalled(t, whole)
			return outcome{ok: ok, reason: reason, answer: talk.Evidence()}
		}
		return broken(talk, netReason(err, spec))
	}
	return verdict(talk)
}

// everySuite are all cipher suites: old servers are still servers.
var everySuite = sync.OnceValue(func() (ids []uint16) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, s.ID)
	}
	return ids
})

// curves leave the hybrids out that no quantum computer shall ever break: a probe
// says nothing that is worth it, their keys cost more than the rest of the
// handshake, and make the first message so long that some boxes on the way drop it.
var curves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

func tlsConfig(spec *model.Check, u *model.URL, mat *material) *tls.Config {
	cfg := &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, SessionTicketsDisabled: true,
		CipherSuites: everySuite(), CurvePreferences: curves,
	}
	if mat != nil {
		cfg.Certificates = mat.certificate
	}
	if spec.HTTP2 {
		cfg.NextProtos = []string{"h2"}
	}
	if spec.SNI {
		if cfg.ServerName = spec.SNIName; cfg.ServerName == "" {
			cfg.ServerName = hostOnly(u.VirtualHost)
		}
	}
	if spec.TLSVerify {
		// Also a name that is not sent (no enable_sni) is what the certificate
		// must be for, so verification is not left to crypto/tls.
		name := cfg.ServerName
		if name == "" {
			name = hostOnly(u.VirtualHost)
		}
		if name == "" {
			name = spec.Addr.WithZone("").String()
		}
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return verify(cs, name, mat) }
	}
	return cfg
}

// hostOnly takes the port off a virtual host.
func hostOnly(vhost string) string {
	if h, _, err := net.SplitHostPort(vhost); err == nil {
		return h
	}
	return strings.Trim(vhost, "[]")
}

func verify(cs tls.ConnectionState, name string, mat *material) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	opts := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool()}
	if mat != nil {
		opts.Roots = mat.roots
	}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(opts)
	return err
}

func netReason(err error, spec *model.Check) string {
	var ne net.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &ne) && ne.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + spec.ConnectTimeout.String()
	case errors.Is(err, io.EOF):
		return "connection closed"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return explain(errno)
	}
	return err.Error()
}
