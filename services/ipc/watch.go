package ipc

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Watch calls fn with the state of a service, now and after each change,
// until ctx ends. States that come faster than fn works are skipped: fn always
// gets the newest. A service that goes away is awaited; fn is not told. It
// returns ctx's error.
func Watch[T any](ctx context.Context, c *Client, fn func(gen uint64, state T)) error {
	return watch(ctx, c, "/state?watch", fn)
}

// WatchSummary is Watch for the summary of the state (see Summarizer); fn is
// called only when that changes.
func WatchSummary[T any](ctx context.Context, c *Client, fn func(gen uint64, summary T)) error {
	return watch(ctx, c, "/state?watch&summary", fn)
}

// WatchBrief is WatchSummary without transitions (see Briefer): for those who
// want to know how far a service is, or what is new in it.
func WatchBrief[T any](ctx context.Context, c *Client, fn func(gen uint64, summary T)) error {
	return watch(ctx, c, "/state?watch&brief", fn)
}

// WatchBriefOnce is WatchBrief until the service goes away, or ctx ends. It
// reports whether at least one state came.
func WatchBriefOnce[T any](ctx context.Context, c *Client, fn func(gen uint64, summary T)) bool {
	return watchOnce(ctx, c, "/state?watch&brief", nil, fn)
}

// WatchTail is WatchSummary for who wants transitions, each of them once: the
// first summary has all that the service keeps, each later one those that are
// new. Where states come faster than fn works, join puts the transitions of one
// that is skipped before those of the next.
func WatchTail[T any](ctx context.Context, c *Client, join func(skipped, next T) T, fn func(gen uint64, summary T)) error {
	return watchAll(ctx, c, "/state?watch&brief&tail", join, fn)
}

func watch[T any](ctx context.Context, c *Client, path string, fn func(gen uint64, state T)) error {
	return watchAll(ctx, c, path, nil, fn)
}

func watchAll[T any](ctx context.Context, c *Client, path string, join func(skipped, next T) T, fn func(gen uint64, state T)) error {
	backoff := 20 * time.Millisecond
	for ctx.Err() == nil {
		if watchOnce(ctx, c, path, join, fn) {
			backoff = 20 * time.Millisecond
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, time.Second)
	}
	return ctx.Err()
}

// watchOnce reports whether at least one state came.
func watchOnce[T any](ctx context.Context, c *Client, path string, join func(skipped, next T) T, fn func(uint64, T)) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.service+path, nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false
	}
	lines := make(chan [][]byte, 1) // not yet handed over: the newest, or with join all
	go func() {
		defer close(lines)
		r := bufio.NewReader(resp.Body)
		for {
			b, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			next := [][]byte{b}
			select {
			case before := <-lines:
				if join != nil {
					next = append(before, b)
				}
			default:
			}
			lines <- next
		}
	}()
	got := false
	for some := range lines {
		var now struct { // Envelope, decoded in one pass
			Generation uint64 `json:"generation"`
			State      T      `json:"state"`
		}
		had := false
		for _, b := range some {
			e := now
			var none T
			if e.State = none; json.Unmarshal(b, &e) != nil {
				continue
			}
			if had {
				e.State = join(now.State, e.State)
			}
			now, had = e, true
		}
		if had {
			got = true
			fn(now.Generation, now.State)
		}
	}
	return got
}
