package firmware

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ballast/image/bootenv"
	"ballast/image/layout"
	"ballast/services/ipc/status"
	"ballast/test/firmware/machine"
)

var (
	cuts    = flag.Int("cuts", 3, "how often the power is cut during upgrades")
	cutSeed = flag.Uint64("cutseed", 1, "of the moments at which it is")
)

// phase is a part of an upgrade in which the power may fail.
type phase int

const (
	cutWritten   phase = iota // and read back
	cutBoot                   // of the trial, until all is ready
	cutReady                  // and not confirmed yet
	cutOrdered                // all is written, the box ends
	cutLoader                 // the boot loader chooses
	cutConfirmed              // too late
	cutBefore                 // too early
)

func (p phase) String() string {
	return [...]string{"while it was written", "in the boot of the trial", "before it was confirmed", "between the last write and the reboot", "in the boot loader", "when it was confirmed", "before it was written"}[p]
}

// phases draws in which phase each cut is to be: all of them, and then again in
// another order. The first ones are those that cost most.
func phases(r *rand.Rand, n int) (out []phase) {
	all := []phase{cutWritten, cutBoot, cutReady, cutOrdered, cutLoader}
	for len(out) < n {
		out = append(out, all...)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return out[:n]
}

// mostAgain is how many cuts may miss the phase that they are meant for.
const mostAgain = 2

const loaderWords = "Esc for the boot menu"

// bootMarks are what a boot says on its way.
var bootMarks = []string{"init is up", "modules: ", "boot disk: ", "data: "}

// moment is when to cut: so long after the last of these was said, by the command
// that upgrades or behind that by the serial line.
type moment struct {
	command []string
	serial  []string
	then    time.Duration
}

// draw chooses a moment of a phase, for an upgrade of a slot.
func draw(r *rand.Rand, p phase, slot layout.Slot) moment {
	within := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
	written := []string{"verify", "100%"}
	switch p {
	case cutWritten:
		// To read all of it back takes less time than a busy machine needs to look.
		return moment{[]string{"write", fmt.Sprintf(" %d0%%", 1+r.IntN(7))}, nil, within(100 * time.Millisecond)}
	case cutOrdered:
		return moment{written, nil, within(time.Second)}
	case cutLoader: // which waits 2 s before it writes
		return moment{written, []string{loaderWords}, within(2200 * time.Millisecond)}
	case cutBoot:
		return moment{written, []string{tell(slot), bootMarks[r.IntN(len(bootMarks))]}, within(500 * time.Millisecond)}
	}
	// Nothing may be missing for ten seconds before it is confirmed.
	return moment{written, []string{tell(slot), "ready: "}, within(8 * time.Second)}
}

// phaseOf tells from what the upgrade and the serial line said, and from the boot
// loader's state, in which phase an upgrade of a slot ended.
func phaseOf(command, serial string, slot layout.Slot, env bootenv.Env) phase {
	_, boot, started := strings.Cut(serial, tell(slot))
	switch _, verified, _ := strings.Cut(command, "verify"); {
	case started && env.Try == layout.None:
		return cutConfirmed
	case started && strings.Contains(boot, "ready: "):
		return cutReady
	case started:
		return cutBoot
	case strings.Contains(serial, loaderWords):
		return cutLoader
	case strings.Contains(verified, "100%"):
		return cutOrdered
	case strings.Contains(command, "write"):
		return cutWritten
	}
	return cutBefore
}

func TestCutPhases(t *testing.T) {
	r := rand.New(rand.NewPCG(*cutSeed, 0))
	seen := map[phase]bool{}
	for n, p := range phases(r, 20) {
		seen[p] = true
		if first := []phase{cutWritten, cutBoot, cutReady}; n < len(first) && p != first[n] {
			t.Errorf("cut %d is %v", n, p)
		}
		if m := draw(r, p, layout.B); len(m.command) == 0 || (len(m.serial) > 0) != (p == cutLoader || p == cutBoot || p == cutReady) {
			t.Errorf("%v: %+v", p, m)
		}
	}
	if len(seen) != 5 {
		t.Errorf("20 cuts are in %v", seen)
	}
	trial := bootenv.Default.Trial(layout.B)
	const told = "\nverify   10% 100%\n"
	for _, tt := range []struct {
		command, serial string
		env             bootenv.Env
		want            phase
	}{
		{"signed by", "", bootenv.Default, cutBefore},
		{"write    10% 90% 100%\n", "", bootenv.Default, cutWritten},
		{"write    100%\nverify   10% 90%", "", bootenv.Default, cutWritten},
		{told, "reboot", trial, cutOrdered},
		{told, "reboot Ballast: Esc for the boot menu", trial, cutLoader},
		{told, "Esc for the boot menu\nStarting from slot B", trial, cutBoot},
		{told, "ready: \nEsc for the boot menu\nStarting from slot B\ninit is up", trial, cutBoot},
		{told, "Esc for the boot menu\nStarting from slot B\nready: ", trial, cutReady},
		{told, "Esc for the boot menu\nStarting from slot B\nready: ", bootenv.Env{Good: layout.B}, cutConfirmed},
	} {
		if got := phaseOf(tt.command, tt.serial, layout.B, tt.env); got != tt.want {
			t.Errorf("%q, %q: %v, want %v", tt.command, tt.serial, got, tt.want)
		}
	}
}

// The power is cut in each phase of an upgrade, from the first byte until the new
// firmware is confirmed, again and again on the same box: each time it
// comes back by itself, with a firmware that is whole, and takes the next upgrade.
func TestUpgradePowerCut(t *testing.T) {
	machine.Lab(t)
	r := rand.New(rand.NewPCG(*cutSeed, 0))
	m := machine.New(t, machine.Config{Disk: base, SSH: fw.SSH})
	m.PowerOn()
	m.Expect(machine.Slow, "ready: ")
	todo, again := phases(r, *cuts), 0
	for n := 0; n < len(todo); n++ {
		want := todo[n]
		st := state(t, m)
		if st.Trial != nil { // it came back in a trial, which goes on
			decided(t, m, status.VerdictConfirmed)
			st = state(t, m)
		}
		other := layout.Slot(st.Slot).Other()
		next := newer(t, fmt.Sprintf("cut-%d", n), int64(n)+1)
		file := bundleOf(t, next)
		ctx, cancel := context.WithTimeout(t.Context(), machine.Slow)
		var said machine.Words
		sent := make(chan error, 1)
		mark, began := m.Mark(), time.Now()
		go func() { sent <- m.Follow(ctx, "upgrade", bytes.NewReader(file), &said) }()
		at := draw(r, want, other)
		if err := said.Await(ctx, at.command...); err != nil {
			t.Fatal(err)
		}
		m.Expect(2*machine.Slow, at.serial...)
		select {
		case <-time.After(at.then): // the moment is what is tested
		case <-t.Context().Done():
		}
		m.PowerCord()
		took, where := time.Since(began), lastWords(m)
		cancel()
		err := <-sent
		env := m.Env()
		hit := phaseOf(said.String(), m.Since(mark), other, env)
		m.PowerOn()
		m.Expect(2*machine.Slow, "ready: ")
		after := state(t, m)
		t.Logf("cut %d, meant for %v, hit %v: after %.1f s (%s; boot loader told %+v): runs %s from slot %s, trial %v, slots %+v\n  the user read: %s (%v)",
			n, want, hit, took.Seconds(), where, env, after.Running.Version, after.Slot, after.Trial != nil, after.Slots, strings.TrimSpace(said.String()), err)
		// The boot loader is through in less time than a busy machine needs to look. And
		// one that stood still cuts too late: that cut counts as any, and comes once more.
		if hit != want && (want != cutLoader || hit != cutBoot) {
			if again++; again > mostAgain {
				t.Fatalf("cut %d hit %v, and was meant for %v", n, hit, want)
			}
			todo = append(todo, want)
		}
		if after.Slot != "A" && after.Slot != "B" || after.Cannot != "" {
			t.Fatalf("%+v", after)
		}
		if after.Running.Build != st.Running.Build && after.Running.Build != next.ID.Build {
			t.Errorf("it runs %+v", after.Running)
		}
		if after.Slot == st.Slot && after.Running.Build == next.ID.Build {
			t.Errorf("the slot that ran was written: %+v", after)
		}
		if hit == cutWritten && (after.Slot != st.Slot || after.Trial != nil || env.Try != layout.None) {
			t.Errorf("half a firmware was started: %+v", after)
		}
	}
	// And it takes the next one to its end.
	st := state(t, m)
	if st.Trial != nil {
		decided(t, m, status.VerdictConfirmed)
		st = state(t, m)
	}
	if out, err := upgrade(t, m, bundleOf(t, newer(t, "last", int64(len(todo))+1)), ""); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.Expect(machine.Slow, "ready: ")
	decided(t, m, status.VerdictConfirmed)
	if now := state(t, m); now.Running.Version != "last" || now.Slot == st.Slot {
		t.Errorf("%+v", now)
	}
}

// lastWords is the last line that the serial line said.
func lastWords(m *machine.Machine) string {
	lines := strings.Split(strings.TrimSpace(m.Console()), "\n")
	last := lines[len(lines)-1]
	return last[:min(len(last), 60)]
}
