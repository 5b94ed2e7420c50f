package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// groups are the headings of the table, in its order.
var groups = []struct{ name, title string }{
	{"failover", "Client-seen outage: the longest time between two answered requests"},
	{"takeover", "The master is killed: from its last advertisement to the first of the other, beside the interval that the protocol asks for"},
	{"heartbeat", "Client-seen outage at advertisements of 1 s, network namespaces; ours with a heartbeat of 10 ms x 3 on two links"},
	{"death", "Client-seen outage of a silent death, the heartbeat row's, for its tail: take 100 runs or more"},
	{"addresses", "A thousand virtual addresses, network namespaces"},
	{"instances", "Many virtual routers, network namespaces; all daemons at once"},
	{"checks", "Health checks, in one guest (QEMU -icount shift=1: 2 ns an instruction); keepalived's checker has no half-open check, its TCP check stands beside ours"},
	{"boot", "Boot, from the start of QEMU"},
	{"program", "virtual servers x real servers, in processor time of one guest (QEMU -icount shift=1: 2 ns an instruction)"},
	{"memory", "Memory of all processes, the lab's default configuration and traffic"},
	{"size", "Image"},
}

// Text writes the report as a table.
func (r *Report) Text(w io.Writer) error {
	fmt.Fprintf(w, "Ballast and keepalived %s in one lab, %s\n", r.Keepalived, r.Date.Format("2006-01-02 15:04 MST"))
	tools := r.QEMU
	if r.IPVSAdm != "" {
		tools = r.IPVSAdm + "; " + tools
	}
	fmt.Fprintf(w, "%s; %s\n%s; %d runs; took %s\n", r.Ballast, tools, r.Machine, r.Runs, r.Took)
	fmt.Fprintf(w, "median (min-max); ratio: ours / theirs, below 1 is better; witness: the longest stall of the lab's own clocks, ours / theirs\n")
	for _, g := range groups {
		rows := slices.DeleteFunc(slices.Clone(r.Rows), func(x Row) bool { return x.Group != g.name })
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", g.title)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "\tours\tkeepalived %s\tratio\taim\twitness\t\n", r.Keepalived)
		for _, row := range rows {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Name, cell(row.Ours, row.Unit), row.peerCell(), ratio(row), aim(row), witnesses(row), row.Note)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, x := range r.Remarks {
		fmt.Fprintf(w, "\n%s\n", x)
	}
	return nil
}

// JSON writes the report for machines.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r Row) peerCell() string {
	s := cell(r.Peer, r.Unit)
	if r.PeerName != "" && r.Peer != nil {
		s = r.PeerName + " " + s
	}
	return s
}

func cell(s *Series, unit string) string {
	if s == nil || len(s.Values) == 0 {
		return "-"
	}
	out := number(s.Median(), unit) + " " + unit
	if len(s.Values) > 1 {
		out += fmt.Sprintf(" (%s-%s)", number(slices.Min(s.Values), unit), number(slices.Max(s.Values), unit))
	}
	if s.Noisy {
		out += " noisy"
	}
	return out
}

func number(v float64, unit string) string {
	digits := 2
	switch {
	case unit == "ms" && v < 10 && v != math.Trunc(v):
		digits = 1
	case unit == "ms":
		digits = 0
	case unit == "MiB", unit == "us":
		digits = 1
	case unit == "checks":
		digits = 0
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

func ratio(r Row) string {
	if x := r.Ratio(); x > 0 && x < 0.01 {
		return fmt.Sprintf("%.3f", x)
	} else if x > 0 {
		return fmt.Sprintf("%.2f", x)
	}
	return "-"
}

func aim(r Row) string {
	if r.Aim == 0 {
		return "-"
	}
	word := "met"
	if r.Ours == nil {
		word = "not taken"
	} else if r.Ours.Median() > r.Aim {
		word = "MISSED"
	}
	return fmt.Sprintf("%s %s %s", strconv.FormatFloat(r.Aim, 'f', -1, 64), r.Unit, word)
}

func witnesses(r Row) string {
	one := func(s *Series) string {
		if s == nil || s.Witness == 0 {
			return "-"
		}
		out := fmt.Sprintf("%.0f", s.Witness)
		if s.Discarded > 0 {
			out += fmt.Sprintf(" (%d discarded)", s.Discarded)
		}
		return out
	}
	a, b := one(r.Ours), one(r.Peer)
	if a == "-" && b == "-" {
		return "-"
	}
	return strings.Join([]string{a, b}, " / ") + " ms"
}

// Groups are the names of the groups of rows.
func Groups() (names []string) {
	for _, g := range groups {
		names = append(names, g.name)
	}
	return names
}

// IsGroup tells whether there are rows of that group.
func IsGroup(name string) bool {
	for _, g := range groups {
		if g.name == name {
			return true
		}
	}
	return false
}
