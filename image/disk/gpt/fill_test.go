package gpt

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const mib = 1 << 20

var rest = Rest{Number: 5, Name: "data", Type: TypeLinux, Least: 4 * mib}

// platter is a disk that tears: of what it had not said to have, any sectors are
// there after a power cut.
type platter struct {
	kept  []byte
	cache []write
	left  int // sectors and syncs until the power goes; -1 for never
}

func (p *platter) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(p.kept)) {
		return 0, io.EOF
	}
	n := copy(b, p.kept[at:])
	for _, w := range p.cache {
		if d := w.at - at; d >= 0 && d < int64(len(b)) {
			copy(b[d:], w.b)
		} else if d < 0 && -d < int64(len(w.b)) {
			copy(b, w.b[-d:])
		}
	}
	return n, nil
}

func (p *platter) event() error {
	if p.left == 0 {
		return errCut
	}
	p.left--
	return nil
}

func (p *platter) WriteAt(b []byte, at int64) (int, error) {
	if at%Sector != 0 || len(b)%Sector != 0 || at+int64(len(b)) > int64(len(p.kept)) {
		return 0, errors.New("no such sectors")
	}
	for i := 0; i < len(b); i += Sector {
		if err := p.event(); err != nil {
			return 0, err
		}
		p.cache = append(p.cache, write{at + int64(i), bytes.Clone(b[i : i+Sector])})
	}
	return len(b), nil
}

func (p *platter) Sync() error {
	if err := p.event(); err != nil {
		return err
	}
	for _, w := range p.cache {
		copy(p.kept[w.at:], w.b)
	}
	p.cache = nil
	return nil
}

func (p *platter) crash(r *rand.Rand) {
	for _, i := range r.Perm(len(p.cache)) {
		if w := p.cache[i]; r.IntN(2) == 0 {
			copy(p.kept[w.at:], w.b)
		}
	}
	p.cache, p.left = nil, -1
}

var four = []string{"bios", "esp", "slotA", "slotB"}

// flashed is a disk of so many bytes with an image of 16 MiB on it, whose rest
// holds what was there before.
func flashed(t testing.TB, size int64, data bool) *platter {
	t.Helper()
	const image = 16 * mib
	p := &platter{kept: bytes.Repeat([]byte("old pictures    "), int(size/16)), left: -1}
	clear(p.kept[:13*mib])
	tab := Table{GUID: NamedGUID("disk")}
	for i, n := range four {
		tab.Partitions = append(tab.Partitions, Partition{Number: i + 1, Type: TypeLinux, GUID: NamedGUID(n), Start: uint64(1+i*3) * align, Last: uint64(4+i*3)*align - 1, Name: n})
	}
	if data {
		tab.Partitions = append(tab.Partitions, Partition{Number: 5, Type: TypeLinux, GUID: NamedGUID("data"), Start: 13 * align, Last: 15*align - 1, Attributes: 4, Name: "data"})
		copy(p.kept[13*mib:], "a file system")
	}
	if err := tab.Write(p, image); err != nil {
		t.Fatal(err)
	}
	return p
}

// filled holds a disk against what it must be in the end.
func filled(t *testing.T, p *platter, size int64) {
	t.Helper()
	for _, at := range []uint64{1, uint64(size/Sector) - 1} {
		tab, err := readCopy(p, size, at)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range four {
			if x := tab.Partitions[i]; x.Name != n || x.GUID != NamedGUID(n) || x.Start != uint64(1+i*3)*align {
				t.Errorf("partition %d: %+v", i+1, x)
			}
		}
		if x, ok := tab.Find(5); !ok || x.Name != "data" || x.Type != TypeLinux || x.Start != 13*align || x.Last != uint64(size/mib-1)*align-1 {
			t.Errorf("data: %+v", x)
		}
	}
	if _, changed, err := Fill(p, size, rest); err != nil || changed || len(p.cache) > 0 {
		t.Errorf("a second time: %v, %v, %d writes", changed, err, len(p.cache))
	}
}

func TestFill(t *testing.T) {
	const size = 64 * mib
	for _, data := range []bool{false, true} {
		p := flashed(t, size, data)
		if _, changed, err := Fill(p, size, rest); err != nil || !changed {
			t.Fatal(changed, err)
		}
		filled(t, p, size)
		// A partition that is new holds nothing of what was on the disk; one that was there keeps all.
		if blank := len(bytes.Trim(p.kept[13*mib:14*mib], "\x00")) == 0; blank == data {
			t.Errorf("data %v: the beginning of the partition is blank: %v", data, blank)
		}
		if !bytes.HasPrefix(p.kept[14*mib:], []byte("old pictures")) {
			t.Error("more was written than the beginning")
		}
		tab, err := Read(p, size)
		if err != nil {
			t.Fatal(err)
		}
		if x, _ := tab.Find(5); data && (x.Attributes != 4 || x.GUID != NamedGUID("data")) {
			t.Errorf("what grows is another partition now: %+v", x)
		}
	}
}

