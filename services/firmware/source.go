package firmware

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// fetcher opens a URL; what is wrong with the way there is the error.
type fetcher func(ctx context.Context, u string) (io.ReadCloser, error)

// Bounds of a transfer.
const (
	dialTime   = 15 * time.Second
	headerTime = 30 * time.Second
	stallTime  = time.Minute // without a byte
)

// newFetcher makes a client for http and https. The box has no list of
// authorities, and needs none: what a bundle is worth is told by its signature,
// whoever it came from. TLS only keeps the transfer from being read.
func newFetcher() fetcher {
	t := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   dialTime,
		ResponseHeaderTimeout: headerTime,
		DisableCompression:    true,
		DisableKeepAlives:     true,
	}
	c := &http.Client{Transport: t, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("more than 5 redirections: name the URL where they end")
		}
		return webURL(r.URL)
	}}
	return func(ctx context.Context, text string) (io.ReadCloser, error) {
		u, err := url.Parse(text)
		if err != nil { // it quotes the text, and what is a password in it
			return nil, errors.New("the URL cannot be read: want http://HOST/… or https://HOST/…")
		}
		if err := webURL(u); err != nil {
			return nil, fmt.Errorf("%q: %w", u.Redacted(), err)
		}
		ctx, cancel := context.WithCancel(ctx)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			cancel()
			return nil, err
		}
		req.Header.Set("User-Agent", "Ballast")
		resp, err := c.Do(req)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("%w: look at the URL, and whether this box reaches the server, or send the bundle by SSH", err)
		}
		if resp.StatusCode != http.StatusOK {
			resp.Body.Close()
			cancel()
			return nil, fmt.Errorf("%s: the server says %s: look at the URL, or send the bundle by SSH", u.Redacted(), resp.Status)
		}
		return newPatient(resp.Body, cancel), nil
	}
}

func webURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("want http://HOST/… or https://HOST/…")
	}
	return nil
}

// patient gives up a transfer that stands still: one that is waited for. What the
// disk takes its time for does not count.
type patient struct {
	r      io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer // runs during a Read
}

func newPatient(r io.ReadCloser, cancel context.CancelFunc) *patient {
	p := &patient{r: r, cancel: cancel, timer: time.AfterFunc(stallTime, cancel)}
	p.timer.Stop()
	return p
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	p.timer.Reset(stallTime)
	n, err := p.r.Read(b)
	p.timer.Stop()
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("nothing came for %v: try again, or send the bundle by SSH", stallTime)
	}
	return n, err
}

// Close implements io.Closer.
func (p *patient) Close() error {
	p.timer.Stop()
	p.cancel()
	return p.r.Close()
}
