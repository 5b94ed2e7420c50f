package dialog

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ballast/configs/model"
)

// frames builds what a server sends.
func frames(fn func(f *http2.Framer)) string {
	var b bytes.Buffer
	fn(http2.NewFramer(&b, nil))
	return b.String()
}

func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func head(f *http2.Framer, end bool, fields ...string) {
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(fields...), EndHeaders: true, EndStream: end})
}

func ask2(t testing.TB, u *model.URL) *http2Get {
	t.Helper()
	rule, err := NewRule(u)
	if err != nil {
		t.Fatal(err)
	}
	return HTTP2(&model.Check{}, u, &rule, false).(*http2Get)
}

func TestHTTP2(t *testing.T) {
	for _, c := range []struct {
		name string
		url  model.URL
		in   string
		want string
	}{
		{"well", model.URL{}, frames(func(f *http2.Framer) { f.WriteSettings(); head(f, true, ":status", "200") }), "ok status 200"},
		{"503", model.URL{}, frames(func(f *http2.Framer) { head(f, false, ":status", "503") }), "fail status 503, want 200-299"},
		{"digest over frames", model.URL{Digest: "5d41402abc4b2a76b9719d911017c592"}, frames(func(f *http2.Framer) {
			head(f, false, ":status", "200")
			f.WriteData(1, false, []byte("hel"))
			f.WriteDataPadded(1, true, []byte("lo"), make([]byte, 9))
		}), "ok status 200"},
		{"trailers end it", model.URL{Regex: "^ready$"}, frames(func(f *http2.Framer) {
			head(f, false, ":status", "200")
			f.WriteData(1, false, []byte("ready"))
			head(f, true, "x-sum", "1")
		}), "ok status 200"},
		{"interim first", model.URL{}, frames(func(f *http2.Framer) {
			head(f, false, ":status", "103")
			head(f, true, ":status", "204")
		}), "ok status 204"},
		{"header in two frames", model.URL{Expect: []model.Header{{Name: "X-Pool", Value: "blue"}}}, frames(func(f *http2.Framer) {
			b := block(":status", "200", "x-pool", "light blue")
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:4], EndStream: true})
			f.WriteContinuation(1, true, b[4:])
		}), "ok status 200"},
		{"header missing", model.URL{Expect: []model.Header{{Name: "X-Pool"}}}, frames(func(f *http2.Framer) { head(f, true, ":status", "200") }),
			"fail no header X-Pool in the answer"},
		{"something inside a header", model.URL{}, frames(func(f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200")})
			f.WritePing(false, [8]byte{})
		}), "fail HTTP/2: PING inside a header block"},
		{"reset", model.URL{}, frames(func(f *http2.Framer) { f.WriteRSTStream(1, http2.ErrCodeRefusedStream) }), "fail HTTP/2: stream reset: REFUSED_STREAM"},
		{"goes away", model.URL{}, frames(func(f *http2.Framer) { f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil) }), "fail HTTP/2: server goes away: ENHANCE_YOUR_CALM"},
		{"no status", model.URL{}, frames(func(f *http2.Framer) { head(f, true, "server", "x") }), "fail HTTP/2: no status in the answer"},
		{"body first", model.URL{}, frames(func(f *http2.Framer) { f.WriteData(1, true, nil) }), "fail HTTP/2: body before its header"},
		{"http/1", model.URL{}, "HTTP/1.1 400 Bad Request\r\n\r\n", `fail no HTTP/2 frame in "HTTP/1.1 `},
		{"nothing", model.URL{}, "", "fail connection closed without an answer"},
		{"cut", model.URL{}, frames(func(f *http2.Framer) { head(f, false, ":status", "200"); f.WriteData(1, false, []byte("x")) }),
			"fail connection closed after 1 bytes of body, before its end"},
		{"bomb", model.URL{}, frames(func(f *http2.Framer) {
			b := block(":status", "200", "x", strings.Repeat("a", 2000))
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: append(b, bytes.Repeat([]byte{0xbe}, 5000)...), EndHeaders: true, EndStream: true})
		}), "fail HTTP/2: header of more than 16 KiB"},
		{"settings and no end", model.URL{}, frames(func(f *http2.Framer) {
			for range 2000 {
				f.WriteSettings()
			}
		}), "fail HTTP/2: more than 1000 frames that bring nothing"},
		{"nothing as a body, and no end", model.URL{}, frames(func(f *http2.Framer) {
			head(f, false, ":status", "200")
			for range 2000 {
				f.WriteData(1, false, nil)
			}
		}), "fail HTTP/2: more than 1000 frames that bring nothing"},
		{"endless header", model.URL{}, frames(func(f *http2.Framer) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200")})
			for range 3 {
				f.WriteContinuation(1, false, make([]byte, 8000))
			}
		}), "fail no end of the HTTP header in the first 16 KiB"},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			d := ask2(t, &c.url)
			got := converse(d, c.in, size)
			got = got[max(strings.LastIndex(got, "fail "), strings.LastIndex(got, "ok ")):]
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("%s in pieces of %d: %q, want %q", c.name, size, got, c.want)
			}
		}
	}
}

