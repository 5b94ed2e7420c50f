package applet

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxFetch bounds what curl reads of an answer.
const maxFetch = 16 << 20

// Exit codes of curl(1).
const (
	curlUsage   = 2
	curlResolve = 6
	curlConnect = 7
	curlStatus  = 22 // -f and a status of 400 or above
	curlWrite   = 23
	curlTimeout = 28
	curlReceive = 56
)

// curl knows what check scripts use it for: is there an answer, and with which
// status. "curl [-sSfkLIi] [-o FILE] [-w FORMAT] [-m SECONDS] [--connect-timeout S]
// [-H HEADER] [-X METHOD] [-d DATA] [-u USER:PASSWORD] URL"; the exit codes are
// curl's.
func curl(e *env, args []string) int {
	var url, out, format, data, method, user string
	var silent, showError, failStatus, insecure, follow, head, include bool
	total, connect := 5*time.Minute, 2*time.Minute
	header := http.Header{"User-Agent": {"curl/8.0 (ballast)"}, "Accept": {"*/*"}}
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") || a == "-" {
			url = a
			continue
		}
		long, value, inline := a, "", false
		if strings.HasPrefix(a, "--") {
			long, value, inline = strings.Cut(a, "=")
		}
		need := func() string {
			if inline {
				return value
			}
			if i++; i < len(args) {
				return args[i]
			}
			return ""
		}
		switch long {
		case "--silent":
			silent = true
		case "--show-error":
			showError = true
		case "--fail":
			failStatus = true
		case "--insecure":
			insecure = true
		case "--location":
			follow = true
		case "--head":
			head = true
		case "--include":
			include = true
		case "--output":
			out = need()
		case "--write-out":
			format = need()
		case "--max-time":
			total = seconds(need(), total)
		case "--connect-timeout":
			connect = seconds(need(), connect)
		case "--header":
			addHeader(header, need())
		case "--request":
			method = need()
		case "--data":
			data = need()
		case "--user":
			user = need()
		case "--retry", "--interface", "--resolve", "--retry-delay", "--cacert":
			need()
		default:
			if strings.HasPrefix(a, "--") {
				continue
			}
			// Short ones may stand together: "-sf", "-o/dev/null".
			for j := 1; j < len(a); j++ {
				value, inline = a[j+1:], j+1 < len(a)
				done := true
				switch a[j] {
				case 'o':
					out = need()
				case 'w':
					format = need()
				case 'm':
					total = seconds(need(), total)
				case 'H':
					addHeader(header, need())
				case 'X':
					method = need()
				case 'd':
					data = need()
				case 'u':
					user = need()
				case 'A':
					header.Set("User-Agent", need())
				default:
					done = false
				}
				if done {
					break
				}
				switch a[j] {
				case 's':
					silent = true
				case 'S':
					showError = true
				case 'f':
					failStatus = true
				case 'k':
					insecure = true
				case 'L':
					follow = true
				case 'I':
					head = true
				case 'i':
					include = true
				}
			}
		}
	}
	fail := func(code int, format string, args ...any) int {
		if !silent || showError {
			fmt.Fprintf(e.stderr, "curl: (%d) "+format+"\n", append([]any{code}, args...)...)
		}
		return code
	}
	if url == "" {
		return fail(curlUsage, "no URL specified")
	}
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	switch {
	case method != "":
	case head:
		method = http.MethodHead
	case data != "":
		method = http.MethodPost
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	default:
		method = http.MethodGet
	}
	req, err := http.NewRequest(method, url, strings.NewReader(data))
	if err != nil {
		return fail(3, "%v", err)
	}
	req.Header = header
	if h := header.Get("Host"); h != "" {
		req.Host = h
	}
	if name, pass, ok := strings.Cut(user, ":"); ok {
		req.SetBasicAuth(name, pass)
	}
	began := time.Now()
	client := &http.Client{Timeout: total, Transport: &http.Transport{
		DialContext:       (&net.Dialer{Timeout: connect}).DialContext,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: insecure}, // -k is the user's word
		DisableKeepAlives: true,
	}}
	if !follow {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	status, size, code := 0, int64(0), 0
	resp, err := client.Do(req)
	switch {
	case err != nil:
		code = fail(curlCode(err), "%v", err)
	default:
		defer resp.Body.Close()
		status = resp.StatusCode
		if failStatus && status >= 400 {
			code = fail(curlStatus, "The requested URL returned error: %d", status)
			break
		}
		size, code = e.curlBody(resp, out, head || include, fail)
	}
	r := strings.NewReplacer(
		"%{http_code}", fmt.Sprintf("%03d", status), "%{response_code}", fmt.Sprintf("%03d", status),
		"%{size_download}", strconv.FormatInt(size, 10), "%{exitcode}", strconv.Itoa(code),
		"%{time_total}", fmt.Sprintf("%.6f", time.Since(began).Seconds()), `\n`, "\n", `\t`, "\t", "%%", "%")
	r.WriteString(e.stdout, format)
	return code
}

