package dialog

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ballast/configs/model"
)

// Request is the request for one URL, byte by byte as keepalived sends it: no
// Connection line with "1.0", no Accept, the Host line last. Header lines of
// our own keyword follow it.
func Request(c *model.Check, u *model.URL) []byte {
	version, conn := "0", ""
	switch c.HTTPProtocol {
	case "1.1":
		version, conn = "1", "Connection: close\r\n"
	case "1.0C", "1.0c":
		conn = "Connection: close\r\n"
	}
	b := []byte("GET " + u.Path + " HTTP/1." + version + "\r\n" +
		"User-Agent: KeepAliveClient\r\n" + conn + "Host: " + host(c, u) + "\r\n")
	for _, h := range u.Headers {
		b = append(b, h.Name+": "+h.Value+"\r\n"...)
	}
	return append(b, "\r\n"...)
}

func host(c *model.Check, u *model.URL) string {
	if u.VirtualHost != "" {
		return u.VirtualHost
	}
	return netip.AddrPortFrom(c.Addr.WithZone(""), c.Port).String()
}

// http1 reads one HTTP/1 answer as it arrives and judges it. The body is the
// raw stream after the header: chunks are not decoded, redirects not followed.
type http1 struct {
	judge
	evidence
	request []byte
	head    []byte // until the header is complete
}

// HTTP1 asks for one URL with a request that Request made.
func HTTP1(request []byte, rule *Rule) Dialog { return newHTTP1(request, rule) }

func newHTTP1(request []byte, rule *Rule) *http1 {
	return &http1{judge: judge{rule: rule, length: -1}, request: request}
}

func (a *http1) Open() []byte { return a.request }

func (a *http1) Hear(b []byte) ([]byte, bool) {
	a.keep(b)
	return nil, a.feed(b)
}

func (a *http1) feed(b []byte) bool {
	if a.finished {
		return true
	}
	if !a.inBody {
		// The end mark may straddle two reads.
		from := max(len(a.head)-3, 0)
		take := min(len(b), maxHeader-len(a.head))
		a.head = append(a.head, b[:take]...)
		end := bytes.Index(a.head[from:], []byte("\r\n\r\n"))
		if end < 0 {
			if len(a.head) >= maxHeader {
				return a.fail("no end of the HTTP header in the first %d KiB", maxHeader>>10)
			}
			return false
		}
		end += from + 4
		rest := b[take-(len(a.head)-end):]
		if a.header(a.head[:end]) {
			return true
		}
		a.head = nil
		b = rest
	}
	return a.body(b)
}

func (a *http1) header(h []byte) bool {
	code, ok := statusCode(h)
	if !ok {
		line, _, _ := bytes.Cut(h, []byte("\r\n"))
		return a.fail("no HTTP status in %s", Clip(line))
	}
	return a.begin(code, contentLength(h), func(yield func(name, value string)) {
		for line := range bytes.SplitSeq(h, []byte("\r\n")) {
			if name, value, ok := bytes.Cut(line, []byte(":")); ok {
				yield(string(name), string(bytes.TrimSpace(value)))
			}
		}
	})
}

func (a *http1) End() (ok bool, reason string) {
	switch {
	case a.finished:
	case !a.inBody && len(a.head) == 0:
		a.fail("connection closed without an answer")
	case !a.inBody:
		a.fail("connection closed inside the HTTP header, after %d bytes", len(a.head))
	default:
		a.whole()
	}
	return a.end()
}

func (a *http1) Stalled(step, whole time.Duration) (bool, string) {
	switch {
	case !a.inBody && len(a.head) == 0:
		return false, Silence(step, whole)
	case !a.inBody:
		return false, fmt.Sprintf("HTTP header not complete within %s, %d bytes of it", orWhole(step, whole), len(a.head))
	case step == 0:
		return false, fmt.Sprintf("answer not complete after %s, %d bytes of body", whole, a.got)
	}
	return false, fmt.Sprintf("answer stopped for %s after %d bytes of body", step, a.got)
}

// orWhole is whole when step is 0.
func orWhole(step, whole time.Duration) time.Duration {
	if step == 0 {
		return whole
	}
	return step
}

// Broken says how far the answer had come.
func (a *judge) Broken(err string) string {
	if a.inBody {
		return fmt.Sprintf("%s after %d bytes of body", err, a.got)
	}
	return err
}

// statusCode finds the three digits between the first blank of the first line
// and the next blank or its end (RFC 9112 section 4). The version before it is
// not looked at, as in keepalived.
func statusCode(h []byte) (int, bool) {
	line, _, _ := bytes.Cut(h, []byte("\r\n"))
	_, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return 0, false
	}
	word, _, _ := bytes.Cut(rest, []byte(" "))
	return threeDigits(word)
}

func threeDigits(word []byte) (int, bool) {
	if len(word) != 3 {
		return 0, false
	}
	n := 0
	for _, c := range word {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, n >= 100
}

// contentLength returns -1 when there is no usable Content-Length.
func contentLength(h []byte) int64 {
	for line := range bytes.SplitSeq(h, []byte("\r\n")) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if ok && strings.EqualFold(string(name), "Content-Length") {
			return length(string(bytes.TrimSpace(value)))
		}
	}
	return -1
}

func length(value string) int64 {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || n == math.MaxInt64 {
		return -1
	}
	return n
}
