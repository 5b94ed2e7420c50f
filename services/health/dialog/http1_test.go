package dialog

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
)

func TestRequest(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.168.200.2"), netip.MustParseAddr("fd00::2")
	for _, c := range []struct {
		check model.Check
		url   model.URL
		want  string
	}{
		{model.Check{Addr: v4, Port: 80, HTTPProtocol: "1.0"}, model.URL{Path: "/"},
			"GET / HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: 192.168.200.2:80\r\n\r\n"},
		{model.Check{Addr: v4, Port: 8080}, model.URL{Path: "/a?b=c"},
			"GET /a?b=c HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: 192.168.200.2:8080\r\n\r\n"},
		{model.Check{Addr: v4, Port: 80, HTTPProtocol: "1.0C"}, model.URL{Path: "/"},
			"GET / HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nConnection: close\r\nHost: 192.168.200.2:80\r\n\r\n"},
		{model.Check{Addr: v4, Port: 80, HTTPProtocol: "1.1"}, model.URL{Path: "/", VirtualHost: "www.example.com"},
			"GET / HTTP/1.1\r\nUser-Agent: KeepAliveClient\r\nConnection: close\r\nHost: www.example.com\r\n\r\n"},
		{model.Check{Addr: v6, Port: 80, HTTPProtocol: "1.0"}, model.URL{Path: "/"},
			"GET / HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: [fd00::2]:80\r\n\r\n"},
		{model.Check{Addr: v4, Port: 80}, model.URL{Path: "/", Headers: []model.Header{{Name: "X-A", Value: "b c"}, {Name: "X-D", Value: ""}}},
			"GET / HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: 192.168.200.2:80\r\nX-A: b c\r\nX-D: \r\n\r\n"},
	} {
		if d := cmp.Diff(c.want, string(Request(&c.check, &c.url))); d != "" {
			t.Error(d)
		}
	}
}

func TestAnswer(t *testing.T) {
	const hello = "5d41402abc4b2a76b9719d911017c592" // md5 of "hello"
	long := strings.Repeat("x", maxRegex)
	for _, c := range []struct {
		name string
		url  model.URL
		in   string
		want string
	}{
		{"200 by default", model.URL{}, "HTTP/1.0 200 OK\r\n\r\nbody", "ok status 200"},
		{"299 by default", model.URL{}, "HTTP/1.1 299 X\r\nA: b\r\n\r\n", "ok status 299"},
		{"503", model.URL{}, "HTTP/1.1 503 Busy\r\n\r\n", "fail status 503, want 200-299"},
		{"redirect is not followed", model.URL{}, "HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n", "fail status 301, want 200-299"},
		{"ranges", model.URL{Status: []model.StatusRange{{From: 200, To: 200}, {From: 300, To: 304}}}, "HTTP/1.1 302 F\r\n\r\n", "ok status 302"},
		{"not in ranges", model.URL{Status: []model.StatusRange{{From: 200, To: 200}, {From: 300, To: 304}}}, "HTTP/1.1 201 C\r\n\r\n", "fail status 201, want 200 300-304"},
		{"no reason phrase", model.URL{}, "HTTP/1.1 204\r\n\r\n", "ok status 204"},
		{"digest", model.URL{Digest: hello}, "HTTP/1.0 200 OK\r\n\r\nhello", "ok status 200"},
		{"digest in capitals", model.URL{Digest: strings.ToUpper(hello)}, "HTTP/1.0 200 OK\r\n\r\nhello", "ok status 200"},
		{"digest stops at Content-Length", model.URL{Digest: hello}, "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello, and more", "ok status 200"},
		{"digest sees the chunks", model.URL{Digest: hello}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			"fail digest 79e9489e3bd3f0cb0158215341de046d of 15 bytes, want " + hello},
		{"digest and wrong status", model.URL{Digest: hello}, "HTTP/1.0 500 No\r\n\r\nhello", "fail status 500, want 200-299"},
		{"regex", model.URL{Regex: "he(l)+o$"}, "HTTP/1.0 200 OK\r\n\r\nhello", "ok status 200"},
		{"regex missed", model.URL{Regex: "^ready"}, "HTTP/1.0 200 OK\r\n\r\nnot ready", "fail regex does not match the 9 bytes of the body"},
		{"regex_no_match", model.URL{Regex: "ERROR", RegexNoMatch: true}, "HTTP/1.0 200 OK\r\n\r\nall well", "ok status 200"},
		{"regex_no_match matched", model.URL{Regex: "ERROR", RegexNoMatch: true}, "HTTP/1.0 200 OK\r\n\r\nERROR 7", "fail regex matches the 7 bytes of the body, must not"},
		{"regex looks at the start only", model.URL{Regex: "end"}, "HTTP/1.0 200 OK\r\n\r\n" + long + "end",
			fmt.Sprintf("fail regex does not match the %d bytes of the body", maxRegex+3)},
		{"regex from an offset", model.URL{Regex: "ok", RegexMin: 3}, "HTTP/1.0 200 OK\r\n\r\nok ok", "ok status 200"},
		{"regex before the offset only", model.URL{Regex: "ok", RegexMin: 1}, "HTTP/1.0 200 OK\r\n\r\nok no", "fail regex does not match the 5 bytes of the body"},
		{"regex up to an offset", model.URL{Regex: "ok", RegexMax: 4}, "HTTP/1.0 200 OK\r\n\r\nno ok", "ok status 200"},
		{"regex behind the offset", model.URL{Regex: "ok", RegexMax: 3}, "HTTP/1.0 200 OK\r\n\r\nno ok", "fail regex does not match the 5 bytes of the body"},
		{"body ends before the offset", model.URL{Regex: "x*", RegexMin: 9}, "HTTP/1.0 200 OK\r\n\r\nno ok", "fail regex does not match the 5 bytes of the body"},
		{"header expected", model.URL{Expect: []model.Header{{Name: "x-pool", Value: "blue"}}}, "HTTP/1.0 200 OK\r\nX-Pool:  light blue \r\n\r\n", "ok status 200"},
		{"any value of a header", model.URL{Expect: []model.Header{{Name: "X-Pool"}}}, "HTTP/1.0 200 OK\r\nX-Pool: \r\n\r\n", "ok status 200"},
		{"second line of a header", model.URL{Expect: []model.Header{{Name: "A", Value: "2"}}}, "HTTP/1.0 200 OK\r\nA: 1\r\nA: 2\r\n\r\n", "ok status 200"},
		{"header not there", model.URL{Expect: []model.Header{{Name: "X-Pool", Value: "blue"}}}, "HTTP/1.0 200 OK\r\nX-Poo: blue\r\n\r\n", "fail no header X-Pool in the answer"},
		{"header of another value", model.URL{Expect: []model.Header{{Name: "X-Pool", Value: "blue"}}}, "HTTP/1.0 200 OK\r\nX-Pool: red\r\n\r\n", `fail header X-Pool is "red", want "blue" in it`},
		{"nothing", model.URL{}, "", "fail connection closed without an answer"},
		{"half a header", model.URL{}, "HTTP/1.0 200 OK\r\nServer: x", "fail connection closed inside the HTTP header, after 26 bytes"},
		{"garbage", model.URL{}, "\x00\x01\x02 \xff\r\n\r\n", `fail no HTTP status in "\x00\x01\x02 \xff"`},
		{"a banner", model.URL{}, "SSH-2.0-OpenSSH_9.2\r\n\r\n", `fail no HTTP status in "SSH-2.0-OpenSSH_9.2"`},
		{"status of four digits", model.URL{}, "HTTP/1.0 2000 OK\r\n\r\n", `fail no HTTP status in "HTTP/1.0 2000 OK"`},
		{"negative status", model.URL{}, "HTTP/1.0 -20 OK\r\n\r\n", `fail no HTTP status in "HTTP/1.0 -20 OK"`},
		{"endless header", model.URL{}, "HTTP/1.0 200 OK\r\n" + strings.Repeat("A: b\r\n", 5000), "fail no end of the HTTP header in the first 16 KiB"},
		{"absurd Content-Length", model.URL{Digest: hello}, "HTTP/1.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello", "ok status 200"},
		{"negative Content-Length", model.URL{Digest: hello}, "HTTP/1.0 200 OK\r\nContent-Length: -5\r\n\r\nhello", "ok status 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule, err := NewRule(&c.url)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{1, 3, 7, 1 << 30} {
				if size == 1 && len(c.in) > 1<<16 {
					continue
				}
				got := judgeIn(&rule, c.in, size)
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("in pieces of %d: %s", size, d)
				}
			}
		})
	}
}

