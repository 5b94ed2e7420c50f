package image

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"ballast/board"
	"ballast/image/archive"
	"ballast/image/kernel"
	"ballast/image/modules"
)

// What a driver may ask for is in the image, or is left out for a reason that is
// written down; and nothing is in either list that no driver asks for.
func TestBoardFirmware(t *testing.T) {
	dir, release, err := kernel.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x, err := modules.Open(dir, release)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range board.Names() {
		t.Run(name, func(t *testing.T) {
			b, err := board.Get(name)
			if err != nil {
				t.Fatal(err)
			}
			ms, err := x.Select(b.Modules...)
			if err != nil {
				t.Fatal(err)
			}
			a := archive.New()
			n, used, err := addFirmware(t.Context(), a, b)
			if err != nil {
				t.Fatal(err)
			}
			if (n.count > 0) != (len(used) > 0) {
				t.Errorf("%d blobs of %v", n.count, used)
			}
			hit := map[string]bool{}
			for _, m := range ms {
				for _, f := range m.Firmware {
					why := fits(b.NoFirmware, f)
					hit[why] = true
					has := a.Has("lib/firmware/" + f + ".zst")
					if !has && why == "" {
						t.Errorf("%s asks for %s: pack it (Firmware of the board) or say why not (NoFirmware)", m.Name, f)
					}
					if has && why != "" {
						t.Errorf("%s is in the image, and left out by %q", f, why)
					}
				}
			}
			for p := range b.NoFirmware {
				if !hit[p] {
					t.Errorf("no driver asks for %s, which is left out for a reason", p)
				}
			}
		})
	}
}

// fits is the pattern that a path fits, "" for none.
func fits(patterns map[string]string, name string) string {
	for p := range patterns {
		if ok, _ := path.Match(p, name); ok {
			return p
		}
	}
	return ""
}

// The kernel takes a blob whose frame tells the length of its content, and no
// other.
func TestBlobFrames(t *testing.T) {
	a := archive.New()
	b := board.Board{Name: "x", Firmware: []string{"tigon/tg357766.bin", "intel/ice/ddp/ice.pkg"}}
	if _, _, err := addFirmware(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
	raw, err := a.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := archive.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"lib/firmware/tigon/tg357766.bin.zst": 144, "lib/firmware/intel/ice/ddp/ice.pkg.zst": 692660}
	got := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name, ".zst") {
			continue
		}
		var h zstd.Header
		if err := h.Decode(e.Data); err != nil || !h.HasFCS || h.FrameContentSize != want[e.Name] {
			t.Errorf("%s: %+v, %v", e.Name, h, err)
		}
		got++
	}
	if got != len(want) {
		t.Errorf("%v", a.Names())
	}
}

func TestNoSuchFirmware(t *testing.T) {
	_, _, err := blobs(t.Context(), []string{"tigon/*", "no/such.bin"})
	if err == nil || !strings.Contains(err.Error(), `"no/such.bin"`) || strings.Contains(err.Error(), "tigon") {
		t.Errorf("error %v", err)
	}
}

// What the boards have in common comes from one list.
func TestFirmwarePackagesAreUsed(t *testing.T) {
	ps, err := firmwarePackages()
	if err != nil {
		t.Fatal(err)
	}
	var patterns []string
	for _, name := range board.Names() {
		b, _ := board.Get(name)
		patterns = append(patterns, b.Firmware...)
	}
	_, used, err := blobs(t.Context(), patterns)
	if err != nil || !slices.Equal(used, ps) {
		t.Errorf("the lock has %v, the boards use %v, %v", ps, used, err)
	}
}
