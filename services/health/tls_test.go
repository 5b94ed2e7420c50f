package health

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
)

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) issue(t testing.TB, name string, until time.Duration) (tls.Certificate, []byte, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(until),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

// probeWith probes one check with the SSL block given.
func probeWith(t testing.TB, ssl model.SSL, c model.Check) *check {
	t.Helper()
	cfg := configOf(c)
	cfg.SSL = ssl
	return probeVIP(t, cfg)
}

func TestTLSVerifyAndClientCertificate(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	caFile := file("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))
	_, cert, key := ca.issue(t, "director", time.Hour)
	block, _ := pem.Decode(key)
	//lint:ignore SA1019 what the SSL block's password is for
	locked, err := x509.EncryptPEMBlock(rand.Reader, block.Type, block.Bytes, []byte("s3cret"), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	ssl := model.SSL{CA: caFile, Certificate: file("c.pem", cert), Key: file("k.pem", pem.EncodeToMemory(locked)), Password: "s3cret"}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	serve := func(name string, until time.Duration, client bool) netip.AddrPort {
		pair, _, _ := ca.issue(t, name, until)
		cfg := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool}
		if client {
			cfg.ClientAuth = tls.RequireAndVerifyClientCert
		}
		return server(t, func(c net.Conn) { say("HTTP/1.0 200 OK\r\n\r\n")(tls.Server(c, cfg)) })
	}
	check := func(ap netip.AddrPort, host string, verify bool) model.Check {
		c := testCheck(model.SSLGet, ap)
		c.TLSVerify, c.URLs[0].VirtualHost = verify, host
		return c
	}
	good, wants := serve("www.example.com", time.Hour, false), serve("www.example.com", time.Hour, true)
	for _, c := range []struct {
		name  string
		ssl   model.SSL
		check model.Check
		ok    bool
		want  string
	}{
		{"verified", ssl, check(good, "www.example.com:443", true), true, "status 200"},
		{"another name", ssl, check(good, "mail.example.com", true), false, "TLS handshake: x509: certificate is valid for www.example.com"},
		{"only the address", ssl, check(good, "", true), false, "TLS handshake: x509: cannot validate certificate for 127.0.0.1"},
		{"another name, nobody asks", ssl, check(good, "mail.example.com", false), true, "status 200"},
		{"expired", ssl, check(serve("www.example.com", -time.Minute, false), "www.example.com", true), false, "TLS handshake: x509: certificate has expired"},
		{"unknown authority", model.SSL{}, check(good, "www.example.com", true), false, "TLS handshake: x509: certificate signed by unknown authority"},
		{"our certificate", ssl, check(wants, "www.example.com", false), true, "status 200"},
		{"our certificate is missing", model.SSL{}, check(wants, "www.example.com", false), false, ""},
	} {
		g := probeWith(t, c.ssl, c.check)
		wantVerdict(t, c.name, g, c.ok, c.want)
	}
	for _, c := range []struct {
		ssl  model.SSL
		want string
	}{
		{model.SSL{CA: "/no/such.pem"}, "SSL ca: open /no/such.pem"},
		{model.SSL{CA: ssl.Key}, "no certificate in it"},
		{model.SSL{Certificate: ssl.Certificate, Key: ssl.Key, Password: "wr0ng"}, "the password does not open it"},
		{model.SSL{Certificate: ssl.Certificate}, "SSL certificate"},
		{model.SSL{Certificate: ssl.Certificate, Key: file("p8.pem", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n\n-----END ENCRYPTED PRIVATE KEY-----\n"))}, "its encryption is not supported"},
	} {
		_, err := loadMaterial(&c.ssl)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
}

// counting counts what a server reads.
type counting struct {
	net.Conn
	n int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n += n
	return n, err
}

// TestCloseNotify: tls_compliant ends TLS as it should be ended.
func TestCloseNotify(t *testing.T) {
	pair, _, _ := newAuthority(t).issue(t, "x", time.Hour)
	last := make(chan int, 1)
	ap := server(t, func(c net.Conn) {
		under := &counting{Conn: c}
		s := tls.Server(under, &tls.Config{Certificates: []tls.Certificate{pair}})
		readRequest(s)
		before := under.n
		io.WriteString(s, "HTTP/1.0 503 No\r\n\r\n") // told at once: it is we who end
		io.Copy(io.Discard, s)
		last <- under.n - before
	})
	for _, compliant := range []bool{true, false} {
		c := testCheck(model.SSLGet, ap)
		c.TLSCompliant = compliant
		probeAll(t, nil, c)
		// An alert of TLS 1.3 is 24 bytes on the wire.
		if n := <-last; (n == 24) != compliant || !compliant && n != 0 {
			t.Errorf("tls_compliant %t: %d bytes at the end", compliant, n)
		}
	}
}

// TestHTTP2Server asks a real HTTP/2 server, over TLS and without.
func TestHTTP2Server(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 20000) // more than the first window
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("X-Probe") != "yes" || r.Host != "www.example.com" {
			w.WriteHeader(http.StatusTeapot)
		}
		w.Header().Set("X-Pool", "blue")
		io.WriteString(w, body+"ready")
	})
	serve := func(secure bool, protocols func(*http.Protocols)) netip.AddrPort {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: handler, Protocols: &http.Protocols{}}
		protocols(s.Protocols)
		t.Cleanup(func() { s.Close() })
		if secure {
			pair, _, _ := newAuthority(t).issue(t, "x", time.Hour)
			s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
			go s.ServeTLS(l, "", "")
		} else {
			go s.Serve(l)
		}
		return l.Addr().(*net.TCPAddr).AddrPort()
	}
	check := func(kind model.CheckKind, ap netip.AddrPort) model.Check {
		c := testCheck(kind, ap)
		c.HTTP2 = true
		c.URLs[0] = model.URL{
			Path: "/", VirtualHost: "www.example.com", Regex: "ready$",
			Headers: []model.Header{{Name: "X-Probe", Value: "yes"}}, Expect: []model.Header{{Name: "X-Pool", Value: "blue"}},
		}
		return c
	}
	tls2 := serve(true, func(p *http.Protocols) { p.SetHTTP2(true) })
	tls1 := serve(true, func(p *http.Protocols) { p.SetHTTP1(true) })
	plain2 := serve(false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	plain1 := serve(false, func(p *http.Protocols) { p.SetHTTP1(true) })
	for i, g := range probeAll(t, nil, check(model.SSLGet, tls2), check(model.SSLGet, tls1), check(model.HTTPGet, plain2), check(model.HTTPGet, plain1)) {
		want := []struct {
			ok  bool
			why string
		}{
			{true, "status 200"}, {false, "TLS handshake: "}, {true, "status 200"}, {false, `no HTTP/2 frame in "HTTP/1.1 `},
		}[i]
		wantVerdict(t, "", g, want.ok, want.why)
	}
}

// TestMailServers: the conversation over a real socket.
func TestMailServers(t *testing.T) {
	talk := func(lines ...string) netip.AddrPort {
		return server(t, func(c net.Conn) {
			b := make([]byte, 512)
			for _, l := range lines {
				io.WriteString(c, l)
				if n, err := c.Read(b); err != nil || n == 0 {
					return
				}
			}
			c.SetReadDeadline(time.Now().Add(time.Minute))
			c.Read(b)
		})
	}
	mail := func(ap netip.AddrPort) model.Check {
		c := testCheck(model.SMTPCheck, ap)
		c.HELO = "lb1"
		return c
	}
	got := probeAll(t, nil, mail(talk("220-a\r\n220 b\r\n", "250 ok\r\n", "221 bye\r\n")), brief(mail(talk("220 a\r\n", "250 ok\r\n"))),
		mail(talk("554 go away\r\n")), brief(mail(talk("220 a\r\n"))), brief(mail(talk(""))), mail(closedPort(t)))
	for i, want := range []struct {
		ok  bool
		why string
	}{
		{true, "250 to HELO"}, {true, "250 to HELO"}, {false, "greeting 554, want 220"},
		{false, "no answer to HELO within 1.5s"}, {false, "no greeting within 1.5s"}, {false, "connection refused"},
	} {
		wantVerdict(t, "", got[i], want.ok, want.why)
	}
	if a := got[2].fault.answer; a != "554 go away " {
		t.Errorf("evidence %q", a)
	}
}
