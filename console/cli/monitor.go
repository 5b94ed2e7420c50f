package cli

import (
	"context"
	"errors"
	"strings"
	"sync"

	"ballast/console/monitor"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

// Size of a picture for who has no terminal.
const (
	pictureWidth  = 80
	pictureHeight = 24
)

// monitorBox is the full-screen view; with --once one picture of it.
func monitorBox(ctx context.Context, c *call) (string, error) {
	var once, mono, ascii bool
	term := ""
	for _, a := range c.args {
		switch {
		case a == "--once" || a == "once":
			once = true
		case a == "mono":
			mono = true
		case a == "ascii":
			ascii = true
		case term == "" && strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._") == "":
			term = a
		default:
			return "", usagef("monitor [--once] [mono] [ascii] [TERM], for example on a serial line: monitor vt100")
		}
	}
	if once {
		return monitor.Once(ctx, &monitor.Box{Services: c.s.Services, Now: c.s.now}, c.s.host(), pictureWidth, pictureHeight, ascii), nil
	}
	if c.s.Monitor == nil {
		return "", errors.New("there is no terminal here (ssh -t makes one); \"monitor --once\" shows one picture, \"show status\" the box on one page")
	}
	err := c.s.Monitor(ctx, term, mono, ascii)
	if errors.Is(err, context.Canceled) {
		return "", nil // the session ends
	}
	return "", err
}

func (s *Session) host() string {
	if s.Host == nil {
		return ""
	}
	return s.Host()
}

// lastEvents is how many of them the page about a box shows.
const lastEvents = 5

// showStatus is one page about the box. A service that does not answer is one
// of the things it tells.
func showStatus(ctx context.Context, c *call) (string, error) {
	o := show.Overview{Host: c.s.host()}
	var mu sync.Mutex
	var wg sync.WaitGroup
	ask := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				o.Silent = append(o.Silent, err.Error())
			}
		})
	}
	ask(func() error { return c.state(ctx, "init", &o.Init) })
	ask(func() error { return c.state(ctx, "conf", &o.Conf) })
	ask(func() error { return c.state(ctx, "vrrp", &o.VRRP) })
	ask(func() error { return c.state(ctx, "net", &o.Net) })
	ask(func() error {
		return c.verb(ctx, "ipvs", "page", status.PageQuery{Sort: status.SortState, Limit: show.MostBad}, &o.Page)
	})
	ask(func() error {
		return c.verb(ctx, "notify", "journal", status.JournalQuery{Limit: lastEvents}, &o.Last)
	})
	wg.Wait()
	if c.json {
		return indented(o.Facts(c.s.now()))
	}
	return show.Status(o, c.s.now()), nil
}
