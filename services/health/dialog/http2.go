package dialog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ballast/configs/model"
)

// Sizes of HTTP/2 (RFC 9113).
const (
	frameHead   = 9
	maxFrame    = 16 << 10 // the default of SETTINGS_MAX_FRAME_SIZE, which we leave
	bodyWindow  = 1 << 20  // how much the server may send before it hears of us
	firstWindow = 65535    // of the connection, whatever SETTINGS say
	maxIdle     = 1000     // frames that bring nothing of the answer: each costs us work
	probeStream = 1
)

// http2Get asks for one URL over HTTP/2: by ALPN over TLS, else with prior
// knowledge (RFC 9113 section 3.3). It is one stream; whatever else a server
// starts is refused by SETTINGS.
type http2Get struct {
	judge
	evidence
	request []byte
	in      []byte // bytes of a frame that has not arrived whole
	total   int64
	idle    int    // frames without a byte of the answer
	block   []byte // of a header, until END_HEADERS
	inBlock bool
	ends    bool // END_STREAM was on the HEADERS frame
	headed  bool // the final header, not a 1xx one, is done
	out     bytes.Buffer
	wr      *http2.Framer
	dec     *hpack.Decoder
}

// HTTP2 asks for one URL over HTTP/2. secure says whether TLS is below it.
func HTTP2(c *model.Check, u *model.URL, rule *Rule, secure bool) Dialog {
	d := &http2Get{judge: judge{rule: rule, length: -1}, dec: hpack.NewDecoder(4096, nil)}
	d.dec.SetMaxStringLength(maxHeader)
	d.wr = http2.NewFramer(&d.out, nil)
	d.out.WriteString(http2.ClientPreface)
	// Errors of a write into memory cannot be.
	d.wr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: bodyWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeader})
	d.wr.WriteWindowUpdate(0, bodyWindow-firstWindow)
	d.wr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: probeStream, BlockFragment: requestFields(c, u, secure), EndStream: true, EndHeaders: true,
	})
	d.request = d.said()
	return d
}

func requestFields(c *model.Check, u *model.URL, secure bool) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	scheme := "http"
	if secure {
		scheme = "https"
	}
	field := func(name, value string) { enc.WriteField(hpack.HeaderField{Name: name, Value: value}) }
	field(":method", "GET")
	field(":scheme", scheme)
	field(":authority", host(c, u))
	field(":path", u.Path)
	field("user-agent", "KeepAliveClient")
	for _, h := range u.Headers {
		switch name := strings.ToLower(h.Name); name {
		case "host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
			// RFC 9113 section 8.2.2: these make a request malformed.
		default:
			field(name, h.Value)
		}
	}
	return b.Bytes()
}

// said takes what was written since.
func (d *http2Get) said() []byte {
	if d.out.Len() == 0 {
		return nil
	}
	b := bytes.Clone(d.out.Bytes())
	d.out.Reset()
	return b
}

func (d *http2Get) Open() []byte { return d.request }

func (d *http2Get) Hear(b []byte) ([]byte, bool) {
	d.keep(b)
	if d.total += int64(len(b)); d.total > maxBody {
		return nil, d.fail("answer longer than %d MiB", maxBody>>20)
	}
	d.in = append(d.in, b...)
	for !d.finished && len(d.in) >= frameHead {
		size := int(d.in[0])<<16 | int(d.in[1])<<8 | int(d.in[2])
		if size > maxFrame {
			// An HTTP/1 answer looks like a frame of 5 MB.
			return nil, d.fail("no HTTP/2 frame in %s", Clip(d.in[:frameHead]))
		}
		if len(d.in) < frameHead+size {
			break
		}
		d.frame(d.in[:frameHead+size])
		d.in = d.in[frameHead+size:]
	}
	return d.said(), d.finished
}

