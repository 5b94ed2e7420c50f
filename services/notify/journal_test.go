package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/services/ipc/status"
)

func ringFrom(from, n int) (out []status.Transition) {
	for i := range n {
		out = append(out, status.Transition{
			Seq: uint64(from + i), Time: t0.Add(time.Duration(from+i) * time.Second), Kind: "instance", Object: fmt.Sprintf("VI_%d", (from+i)%3),
			From: "BACKUP", To: "MASTER", Reason: "a reason"})
	}
	return out
}

func seqs(list []status.Entry) string {
	var out []string
	for _, e := range list {
		out = append(out, fmt.Sprint(e.Service, e.Seq))
	}
	return strings.Join(out, " ")
}

// TestJournalOnce: nothing twice and nothing lost, over restarts of the
// journal, of a service, and of the box.
func TestJournalOnce(t *testing.T) {
	dir := t.TempDir()
	all := func(j *journal) string { return seqs(j.query(status.JournalQuery{})) }
	j := openJournal(dir, "boot1", discard())
	j.take("vrrp", ringFrom(1, 3))
	j.take("vrrp", ringFrom(2, 3))
	j.take("health", ringFrom(1, 1))
	want := "vrrp1 vrrp2 vrrp3 vrrp4 health1"
	if got := all(j); got != want {
		t.Fatalf("before it is written: %s", got)
	}
	j.flush()
	j.take("vrrp", ringFrom(3, 3)) // 5 is not written before the crash
	j = openJournal(dir, "boot1", discard())
	if got := all(j); got != want {
		t.Fatalf("after a crash: %s", got)
	}
	j.take("vrrp", ringFrom(1, 5))
	j.take("health", ringFrom(1, 1))
	want += " vrrp5"
	if got := all(j); got != want {
		t.Fatalf("the ring again: %s", got)
	}
	// vrrp starts anew: its numbers begin at 1, at another time.
	fresh := ringFrom(1, 6)
	for i := range fresh {
		fresh[i].Time = fresh[i].Time.Add(time.Hour)
	}
	j.take("vrrp", fresh[:2])
	j.take("vrrp", fresh)
	want += " vrrp1 vrrp2 vrrp3 vrrp4 vrrp5 vrrp6"
	j.flush()
	j = openJournal(dir, "boot1", discard())
	j.take("vrrp", fresh)
	if got := all(j); got != want {
		t.Fatalf("a service that started anew: %s", got)
	}
	// The box boots: the same numbers, even the same times, are another story.
	j = openJournal(dir, "boot2", discard())
	j.take("health", ringFrom(1, 1))
	j.flush()
	if got := all(openJournal(dir, "boot2", discard())); got != want+" health1" {
		t.Fatalf("after a boot: %s", got)
	}
	// Without a disk.
	j = openJournal("", "boot1", discard())
	j.take("vrrp", ringFrom(1, 3))
	j.take("vrrp", ringFrom(1, 3))
	if got := all(j); got != "vrrp1 vrrp2 vrrp3" {
		t.Errorf("in memory: %s", got)
	}
	j.take("vrrp", ringFrom(4, 10_000))
	if n := len(j.memory); n != queryMax/10 {
		t.Errorf("%d in memory", n)
	}
}

