package soak

import (
	"flag"
	"path/filepath"
	"testing"
	"time"

	"ballast/test/lab"
)

var (
	duration = flag.Duration("duration", 45*time.Second, "how long TestSoak goes on")
	killing  = flag.Duration("killing", 20*time.Second, "how long TestKill goes on")
	seed     = flag.Uint64("seed", 1, "of the faults")
)

// TestSoak is a short slice of the long run.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("a pair of virtual machines takes too long for -short")
	}
	r, err := Run(t.Context(), Options{
		Duration: *duration, Seed: *seed, Image: filepath.Join("..", "..", "..", lab.DefaultImage),
		Log: func(s string) { t.Log(time.Now().Format("15:04:05"), s) },
	})
	t.Log(r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Rounds == 0 || r.Good == 0 {
		t.Fatalf("nothing happened: %s", r)
	}
}

// TestKill is a short slice of the run in which only processes die.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("a pair of virtual machines takes too long for -short")
	}
	r, err := Kill(t.Context(), Options{
		Duration: *killing, Seed: *seed, Image: filepath.Join("..", "..", "..", lab.DefaultImage),
		Log: func(s string) { t.Log(time.Now().Format("15:04:05"), s) },
	})
	t.Log(r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Rounds < 2 || r.Good == 0 {
		t.Fatalf("nothing happened: %s", r)
	}
}
