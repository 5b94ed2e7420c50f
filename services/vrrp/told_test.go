package vrrp

import (
	"testing"
	"time"
)

func TestFlappingIsToldOnceASecond(t *testing.T) {
	v := newTold("down", 0)
	lines, changes, counted := 0, 0, 0
	is := "down"
	for now := time.Duration(0); now < 20*time.Second; now += 10 * time.Millisecond {
		if now < 19*time.Second && now%(100*time.Millisecond) == 0 {
			if changes++; is == "down" {
				is = "up"
			} else {
				is = "down"
			}
		}
		if _, missed, tell := v.change(is, now); tell {
			lines++
			counted += 1 + missed
		}
	}
	if lines < 20 || lines > 20+toldAtOnce {
		t.Errorf("%d lines for %d changes in 19 s", lines, changes)
	}
	if counted != changes || v.pending() {
		t.Errorf("%d of %d changes are accounted for", counted, changes)
	}
}

func TestFirstChangesAreToldAtOnce(t *testing.T) {
	v := newTold("down", 0)
	from := "down"
	for i, is := range []string{"init", "up", "down", "init"} {
		was, missed, tell := v.change(is, time.Duration(i)*time.Millisecond)
		if !tell || was != from || missed != 0 {
			t.Errorf("%s: told %v, from %s, %d left out", is, tell, was, missed)
		}
		from = is
	}
	if _, _, tell := v.change("up", 5*time.Millisecond); tell {
		t.Error("a fifth change within 5 ms was told at once")
	}
	if from, _, tell := v.change("up", 2*time.Second); !tell || from != "init" {
		t.Errorf("the last state is told %v, from %s", tell, from)
	}
}
