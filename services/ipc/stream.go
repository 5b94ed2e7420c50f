package ipc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// StreamFunc does a verb to whom bytes come, or that answers with bytes, while
// it works: POST /stream/NAME. What it returns reaches the caller as of a verb.
type StreamFunc func(ctx context.Context, peer Peer, s *Stream) error

// Stream is the service's end of a verb that streams.
type Stream struct {
	Argument json.RawMessage
	// In is what the caller sends. It may be read while Write is called.
	In io.Reader

	mu  sync.Mutex
	out http.ResponseWriter
	rc  *http.ResponseController
}

// The answer is a row of frames: a kind, four bytes of length, that many bytes.
// The last one says how it ended; without it, it broke off.
const (
	frameData  = 'd' // for the caller's output
	frameNote  = 'n' // for the caller's user, beside it
	frameDone  = '.'
	frameError = 'e'
)

// maxFrame bounds a frame.
const maxFrame = 1 << 20

// argumentHeader carries the argument of a verb that streams.
const argumentHeader = "Ballast-Argument"

// maxArgument bounds it.
const maxArgument = 8 << 10

// Write gives bytes to the caller's output, now. It may be called from any
// goroutine.
func (s *Stream) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		piece := p[n:min(len(p), n+maxFrame)]
		if err := s.frame(frameData, piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

// Note tells the caller's user something that is not part of the output.
func (s *Stream) Note(format string, a ...any) error {
	return s.frame(frameNote, []byte(fmt.Sprintf(format, a...)))
}

func (s *Stream) frame(kind byte, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(p)))
	if _, err := s.out.Write(b); err != nil {
		return err
	}
	if _, err := s.out.Write(p); err != nil {
		return err
	}
	return s.rc.Flush()
}

// HandleStream adds a verb that streams; who may call it is as of Handle.
func (s *Server) HandleStream(name string, fn StreamFunc, allow ...uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verbs[name] = verb{stream: fn, allow: allow}
}

// serveStream answers with frames. What is wrong is told in the last one, and
// then the rest of what comes is read and dropped: a connection that is closed
// with bytes unread would take the answer with it.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, p Peer, fn StreamFunc) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	st := &Stream{Argument: json.RawMessage(r.Header.Get(argumentHeader)), In: r.Body, out: w, rc: rc}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	if rc.Flush() != nil {
		return
	}
	err := fn(r.Context(), p, st)
	if err == nil {
		err = st.frame(frameDone, nil)
	} else {
		err = st.frame(frameError, []byte(err.Error()))
	}
	if err == nil {
		io.Copy(io.Discard, r.Body)
	}
}

// Stream does a verb that streams: in is sent to it (nil: nothing), what it
// answers goes to out, and what it tells the user to note. Nothing is read from
// in any more once the verb has ended, but for one read that is under way.
func (c *Client) Stream(ctx context.Context, name string, arg any, in io.Reader, out io.Writer, note func(string)) error {
	// A connection of its own that is given up for good when this returns.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var body io.Reader
	over := make(chan struct{})
	end := sync.OnceFunc(func() { close(over) })
	defer end()
	if in != nil {
		body = feed(in, over)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.service+"/stream/"+name, body)
	if err != nil {
		return err
	}
	if arg != nil {
		b, err := json.Marshal(arg)
		if err != nil {
			return fmt.Errorf("%s %s: %w", c.service, name, err)
		}
		if len(b) > maxArgument {
			return fmt.Errorf("%s %s: an argument of %d bytes is longer than %d", c.service, name, len(b), maxArgument)
		}
		req.Header.Set(argumentHeader, asciiJSON(b))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", c.service, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, maxFrame))
		return &Refused{resp.StatusCode, strings.TrimSpace(string(b))}
	}
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		kind, p, err := readFrame(r, out)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s %s: %w", c.service, name, err)
		}
		switch kind {
		case frameNote:
			if note != nil {
				note(string(p))
			}
		case frameDone, frameError:
			end() // so that the service, which reads to the end, is done with this
			io.Copy(io.Discard, r)
			if kind == frameError {
				return &Refused{http.StatusUnprocessableEntity, string(p)}
			}
			return nil
		}
	}
}

// readFrame reads one frame; what is data goes to out.
func readFrame(r *bufio.Reader, out io.Writer) (kind byte, p []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("the answer broke off: %w", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	switch kind = head[0]; {
	case n > maxFrame:
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	case kind == frameData:
		if m, err := io.CopyN(out, r, int64(n)); err != nil {
			return 0, nil, fmt.Errorf("the answer broke off, or nobody takes it, %d bytes into a piece of %d: %w", m, n, err)
		}
		return kind, nil, nil
	case kind != frameNote && kind != frameDone && kind != frameError:
		return 0, nil, fmt.Errorf("a frame of the unknown kind %q", kind)
	}
	p = make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return 0, nil, fmt.Errorf("the answer broke off: %w", err)
	}
	return kind, p, nil
}

// asciiJSON is JSON as a header may carry it.
func asciiJSON(b []byte) string {
	var out strings.Builder
	for _, r := range string(b) {
		switch {
		case r < 0x80:
			out.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// feed hands on what comes from in, and ends when over is closed although in
// may not: a user who keeps his end open keeps nobody waiting.
func feed(in io.Reader, over <-chan struct{}) io.Reader {
	f := &feeder{pieces: make(chan []byte), over: over}
	go func() {
		defer close(f.pieces)
		for {
			b := make([]byte, 64<<10)
			n, err := in.Read(b)
			if n > 0 {
				select {
				case f.pieces <- b[:n]:
				case <-over:
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					f.err = err
				}
				return
			}
		}
	}()
	return f
}

type feeder struct {
	pieces chan []byte
	over   <-chan struct{}
	rest   bytes.Reader
	err    error // of in; set before pieces is closed
}

// Read implements io.Reader.
func (f *feeder) Read(p []byte) (int, error) {
	if f.rest.Len() == 0 {
		select {
		case b, ok := <-f.pieces:
			if !ok {
				if f.err != nil {
					return 0, f.err
				}
				return 0, io.EOF
			}
			f.rest.Reset(b)
		case <-f.over:
			return 0, io.EOF
		}
	}
	return f.rest.Read(p)
}
