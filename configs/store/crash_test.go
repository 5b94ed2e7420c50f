package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ballast/configs/store"
)

// observe is everything of a store that a boot goes by. A part that is torn or
// missing is an error.
func observe(s *store.Store) (string, error) {
	var b strings.Builder
	n := s.Running()
	fmt.Fprintf(&b, "running %d", n)
	if n > 0 {
		g, err := s.Load(n)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " %q", g.Text)
		for _, ref := range g.Files {
			c, err := s.Content(ref)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, " %s=%q", ref.Path, c)
		}
	}
	for _, ref := range s.Files() {
		c, err := s.Content(ref)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "; working %s=%q", ref.Path, c)
	}
	if p := s.Pending(); p != nil {
		g, err := s.Load(p.Back)
		if err != nil {
			return "", fmt.Errorf("what an unconfirmed generation goes back to: %w", err)
		}
		for _, ref := range g.Files {
			if _, err := s.Content(ref); err != nil {
				return "", fmt.Errorf("what an unconfirmed generation goes back to: %w", err)
			}
		}
		fmt.Fprintf(&b, "; %d unconfirmed by %s, start %d, left %v, back to %d %q", p.Generation, p.Author, p.Starts, p.Left, p.Back, g.Text)
	}
	note, err := s.Note("pair")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "; note %q", note)
	return b.String(), nil
}

// history is a life of a store: files, commits, one that the services did not
// take, one that is confirmed, one that is not and goes back over two boots,
// numbers that no generation gets. It calls did after each step that returned
// without an error.
func history(s *store.Store, did func()) error {
	file := func(content string) error {
		ref, err := s.AddBlob("/opt/x", 0o755, []byte(content))
		if err == nil {
			err = s.SetFiles([]store.FileRef{ref})
		}
		return err
	}
	var n, back uint64
	put := func(text string) error {
		m, err := s.Put(store.Generation{Text: text, Meta: store.Meta{Files: s.Files()}})
		if err == nil {
			n = m
		}
		return err
	}
	mark := func(starts int) error {
		return s.SetUnconfirmed(store.Pending{Generation: n, Back: back, Author: "ann", Window: time.Minute, Left: time.Minute / time.Duration(starts+1), Starts: starts})
	}
	run := func() error { back = n; return s.SetRunning(n) }
	for _, step := range []func() error{
		func() error { _, err := s.Reserve(); return err },
		func() error { return file("script 1") },
		func() error { return put("text 1, which is longer than a block of this disk") },
		run,
		func() error { return file("script 2") },
		func() error { return put("text 2") },
		func() error { return mark(0) },
		s.Confirm,
		func() error { back = n; return put("text 3, refused by a service") },
		func() error { return s.SetNote("pair", []byte("text 3 is in doubt, as the other box knows")) },
		func() error { return s.Drop(n) },
		func() error { return s.SetNote("pair", nil) },
		func() error { return put("text 4") },
		func() error { return mark(0) },
		func() error { return file("script 4") }, // files change meanwhile
		func() error { return mark(1) },          // a boot
		func() error { return put("text 5") },
		func() error { return mark(0) }, // over an unconfirmed one
		func() error { return mark(2) },
		func() error { return put("text 2") }, // not confirmed
		run,
	} {
		if err := step(); err != nil {
			return err
		}
		did()
	}
	return nil
}

// The power goes at every single step, and the disk comes back in many shapes,
// half of the times only to lose power once more while the store is opened: the
// store must open without a fault and be, as a whole, what the last finished
// step left, or what the one under way was about to make it.
func TestPowerCutAtEveryStep(t *testing.T) {
	count := newDisk()
	s, err := store.Open(count, "/data/s")
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	see := func() {
		now, err := observe(s)
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, now)
	}
	see()
	if err := history(s, see); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"mkdir", "create", "write", "sync", "close", "rename", "syncdir", "remove"} {
		if count.kinds[kind] == 0 {
			t.Fatalf("no step of kind %s: %v", kind, count.kinds)
		}
	}
	seeds := uint64(24)
	if testing.Short() {
		seeds = 8
	}
	for cut := range count.steps {
		for seed := range seeds {
			d := newDisk()
			d.left = cut
			finished := 0
			s, err := store.Open(d, "/data/s")
			if err == nil {
				err = history(s, func() { finished++ })
			}
			if !errors.Is(err, errPower) {
				t.Fatalf("cut %d: %v", cut, err)
			}
			keep := []float64{0, 1, 0.5, 0.8}[seed%4]
			r := rand.New(rand.NewPCG(uint64(cut), seed))
			after := d.reboot(r, keep)
			if r.IntN(2) == 0 { // again, while what is left over is swept
				after.left = r.IntN(4)
				store.Open(after, "/data/s")
				after = after.reboot(r, keep)
			}
			where := fmt.Sprintf("cut at step %d, seed %d, after %d steps of history", cut, seed, finished)
			s, err = store.Open(after, "/data/s")
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if f := s.Faults(); len(f) > 0 {
				t.Fatalf("%s: faults %v", where, f)
			}
			got, err := observe(s)
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			want, next := states[finished], states[min(finished+1, len(states)-1)]
			if got != want && got != next {
				t.Fatalf("%s:\n%s\nwant\n%s\nor\n%s", where, got, want, next)
			}
			for _, m := range s.List() { // also those that do not run
				if _, err := s.Load(m.Generation); err != nil {
					t.Fatalf("%s: %v", where, err)
				}
			}
			if err := history(s, func() {}); err != nil { // life goes on
				t.Fatalf("%s: %v", where, err)
			}
		}
	}
}

// A disk that fails one step and works again must not confuse the store that is
// open, nor the one that is opened after a power cut: a flush that failed once
// says nothing the second time.
func TestFailureAtEveryStep(t *testing.T) {
	count := newDisk()
	s, _ := store.Open(count, "/data/s")
	history(s, func() {})
	for fail := range count.steps {
		d := newDisk()
		d.fail = fail
		s, err := store.Open(d, "/data/s")
		if err != nil {
			if s, err = store.Open(d, "/data/s"); err != nil {
				t.Fatalf("step %d failed: %v", fail, err)
			}
		}
		before, after := "", ""
		see := func(s *store.Store) string {
			t.Helper()
			now, err := observe(s)
			if err != nil {
				t.Fatalf("step %d failed: %v", fail, err)
			}
			return now
		}
		before = see(s)
		if history(s, func() { before = see(s) }) != nil {
			// What the store says now is what it goes on with.
			if after = see(s); after != before {
				t.Fatalf("step %d failed:\n%s\nwant\n%s", fail, after, before)
			}
		}
		// The power goes before anything else is done: what was acknowledged is
		// there, or what failed has happened all the same.
		r := rand.New(rand.NewPCG(uint64(fail), 1))
		for _, keep := range []float64{0, 0.5, 1} {
			s, err := store.Open(d.reboot(r, keep), "/data/s")
			if err != nil || len(s.Faults()) > 0 {
				t.Fatalf("step %d failed, keep %v: %v %v", fail, keep, err, s.Faults())
			}
			see(s)
		}
		if err := history(s, func() {}); err != nil {
			t.Fatalf("after step %d failed: %v", fail, err)
		}
		before = see(s)
		if again, err := store.Open(d.reboot(r, 0), "/data/s"); err != nil || see(again) != before {
			t.Fatalf("step %d failed: what came later is lost: %v", fail, err)
		}
	}
}
