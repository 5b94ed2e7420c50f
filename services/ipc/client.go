package ipc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"
)

// Client calls one service.
type Client struct {
	service string
	http    *http.Client
}

// Client returns a client of a service. It holds no connection until used.
func (d Dir) Client(service string) *Client {
	path := d.Path(service)
	return &Client{service, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, "unix", path)
		},
		MaxIdleConns: 1, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}}
}

// State reads the whole state into v and returns its generation.
func (c *Client) State(ctx context.Context, v any) (uint64, error) {
	return c.read(ctx, "/state", v)
}

// Summary reads the summary of the state (see Summarizer) into v.
func (c *Client) Summary(ctx context.Context, v any) error {
	_, err := c.read(ctx, "/state?summary", v)
	return err
}

// Brief is Summary without transitions (see Briefer).
func (c *Client) Brief(ctx context.Context, v any) error {
	_, err := c.read(ctx, "/state?brief", v)
	return err
}

// Get reads a path of the service as it is: for package follow.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

func (c *Client) read(ctx context.Context, path string, v any) (uint64, error) {
	b, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	e := struct { // Envelope, decoded in one pass: a configuration has megabytes
		Generation uint64 `json:"generation"`
		State      any    `json:"state"`
	}{State: v}
	if err := json.Unmarshal(b, &e); err != nil {
		return 0, fmt.Errorf("%s: state: %w", c.service, err)
	}
	return e.Generation, nil
}

// Texter is an argument of a verb that is mostly one long text. That text goes
// as it is, behind the rest: megabytes need not be quoted, and read three times
// over, only to be a JSON string on the way.
type Texter interface {
	// Apart is the argument without its text, and the text.
	Apart() (rest any, text string)
}

// Argument decodes the argument of a verb into v. Where v is a *T and T a
// Texter, it takes what Call sends for a T: JSON, a zero byte, the text; body
// must then not be changed any more.
func Argument(body []byte, v any) error {
	if t, ok := v.(interface{ SetText(text string) }); ok {
		if rest, text, ok := bytes.Cut(body, []byte{0}); ok { // JSON has no zero byte
			if err := json.Unmarshal(rest, v); err != nil {
				return err
			}
			if !utf8.Valid(text) {
				text = bytes.ToValidUTF8(text, []byte(string(utf8.RuneError))) // as a JSON string would have it
			}
			t.SetText(unsafe.String(unsafe.SliceData(text), len(text)))
			return nil
		}
	}
	return json.Unmarshal(body, v)
}

// Call does a verb. in is marshalled as its argument (nil: none), the answer
// is stored in out (nil: dropped). A refusal is an error with the service's own
// text.
func (c *Client) Call(ctx context.Context, verb string, in, out any) error {
	var body []byte
	switch v := in.(type) {
	case nil:
	case json.RawMessage:
		body = v // Marshal would read megabytes once more only to copy them
	case Texter:
		rest, text := v.Apart()
		b, err := json.Marshal(rest)
		if err != nil {
			return fmt.Errorf("%s %s: %w", c.service, verb, err)
		}
		body = append(append(slices.Grow(b, len(text)+1), 0), text...)
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", c.service, verb, err)
		}
		body = b
	}
	b, err := c.do(ctx, http.MethodPost, "/verb/"+verb, body)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: answer: %w", c.service, verb, err)
	}
	return nil
}

// Refused is the error of a verb that the service declined.
type Refused struct {
	Status int
	Text   string
}

func (e *Refused) Error() string { return e.Text }

func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.service+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", c.service, err)
	}
	defer resp.Body.Close()
	var b []byte
	if n := resp.ContentLength; n > 0 && n <= maxBody {
		b = make([]byte, n)
		_, err = io.ReadFull(resp.Body, b)
	} else {
		b, err = io.ReadAll(resp.Body)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read answer: %w", c.service, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &Refused{resp.StatusCode, strings.TrimSpace(string(b))}
	}
	return b, nil
}
