package ipvs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

// Bounds of the verb "page".
const (
	pageDefault = 50
	pageMost    = 500
	// pageLooks is how many services are read from the kernel for one page: a
	// virtual server may have hundreds. More of them are as the sweep left them.
	pageLooks = 1000
)

// view is what a page is made of: what it refers to is replaced, never changed,
// by what follows, so that it is read beside the main loop.
type view struct {
	plan    *Plan
	beliefs *Beliefs
	have    *State
}

// page is the verb: a part of the virtual servers. What is read from the kernel
// for it is that part alone.
func (l *loop) page(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.PageQuery
	if len(body) > 0 {
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fmt.Errorf("ipvs: page: argument: %w", err)
		}
	}
	switch q.Sort {
	case status.SortFile, status.SortState, status.SortConnections, status.SortRate, status.SortTraffic:
	default:
		return nil, fmt.Errorf("ipvs: page: nothing is sorted by %q; possible: state, connections, rate, traffic", q.Sort)
	}
	var v view
	if err := l.ask(ctx, func() { v = view{l.r.plan, l.r.beliefs, l.r.have} }); err != nil {
		return nil, err
	}
	if v.plan == nil || v.beliefs == nil {
		return nil, errors.New("ipvs: there is no configuration yet; try again in a moment")
	}
	p, places := v.page(q)
	ids := v.ids(places)
	if len(ids) == 0 || len(ids) > pageLooks {
		return p, nil
	}
	var now *State
	err := l.ask(ctx, func() {
		if l.r.lost {
			return // what was read last has to do
		}
		var derr error
		if now, derr = l.r.kernel.Dump(ids, l.r.tick); derr != nil {
			l.r.fault(derr)
			now = nil
		}
	})
	if err != nil {
		return nil, err
	}
	if now != nil {
		v.have = now
		for k, i := range places {
			p.Rows[k] = v.row(i)
		}
	}
	return p, nil
}

// ids are the services of the virtual servers at places, sorted.
func (v view) ids(places []int) (ids []model.ServiceID) {
	for _, i := range places {
		for j := range v.plan.Virtual[i].Services {
			ids = append(ids, v.plan.Virtual[i].Services[j].ID)
		}
	}
	slices.SortFunc(ids, ipvsnl.CompareID)
	return ids
}

// page is the page that q selects, and the places of its rows in the plan.
func (v view) page(q status.PageQuery) (*status.Page, []int) {
	p := &status.Page{Rows: []status.PageRow{}}
	if v.have != nil {
		p.Daemons = v.have.daemons()
	}
	type match struct {
		at  int
		key uint64 // higher ones come first
	}
	matches := make([]match, 0, len(v.plan.Virtual))
	for i := range v.plan.Virtual {
		r := v.row(i)
		p.Sum.Virtual++
		if !r.QuorumUp {
			p.Sum.Lost++
		}
		p.Sum.Real += r.Real
		p.Sum.Down += r.Down
		p.Sum.Ordered += r.Ordered
		p.Sum.Active += r.Active
		p.Sum.Inactive += r.Inactive
		p.Sum.Stats.Add(r.Stats)
		if v.plan.Virtual[i].matches(q.Filter) {
			matches = append(matches, match{i, rank(q.Sort, &r)})
		}
	}
	if q.Sort != status.SortFile {
		slices.SortStableFunc(matches, func(a, b match) int { return cmp.Compare(b.key, a.key) })
	}
	limit := q.Limit
	if limit <= 0 {
		limit = pageDefault
	}
	limit = min(limit, pageMost)
	p.Matched = len(matches)
	p.Offset = max(0, min(q.Offset, p.Matched-limit))
	var places []int
	for _, m := range matches[p.Offset:min(p.Offset+limit, p.Matched)] {
		places = append(places, m.at)
		p.Rows = append(p.Rows, v.row(m.at))
	}
	return p, places
}

// rank is by how much a row comes before others.
func rank(by string, r *status.PageRow) uint64 {
	switch by {
	case status.SortState:
		switch {
		case !r.QuorumUp:
			return 1<<32 + uint64(r.Down)
		case r.Down > 0:
			return 1<<16 + uint64(r.Down)
		}
		return uint64(min(r.Ordered, 1<<16-1))
	case status.SortConnections:
		return r.Active
	case status.SortRate:
		return r.Stats.CPS
	case status.SortTraffic:
		return r.Stats.InBPS + r.Stats.OutBPS
	}
	return 0
}

// matches reports whether a virtual server is looked for.
func (v *Virtual) matches(filter string) bool {
	if filter == "" || strings.Contains(v.Name, filter) {
		return true
	}
	for j := range v.Real {
		if strings.Contains(v.Real[j].confKey().String(), filter) {
			return true
		}
	}
	return false
}

// row is the virtual server at place i.
func (v view) row(i int) status.PageRow {
	vs, b := v.plan.Virtual[i], v.beliefs.virtual[i]
	r := status.PageRow{Name: vs.Name, Scheduler: vs.Services[0].Scheduler, QuorumUp: b.quorumUp(vs), Real: len(vs.Real)}
	r.Sorry = vs.Sorry != nil && !r.QuorumUp
	for j := range vs.Real {
		if b.real[j].order != asConfigured {
			r.Ordered++
		}
		if alive, _ := b.real[j].of(&vs.Real[j]); !alive && b.real[j].order != orderDisable {
			r.Down++
		}
	}
	if v.have == nil {
		return r
	}
	for j := range vs.Services {
		h := v.have.find(vs.Services[j].ID)
		if h == nil {
			continue
		}
		r.Stats.Add(status.Stats(h.Stats))
		for k := range h.Dests {
			r.Active += uint64(h.Dests[k].Active)
			r.Inactive += uint64(h.Dests[k].Inactive)
		}
	}
	return r
}

// orders is the verb: the orders in force, without the table.
func (l *loop) orders(ctx context.Context, _ ipc.Peer, _ json.RawMessage) (any, error) {
	list := []status.Order{}
	err := l.ask(ctx, func() { list = append(list, l.r.orders.status(false)...) })
	return list, err
}