// What we say: a whole request at once, acknowledgements, and room for more of
// the body.
func TestHTTP2Says(t *testing.T) {
	u := &model.URL{Path: "/x", VirtualHost: "www.example.com", Headers: []model.Header{{Name: "X-Probe", Value: "1"}, {Name: "Connection", Value: "close"}}}
	d := ask2(t, u)
	open := d.Open()
	if !bytes.HasPrefix(open, []byte(http2.ClientPreface)) {
		t.Fatalf("%q", open)
	}
	fr := http2.NewFramer(nil, bytes.NewReader(open[len(http2.ClientPreface):]))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var got []string
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			break
		}
		got = append(got, f.Header().Type.String())
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			for _, x := range h.Fields {
				got = append(got, x.Name+"="+x.Value)
			}
		}
	}
	want := "SETTINGS WINDOW_UPDATE HEADERS :method=GET :scheme=http :authority=www.example.com :path=/x user-agent=KeepAliveClient x-probe=1"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("%s\nwant %s", s, want)
	}
	say, _ := d.Hear([]byte(frames(func(f *http2.Framer) {
		f.WriteSettings()
		f.WritePing(false, [8]byte{1})
		head(f, false, ":status", "200")
		f.WriteData(1, false, []byte("abc"))
	})))
	fr = http2.NewFramer(nil, bytes.NewReader(say))
	got = nil
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			break
		}
		got = append(got, f.Header().String())
	}
	if len(got) != 4 || !strings.Contains(got[0], "SETTINGS flags=ACK") || !strings.Contains(got[1], "PING flags=ACK") {
		t.Errorf("%q", got)
	}
	if ok, why := d.Stalled(time.Second, time.Minute); ok || why != "answer stopped for 1s after 3 bytes of body" {
		t.Errorf("%t %s", ok, why)
	}
}

// FuzzHTTP2: however an answer is cut, the verdict is the same, and nothing
// panics.
func FuzzHTTP2(f *testing.F) {
	f.Add([]byte(frames(func(f *http2.Framer) {
		f.WriteSettings()
		head(f, false, ":status", "200", "content-length", "3")
		f.WriteData(1, true, []byte("abc"))
	})), uint8(3))
	f.Add([]byte(frames(func(f *http2.Framer) { f.WriteContinuation(1, true, nil) })), uint8(1))
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"), uint8(1))
	u := &model.URL{Regex: "a"}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		whole := converse(ask2(t, u), string(in), len(in)+1)
		if parts := converse(ask2(t, u), string(in), int(size)+1); parts[max(0, len(parts)-20):] != whole[max(0, len(whole)-20):] {
			t.Errorf("whole: %q, in pieces of %d: %q", whole, int(size)+1, parts)
		}
	})
}