// TestJournalTorn cuts the last segment in many places: what was whole stays,
// and what comes then is whole too.
func TestJournalTorn(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(dir, "b", discard())
	j.take("vrrp", ringFrom(1, 3))
	j.flush()
	path := j.path(1)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut <= len(text); cut += 5 {
		if err := os.WriteFile(path, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j := openJournal(dir, "b", discard())
		have := strings.Count(string(text[:cut]), "\n")
		if got := len(j.query(status.JournalQuery{})); got != have {
			t.Fatalf("cut at %d: %d entries, want %d", cut, got, have)
		}
		j.take("vrrp", ringFrom(1, 4))
		j.flush()
		if got := seqs(openJournal(dir, "b", discard()).query(status.JournalQuery{})); got != "vrrp1 vrrp2 vrrp3 vrrp4" {
			t.Fatalf("cut at %d: %s", cut, got)
		}
	}
	// A power cut may also leave blocks of zeros where the file had grown.
	os.WriteFile(path, append(append([]byte(nil), text...), make([]byte, 4096)...), 0o600)
	j = openJournal(dir, "b", discard())
	j.take("vrrp", ringFrom(4, 1))
	j.flush()
	if got := seqs(openJournal(dir, "b", discard()).query(status.JournalQuery{})); got != "vrrp1 vrrp2 vrrp3 vrrp4" {
		t.Fatalf("zeros: %s", got)
	}
}

// TestJournalBounds: what it takes on the disk is bounded, and the oldest goes.
func TestJournalBounds(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(dir, "b", discard())
	j.size, j.count = 4<<10, 3
	for i := range 200 {
		j.take("vrrp", ringFrom(1+i, 1))
		j.flush()
	}
	total := int64(0)
	files, _ := filepath.Glob(dir + "/journal/*")
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if len(files) != 3 || total > 3*4<<10 || total < 2*3<<10 {
		t.Errorf("%d files of %d bytes", len(files), total)
	}
	got := j.query(status.JournalQuery{Limit: queryMax})
	if n := len(got); n < 20 || got[n-1].Seq != 200 || got[0].Seq != uint64(201-n) {
		t.Errorf("%d entries from %d to %d", n, got[0].Seq, got[n-1].Seq)
	}
	// A disk that cannot be written costs memory, but not without end.
	j.dir = filepath.Join(dir, "none")
	for i := range 3 {
		j.take("vrrp", ringFrom(1000+i*3000, 3000))
		j.flush()
	}
	if n := len(j.pending); n > pendingMax+3000 || j.broken == "" {
		t.Errorf("%d wait; %q", n, j.broken)
	}
}

func TestJournalQuery(t *testing.T) {
	j := openJournal(t.TempDir(), "b", discard())
	j.take("vrrp", ringFrom(1, 300))
	j.take("health", []status.Transition{{Seq: 1, Time: t0.Add(time.Hour), Kind: "real server", Object: "[10.0.0.5]:tcp:80 of [10.0.0.2]:tcp:80", To: "DOWN"}})
	j.flush()
	j.take("vrrp", ringFrom(301, 2))
	for _, c := range []struct {
		q           status.JournalQuery
		n           int
		first, last uint64
	}{
		{status.JournalQuery{}, 200, 104, 302},
		{status.JournalQuery{Limit: 1000}, 303, 1, 302},
		{status.JournalQuery{Service: "health"}, 1, 1, 1},
		{status.JournalQuery{Object: "10.0.0.5"}, 1, 1, 1},
		{status.JournalQuery{Object: "VI_1", Limit: 3}, 3, 295, 301},
		{status.JournalQuery{After: t0.Add(300 * time.Second), Service: "vrrp"}, 2, 301, 302},
		{status.JournalQuery{Service: "net"}, 0, 0, 0},
	} {
		got := j.query(c.q)
		if len(got) != c.n || c.n > 0 && (got[0].Seq != c.first || got[len(got)-1].Seq != c.last) {
			t.Errorf("%+v: %d entries: %.200s", c.q, len(got), seqs(got))
		}
	}
}

// TestJournalPace: something that flaps twice a second for a day costs the disk
// about a write a minute, and the first entry is there within a second.
func TestJournalPace(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(dir, "b", discard())
		j.size = 1 << 30
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); j.work(ctx) }()
		j.take("health", ringFrom(1, 1))
		time.Sleep(writeSoon + time.Millisecond)
		synctest.Wait()
		if n := len(j.pending); n != 0 {
			t.Fatalf("%d wait after a second", n)
		}
		writes, before := 0, int64(0)
		size := func() int64 { st, _ := os.Stat(j.path(1)); return st.Size() }
		before = size()
		const each = 500 * time.Millisecond
		n := int(2 * time.Hour / each)
		for i := range n {
			j.take("health", ringFrom(2+i, 1))
			time.Sleep(each)
			synctest.Wait()
			if s := size(); s != before {
				writes, before = writes+1, s
			}
		}
		if writes < 60 || writes > 150 {
			t.Errorf("%d writes in two hours", writes)
		}
		time.Sleep(3 * time.Minute) // quiet: fast again
		j.take("health", ringFrom(2+n, 1))
		time.Sleep(writeSoon + time.Millisecond)
		synctest.Wait()
		if n := len(j.pending); n != 0 {
			t.Errorf("%d wait a second after a quiet time", n)
		}
		j.take("health", ringFrom(3+n, 1))
		cancel()
		<-done
		if got := len(openJournal(dir, "b", discard()).query(status.JournalQuery{Limit: queryMax})); got != n+3 {
			t.Errorf("%d entries of %d", got, n+3)
		}
	})
}

