package notify

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc"
)

func TestCounter(t *testing.T) {
	for _, c := range []struct {
		name       string
		rise, fall int
		initFail   bool
		in, want   string // "+-" results; after each: "?" unknown, "+" OK, "-" KO
	}{
		{"one success is enough at the start", 3, 3, false, "+", "+"},
		{"one failure too", 3, 3, false, "-", "-"},
		{"then rise counts", 3, 2, false, "-+++", "---+"},
		{"any failure on the way up begins anew", 3, 2, false, "-++-+++", "------+"},
		{"fall counts", 2, 3, false, "+---", "+++-"},
		{"any success on the way down refills", 2, 3, false, "+--+--+---", "+++++++++-"},
		{"all of rise again after a fall", 2, 2, false, "+--++", "++--+"},
		{"rise 1 fall 1", 1, 1, false, "+-+-", "+-+-"},
		{"rise 1 fall 2", 1, 2, false, "+-+--+", "++++-+"},
		{"init_fail needs all of rise", 2, 1, true, "+", "-"},
		{"init_fail, then up", 2, 1, true, "++-", "-+-"},
		{"zero means one", 0, 0, false, "+-", "+-"},
	} {
		n := newCounter(&model.Script{Rise: c.rise, Fall: c.fall, InitFail: c.initFail})
		got := ""
		for _, r := range c.in {
			n.add(r == '+')
			switch {
			case !n.known:
				got += "?"
			case n.ok():
				got += "+"
			default:
				got += "-"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s gave %s, want %s", c.name, c.in, got, c.want)
		}
	}
}

// TestScriptsNeverOverlap: a script that takes longer than its interval is
// skipped, also across a reload that changes it.
func TestScriptsNeverOverlap(t *testing.T) {
	dir := folder(t)
	log := filepath.Join(dir, "log")
	os.WriteFile(log, nil, 0o666)
	os.Chmod(log, 0o666)
	// The kernel drops this lock with the process, however it ends.
	path := write(t, filepath.Join(dir, "slow"), "trap '' TERM; exec 9>"+dir+"/lock; flock -n 9 || echo OVERLAP >>"+log+"; echo run >>"+log+"; sleep 0.12 9>&-")
	cfg := func(fall int) *model.Config {
		return &model.Config{
			Scripts: []model.Script{
				{Name: "slow", Command: model.Command{Argv: []string{path}}, Interval: 50 * time.Millisecond, Timeout: time.Minute, Rise: 1, Fall: fall},
				{Name: "idle", Command: model.Command{Argv: []string{path}}, Interval: time.Millisecond},
			},
			Instances: []model.Instance{{Name: "VI_1", TrackScripts: []model.TrackScript{{Script: "slow"}}}},
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &scripts{run: testRunner(), log: discard(), did: func(bool) {}}
	runs := func() int {
		b, _ := os.ReadFile(log)
		if strings.Contains(string(b), "OVERLAP") {
			t.Fatal("two at one time")
		}
		return strings.Count(string(b), "run")
	}
	began := time.Now()
	s.apply(ctx, cfg(1))
	await(t, "3 runs", func() bool { return runs() >= 3 })
	for i := range 3 {
		s.apply(ctx, cfg(i+2))
	}
	at := runs()
	await(t, "3 more", func() bool { return runs() >= at+3 })
	if most := int(time.Since(began)/(100*time.Millisecond)) + 4; runs() > most {
		t.Errorf("%d runs in %s", runs(), time.Since(began))
	}
	res := s.results()
	if !res[0].Known || res[1].Known || !strings.Contains(res[1].Detail, "not tracked") {
		t.Errorf("%+v", res)
	}
	cancel()
	s.wg.Wait()
}

func TestScriptMissingThenThere(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "check.sh")
	ctx, cancel := context.WithCancel(context.Background())
	s := &scripts{run: testRunner(), log: discard(), did: func(bool) {}}
	s.apply(ctx, &model.Config{
		Scripts:    []model.Script{{Name: "chk", Command: model.Command{Argv: []string{path}}, Interval: 30 * time.Millisecond, Rise: 1, Fall: 1}},
		SyncGroups: []model.SyncGroup{{Name: "G", TrackScripts: []model.TrackScript{{Script: "chk"}}}},
	})
	await(t, "missing", func() bool { r := s.results()[0]; return r.Missing && !r.Known })
	write(t, path, "exit 0")
	await(t, "OK", func() bool { r := s.results()[0]; return !r.Missing && r.Known && r.OK })
	os.Remove(path)
	await(t, "KO", func() bool { r := s.results()[0]; return !r.Missing && r.Known && !r.OK })
	cancel()
	s.wg.Wait()
}

// TestScriptsResume: the verdict of the run before holds until fall failures.
func TestScriptsResume(t *testing.T) {
	cmd := model.Command{Shell: "exit 1"}
	cfg := &model.Config{
		Scripts:   []model.Script{{Name: "chk", Command: cmd, Interval: 20 * time.Millisecond, Timeout: time.Minute, Rise: 1, Fall: 2}},
		Instances: []model.Instance{{TrackScripts: []model.TrackScript{{Script: "chk"}}}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var seen []bool
	s := &scripts{run: testRunner(), log: discard(), before: map[string]verdict{"chk": {hashOf(cmd), true}}}
	s.did = func(bool) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, s.results()[0].OK)
	}
	s.apply(ctx, cfg)
	await(t, "two runs", func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) >= 2 })
	cancel()
	s.wg.Wait()
	if d := cmp.Diff([]bool{true, false}, seen[:2]); d != "" {
		t.Error(d)
	}
	want := map[string]verdict{"chk": {hashOf(cmd), false}}
	if d := cmp.Diff(want, s.verdicts()); d != "" {
		t.Error(d)
	}
}

// TestQueueOrder: one object's scripts in order and alone, others beside them.
func TestQueueOrder(t *testing.T) {
	dir := folder(t)
	var want []string
	q := newQueues(testRunner(), discard(), func() {})
	for i := range 8 {
		for _, o := range []string{"a", "b"} {
			q.add(job{object: o, cmd: model.Command{Shell: fmt.Sprintf("mkdir %s/%s || echo OVERLAP >>%s/%s.log; sleep 0.0%d; echo %d >>%s/%s.log; rmdir %s/%s",
				dir, o, dir, o, 8-i, i, dir, o, dir, o)}})
		}
		want = append(want, fmt.Sprint(i))
	}
	q.drain(time.Minute)
	for _, o := range []string{"a", "b"} {
		b, _ := os.ReadFile(dir + "/" + o + ".log")
		if d := cmp.Diff(want, strings.Fields(string(b))); d != "" {
			t.Errorf("%s: %s", o, d)
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	var log strings.Builder
	q := newQueues(testRunner(), slog.New(ipc.NewLogHandler(&log)), func() {})
	for range 3 * queueSize {
		q.add(job{object: "a", cmd: model.Command{Argv: []string{"sleep", "100"}}})
	}
	q.mu.Lock()
	n := len(q.byName["a"].jobs)
	q.mu.Unlock()
	if n != queueSize {
		t.Errorf("%d wait", n)
	}
	began := time.Now()
	q.drain(0)
	if time.Since(began) > 30*time.Second {
		t.Errorf("took %s to end", time.Since(began))
	}
	if want := "64 scripts that waited for one before them are not run, of: a\n"; !strings.Contains(log.String(), want) {
		t.Errorf("what is lost is not told: %s", log.String())
	}
}
