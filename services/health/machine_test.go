package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The tables read as a tape: "+" a probe that passes, "-" one that fails; the
// answer is the verdict after it and the delay until the next probe.
func tape(m *machine, in string) []string {
	var out []string
	for _, r := range in {
		news, next := m.step(r == '+')
		s := "down"
		if m.up {
			s = "up"
		}
		if news {
			s = strings.ToUpper(s)
		}
		out = append(out, fmt.Sprintf("%c %s %s left %d", r, s, next, m.left()))
	}
	return out
}

const (
	loopDelay  = 6 * time.Second
	retryDelay = 3 * time.Second
)

func TestMachine(t *testing.T) {
	for _, c := range []struct {
		name string
		m    machine
		in   string
		want []string
	}{
		{"the first failure downs it at once", newMachine(false, 0, 3, loopDelay, retryDelay, false), "--+",
			[]string{"- DOWN 6s left 0", "- down 6s left 0", "+ UP 6s left 3"}},
		{"retries are spaced, then it is down", newMachine(false, 0, 3, loopDelay, retryDelay, false), "+----+",
			[]string{"+ UP 6s left 3", "- up 3s left 2", "- up 3s left 1", "- up 3s left 0", "- DOWN 6s left 0", "+ UP 6s left 3"}},
		{"a success in between gives the retries back", newMachine(false, 0, 1, loopDelay, retryDelay, false), "+-+--",
			[]string{"+ UP 6s left 1", "- up 3s left 0", "+ up 6s left 1", "- up 3s left 0", "- DOWN 6s left 0"}},
		{"no retries", newMachine(false, 0, 0, loopDelay, retryDelay, false), "+-+",
			[]string{"+ UP 6s left 0", "- DOWN 6s left 0", "+ UP 6s left 0"}},
		{"http: one url", newMachine(true, 1, 1, loopDelay, retryDelay, false), "+---+",
			[]string{"+ UP 6s left 1", "- up 3s left 0", "- DOWN 6s left 0", "- down 6s left 0", "+ UP 6s left 1"}},
		{"http: the first failure downs it, also at the second url", newMachine(true, 2, 3, loopDelay, retryDelay, false), "+-",
			[]string{"+ up 6s left 0", "- DOWN 6s left 0"}},
		{"http: the failed url first, then all of them", newMachine(true, 2, 0, loopDelay, retryDelay, false), "++-+++",
			[]string{"+ up 6s left 0", "+ UP 6s left 0", "- DOWN 6s left 0", "+ down 6s left 0", "+ down 6s left 0", "+ UP 6s left 0"}},
		{"http: another url fails on the way back", newMachine(true, 2, 0, loopDelay, retryDelay, false), "+++-+" + "+-++",
			[]string{"+ up 6s left 0", "+ UP 6s left 0", "+ up 6s left 0", "- DOWN 6s left 0", "+ down 6s left 0",
				"+ down 6s left 0", "- down 3s left 0", "+ UP 6s left 0", "+ up 6s left 0"}},
		{"http: fast_recovery does not wait between urls", newMachine(true, 3, 0, loopDelay, retryDelay, true), "+++-+++" + "+",
			[]string{"+ up 1ms left 0", "+ up 1ms left 0", "+ UP 6s left 0", "- DOWN 6s left 0", "+ down 1ms left 0",
				"+ down 1ms left 0", "+ down 1ms left 0", "+ UP 6s left 0"}},
		{"http: delay_before_retry above delay_loop", newMachine(true, 1, 0, time.Second, 3*time.Second, false), "+-+",
			[]string{"+ UP 1s left 0", "- DOWN 3s left 0", "+ UP 1s left 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, tape(&c.m, c.in)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestMachineInherit(t *testing.T) {
	old := newMachine(false, 0, 3, loopDelay, retryDelay, false)
	tape(&old, "+--") // two of three retries used
	m := newMachine(false, 0, 1, loopDelay, retryDelay, false)
	m.inherit(old)
	if d := cmp.Diff([]string{"- DOWN 6s left 0"}, tape(&m, "-")); d != "" {
		t.Error("fewer retries now, one more failure must do:", d)
	}
	tape(&old, "--")
	m = newMachine(false, 0, 3, loopDelay, retryDelay, false)
	m.inherit(old)
	if d := cmp.Diff([]string{"- down 6s left 0", "+ UP 6s left 3"}, tape(&m, "-+")); d != "" {
		t.Error("down stays down:", d)
	}
	web := newMachine(true, 3, 0, loopDelay, retryDelay, false)
	tape(&web, "++++-") // the second URL failed
	m = newMachine(true, 3, 0, loopDelay, retryDelay, false)
	m.inherit(web)
	if m.up || m.url != 1 || m.failedURL != 1 {
		t.Errorf("inherited %+v", m)
	}
}

func TestQuorum(t *testing.T) {
	for _, c := range []struct {
		name                    string
		need, hysteresis, total int
		weights                 []int
		want                    string // + gained, - lost, . nothing
	}{
		{"default", 1, 0, 2, []int{2, 1, 0, 1}, "+.-+"},
		{"hysteresis", 4, 1, 6, []int{4, 5, 4, 3, 2, 4, 5}, ".+..-.+"},
		{"quorum above what the pool has", 10, 0, 3, []int{3, 2, 3}, "+-+"},
		{"hysteresis not below the quorum", 2, 7, 4, []int{2, 3, 1, 0}, ".+.-"},
		{"a pool of weight 0 never has it", 1, 1, 0, []int{0, 0}, ".."},
		{"no quorum given", 0, 0, 5, []int{1, 0}, "+-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := newQuorum(c.need, c.hysteresis, c.total)
			got := ""
			for _, w := range c.weights {
				switch changed := q.update(w); {
				case changed && q.up:
					got += "+"
				case changed:
					got += "-"
				default:
					got += "."
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