// TestJournalOfTheService: every service's news come in, and ours; the state of
// ten thousand servers is never read for it.
func TestJournalOfTheService(t *testing.T) {
	b := newBox(t)
	b.data = t.TempDir()
	b.conf.Publish(status.Conf{Generation: 3, Source: "commit", Author: "ann"})
	b.vrrp.Publish(status.VRRP{Transitions: ringFrom(1, 2)})
	b.health.Publish(status.Health{Servers: make([]status.VirtualServerHealth, 1000), Transitions: ringFrom(1, 1)})
	b.ipvs.Publish(status.IPVS{Services: make([]status.Service, 1000), Transitions: ringFrom(7, 1)})
	b.net.Publish(status.Net{Transitions: ringFrom(9, 1)})
	b.start()
	var list []status.Entry
	await(t, "all of them", func() bool {
		list = nil
		err := b.dir.Client("notify").Call(b.ctx, "journal", status.JournalQuery{}, &list)
		return err == nil && len(list) == 6
	})
	by := map[string]int{}
	for _, e := range list {
		by[e.Service]++
		if e.Service == "notify" && (e.Kind != "configuration" || e.From != "0" || e.To != "3" || e.Reason != "commit by ann") {
			t.Errorf("%+v", e)
		}
	}
	if d := cmp.Diff(map[string]int{"vrrp": 2, "health": 1, "ipvs": 1, "net": 1, "notify": 1}, by); d != "" {
		t.Error(d)
	}
	b.stop()
	b.start()
	b.applied(3)
	b.vrrp.Publish(status.VRRP{Transitions: ringFrom(1, 3)})
	await(t, "the news, once", func() bool {
		list = nil
		err := b.dir.Client("notify").Call(b.ctx, "journal", nil, &list)
		return err == nil && len(list) >= 7
	})
	if len(list) != 7 {
		t.Errorf("%s", seqs(list))
	}
	// What a service tells that nobody watches.
	note := status.Transition{Object: "pair", Kind: "upgrade", From: "switchover", To: "stopped", Reason: "lb2\x1b does not answer"}
	if err := b.dir.Client("notify").Call(b.ctx, "note", note, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.dir.Client("notify").Call(b.ctx, "note", status.Transition{}, nil); err == nil {
		t.Error("nothing is noted")
	}
	b.stop()
	b.start()
	await(t, "the note, over a restart", func() bool {
		list = nil
		err := b.dir.Client("notify").Call(b.ctx, "journal", status.JournalQuery{Object: "pair"}, &list)
		return err == nil && len(list) == 1
	})
	if e := list[0]; e.Service != "firmware" || e.To != "stopped" || strings.Contains(e.Reason, "\x1b") || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
	b.stop()
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"boot":"x","service":"vrrp","seq":1,"time":"2026-01-02T03:04:05Z"}` + "\n" + `{"torn`))
	f.Add([]byte("\n\x00\x00\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := wholeLines(b)
		if n > len(b) || n > 0 && b[n-1] != '\n' {
			t.Fatalf("%d of %q", n, b)
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			if r, ok := parseRecord([]byte(line)); ok {
				if _, err := json.Marshal(r); err != nil && !strings.Contains(err.Error(), "year outside") && !strings.Contains(err.Error(), "zone") {
					t.Error(err)
				}
			}
		}
	})
}

// A disk that can be written again gets what waits, although nothing new
// happens.
func TestJournalTriesAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := openJournal(dir, "b", discard())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); j.work(ctx) }()
		if err := os.Mkdir(j.path(1), 0o700); err != nil { // nothing can be written there
			t.Fatal(err)
		}
		j.take("vrrp", ringFrom(1, 2))
		time.Sleep(2 * writeSoon)
		synctest.Wait()
		if j.broken == "" || len(j.pending) != 2 {
			t.Fatalf("%q, %d wait", j.broken, len(j.pending))
		}
		if err := os.Remove(j.path(1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * writeSlow)
		synctest.Wait()
		if j.broken != "" || len(j.pending) != 0 {
			t.Errorf("%q, %d wait two minutes after the disk is well", j.broken, len(j.pending))
		}
		cancel()
		<-done
	})
}
