package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What a package makes when the program starts is in the memory of every
// service, whoever needs it: of ours it is next to nothing.
func TestStartMakesLittle(t *testing.T) {
	const most, total = 24 << 10, 96 << 10
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// init PACKAGE @0.1 ms, 0.2 ms clock, 345 bytes, 6 allocs
	sum, seen := 0, 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != "init" || !strings.HasPrefix(f[1], "ballast/") {
			continue
		}
		n := 0
		for _, c := range f[7] {
			n = n*10 + int(c-'0')
		}
		if n > most {
			t.Errorf("%s makes %d bytes when the program starts; make them when they are used (sync.OnceValue)", f[1], n)
		}
		sum += n
		seen++
	}
	if seen < 10 {
		t.Fatalf("%d packages in the trace: %s", seen, out)
	}
	if sum > total {
		t.Errorf("our packages make %d bytes when the program starts, want %d at most", sum, total)
	}
	t.Logf("%d bytes in %d packages", sum, seen)
}
