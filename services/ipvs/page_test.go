package ipvs

import (
	"fmt"
	"strings"
	"testing"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// names are the last numbers of the addresses of a page's virtual servers.
func pageNames(p *status.Page) string {
	var out []string
	for _, r := range p.Rows {
		_, rest, _ := strings.Cut(r.Name, "10.0.0.")
		n, _, _ := strings.Cut(rest, "]")
		out = append(out, n)
	}
	return strings.Join(out, " ")
}

func TestPage(t *testing.T) {
	var list []model.VirtualServer
	for i := 1; i <= 9; i++ {
		list = append(list, vs(fmt.Sprintf("10.0.0.%d", i), nil, rs(fmt.Sprintf("10.0.1.%d", i), 1), rs("10.0.2.1", 1)))
	}
	c := config(list...)
	w := orderedWorld(t, c)
	// 10.0.1.3 is down; 10.0.0.5 has lost its quorum; 10.0.1.7 is taken out by hand.
	h := health(1, c, "10.0.1.3", "10.0.1.5")
	for i := range h.Servers[4].Real {
		h.Servers[4].Real[i].Alive = false
	}
	h.Servers[4].QuorumUp = false
	w.r.hear(h)
	w.r.event()
	w.told(t, status.ServerOrder{Addr: ip("10.0.1.7"), Action: status.OrderDisable})
	for i, s := range w.k.state.Services {
		s.Stats.CPS, s.Stats.InBPS = uint64(i), uint64(100-i)
		for j := range s.Dests {
			s.Dests[j].Active = uint32(10 * (i % 4))
		}
	}
	if err := w.r.sweep(w.k); err != nil {
		t.Fatal(err)
	}
	v := view{w.r.plan, w.r.beliefs, w.r.have}
	for _, tc := range []struct {
		q       status.PageQuery
		want    string
		matched int
		offset  int
	}{
		{status.PageQuery{}, "1 2 3 4 5 6 7 8 9", 9, 0},
		{status.PageQuery{Offset: 2, Limit: 3}, "3 4 5", 9, 2},
		{status.PageQuery{Offset: 100, Limit: 3}, "7 8 9", 9, 6},
		{status.PageQuery{Offset: -5, Limit: 2}, "1 2", 9, 0},
		{status.PageQuery{Filter: "0.0.4]"}, "4", 1, 0},
		{status.PageQuery{Filter: "10.0.1.6:80"}, "6", 1, 0},
		{status.PageQuery{Filter: "10.0.2.1", Limit: 2}, "1 2", 9, 0},
		{status.PageQuery{Filter: "nothing"}, "", 0, 0},
		{status.PageQuery{Sort: status.SortState, Limit: 4}, "5 3 7 1", 9, 0},
		{status.PageQuery{Sort: status.SortRate, Limit: 3}, "9 8 7", 9, 0},
		{status.PageQuery{Sort: status.SortTraffic, Limit: 3}, "1 2 3", 9, 0},
		{status.PageQuery{Sort: status.SortConnections, Limit: 2}, "4 8", 9, 0},
	} {
		p, places := v.page(tc.q)
		if got := pageNames(p); got != tc.want || p.Matched != tc.matched || p.Offset != tc.offset || len(places) != len(p.Rows) {
			t.Errorf("%+v: %q, %d of %d match, at %d; want %q", tc.q, got, p.Matched, p.Sum.Virtual, p.Offset, tc.want)
		}
		if s := p.Sum; s.Virtual != 9 || s.Lost != 1 || s.Real != 18 || s.Down != 3 || s.Ordered != 1 || s.Stats.CPS != 36 {
			t.Errorf("%+v: sum %+v", tc.q, s)
		}
	}
	p, _ := v.page(status.PageQuery{Filter: "0.0.4]"})
	if r := p.Rows[0]; r.Scheduler != "wrr" || !r.QuorumUp || r.Real != 2 || r.Active != 60 || r.Stats.InBPS != 97 {
		t.Errorf("row %+v", r)
	}
	// A page needs nothing of the kernel that is not on it.
	if ids := v.ids([]int{8, 2}); len(ids) != 2 || ids[0].Addr != ip("10.0.0.3") || ids[1].Addr != ip("10.0.0.9") {
		t.Errorf("services %v", ids)
	}
}

func BenchmarkPage(b *testing.B) {
	const n = 10000
	list := make([]model.VirtualServer, n)
	for i := range list {
		a := fmt.Sprintf("%d.%d", i>>8, i&255)
		list[i] = vs("10.1."+a, nil, rs("10.2."+a, 1), rs("10.3."+a, 1))
	}
	p, err := Compile(config(list...))
	if err != nil {
		b.Fatal(err)
	}
	v := view{p, NoBeliefs(p), &State{}}
	for b.Loop() {
		v.page(status.PageQuery{Sort: status.SortState, Limit: 20})
	}
}