// tabled is a disk of so many bytes with a table that was written for as many or
// fewer. Partitions are pairs of MiB, the last pair is the one to fill; nil: there
// is none.
func tabled(t *testing.T, size, of int64, others [][2]uint64, data []uint64) *platter {
	t.Helper()
	p := &platter{kept: make([]byte, size), left: -1}
	tab := Table{GUID: NamedGUID("disk")}
	if data != nil { // the first in its list
		tab.Partitions = append(tab.Partitions, Partition{Number: 5, Type: TypeLinux, GUID: NamedGUID("data"), Start: data[0] * align, Last: data[1]*align - 1, Name: "data"})
	}
	for i, o := range others {
		tab.Partitions = append(tab.Partitions, Partition{Number: i + 6, Type: TypeLinux, GUID: NamedGUID("o"), Start: o[0] * align, Last: o[1]*align - 1, Name: "o"})
	}
	if err := tab.Write(p, of); err != nil {
		t.Fatal(err)
	}
	return p
}

// Where the partition ends up to the sector, and whether anything has changed.
func TestFillEnds(t *testing.T) {
	const edge = Tail * Sector // behind the last whole MiB
	front := [][2]uint64{{1, 4}}
	for _, tt := range []struct {
		name    string
		size    int64
		of      int64 // that the table was written for
		others  [][2]uint64
		data    []uint64
		least   int64
		damage  int64 // sector that is gone
		end     uint64
		changed bool
	}{
		{"just a whole MiB", 20*mib + edge, 20*mib + edge, front, []uint64{4, 8}, 0, 0, 20, true},
		{"a sector less", 20*mib + edge - Sector, 20*mib + edge - Sector, front, []uint64{4, 8}, 0, 0, 19, true},
		{"it fills all", 20*mib + edge, 20*mib + edge, front, []uint64{4, 20}, 0, 0, 20, false},
		{"it fills all, of a disk that is longer", 20*mib + edge + Sector, 20*mib + edge, front, []uint64{4, 20}, 0, 0, 20, true},
		{"it fills all, the first copy is gone", 20*mib + edge, 20*mib + edge, front, []uint64{4, 20}, 0, 1, 20, true},
		{"alone", 20*mib + edge, 20*mib + edge, nil, []uint64{4, 8}, 0, 0, 20, true},
		{"before another", 20*mib + edge, 20*mib + edge, [][2]uint64{{10, 12}}, []uint64{4, 8}, 0, 0, 8, false},
		{"new, and just large enough", 20*mib + edge, 20*mib + edge, front, nil, 16 * mib, 0, 20, true},
		{"new, and alone", 20*mib + edge, 20*mib + edge, nil, nil, 19 * mib, 0, 20, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tabled(t, tt.size, tt.of, tt.others, tt.data)
			if tt.damage > 0 {
				clear(p.kept[tt.damage*Sector:][:Sector])
			}
			r := rest
			r.Least = tt.least
			tab, changed, err := Fill(p, tt.size, r)
			if err != nil || changed != tt.changed {
				t.Fatalf("changed %v, want %v: %v", changed, tt.changed, err)
			}
			x, _ := tab.Find(5)
			if x.Last+1 != tt.end*align || tab.Sectors != uint64(tt.size/Sector) || tab.FromBackup {
				t.Errorf("it ends at sector %d, want MiB %d; table of %d sectors, from the copy %v", x.Last, tt.end, tab.Sectors, tab.FromBackup)
			}
			if _, changed, err := Fill(p, tt.size, r); err != nil || changed {
				t.Errorf("a second time: %v, %v", changed, err)
			}
		})
	}
}

func TestFillRefused(t *testing.T) {
	const edge = Tail * Sector
	front := [][2]uint64{{1, 12}}
	other, little := rest, rest
	other.Name, little.Least = "else", 0
	odd := rest
	odd.Least = 8*mib + 1
	for _, tt := range []struct {
		name string
		p    *platter
		size int64
		r    Rest
		want string
	}{
		{"no table", &platter{kept: make([]byte, 16*mib), left: -1}, 16 * mib, rest, ErrNone.Error()},
		{"no room", flashed(t, 16*mib, false), 16 * mib, rest, "gpt: no room for partition 5, data: it needs 4 MiB behind the others, on a disk of 16"},
		{"a byte too few", tabled(t, 20*mib+edge, 20*mib+edge, front, nil), 20*mib + edge, odd, "no room for partition 5"},
		{"no sector left", tabled(t, 12*mib+edge, 12*mib+edge, front, nil), 12*mib + edge, little, "no room for partition 5"},
		{"cut short", tabled(t, 20*mib, 20*mib, front, nil), 12*mib + edge - Sector, rest, "gpt: a disk of 12 MiB is smaller than the one that its table was made for"},
		{"cut within the partition", tabled(t, 20*mib, 20*mib, nil, []uint64{4, 12}), 12*mib + edge - Sector, rest, "gpt: a disk of 12 MiB is smaller than the one that its table was made for"},
		{"another name", flashed(t, 64*mib, true), 64 * mib, other, `gpt: partition 5 is called "data" and not "else": it is left alone`},
	} {
		p := &platter{kept: tt.p.kept[:tt.size], left: -1}
		before := bytes.Clone(p.kept)
		tab, changed, err := Fill(p, tt.size, tt.r)
		if tab != nil || changed || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v, %v, want %q", tt.name, tab, changed, err, tt.want)
		}
		if !bytes.Equal(before, p.kept) || len(p.cache) > 0 {
			t.Errorf("%s: the disk was written", tt.name)
		}
	}
	// What the disk does not take is told, and a partition whose beginning it did
	// not take is not there.
	for left, want := range map[int]string{0: "gpt: wipe the beginning of partition 5: ", wiped / Sector: "gpt: wipe the beginning of partition 5: ", wiped/Sector + 1: "gpt: write "} {
		p := flashed(t, 64*mib, false)
		p.left = left
		if tab, changed, err := Fill(p, 64*mib, rest); tab != nil || changed || !errors.Is(err, errCut) || !strings.Contains(err.Error(), want) {
			t.Errorf("%d writes: %v, %v, %v, want %q", left, tab, changed, err, want)
		}
		p.left = -1
		if tab, err := Read(p, 64*mib); err != nil {
			t.Errorf("%d writes: %v", left, err)
		} else if _, ok := tab.Find(5); ok {
			t.Errorf("%d writes: the partition is there", left)
		}
	}
}