func (e *env) curlBody(resp *http.Response, out string, header bool, fail func(int, string, ...any) int) (int64, int) {
	w := e.stdout
	if out != "" && out != "-" {
		f, err := os.Create(out)
		if err != nil {
			return 0, fail(curlWrite, "%v", err)
		}
		defer f.Close()
		w = f
	}
	if header {
		fmt.Fprintf(w, "%s %s\r\n", resp.Proto, resp.Status)
		resp.Header.Write(w)
		io.WriteString(w, "\r\n")
	}
	n, err := io.Copy(w, io.LimitReader(resp.Body, maxFetch))
	if err != nil {
		return n, fail(max(curlCode(err), curlReceive), "%v", err)
	}
	return n, 0
}

func curlCode(err error) int {
	var dns *net.DNSError
	var ne net.Error
	switch {
	case errors.As(err, &dns):
		return curlResolve
	case errors.As(err, &ne) && ne.Timeout():
		return curlTimeout
	case strings.Contains(err.Error(), "x509:") || strings.Contains(err.Error(), "tls:"):
		return 60
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return curlConnect
	}
	return curlReceive
}

func addHeader(h http.Header, line string) {
	if name, value, ok := strings.Cut(line, ":"); ok {
		h.Set(strings.TrimSpace(name), strings.TrimSpace(value))
	}
}

func seconds(s string, otherwise time.Duration) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f <= 0 || f > 1e6 {
		return otherwise
	}
	return time.Duration(f * float64(time.Second))
}

// nc is "nc -z [-v] [-u] [-w SECONDS] HOST PORT": does the port take
// connections. Without -z it copies standard input there and the answer back.
func nc(e *env, args []string) int {
	var words []string
	scan, verbose, network := false, false, "tcp"
	wait := 10 * time.Second
	for i := 0; i < len(args); i++ {
		a := args[i]
		if !strings.HasPrefix(a, "-") {
			words = append(words, a)
			continue
		}
		for j := 1; j < len(a); j++ {
			switch a[j] {
			case 'z':
				scan = true
			case 'v':
				verbose = true
			case 'u':
				network = "udp"
			case 'w', 'i', 'q', 's', 'p':
				v := a[j+1:]
				if v == "" {
					if i++; i < len(args) {
						v = args[i]
					}
				}
				if a[j] == 'w' {
					wait = seconds(v, wait)
				}
				j = len(a)
			}
		}
	}
	if len(words) != 2 {
		return e.fail(1, "want a host and a port")
	}
	c, err := net.DialTimeout(network, net.JoinHostPort(words[0], words[1]), wait)
	if err != nil {
		if verbose {
			e.fail(1, "%v", err)
		}
		return 1
	}
	defer c.Close()
	if verbose {
		fmt.Fprintf(e.stderr, "Connection to %s %s port [%s] succeeded!\n", words[0], words[1], network)
	}
	if scan {
		return 0
	}
	go func() {
		io.Copy(c, e.stdin)
		if t, ok := c.(*net.TCPConn); ok {
			t.CloseWrite()
		}
	}()
	if _, err := io.Copy(e.stdout, c); err != nil {
		return e.fail(1, "%v", err)
	}
	return 0
}
