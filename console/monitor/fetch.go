package monitor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/console/show"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Services is how the services are reached.
type Services interface {
	State(ctx context.Context, service string, v any) error
	Call(ctx context.Context, service, verb string, in, out any) error
}

// Box is the Source of a director.
type Box struct {
	Services Services
	Now      func() time.Time // nil: time.Now
}

// fetchBound is how long a service may take; what it said before stays on the
// screen meanwhile.
const fetchBound = 3 * time.Second

// journalMost is how much of the journal is looked at for one real server.
const journalMost = 100

// Fetch implements Source. A service that does not answer is named in Problems.
func (b *Box) Fetch(ctx context.Context, q Query) Data {
	ctx, cancel := context.WithTimeout(ctx, fetchBound)
	defer cancel()
	now := time.Now
	if b.Now != nil {
		now = b.Now
	}
	d := Data{At: now()}
	var mu sync.Mutex
	var wg sync.WaitGroup
	ask := func(service string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				d.Problems = append(d.Problems, problem(service, err))
			}
		})
	}
	ask("conf", func() error { return b.Services.State(ctx, "conf", &d.Conf) })
	ask("vrrp", func() error { return b.Services.State(ctx, "vrrp", &d.VRRP) })
	ask("ipvs", func() error { return b.Services.Call(ctx, "ipvs", "page", q.Page, &d.Page) })
	if q.Events > 0 {
		ask("notify", func() error {
			return b.Services.Call(ctx, "notify", "journal", status.JournalQuery{Limit: q.Events}, &d.Events)
		})
	}
	var server Server
	var ipvsErr, healthErr error
	if q.Server != "" {
		server.Name = q.Server
		wg.Go(func() { ipvsErr = b.Services.Call(ctx, "ipvs", "service", q.Server, &server.Services) })
		wg.Go(func() { healthErr = b.Services.Call(ctx, "health", "server", q.Server, &server.Health) })
	}
	wg.Wait()
	if q.Server != "" {
		if ipvsErr == nil || healthErr == nil {
			d.Server = &server
		}
		for service, err := range map[string]error{"ipvs": ipvsErr, "health": healthErr} {
			if text := problem(service, err); err != nil && !slices.Contains(d.Problems, text) {
				d.Problems = append(d.Problems, text)
			}
		}
	}
	switch {
	case q.Real.IsValid() && d.Server != nil:
		d.Explain = b.explainServer(ctx, &d, q)
	case q.Instance != "":
		var list []status.Entry
		b.Services.Call(ctx, "notify", "journal", status.JournalQuery{Object: q.Instance, Service: "vrrp", Limit: journalMost}, &list)
		list = slices.DeleteFunc(list, func(e status.Entry) bool { return e.Object != q.Instance })
		d.Explain, _ = show.ExplainVRRP(d.VRRP, q.Instance, list, d.At)
	}
	slices.Sort(d.Problems)
	return d
}

func (b *Box) explainServer(ctx context.Context, d *Data, q Query) string {
	var list []status.Entry
	b.Services.Call(ctx, "notify", "journal", status.JournalQuery{Object: "[" + q.Real.Addr().String() + "]:", Limit: journalMost}, &list)
	var orders []status.Order
	b.Services.Call(ctx, "ipvs", "orders", nil, &orders)
	text, _ := show.ExplainServer(status.IPVS{Services: d.Server.Services, Orders: orders},
		status.Health{Servers: []status.VirtualServerHealth{d.Server.Health}}, q.Real.Addr(), q.Real.Port(), list, d.At)
	return text
}

// problem words why a service said nothing.
func problem(service string, err error) string {
	var refused *ipc.Refused
	switch {
	case err == nil:
		return ""
	case errors.As(err, &refused):
		text, _, _ := strings.Cut(err.Error(), "\n")
		return text
	case errors.Is(err, context.DeadlineExceeded):
		return service + " does not answer in time"
	}
	return service + " does not answer"
}
