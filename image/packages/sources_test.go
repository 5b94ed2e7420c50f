package packages

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testArchives = []string{"http://a.example/debian", "http://a.example/security"}

func TestComponentOfLines(t *testing.T) {
	got := componentOfLines(`# the archive
deb http://a.example/debian bookworm main contrib # x
deb-src http://a.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://a.example/security/ bookworm-security main
deb [ arch=amd64 ] http://a.example/debian stable main
deb https://other.example/apt stable main
deb http://a.example/debian flat/
deb [broken
deb
`, testArchives, "non-free-firmware")
	want := `deb http://a.example/debian bookworm non-free-firmware
deb [arch=amd64 signed-by=/k.gpg] http://a.example/security/ bookworm-security non-free-firmware
deb [ arch=amd64 ] http://a.example/debian stable non-free-firmware
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestComponentOfStanzas(t *testing.T) {
	got := componentOfStanzas(`Types: deb
# a comment
URIs: http://a.example/debian/
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: https://other.example/apt
Suites: x
Components: main


types: deb
uris: http://a.example/security
suites: y
components: main
`, testArchives, "non-free-firmware")
	want := `Types: deb
URIs: http://a.example/debian/
Suites: bookworm bookworm-updates
Components: non-free-firmware
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

types: deb
uris: http://a.example/security
suites: y
Components: non-free-firmware

`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Every package of the lock file can be had on this machine: by the cache, or
// from an archive that its sources name.
func TestTrees(t *testing.T) {
	if testing.Short() {
		t.Skip("may fetch 25 MB")
	}
	ps, err := Locked()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if _, err := Tree(t.Context(), p.Name); err != nil {
			t.Error(err)
		}
	}
}

// Whatever a machine's files hold, no archive but those named gets asked.
func FuzzSources(f *testing.F) {
	f.Add("deb http://a.example/debian x main\n", "URIs: http://a.example/debian\nComponents: main\n")
	f.Add("deb [a=b c] x y z\ndeb [", "URIs:\n x\n\nComponents:\n")
	f.Fuzz(func(t *testing.T, list, stanzas string) {
		for line := range strings.Lines(componentOfLines(list, testArchives, "extra")) {
			w := strings.Fields(line)
			if len(w) < 4 || w[0] != "deb" || w[len(w)-1] != "extra" || !slices.Contains(testArchives, strings.TrimRight(w[len(w)-3], "/")) {
				t.Errorf("%q", line)
			}
		}
		componentOfStanzas(stanzas, testArchives, "extra")
	})
}