// The power goes at each write in turn, while a partition is made or grown or a
// damaged copy is mended, and of what the disk had not said to have, any sectors are there: a
// whole copy is where firmware and kernel look for it, the boot loader, which checks
// no sums, finds the slots, and the next boot ends well, though the power goes again.
func TestFillPowerCut(t *testing.T) {
	const size = 20 * mib
	r := rand.New(rand.NewPCG(1, 2))
	tries := 6
	if testing.Short() {
		tries = 1
	}
	for _, tt := range []struct {
		name   string
		data   bool
		damage []int64 // sectors that are gone before
	}{{"made", false, nil}, {"grown", true, nil}, {"grown, the first copy is gone", true, []int64{1}}, {"grown, the copy at the end is gone", true, []int64{size/Sector - 1}}} {
		t.Run(tt.name, func(t *testing.T) {
			begin := flashed(t, size, tt.data)
			if tt.damage != nil {
				// Both copies are where they belong, and the partition is still small.
				tab, err := Read(begin, size)
				if err == nil {
					err = tab.Write(begin, size)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			whole := bytes.Clone(begin.kept)
			for _, s := range tt.damage {
				clear(whole[s*Sector:][:Sector])
			}
			for n, end := 0, false; !end; n++ {
				if !tt.data && n > 3 && n < 2040 && n%256 > 0 {
					continue // one sector of the beginning that is wiped is like the other
				}
				for range tries {
					p := &platter{kept: bytes.Clone(whole), left: n}
					_, _, err := Fill(p, size, rest)
					if end = err == nil; end {
						break
					}
					p.crash(r)
					tab, err := Read(p, size)
					if err != nil {
						t.Fatalf("cut at %d: %v", n, err)
					}
					for i, name := range four {
						if tab.Partitions[i].Name != name {
							t.Fatalf("cut at %d: %+v", n, tab.Partitions)
						}
					}
					if tt.damage == nil && (!bytes.Equal(p.kept[2*Sector:][:4*entrySize], whole[2*Sector:][:4*entrySize]) || string(p.kept[Sector:][:8]) != "EFI PART") {
						t.Fatalf("cut at %d: the boot loader does not find the slots", n)
					}
					if x, ok := tab.Find(5); ok && !tt.data && len(bytes.Trim(p.kept[x.Offset():][:wiped], "\x00")) > 0 {
						t.Fatalf("cut at %d: the new partition is there, and holds what was on the disk", n)
					}
					p.left = r.IntN(40)
					if _, _, err := Fill(p, size, rest); err != nil {
						p.crash(r)
						if _, _, err := Fill(p, size, rest); err != nil {
							t.Fatalf("cut at %d, and again: %v", n, err)
						}
					}
					p.left = -1
					filled(t, p, size)
				}
			}
		})
	}
}

// What sgdisk makes is read, and it has nothing to say about what is written.
func TestFillSgdisk(t *testing.T) {
	img := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sgdisk := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("sgdisk", append(args, img)...).CombinedOutput()
		if err != nil {
			t.Fatalf("sgdisk %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	os.Truncate(img, 16*mib)
	sgdisk("-n", "1:1M:+1M", "-c", "1:bios", "-n", "2:2M:+4M", "-c", "2:esp", "-n", "3:6M:+2M", "-c", "3:slotA", "-n", "4:8M:+2M", "-c", "4:slotB", "-A", "4:set:60")
	os.Truncate(img, 40*mib)
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, changed, err := Fill(f, 40*mib, rest); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if out := sgdisk("-v"); !strings.Contains(out, "No problems found") {
		t.Error(out)
	}
	out := sgdisk("-p", "-i", "5", "-A", "4:show")
	for _, want := range []string{"slotB", "60", "First sector: 20480 (at 10.0 MiB)", "Last sector: 79871", "'data'", "(Linux filesystem)"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}