func judgeIn(rule *Rule, in string, size int) string {
	a := newHTTP1(nil, rule)
	for b := []byte(in); len(b) > 0; {
		n := min(size, len(b))
		if a.feed(b[:n]) {
			break
		}
		b = b[n:]
	}
	ok, reason := a.End()
	if ok {
		return "ok " + reason
	}
	return "fail " + reason
}

func TestRegexFault(t *testing.T) {
	_, err := NewRule(&model.URL{Path: "/x", Regex: "a(?=b)"})
	if err == nil || !strings.Contains(err.Error(), "RE2") {
		t.Errorf("error %v must say which syntax is meant", err)
	}
}

func TestRuleFaults(t *testing.T) {
	for _, c := range []struct {
		url  model.URL
		want string
	}{
		{model.URL{Headers: []model.Header{{Name: "X", Value: "a\r\nB: c"}}}, "a value of one line"},
		{model.URL{Headers: []model.Header{{Name: "X Y"}}}, "a name without blanks"},
		{model.URL{Regex: "a", RegexMin: 5, RegexMax: 5}, "leaves nothing to search"},
	} {
		if _, err := NewRule(&c.url); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %s", c.url, err, c.want)
		}
	}
}

// FuzzAnswer: however an answer is cut into reads, the verdict is the same,
// memory is bounded, and nothing panics.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), uint8(3))
	f.Add([]byte("HTTP/1.0 503\r\n\r\n"), uint8(1))
	f.Add([]byte("\r\n\r\n"), uint8(2))
	f.Add([]byte("HTTP/1.1 200 OK\r\ncontent-LENGTH: -1\r\n\r\n\r\n\r\n"), uint8(4))
	f.Add([]byte(strings.Repeat("A", maxHeader)+"\r\n\r\n"), uint8(200))
	rule, err := NewRule(&model.URL{Digest: "5d41402abc4b2a76b9719d911017c592", Regex: "l+"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		whole := judgeIn(&rule, string(in), len(in)+1)
		parts := judgeIn(&rule, string(in), int(size)+1)
		if whole != parts {
			t.Errorf("whole: %s\nin pieces of %d: %s", whole, int(size)+1, parts)
		}
		a := newHTTP1(nil, &rule)
		a.feed(in)
		if cap(a.head) > 2*maxHeader || len(a.text) > maxRegex {
			t.Errorf("holds %d bytes of header, %d of body", cap(a.head), len(a.text))
		}
	})
}
