package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"ballast/test/golden"
	"ballast/test/lab/wire"
)

func example() snapshot {
	v := snapshot{
		up: 192 * time.Second, now: time.Date(2026, 11, 21, 14, 3, 12, 0, time.UTC), master: "vrid 51 director-b, vrid 52 director-b",
		failover: "14:03:11 vrid 51: director-b advertises, 721ms after director-a; the client saw a gap of 748ms",
	}
	v.boxes[0] = box{name: "director-a"}
	v.boxes[1] = box{name: "director-b", power: true, instances: []string{"inside MASTER 99", "outside MASTER 99"}, unplugged: true}
	v.services = []service{
		{target: "tcp 10.10.0.80:80", rate: 19.7, failed: 14},
		{target: "tcp 10.10.0.80:8080", rate: 12, failing: 8, failed: 120, silent: 2500 * time.Millisecond},
	}
	v.servers = []server{
		{name: "rs1", rate: 6.6, running: true, used: true, known: true},
		{name: "rs2", running: false, used: true, known: true},
		{name: "rs3", rate: 6.6, running: true, used: true, known: true},
		{name: "rs4", rate: 13.1, running: true, known: true},
		{name: "sorry1", running: true, known: true, sorry: true},
		{name: "other", rate: 1, stranger: true},
	}
	for i := range 30 {
		v.events = append(v.events, fmt.Sprintf("14:03:%02d director-a: event %d", i, i))
	}
	return v
}

// TestDraw: the view fits into the smallest screen, and says the same things
// on a larger one.
func TestDraw(t *testing.T) {
	got := example().draw(0, 80, 24, nil)
	golden.Check(t, filepath.Join("testdata", "80x24.txt"), got)
	for _, size := range [][2]int{{80, 24}, {60, 24}, {80, 15}, {20, 5}, {200, 60}} {
		lines := strings.Split(strings.TrimSuffix(example().draw(1, size[0], size[1], nil), "\n"), "\n")
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n > size[0] {
				t.Errorf("%v: a line of %d columns: %s", size, n, l)
			}
		}
		if len(lines) >= size[1] && size[1] >= 24 {
			t.Errorf("%v: %d lines", size, len(lines))
		}
	}
	long := "ssh -F /tmp/ballast-lab-0123456789/ssh director-a " + strings.Repeat("x", 60)
	if got := example().draw(0, 80, 24, []string{long}); !strings.Contains(got, long) {
		t.Errorf("a command is cut:\n%s", got)
	}
}

func TestLine(t *testing.T) {
	want := "14:03:12 vrid 51 director-b, vrid 52 director-b | tcp 10.10.0.80:80 20/s failed 14, tcp 10.10.0.80:8080 12/s failed 120 | " +
		"rs1 7 rs3 7 rs4 13 other 1 | last failover 14:03:11 vrid 51: director-b advertises, 721ms after director-a; the client saw a gap of 748ms"
	if d := cmp.Diff(want, example().line()); d != "" {
		t.Error(d)
	}
}

// TestTraffic: rates are of the last seconds, and a gap is from one answered
// request to the next.
func TestTraffic(t *testing.T) {
	const every = 50 * time.Millisecond
	t0 := time.Unix(1000, 0)
	tr := &traffic{every: every, began: t0}
	at := t0
	for range 40 { // 2 s of answers
		tr.add(at, wire.Sample{Server: "rs1", At: at.Sub(t0)})
		at = at.Add(every)
	}
	for range 10 { // half a second without
		tr.add(at.Add(time.Second), wire.Sample{Error: "timeout", Took: time.Second, At: at.Sub(t0)})
		at = at.Add(every)
	}
	back := at
	for range 20 {
		tr.add(at.Add(3*time.Second), wire.Sample{Server: "rs2", At: at.Sub(t0)}) // told late
		at = at.Add(every)
	}
	if tr.good != 60 || tr.failed != 10 || len(tr.gaps) != 1 {
		t.Fatalf("%d good, %d failed, gaps %v", tr.good, tr.failed, tr.gaps)
	}
	if g := tr.around(back); g != 550*time.Millisecond {
		t.Errorf("gap %v, want 550ms", g)
	}
	if g := tr.around(back.Add(time.Minute)); g != 0 {
		t.Errorf("gap %v around a time when there was none", g)
	}
	by, failed := tr.rates(at)
	if fmt.Sprintf("%.1f %.1f %.1f", by["rs1"], by["rs2"], failed) != "10.0 6.7 3.3" {
		t.Errorf("rates %v, failing %.1f", by, failed)
	}
}

func TestMissing(t *testing.T) {
	has := func(names ...string) func(string) (string, error) {
		return func(n string) (string, error) {
			for _, h := range names {
				if h == n {
					return "/usr/bin/" + n, nil
				}
			}
			return "", os.ErrNotExist
		}
	}
	for _, c := range []struct {
		look      func(string) (string, error)
		more      []tool
		must, may string
	}{
		{has("qemu-system-x86_64", "dpkg-deb", "mke2fs", "ssh", "socat"), nil, "[]", "[]"},
		{has("dpkg-deb"), nil, "[qemu-system-x86 e2fsprogs]", "[openssh-client socat]"},
		{has("qemu-system-x86_64", "dpkg-deb", "mke2fs", "ssh"), nil, "[]", "[socat]"},
		// What must be there is asked for once, also when two lists name it.
		{has("qemu-system-x86_64", "dpkg-deb", "mke2fs", "socat"), []tool{{"ssh", "openssh-client", false}, {"e2fsck", "e2fsprogs", false}},
			"[openssh-client e2fsprogs]", "[]"},
	} {
		must, may := missing(c.look, c.more...)
		if fmt.Sprint(must) != c.must || fmt.Sprint(may) != c.may {
			t.Errorf("missing %v, %v; want %s, %s", must, may, c.must, c.may)
		}
	}
}
