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

// programAim is how long the table of 1,000 virtual servers may take, in
// seconds.
const programAim = 0.35

// program measures how fast a large configuration gets into the kernel. That
// is a matter of the processor alone, and of a busy machine's clock not at all: the
// guest counts instructions.
func (r *run) program(ctx context.Context) error {
	r.logf("programming 1,000 x 10 in a guest that counts instructions")
	var out bytes.Buffer
	code, err := guest.Exec(ctx, guest.Options{
		Package:  "./test/bench/program",
		Args:     []string{"-test.run", "^TestFigures$", "-test.v", "-runs", fmt.Sprint(min(r.Runs, 3))},
		Binaries: []string{r.Binary, "keepalived", "ipvsadm"},
		Modules:  []string{"ip_vs", "ip_vs_rr", "ip_vs_wrr"},
		Memory:   1024, Timeout: 6 * time.Minute, Output: &out,
		Extra: []string{"-icount", "shift=1,sleep=off"},
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	if err != nil {
		r.report.Remarks = append(r.report.Remarks, "Not all figures of programming could be taken: "+err.Error())
		r.logf("%v\n%s", err, lastLines(out.String(), 40))
	}
	got := map[string]*Series{}
	for line := range strings.Lines(out.String()) {
		if _, v, ok := strings.Cut(line, figure.Version); ok {
			r.report.IPVSAdm = "ipvsadm " + versionWord.FindString(v)
		}
		_, text, ok := strings.Cut(line, figure.Mark)
		if !ok {
			continue
		}
		var f figure.Figure
		if json.Unmarshal([]byte(text), &f) != nil {
			continue
		}
		if got[f.Name] == nil {
			got[f.Name] = &Series{}
		}
		got[f.Name].Values = append(got[f.Name].Values, f.Seconds)
	}
	row := func(name string, ours, peer, peerName string) *Row {
		r.add(Row{Group: "program", Name: name, Unit: "s", Ours: got[ours], Peer: got[peer], PeerName: peerName})
		return &r.report.Rows[len(r.report.Rows)-1]
	}
	row("the ipvs process, new configuration to last server in the kernel", figure.Apply, figure.IPVSAdm, "ipvsadm --restore").Aim = programAim
	row("the same, until its state says so", figure.Told, "", "")
	row("commit of the text to last server in the kernel", figure.Commit, figure.Keepalived, "start").Note = "keepalived: from its start"
	row("the same, until all services have said so and the commit returns", figure.CommitTold, "", "")
	row("commit of one changed weight to the kernel", figure.Weight, figure.Reload, "SIGHUP")
	row("the same, until the commit returns", figure.WeightTold, "", "")
	return nil
}

func lastLines(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}
