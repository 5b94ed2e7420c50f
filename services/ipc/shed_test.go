package ipc

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProgramMaps(t *testing.T) {
	const text = `00400000-00a00000 r-xp 00000000 08:01 17 /init
Rss:                4000 kB
Anonymous:             0 kB
00a00000-00b00000 r--p 00600000 08:01 17 /init
Anonymous:             4 kB
00b00000-00c00000 r--p 00700000 08:01 17 /init
Anonymous:             0 kB
VmFlags: rd mr mw me
00c00000-00d00000 rw-p 00800000 08:01 17 /init
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 08:01 18 /other
Anonymous:             0 kB
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0xa00000}, {0xb00000, 0xc00000}}
	if d := cmp.Diff(want, programMaps(strings.NewReader(text), "/init"), cmp.AllowUnexported(mapping{})); d != "" {
		t.Error(d)
	}
}

// What is shed is out of the process, and the program goes on.
func TestShed(t *testing.T) {
	file := func() (kb int) {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
				fmt.Sscan(rest, &kb)
			}
		}
		return kb
	}
	before := file()
	if err := Shed(); err != nil {
		t.Fatal(err)
	}
	if after := file(); after*2 > before {
		t.Errorf("%d kB of the program before, %d kB after", before, after)
	}
}
