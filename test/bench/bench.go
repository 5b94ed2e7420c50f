// Package bench measures Ballast beside the keepalived of this machine: in the
// same lab, on the same kernel, with the same configuration text, in one run.
// The peer is a virtual machine in the place of each director.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"ballast/test/lab"
	"ballast/test/lab/vm"
)

// Options are one run.
type Options struct {
	Image  string // folder with vmlinuz and initramfs.zst; empty: lab.DefaultImage
	Binary string // the static binary of the image
	// Runs is how often each figure is taken, 1 or more.
	Runs int
	// Quick is for CI: one run of two failover rows, and the sizes.
	Quick bool
	// Only picks groups of rows by name (see Groups); empty: all. "heartbeat",
	// "death", "addresses" and "instances" need root and no virtual machine.
	Only []string
	Log  func(string) // progress, a line at a time
}

// Report is what a run found.
type Report struct {
	Date       time.Time `json:"date"`
	Machine    string    `json:"machine"`
	Ballast    string    `json:"ballast"`
	Keepalived string    `json:"keepalived"`
	IPVSAdm    string    `json:"ipvsadm"`
	QEMU       string    `json:"qemu"`
	Runs       int       `json:"runs"`
	Took       string    `json:"took"`
	Rows       []Row     `json:"rows"`
	Remarks    []string  `json:"remarks"`
}

// Row is one figure, ours and the peer's.
type Row struct {
	Group string  `json:"group"`
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Ours  *Series `json:"ours,omitempty"`
	Peer  *Series `json:"peer,omitempty"`
	// PeerName is what Peer is, when it is not keepalived.
	PeerName string  `json:"peerName,omitempty"`
	Aim      float64 `json:"aim,omitempty"` // ours is to be at most this; 0: no aim
	Note     string  `json:"note,omitempty"`
}

// Series is a figure taken several times.
type Series struct {
	Values []float64 `json:"values"`
	// Witness is the longest that the lab's own clocks stood still during one of
	// the values, in milliseconds. Below it a value means nothing.
	Witness   float64 `json:"witness,omitempty"`
	Discarded int     `json:"discarded,omitempty"` // values in which the witness saw too much
	Noisy     bool    `json:"noisy,omitempty"`     // some of those had to stay, for want of better ones
}

// Median is the middle value, 0 of an empty series.
func (s *Series) Median() float64 {
	if s == nil || len(s.Values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(s.Values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Ratio is ours divided by the peer's, 0 when one is missing.
func (r Row) Ratio() float64 {
	if p := r.Peer.Median(); p > 0 && r.Ours.Median() > 0 {
		return r.Ours.Median() / p
	}
	return 0
}

// run is a run under way.
type run struct {
	Options
	report *Report
	host   *ticker
}

func (r *run) wants(group string) bool {
	return len(r.Only) == 0 || slices.Contains(r.Only, group)
}

func (r *run) add(row Row) { r.report.Rows = append(r.report.Rows, row) }

func (r *run) logf(format string, args ...any) { r.Log(fmt.Sprintf(format, args...)) }

// Run measures. The report holds what was found up to an error.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Image == "" {
		o.Image = lab.DefaultImage
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.Runs < 1 || o.Quick {
		o.Runs = 1
	}
	r := &run{Options: o, report: &Report{
		Date: time.Now().UTC().Truncate(time.Second), Machine: processors(), Runs: o.Runs,
		Ballast:    firstLine(ctx, o.Binary, "version"),
		Keepalived: keepalivedVersion(ctx),
		QEMU:       firstLine(ctx, vm.Binary, "--version"),
	}}
	start := time.Now()
	defer func() { r.report.Took = time.Since(start).Round(time.Second).String() }()
	if r.report.Keepalived == "" {
		return r.report, errors.New("bench: there is no keepalived on this machine to compare with: apt-get install keepalived ipvsadm")
	}
	if r.wants("size") {
		if err := r.sizes(); err != nil {
			return r.report, err
		}
	}
	if r.wants("failover") || r.wants("boot") && !o.Quick || r.wants("memory") && !o.Quick {
		if err := r.pairs(ctx); err != nil {
			return r.report, err
		}
	}
	if !o.Quick && (r.wants("heartbeat") || r.wants("death") || r.wants("addresses") || r.wants("instances")) {
		if os.Geteuid() == 0 || len(r.Only) > 0 {
			if err := r.inSpaces(ctx); err != nil {
				return r.report, err
			}
		} else {
			r.report.Remarks = append(r.report.Remarks, "The rows of routers in network namespaces (heartbeat, death, addresses, instances) need root and were left out.")
		}
	}
	if r.wants("checks") && !o.Quick {
		if err := r.checks(ctx); err != nil {
			return r.report, err
		}
	}
	if r.wants("program") && !o.Quick {
		if err := r.program(ctx); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

func firstLine(ctx context.Context, argv ...string) string {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

var versionWord = regexp.MustCompile(`v?\d+\.\d+[.\d]*`)

// keepalivedVersion is "2.2.7"; keepalived prints it on standard error.
func keepalivedVersion(ctx context.Context) string {
	return strings.TrimPrefix(versionWord.FindString(firstLine(ctx, "keepalived", "--version")), "v")
}

func processors() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	accel := os.Getenv(vm.EnvAccel)
	if accel == "" {
		accel = "TCG, no hardware virtualisation"
	}
	return fmt.Sprintf("%d x %s, QEMU accelerator: %s", runtime.NumCPU(), model, accel)
}
