package store_test

import (
	"errors"
	"testing"
	"time"

	"ballast/configs/store"
)

func TestRest(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	p := store.Pending{Window: 10 * time.Minute, Left: 6 * time.Minute, Boot: "b1", Ends: time.Hour + 6*time.Minute, Until: now.Add(6 * time.Minute)}
	none := p
	none.Boot = ""
	for _, tc := range []struct {
		name  string
		p     store.Pending
		boot  string
		since time.Duration
		now   time.Time
		want  time.Duration
	}{
		{"same boot", p, "b1", time.Hour + 2*time.Minute, now.Add(2 * time.Minute), 4 * time.Minute},
		{"same boot, clock set ahead", p, "b1", time.Hour + 2*time.Minute, now.AddDate(1, 0, 0), 4 * time.Minute},
		{"same boot, clock set back", p, "b1", time.Hour + 2*time.Minute, now.AddDate(-1, 0, 0), 4 * time.Minute},
		{"same boot, over", p, "b1", 2 * time.Hour, now, 0},
		{"another boot", p, "b2", time.Second, now.Add(time.Minute), 5 * time.Minute},
		{"another boot, over", p, "b2", time.Second, now.Add(time.Hour), 0},
		{"another boot, no battery", p, "b2", time.Second, time.Unix(0, 0), 6 * time.Minute},
		{"no boot is known", none, "", 0, now.Add(time.Minute), 5 * time.Minute},
	} {
		if got := tc.p.Rest(tc.boot, tc.since, tc.now); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// What an unconfirmed generation goes back to is never pruned, however many are
// put upon it, and cannot be dropped.
func TestBackStays(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Disk{}, dir)
	back := put(t, s, "good")
	if err := s.SetUnconfirmed(store.Pending{Generation: back, Back: back}); err == nil {
		t.Error("a generation goes back to itself")
	}
	var last uint64
	for range store.Keep + 20 {
		n, err := s.Put(store.Generation{Text: "unsure"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetUnconfirmed(store.Pending{Generation: n, Back: 99999}); !errors.Is(err, store.ErrNone) && last == 0 {
			t.Errorf("goes back to what is not there: %v", err)
		}
		if err := s.SetUnconfirmed(store.Pending{Generation: n, Back: back}); err != nil {
			t.Fatal(err)
		}
		last = n
	}
	if len(s.List()) > store.Keep+2 {
		t.Errorf("%d generations are kept", len(s.List()))
	}
	if err := s.Drop(back); err == nil {
		t.Error("it was dropped")
	}
	s = open(t, store.Disk{}, dir)
	if g, err := s.Load(back); err != nil || g.Text != "good" {
		t.Errorf("%q %v", g.Text, err)
	}
	if p := s.Pending(); p == nil || p.Generation != last || p.Back != back {
		t.Errorf("%+v", p)
	}
	if err := s.Confirm(); err != nil {
		t.Fatal(err)
	}
	put(t, s, "sure")
	if _, err := s.Load(back); !errors.Is(err, store.ErrNone) {
		t.Errorf("once it is confirmed it goes as others do: %v", err)
	}
}
