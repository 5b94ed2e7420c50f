package health

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// server is the verb: one virtual server, for who looks at it and need not read
// ten thousand others.
func (l *loop) server(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var name string
	if err := json.Unmarshal(body, &name); err != nil {
		return nil, fmt.Errorf("health: server: the argument is the name of a virtual server: %w", err)
	}
	answer := make(chan *status.VirtualServerHealth, 1)
	l.post(func(time.Time) { answer <- l.w.one(name) })
	select {
	case v := <-answer:
		if v == nil {
			return nil, fmt.Errorf("health: there is no virtual server %q; \"show health\" lists them, the way they are to be written", name)
		}
		return v, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("health: too busy to answer: %w", ctx.Err())
	}
}

// one is a virtual server as it is now; nil: there is none of that name.
func (w *world) one(name string) *status.VirtualServerHealth {
	for _, vs := range w.servers {
		if vs.conf.Name != name {
			continue
		}
		stale := vs.stale
		v := w.show([]*virtualServer{vs})
		vs.stale = stale // it was not published
		return &v[0]
	}
	return nil
}
