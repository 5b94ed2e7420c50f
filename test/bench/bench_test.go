package bench

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"ballast/test/golden"
	"ballast/test/lab"
	"ballast/test/lab/wire"
)

func TestSeries(t *testing.T) {
	for _, c := range []struct {
		values []float64
		median float64
		cell   string
	}{
		{nil, 0, "-"},
		{[]float64{3}, 3, "3 ms"},
		{[]float64{9, 1, 5}, 5, "5 ms (1-9)"},
		{[]float64{4, 2}, 3, "3 ms (2-4)"},
	} {
		s := &Series{Values: c.values}
		if m := s.Median(); m != c.median {
			t.Errorf("median of %v: %v", c.values, m)
		}
		if got := cell(s, "ms"); got != c.cell {
			t.Errorf("cell of %v: %q", c.values, got)
		}
	}
	var none *Series
	if none.Median() != 0 || cell(none, "s") != "-" {
		t.Error("a series that was not taken has a value")
	}
	for _, c := range []struct {
		row  Row
		want float64
	}{
		{Row{Ours: &Series{Values: []float64{1}}, Peer: &Series{Values: []float64{4}}}, 0.25},
		{Row{Ours: &Series{Values: []float64{1}}}, 0},
		{Row{Peer: &Series{Values: []float64{1}}}, 0},
	} {
		if got := c.row.Ratio(); got != c.want {
			t.Errorf("ratio %v, want %v", got, c.want)
		}
	}
}

func TestText(t *testing.T) {
	r := &Report{
		Date: time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC), Machine: "2 x M", Ballast: "ballast dev", Keepalived: "2.2.7", IPVSAdm: "ipvsadm v1.31",
		QEMU: "QEMU 7.2", Runs: 3, Took: "10m0s", Remarks: []string{"A remark."},
		Rows: []Row{
			{Group: "size", Name: "image", Unit: "MiB", Aim: 32, Ours: &Series{Values: []float64{40}}},
			{Group: "failover", Name: "v3 100 ms, kill", Unit: "ms", Ours: &Series{Values: []float64{330, 320, 340}, Witness: 4, Discarded: 1},
				Peer: &Series{Values: []float64{360}, Witness: 120, Noisy: true}},
			{Group: "program", Name: "apply", Unit: "s", Aim: 0.35, PeerName: "ipvsadm", Ours: &Series{Values: []float64{0.3}}, Peer: &Series{Values: []float64{6}}, Note: "a note"},
		},
	}
	var b bytes.Buffer
	if err := r.Text(&b); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, filepath.Join("testdata", "table.txt"), b.String())
}

// TestTimings: the lab takes every configuration, and the client's target is
// one of its services.
func TestTimings(t *testing.T) {
	for _, x := range timings {
		p, err := lab.Layout(x.options())
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		found := false
		for _, y := range p.Targets {
			found = found || y.Addr.String() == target
		}
		if !found {
			t.Errorf("%s: no target %s: %v", x.name, target, p.Targets)
		}
	}
}

func TestWitness(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	k := &ticker{late: []lateness{{at(100), 50 * time.Millisecond}, {at(300), 20 * time.Millisecond}}}
	for _, c := range []struct{ from, to, want int }{
		{0, 100, 0}, {0, 101, 50}, {149, 200, 50}, {150, 300, 0}, {0, 400, 50}, {200, 400, 20},
	} {
		if got := k.worst(at(c.from), at(c.to)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%d-%d: %v, want %d ms", c.from, c.to, got, c.want)
		}
	}
}

// TestWindow: only requests sent within the window count.
func TestWindow(t *testing.T) {
	start := time.UnixMilli(1000)
	c := &client{start: start, probe: &lab.Probe{Probe: wire.Probe{Every: 10 * time.Millisecond}}}
	for i := range 100 {
		s := wire.Sample{At: time.Duration(i) * 10 * time.Millisecond, Took: time.Millisecond}
		if i >= 50 && i < 60 {
			s.Error = "timeout"
		}
		c.samples = append(c.samples, s)
	}
	if r := c.window(start, start.Add(time.Second)); r.Outage != 110*time.Millisecond || r.Failed() != 10 {
		t.Errorf("whole: %s", r)
	}
	if r := c.window(start, start.Add(400*time.Millisecond)); r.Outage != 10*time.Millisecond || r.Sent != 40 {
		t.Errorf("before the outage: %s", r)
	}
	at, ok := c.firstGood(start.Add(505 * time.Millisecond))
	if want := start.Add(601 * time.Millisecond); !ok || !at.Equal(want) {
		t.Errorf("first good answer at %v, want %v", at, want)
	}
	if c.trim(start.Add(900 * time.Millisecond)); len(c.samples) != 10 {
		t.Errorf("%d samples left", len(c.samples))
	}
}
