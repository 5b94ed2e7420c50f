package main

import (
	"fmt"
	"slices"
	"testing"
)

// Memory of services does not grow with the processors of the machine; what is
// real-time is not held back.
func TestProcessors(t *testing.T) {
	for _, s := range services {
		for _, machine := range []int{1, 2, 64} {
			n := s.processors(machine)
			switch {
			case n < 1 || n > machine:
				t.Errorf("%s: %d of %d", s.name, n, machine)
			case s.realtime > 0 && n != machine:
				t.Errorf("%s is real-time and has %d of %d", s.name, n, machine)
			case s.realtime == 0 && n > 8:
				t.Errorf("%s has %d of %d", s.name, n, machine)
			}
			if e := s.environ(machine); !slices.Contains(e, fmt.Sprintf("GOMAXPROCS=%d", n)) || len(e) != len(environment)+1 {
				t.Errorf("%s is told %q", s.name, e)
			}
		}
	}
}
