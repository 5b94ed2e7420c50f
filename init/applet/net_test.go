package applet

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCurlAndNC(t *testing.T) {
	b := newBox(t, newDirector(t))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			fmt.Fprintf(w, "hello %s %s", r.Method, r.Host)
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		default:
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	}))
	defer web.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("tls")) }))
	defer secure.Close()
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(web.URL, "http://"))
	for _, c := range []struct {
		argv []string
		code int
		out  string
	}{
		{[]string{"curl", "-s", web.URL + "/ok"}, 0, "hello GET " + host + ":" + port},
		{[]string{"curl", "-s", "-H", "Host: www.example.com", web.URL + "/ok"}, 0, "hello GET www.example.com"},
		{[]string{"curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", web.URL + "/ok"}, 0, "200"},
		{[]string{"curl", "-so/dev/null", "-w", `%{http_code}\n`, web.URL + "/bad"}, 0, "503\n"},
		{[]string{"curl", "-sf", web.URL + "/bad"}, 22, ""},
		{[]string{"curl", "-sSf", web.URL + "/bad"}, 22, "curl: (22) The requested URL returned error: 503\n"},
		{[]string{"curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", web.URL + "/moved"}, 0, "302"},
		{[]string{"curl", "-sL", "-o", "/dev/null", "-w", "%{http_code}", web.URL + "/moved"}, 0, "200"},
		{[]string{"curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:" + closedPort + "/"}, 7, "000"},
		{[]string{"curl", "-sk", "--max-time=20", secure.URL}, 0, "tls"},
		{[]string{"curl", "-s", secure.URL}, 60, ""},
		{[]string{"curl", "-s"}, 2, ""},
		{[]string{"nc", "-z", host, port}, 0, ""},
		{[]string{"nc", "-zw", "1", host, closedPort}, 1, ""},
		{[]string{"nc", "-z", "-w1", host, closedPort}, 1, ""},
	} {
		code, out := b.do(t, "", c.argv...)
		if code != c.code || out != c.out {
			t.Errorf("%q: code %d, %q; want %d, %q", c.argv, code, out, c.code, c.out)
		}
	}
	code, out := b.do(t, "GET /ok HTTP/1.0\r\n\r\n", "nc", host, port)
	if code != 0 || !strings.Contains(out, "hello GET") {
		t.Errorf("code %d, %q", code, out)
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		args, in, out string
		code          int
	}{
		{"-d: -f1", "root:x:0\nplain\n", "root\nplain\n", 0},
		{"-d : -f 1,3", "root:x:0\n", "root:0\n", 0},
		{"-s -d: -f2-", "a:b:c\nplain\n", "b:c\n", 0},
		{"-f-2", "a\tb\tc\n", "a\tb\n", 0},
		{"-c1-3,5", "abcdef\n", "abce\n", 0},
		{"-c 2", "äöü\n", "ö\n", 0},
		{"-f 0", "", "", 1},
		{"-f 3-1", "", "", 1},
		{"-d:", "", "", 1},
	} {
		var out, errs strings.Builder
		code, _ := Main("cut", strings.Fields(c.args), strings.NewReader(c.in), &out, &errs)
		if code != c.code || out.String() != c.out {
			t.Errorf("cut %s: code %d, %q; want %d, %q", c.args, code, out.String(), c.code, c.out)
		}
	}
}
