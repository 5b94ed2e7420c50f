package health

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"ballast/configs/model"
)

// Limits on what a real server may make us hold or read. They are far above
// what a health page needs; keepalived has none but time.
const (
	maxHeader = 16 << 10 // bytes of status line and header fields
	maxRegex  = 1 << 20  // bytes of body that a regex is matched against
	maxBody   = 64 << 20 // bytes of body read at all
)

// requestFor is the request for one URL, byte by byte as keepalived sends it:
// no Connection line with "1.0", no Accept, the Host line last.
func requestFor(c *model.Check, u *model.URL) []byte {
	version, conn := "0", ""
	switch c.HTTPProtocol {
	case "1.1":
		version, conn = "1", "Connection: close\r\n"
	case "1.0C", "1.0c":
		conn = "Connection: close\r\n"
	}
	host := u.VirtualHost
	if host == "" {
		host = netip.AddrPortFrom(c.Addr.WithZone(""), c.Port).String()
	}
	return []byte("GET " + u.Path + " HTTP/1." + version + "\r\n" +
		"User-Agent: KeepAliveClient\r\n" + conn + "Host: " + host + "\r\n\r\n")
}

// urlRule is what an answer to one URL must be.
type urlRule struct {
	status  []model.StatusRange
	digest  string // MD5 in lower-case hex, empty: any
	regex   *regexp.Regexp
	noMatch bool // a match is a failure
}

func newURLRule(u *model.URL) (urlRule, error) {
	r := urlRule{status: u.Status, digest: strings.ToLower(u.Digest), noMatch: u.RegexNoMatch}
	if len(r.status) == 0 {
		r.status = []model.StatusRange{{From: 200, To: 299}}
	}
	if u.Regex != "" {
		re, err := regexp.Compile(u.Regex)
		if err != nil {
			return r, fmt.Errorf("url %s: regex: %w (RE2 syntax: no look-around, no back references)", u.Path, err)
		}
		r.regex = re
	}
	return r, nil
}

func (r *urlRule) statusOK(code int) bool {
	for _, s := range r.status {
		if code >= s.From && code <= s.To {
			return true
		}
	}
	return false
}

func (r *urlRule) wantStatus() string {
	var words []string
	for _, s := range r.status {
		if s.From == s.To {
			words = append(words, strconv.Itoa(s.From))
		} else {
			words = append(words, fmt.Sprintf("%d-%d", s.From, s.To))
		}
	}
	return strings.Join(words, " ")
}

// answer reads one HTTP answer as it arrives and judges it. The body is the
// raw stream after the header: chunks are not decoded, redirects not followed.
type answer struct {
	rule *urlRule

	head     []byte // until the header is complete
	inBody   bool
	status   int
	length   int64 // Content-Length, -1: none
	got      int64 // body bytes
	sum      hash.Hash
	text     []byte // start of the body, for the regex
	verdict  bool
	finished bool
	reason   string
}

func newAnswer(rule *urlRule) *answer { return &answer{rule: rule, length: -1} }

func (a *answer) fail(format string, args ...any) bool {
	a.finished, a.verdict, a.reason = true, false, fmt.Sprintf(format, args...)
	return true
}

// feed takes the next bytes and reports whether the verdict is known, so that
// nothing more needs to be read.
func (a *answer) feed(b []byte) bool {
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
		a.head, a.inBody = nil, true
		b = rest
	}
	return a.body(b)
}

func (a *answer) header(h []byte) bool {
	code, ok := statusCode(h)
	if !ok {
		line, _, _ := bytes.Cut(h, []byte("\r\n"))
		return a.fail("no HTTP status in %s", clip(line))
	}
	a.status, a.length = code, contentLength(h)
	if !a.rule.statusOK(code) {
		return a.fail("status %d, want %s", code, a.rule.wantStatus())
	}
	if a.rule.digest != "" {
		a.sum = md5.New()
	}
	return false
}

func (a *answer) body(b []byte) bool {
	if a.sum != nil {
		// What follows Content-Length is not part of the body.
		in := b
		if a.length >= 0 {
			in = b[:min(int64(len(b)), max(a.length-a.got, 0))]
		}
		a.sum.Write(in)
	}
	if a.rule.regex != nil && len(a.text) < maxRegex {
		a.text = append(a.text, b[:min(len(b), maxRegex-len(a.text))]...)
	}
	a.got += int64(len(b))
	if a.got > maxBody {
		return a.fail("answer longer than %d MiB", maxBody>>20)
	}
	return false
}

// end is called when the server has closed its side. It gives the verdict.
func (a *answer) end() (ok bool, reason string) {
	switch {
	case a.finished:
	case !a.inBody && len(a.head) == 0:
		a.fail("connection closed without an answer")
	case !a.inBody:
		a.fail("connection closed inside the HTTP header, after %d bytes", len(a.head))
	default:
		a.judge()
	}
	return a.verdict, a.reason
}

func (a *answer) judge() {
	if a.sum != nil {
		if d := hex.EncodeToString(a.sum.Sum(nil)); d != a.rule.digest {
			a.fail("digest %s of %d bytes, want %s", d, a.got, a.rule.digest)
			return
		}
	}
	if a.rule.regex != nil && a.rule.regex.Match(a.text) == a.rule.noMatch {
		if a.rule.noMatch {
			a.fail("regex matches the %d bytes of the body, must not", a.got)
		} else {
			a.fail("regex does not match the %d bytes of the body", a.got)
		}
		return
	}
	a.finished, a.verdict, a.reason = true, true, fmt.Sprintf("status %d", a.status)
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
		if !ok || !strings.EqualFold(string(name), "Content-Length") {
			continue
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		if err != nil || n < 0 || n == math.MaxInt64 {
			return -1
		}
		return n
	}
	return -1
}

// clip quotes the start of what a server sent.
func clip(b []byte) string {
	const most = 40
	if len(b) > most {
		return strconv.QuoteToASCII(string(b[:most])) + "…"
	}
	return strconv.QuoteToASCII(string(b))
}