func (d *http2Get) frame(b []byte) bool {
	f, err := http2.NewFramer(nil, bytes.NewReader(b)).ReadFrame()
	if err != nil && d.inBlock && b[3] == byte(http2.FrameContinuation) {
		// A framer that sees this frame alone misses the HEADERS before it.
		return d.header(b[frameHead:], http2.Flags(b[4]).Has(http2.FlagContinuationEndHeaders))
	}
	if err != nil {
		return d.fail("HTTP/2: %s", err)
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
	case *http2.DataFrame:
		if len(f.Data()) == 0 {
			d.idle++
		}
	default:
		d.idle++
	}
	if d.idle > maxIdle {
		return d.fail("HTTP/2: more than %d frames that bring nothing", maxIdle)
	}
	if d.inBlock {
		return d.fail("HTTP/2: %s inside a header block", f.Header().Type)
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			d.wr.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			d.wr.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		if f.LastStreamID < probeStream || f.ErrCode != http2.ErrCodeNo {
			return d.fail("HTTP/2: server goes away: %s", f.ErrCode)
		}
	case *http2.RSTStreamFrame:
		// A server that does not want to read more says NO_ERROR (section 8.1).
		if f.StreamID == probeStream {
			return d.fail("HTTP/2: stream reset: %s", f.ErrCode)
		}
	case *http2.HeadersFrame:
		if f.StreamID != probeStream {
			return d.fail("HTTP/2: an answer on stream %d", f.StreamID)
		}
		d.ends, d.inBlock, d.block = f.StreamEnded(), true, nil
		return d.header(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		if f.StreamID != probeStream || !d.headed {
			return d.fail("HTTP/2: body before its header")
		}
		if d.body(f.Data()) {
			return true
		}
		if n := f.Header().Length; n > 0 { // padding counts too
			d.wr.WriteWindowUpdate(0, n)
			if !f.StreamEnded() {
				d.wr.WriteWindowUpdate(probeStream, n)
			}
		}
		if f.StreamEnded() {
			d.whole()
		}
	}
	return d.finished
}

// header takes a fragment of a header block.
func (d *http2Get) header(b []byte, last bool) bool {
	if d.block = append(d.block, b...); len(d.block) > maxHeader {
		return d.fail("no end of the HTTP header in the first %d KiB", maxHeader>>10)
	}
	if !last {
		return false
	}
	d.inBlock = false
	fields, err := d.decode()
	if err != nil {
		return d.fail("HTTP/2: %s", err)
	}
	if d.headed { // trailers
		if d.ends {
			d.whole()
		}
		return d.finished
	}
	status, size := 0, int64(-1)
	for _, f := range fields {
		switch f.Name {
		case ":status":
			status, _ = threeDigits([]byte(f.Value))
		case "content-length":
			size = length(f.Value)
		}
	}
	switch {
	case status == 0:
		return d.fail("HTTP/2: no status in the answer")
	case status < 200 && !d.ends:
		return false // interim (section 8.1)
	}
	d.headed = true
	if d.begin(status, size, func(yield func(name, value string)) {
		for _, f := range fields {
			yield(f.Name, f.Value)
		}
	}) {
		return true
	}
	if d.ends {
		d.whole()
	}
	return d.finished
}

// decode bounds what a small block may unfold to.
func (d *http2Get) decode() ([]hpack.HeaderField, error) {
	var fields []hpack.HeaderField
	size := uint32(0)
	d.dec.SetEmitEnabled(true)
	d.dec.SetEmitFunc(func(f hpack.HeaderField) {
		if size += f.Size(); size > maxHeader {
			d.dec.SetEmitEnabled(false)
			return
		}
		fields = append(fields, f)
	})
	if _, err := d.dec.Write(d.block); err != nil {
		return nil, err
	}
	if err := d.dec.Close(); err != nil {
		return nil, err
	}
	if size > maxHeader {
		return nil, fmt.Errorf("header of more than %d KiB", maxHeader>>10)
	}
	return fields, nil
}

func (d *http2Get) End() (bool, string) {
	switch {
	case d.finished:
	case d.total == 0:
		d.fail("connection closed without an answer")
	case !d.headed:
		d.fail("connection closed before the header of the answer, after %d bytes", d.total)
	default:
		d.fail("connection closed after %d bytes of body, before its end", d.got)
	}
	return d.end()
}

func (d *http2Get) Stalled(step, whole time.Duration) (bool, string) {
	switch {
	case d.total == 0:
		return false, Silence(step, whole)
	case !d.headed:
		return false, "no HTTP/2 header within " + orWhole(step, whole).String()
	case step == 0:
		return false, fmt.Sprintf("answer not complete after %s, %d bytes of body", whole, d.got)
	}
	return false, fmt.Sprintf("answer stopped for %s after %d bytes of body", step, d.got)
}

// Evidence shows frames as what they are, not as bytes.
func (d *http2Get) Evidence() []byte {
	b := d.first
	if len(b) < frameHead || b[0] != 0 {
		return b
	}
	kind := http2.FrameType(b[3])
	return []byte("HTTP/2 " + kind.String() + " frame of " + strconv.Itoa(int(binary.BigEndian.Uint16(b[1:]))) + " bytes, status " + strconv.Itoa(d.status))
}
