package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"ballast/test/bench/program/figure"
	"ballast/test/guest"
)

// table is one size of configuration.
type table struct {
	services, servers int
	parts             string // of the test in the guest
}

func (t table) String() string {
	name := strconv.Itoa(t.services)
	if n := len(name); n > 3 {
		name = name[:n-3] + "," + name[n-3:]
	}
	return fmt.Sprintf("%s x %d", name, t.servers)
}

// tables are the sizes measured.
var tables = []table{
	{100, 10, "commit keepalived"},
	{1000, 10, "apply commit restore keepalived"},
	{5000, 10, "commit keepalived"},
	{10000, 2, "apply commit restore keepalived"},
}

// Aims, in seconds: a table within a fifth of keepalived's time is a matter of
// the ratio; one changed weight is live within 200 ms from its commit, and
// within 5 ms by a verb.
const (
	weightAim = 0.2
	orderAim  = 0.005
)

// program measures how fast a large configuration gets into the kernel, and a
// small change of it. That is a matter of the processor alone, and of a busy
// machine's clock not at all: the guest counts instructions.
func (r *run) program(ctx context.Context) error {
	for _, t := range tables {
		if err := r.programTable(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) programTable(ctx context.Context, t table) error {
	r.logf("programming %s in a guest that counts instructions", t)
	var out bytes.Buffer
	code, err := guest.Exec(ctx, guest.Options{
		Package: "./test/bench/program",
		Args: []string{"-test.run", "^TestFigures$", "-test.v", "-runs", fmt.Sprint(min(r.Runs, 3)), "-services", fmt.Sprint(t.services),
			"-servers", fmt.Sprint(t.servers), "-parts", t.parts},
		Binaries: []string{r.Binary, "keepalived", "ipvsadm"},
		Modules:  []string{"ip_vs", "ip_vs_rr", "ip_vs_wrr"},
		Memory:   2048, Timeout: 15 * time.Minute, Output: &out,
		Extra: []string{"-icount", "shift=1,sleep=off"},
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	if err != nil {
		r.report.Remarks = append(r.report.Remarks, fmt.Sprintf("Not all figures of programming %s could be taken: %v", t, err))
		r.logf("%v\n%s", err, lastLines(out.String(), 40))
	}
	got := map[string]*Series{}
	for line := range strings.Lines(out.String()) {
		if _, v, ok := strings.Cut(line, figure.Version); ok {
			r.report.IPVSAdm = "ipvsadm " + versionWord.FindString(v)
		}
		if strings.Contains(line, "of processor time") { // who it went to: no figure, but where to look next
			r.logf("%s", strings.TrimSpace(line))
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
	row := func(name string, ours, peer, peerName string, aim float64) {
		if got[ours] == nil && got[peer] == nil {
			return // not measured at this size
		}
		r.add(Row{Group: "program", Name: fmt.Sprintf("%s: %s", t, name), Unit: "s", Ours: got[ours], Peer: got[peer], PeerName: peerName, Aim: aim})
	}
	row("the ipvs process, new configuration to last server in the kernel", figure.Apply, figure.IPVSAdm, "ipvsadm --restore", 0)
	row("the same, until its state says so", figure.Told, "", "", 0)
	row("commit of the text to last server in the kernel; keepalived from its start", figure.Commit, figure.Keepalived, "start", 0)
	row("the same, until all services have said so and the commit returns", figure.CommitTold, "", "", 0)
	row("commit of one changed weight to the kernel", figure.Weight, figure.Reload, "SIGHUP", weightAim)
	row("the same, until the commit returns", figure.WeightTold, "", "", 0)
	row("one weight by the console's verb", figure.Order, figure.IPVSEdit, "ipvsadm -e", orderAim)
	return nil
}

func lastLines(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}
