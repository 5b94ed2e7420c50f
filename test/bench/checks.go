package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"ballast/test/bench/program/figure"
	"ballast/test/guest"
)

// checks measures what health checks cost, and how soon a dead server is gone
// from the kernel. keepalived's checker does not start where there is no IPVS,
// so it is one guest for all, and it counts instructions.
func (r *run) checks(ctx context.Context) error {
	perSecond := r.checkFigures(ctx, 1000, "TCP half-open HTTP reaction")
	many := r.checkFigures(ctx, 2000, "TCP")
	for _, k := range []struct{ name, ours, peer, peerName string }{
		{"TCP", "TCP", "TCP", ""}, {"HTTP", "HTTP", "HTTP", ""}, {"half-open", "half-open", "TCP", "TCP check"},
	} {
		ours, peer := perSecond["ballast "+k.ours], perSecond["keepalived "+k.peer]
		share := func(f *figures) *Series {
			return f.series(func(x figure.Figure) float64 { return x.Seconds * 1000 * 100 })
		}
		rate := func(f *figures) *Series { return f.series(func(x figure.Figure) float64 { return 1 / x.Seconds }) }
		r.add(Row{Group: "checks", Name: "1,000 " + k.name + " checks a second: processor", Unit: "%", Ours: share(ours), Peer: share(peer), PeerName: k.peerName})
		r.add(Row{Group: "checks", Name: k.name + " checks a second and core (above 1 is better)", Unit: "checks", Ours: rate(ours), Peer: rate(peer), PeerName: k.peerName})
	}
	size := func(f *figures) *Series { return f.series(func(x figure.Figure) float64 { return x.MiB }) }
	r.add(Row{Group: "checks", Name: "2,000 real servers, TCP checks: RSS of the checker", Unit: "MiB", Ours: size(many["ballast TCP"]), Peer: size(many["keepalived TCP"])})
	late := func(f *figures) *Series { return f.series(func(x figure.Figure) float64 { return x.Seconds * 1000 }) }
	r.add(Row{Group: "checks", Name: "a server dies (delay_loop 1, one retry after 1 s): until the kernel sends it nothing", Unit: "ms",
		Ours: late(perSecond["ballast reaction"]), Peer: late(perSecond["keepalived reaction"])})
	return nil
}

// figures are those of one name.
type figures []figure.Figure

func (f *figures) series(of func(figure.Figure) float64) *Series {
	if f == nil {
		return nil
	}
	s := &Series{}
	for _, x := range *f {
		s.Values = append(s.Values, of(x))
	}
	return s
}

func (r *run) checkFigures(ctx context.Context, real int, kinds string) map[string]*figures {
	r.logf("checks of %d real servers in a guest that counts instructions", real)
	var out bytes.Buffer
	code, err := guest.Exec(ctx, guest.Options{
		Package:  "./test/bench/checks",
		Args:     []string{"-test.run", "^TestFigures$", "-test.v", "-real", fmt.Sprint(real), "-during", "10s", "-kinds", kinds},
		Binaries: []string{r.Binary, "keepalived"}, Modules: []string{"ip_vs", "ip_vs_rr"},
		Memory: 512, Timeout: 15 * time.Minute, Output: &out, Extra: []string{"-icount", "shift=1,sleep=off"},
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	if err != nil {
		r.report.Remarks = append(r.report.Remarks, fmt.Sprintf("Not all figures of checks of %d real servers could be taken: %v", real, err))
		r.logf("%v\n%s", err, lastLines(out.String(), 40))
	}
	got := map[string]*figures{}
	for line := range strings.Lines(out.String()) {
		_, text, ok := strings.Cut(line, figure.Mark)
		var f figure.Figure
		if !ok || json.Unmarshal([]byte(text), &f) != nil || f.Seconds <= 0 {
			continue
		}
		if got[f.Name] == nil {
			got[f.Name] = &figures{}
		}
		*got[f.Name] = append(*got[f.Name], f)
	}
	return got
}
