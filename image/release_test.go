package image

import (
	"slices"
	"strings"
	"testing"

	"ballast/image/packages"
)

// What an image has of Debian's packages is in its SBOM: a new one in the lock file
// must say where it goes.
func TestPackagesHaveAPlace(t *testing.T) {
	all, err := packages.Locked()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if placed[p.Name] == "" && !slices.Contains(buildTools, p.Name) && !strings.HasPrefix(p.Name, "firmware-") {
			t.Errorf("packages.lock has %s: add it to placed or buildTools in release.go, so that SBOM and image.lock tell of it", p.Name)
		}
	}
}

func TestGoModules(t *testing.T) {
	ms, err := goModules(t.Context(), root, "./init")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(ms, func(m goModule) bool { return m.path == "golang.org/x/sys" })
	if i < 0 || !strings.HasPrefix(ms[i].version, "v0.") || !strings.HasPrefix(ms[i].sum, "h1:") || !strings.Contains(ms[i].dir, "golang.org/x/sys@") {
		t.Errorf("%+v", ms)
	}
	if !slices.IsSortedFunc(ms, func(a, b goModule) int { return strings.Compare(a.path, b.path) }) {
		t.Error("not sorted")
	}
}
