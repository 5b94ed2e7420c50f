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
		Memory:   1024, Timeout: 15 * time.Minute, Output: &out,
		Extra: []string{"-icount", "shift=1,sleep=off"},
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	if err != nil {
		return fmt.Errorf("bench: program: %w\n%s", err, out.String())
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
	r.add(Row{Group: "program", Name: "ipvs process, from new configuration to applied", Unit: "s", Aim: programAim,
		Ours: got[figure.Apply], Peer: got[figure.IPVSAdm], PeerName: "ipvsadm --restore"})
	r.add(Row{Group: "program", Name: "whole commit, from text to applied by all services", Unit: "s", Ours: got[figure.Commit], Peer: got[figure.Keepalived],
		Note: "keepalived: start to all programmed"})
	r.add(Row{Group: "program", Name: "commit of one changed weight", Unit: "s", Ours: got[figure.Weight], Peer: got[figure.Reload],
		Note: "keepalived: SIGHUP to weight in the kernel"})
	return nil
}
