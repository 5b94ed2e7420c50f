package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The numbers of plan, worked out by hand from the specification's formula: as
// large clusters as there are enough of.
func TestPlan(t *testing.T) {
	for _, tt := range []struct{ total, per, tableSectors, clusters int64 }{
		{66_607, 1, 517, 65_541}, {132_143, 1, 1025, 130_061}, {132_144, 2, 515, 65_541}, {263_223, 2, 1025, 130_570}, {263_224, 4, 514, 65_541},
		{525_385, 4, 1025, 130_825}, {525_386, 8, 513, 65_541}, {4_000_000, 8, 3903, 499_020},
		{77_432, 1, 600, 76_200}, {77_433, 1, 601, 76_199}, {615_032, 8, 600, 76_725},
	} {
		want := geometry{cluster: tt.per * 512, fat: 32 * 512, fatSize: tt.tableSectors * 512, data: (32 + 2*tt.tableSectors) * 512, clusters: uint32(tt.clusters)}
		if g, err := plan(tt.total * 512); err != nil || g != want {
			t.Errorf("%d sectors: %+v, %v, want %+v", tt.total, g, err, want)
		} else if (g.offset(g.clusters+1)+g.cluster > tt.total*512) || g.fatSize < int64(g.clusters+2)*4 {
			t.Errorf("%d sectors: %+v is more than there is", tt.total, g)
		}
	}
	if MinSize != 66_607*512 {
		t.Errorf("the smallest has %d sectors", MinSize/512)
	}
	if _, err := plan(MinSize - 1); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d bytes are too few for FAT32: want at least %d", MinSize-1, MinSize)) {
		t.Errorf("a byte less: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		low        byte
	}{
		{"EIGHTCHR.EXT", "EIGHTCHREXT", 0}, {"eightchr.ext", "EIGHTCHREXT", 0x18}, {"A", "A          ", 0}, {"a.B", "A       B  ", 0x08}, {"A.b", "A       B  ", 0x10},
		{"AZ09_-~.Z", "AZ09_-~ Z  ", 0},
		{"ninechars", "", 0}, {"a.four", "", 0}, {"", "", 0}, {".x", "", 0}, {"a.", "", 0}, {"Aa", "", 0}, {"a.Bb", "", 0},
		{"a@", "", 0}, {"a[", "", 0}, {"a/", "", 0}, {"a:", "", 0}, {"a.b.c", "", 0}, {"ä", "", 0},
	} {
		b, low, err := shortName(tt.name)
		if (err == nil) != (tt.want != "") || err == nil && (string(b[:]) != tt.want || low != tt.low) {
			t.Errorf("%q: %q, %x, %v", tt.name, b, low, err)
		}
		if got := ValidPath("/dir/" + tt.name + "/x"); tt.name != "" && got != (tt.want != "") && tt.name != "a/" {
			t.Errorf("a path with %q: %v", tt.name, got)
		}
	}
}

func TestTime(t *testing.T) {
	first := uint16(1<<5 | 1)
	for _, tt := range []struct {
		at          time.Time
		date, clock uint16
	}{
		{time.Date(1979, 12, 31, 23, 59, 59, 0, time.UTC), first, 0},
		{time.Date(1980, 1, 1, 0, 0, 2, 0, time.UTC), first, 1},
		{time.Date(2026, 11, 22, 13, 14, 15, 0, time.FixedZone("", 3600)), 46<<9 | 11<<5 | 22, 12<<11 | 14<<5 | 7},
		{time.Date(2107, 12, 31, 23, 59, 59, 0, time.UTC), 127<<9 | 12<<5 | 31, 23<<11 | 59<<5 | 29},
		{time.Date(2108, 1, 1, 12, 0, 0, 0, time.UTC), first, 0},
	} {
		if date, clock := dosTime(tt.at); date != tt.date || clock != tt.clock {
			t.Errorf("%v: %x %x, want %x %x", tt.at, date, clock, tt.date, tt.clock)
		}
	}
}

// The bytes of a file system as the specification has them, so that no number is
// wrong for writer and reader alike.
func TestFormat(t *testing.T) {
	d := make(memory, size)
	w, err := Create(d, size, Options{Label: "ELEVENCHARS", Serial: 0x12345678, Hidden: 2048, Time: time.Date(2026, 11, 22, 13, 14, 15, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := w.Create("dir/file", 700)
	for i := 0; i < 700 && err == nil; i += 350 {
		_, err = f.Write(bytes.Repeat([]byte{'x', byte(i / 350)}, 175))
	}
	if err == nil {
		err = w.Close(nosync)
	}
	if err != nil {
		t.Fatal(err)
	}
	const (
		total        = size / 512
		tableSectors = 635
		clusters     = total - 32 - 2*tableSectors
		data         = (32 + 2*tableSectors) * 512
	)
	le := binary.LittleEndian
	for _, n := range []struct {
		what     string
		at, size int
		want     uint32
	}{
		{"bytes a sector", 11, 2, 512}, {"sectors a cluster", 13, 1, 1}, {"reserved sectors", 14, 2, 32}, {"tables", 16, 1, 2}, {"entries of an old root folder", 17, 2, 0},
		{"old number of sectors", 19, 2, 0}, {"medium", 21, 1, 0xf8}, {"sectors of an old table", 22, 2, 0}, {"hidden sectors", 28, 4, 2048}, {"sectors", 32, 4, total},
		{"sectors of a table", 36, 4, tableSectors}, {"flags", 40, 2, 0}, {"version", 42, 2, 0}, {"root folder", 44, 4, 2}, {"info sector", 48, 2, 1}, {"copy of the boot sector", 50, 2, 6},
		{"drive", 64, 1, 0x80}, {"what follows is there", 66, 1, 0x29}, {"serial number", 67, 4, 0x12345678}, {"end", 510, 2, 0xaa55},
		{"info", 512, 4, 0x41615252}, {"info, second", 512 + 484, 4, 0x61417272}, {"free clusters", 512 + 488, 4, clusters - 4}, {"next free cluster", 512 + 492, 4, 6}, {"end of info", 512 + 508, 4, 0xaa550000},
		{"table: medium", 32 * 512, 4, 0x0ffffff8}, {"table: 1", 32*512 + 4, 4, 0x0fffffff}, {"table: root", 32*512 + 8, 4, 0x0fffffff}, {"table: dir", 32*512 + 12, 4, 0x0fffffff},
		{"table: file", 32*512 + 16, 4, 5}, {"table: file, second", 32*512 + 20, 4, 0x0fffffff}, {"table: free", 32*512 + 24, 4, 0},
		{"label: kind", data + 11, 1, 0x08}, {"label: written, date", data + 24, 2, 46<<9 | 11<<5 | 22},
		{"dir: kind", data + 32 + 11, 1, 0x10}, {"dir: small letters", data + 32 + 12, 1, 0x08}, {"dir: cluster", data + 32 + 26, 2, 3}, {"dir: size", data + 32 + 28, 4, 0}, {"end of the root folder", data + 64, 4, 0},
		{"dot: kind", data + 512 + 11, 1, 0x10}, {"dot: cluster", data + 512 + 26, 2, 3}, {"dot dot: cluster", data + 512 + 32 + 26, 2, 0},
		{"dot: letters", data + 512 + 12, 1, 0}, {"dot: size", data + 512 + 28, 4, 0}, {"dot dot: letters", data + 512 + 32 + 12, 1, 0}, {"dot dot: size", data + 512 + 32 + 28, 4, 0},
		{"file: kind", data + 512 + 64 + 11, 1, 0x20}, {"file: cluster, high", data + 512 + 64 + 20, 2, 0}, {"file: cluster", data + 512 + 64 + 26, 2, 4}, {"file: size", data + 512 + 64 + 28, 4, 700},
		{"file: made, clock", data + 512 + 64 + 14, 2, 13<<11 | 14<<5 | 7}, {"file: made, date", data + 512 + 64 + 16, 2, 46<<9 | 11<<5 | 22}, {"file: read", data + 512 + 64 + 18, 2, 46<<9 | 11<<5 | 22},
		{"file: written, clock", data + 512 + 64 + 22, 2, 13<<11 | 14<<5 | 7}, {"file: written, date", data + 512 + 64 + 24, 2, 46<<9 | 11<<5 | 22},
	} {
		b := make([]byte, 4)
		copy(b, d[n.at:n.at+n.size])
		if got := le.Uint32(b); got != n.want {
			t.Errorf("%s: %#x, want %#x", n.what, got, n.want)
		}
	}
	if want := append(bytes.Repeat([]byte{'x', 0}, 175), bytes.Repeat([]byte{'x', 1}, 175)...); !bytes.Equal(d[data+2*512:][:700], want) {
		t.Error("a file that was written in pieces holds something else")
	}
	if string(d[71:90]) != "ELEVENCHARSFAT32   " || string(d[data:data+11]) != "ELEVENCHARS" || string(d[data+512:data+512+11]) != ".          " || string(d[data+512+32:data+512+43]) != "..         " {
		t.Errorf("names: %q %q", d[71:90], d[data:data+11])
	}
	if !bytes.Equal(d[:1024], d[6*512:8*512]) {
		t.Error("the copies of boot sector and info differ")
	}
}

// What the writer does not take, up to the limit.
func TestWriterLimits(t *testing.T) {
	for label, ok := range map[string]bool{"": true, "ELEVENCHARS": true, "TWELVE CHARS": false, "small": false} {
		if _, err := Create(make(memory, size), size, Options{Label: label}); (err == nil) != ok {
			t.Errorf("label %q: %v", label, err)
		}
	}
	d := make(memory, size)
	w, err := Create(d, size, Options{Label: "A"})
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int64]string{-1: "want at most 4 GiB", 1 << 32: "want at most 4 GiB", 1<<32 - 1: "do not fit"} {
		if _, err := w.Create("x", n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v, want %q", n, err, want)
		}
	}
	if _, err := w.Create("Bad name/b", 0); err == nil {
		t.Error("a folder with a bad name")
	}
	f, err := w.Create("none", 0)
	if err == nil {
		_, err = f.Write([]byte("12345"))
	}
	if err == nil || err.Error() != "fat: none: 5 bytes more than were announced" {
		t.Errorf("more than announced: %v", err)
	}
	if w, err = Create(d, size, Options{Label: "A"}); err != nil {
		t.Fatal(err)
	}
	// The label is no file of its name. A folder has as many entries as a cluster.
	name := func(i int) string { return string(rune('a' + i)) }
	for i := range 15 {
		if _, err := w.Create(name(i), 0); err != nil {
			t.Fatal(err)
		}
	}
	for e := w.root.entries; len(e) > 0; e = e[entrySize:] {
		if c := firstCluster(e); c != 0 {
			t.Errorf("%q is empty and has cluster %d", e[:11], c)
		}
	}
	if err := w.Close(nosync); err != nil {
		t.Errorf("15 files beside the label: %v", err)
	}
	// What is begun anew cannot be read from there on, nor by the copy.
	if _, err := Create(d, size, Options{}); err != nil {
		t.Fatal(err)
	}
	if len(bytes.Trim(d[:32*512], "\x00")) > 0 {
		t.Error("something is left of the file system before")
	}
	if _, err := w.Create(name(15), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(nosync); err == nil || err.Error() != "fat: more than 16 entries in /" {
		t.Errorf("16 files beside the label: %v", err)
	}
	// All that is free, and no more.
	if w, err = Create(make(memory, size), size, Options{}); err != nil {
		t.Fatal(err)
	}
	free := int64(w.clusters-1) * 512 // but for the root folder
	if _, err := w.Create("a", free+1); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d bytes do not fit: %d are free: a", free+1, free)) {
		t.Errorf("a byte too many: %v", err)
	}
	if _, err := w.Create("a", free); err != nil {
		t.Errorf("all of it: %v", err)
	}
	w.open = nil
	if _, err := w.Create("dir/b", 0); err == nil || !strings.Contains(err.Error(), "512 bytes do not fit: 0 are free") {
		t.Errorf("a folder without room: %v", err)
	}
	if _, err := w.Create("a/b", 0); err == nil {
		t.Error("a file is a folder too")
	}
	// A device that fails at each write in turn.
	for n := 0; ; n++ {
		f := &failing{memory: make(memory, size), left: n}
		err := written(f)
		if err == nil {
			if n < 10 {
				t.Errorf("only %d writes and syncs", n)
			}
			break
		}
		if !errors.Is(err, errFails) {
			t.Fatalf("write %d: %v", n, err)
		}
		if _, err := Open(f.memory, size); err == nil && !f.synced {
			t.Errorf("write %d: it can be read", n)
		}
	}
}

var errFails = errors.New("input/output error")

// failing is a device that fails once, after so many writes and syncs.
type failing struct {
	memory
	left   int
	synced bool // all but the boot sector is there
}

func (f *failing) event() error {
	if f.left--; f.left == -1 {
		return errFails
	}
	return nil
}

func (f *failing) WriteAt(b []byte, at int64) (int, error) {
	if err := f.event(); err != nil {
		return 0, err
	}
	return f.memory.WriteAt(b, at)
}

func (f *failing) sync() error {
	err := f.event()
	f.synced = f.synced || err == nil
	return err
}

// written makes a file system with a file in a folder.
func written(f *failing) error {
	w, err := Create(f, size, Options{})
	if err != nil {
		return err
	}
	to, err := w.Create("dir/f", 5)
	if err != nil {
		return err
	}
	if _, err := to.Write([]byte("12345")); err != nil {
		return err
	}
	return w.Close(f.sync)
}

// What the reader does not take of a boot sector, and what it makes of the limits.
func TestOpenLimits(t *testing.T) {
	d := make(memory, size)
	makeFS(t, d, map[string][]byte{"f": []byte("content")}, "f")
	good, err := Open(d, size)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	boot := func(at, n int, v uint32) memory {
		b := bytes.Clone(d[:512])
		var word [4]byte
		le.PutUint32(word[:], v)
		copy(b[at:at+n], word[:n])
		return b
	}
	const tableSectors = 635
	data := uint32(32 + 2*tableSectors)
	for _, tt := range []struct {
		name     string
		b        memory
		size     int64
		clusters uint32 // 0: it is refused
	}{
		{"as it is", d, size, good.clusters},
		{"a device that is longer", d, size + 1, good.clusters},
		{"a byte less than it says", d, size - 1, 0},
		{"no boot sector", d[:511], size, 0},
		{"the end, first", boot(510, 1, 0), size, 0}, {"the end, second", boot(511, 1, 0), size, 0}, {"another kind", boot(86, 1, '6'), size, 0},
		{"sectors of 1024", boot(11, 2, 1024), size, 0}, {"clusters of no sector", boot(13, 1, 0), size, 0}, {"clusters of three", boot(13, 1, 3), size, 0},
		{"clusters of two", boot(13, 1, 2), size, good.clusters / 2},
		{"nothing reserved", boot(14, 2, 0), size, 0}, {"no tables", boot(16, 1, 0), size, 0}, {"tables of nothing", boot(36, 4, 0), size, 0}, {"another root folder", boot(44, 4, 3), size, 0},
		{"one table", boot(16, 1, 1), size, size/512 - 32 - tableSectors},
		{"a short table", boot(36, 4, 1), size, 126},
		{"room for one cluster", boot(32, 4, data+1), size, 1}, {"room for none", boot(32, 4, data), size, 0},
	} {
		f, err := Open(tt.b, tt.size)
		if (err == nil) != (tt.clusters > 0) || err == nil && f.clusters != tt.clusters {
			t.Errorf("%s: %v, want %d clusters", tt.name, err, tt.clusters)
		}
	}
	if _, err := Open(d[:511], size); !errors.Is(err, io.EOF) {
		t.Errorf("a device that ends early: %v", err)
	}
	// Clusters that there are.
	for c, ok := range map[uint32]bool{0: false, 1: false, 2: true, good.clusters + 1: true, good.clusters + 2: false} {
		if err := good.valid(c); (err == nil) != ok {
			t.Errorf("cluster %d of %d: %v", c, good.clusters, err)
		}
	}
	// Links of the table, at the ends of what is read of it at once.
	var w window
	for _, c := range []uint32{1023, 1024, 1022, 2, good.clusters + 1} {
		for link, want := range map[uint32]uint32{0x0ffffff8: 0, 0xffffffff: 0, 0x0ffffff7: 1, 9: 9, 0x50000009: 9} {
			le.PutUint32(d[32*512+4*c:], link)
			w = window{}
			got, err := good.following(&w, c)
			if (err != nil) != (want == 1) || err == nil && got != want {
				t.Errorf("behind %d, %#x: %d, %v", c, link, got, err)
			}
		}
	}
	le.PutUint32(d[32*512+4*1023:], 7)
	le.PutUint32(d[32*512+4*1024:], 8)
	w = window{}
	for c, want := range map[uint32]uint32{1023: 7, 1024: 8} { // from a window that is there, or another one
		if got, err := good.following(&w, c); got != want || err != nil {
			t.Errorf("behind %d: %d, %v", c, got, err)
		}
	}
	short := FS{r: d[:32*512], geometry: good.geometry}
	if _, err := short.following(&window{}, 2); err == nil || !strings.Contains(err.Error(), "read the table") {
		t.Errorf("a table that cannot be read: %v", err)
	}
	if _, err := short.Open("f"); err == nil || !strings.Contains(err.Error(), "read a folder") {
		t.Errorf("a folder that cannot be read: %v", err)
	}
}

// Folders of many clusters and with many files are read up to the limits.
func TestFolderLimits(t *testing.T) {
	build := func(clusters, files int) (*FS, memory) {
		t.Helper()
		d := make(memory, size)
		makeFS(t, d, nil)
		f, err := Open(d, size)
		if err != nil {
			t.Fatal(err)
		}
		link := func(c, to uint32) { binary.LittleEndian.PutUint32(d[f.fat+int64(c)*4:], to) }
		at := uint32(rootCluster)
		for i := range clusters {
			folder := d[f.offset(at):][:512]
			for e := folder; len(e) > 0; e = e[32:] {
				e[0] = deleted
				if files > 0 {
					copy(e, fmt.Sprintf("%-11s", fmt.Sprintf("F%d", files)))
					e[11] = attrFile
					files--
				}
			}
			if i == clusters-1 {
				link(at, endOfChain)
				break
			}
			next := uint32(100 + i)
			link(at, next)
			at = next
		}
		return f, d
	}
	f, _ := build(maxFolder, maxFiles)
	if names, err := f.Files(); err != nil || len(names) != 100 {
		t.Errorf("%d files, %v", len(names), err)
	}
	if _, err := f.Open("none"); !errors.Is(err, ErrNoFile) {
		t.Errorf("64 clusters: %v", err)
	}
	f, _ = build(maxFolder+1, 0)
	if _, err := f.Open("none"); err == nil || !strings.Contains(err.Error(), "a folder without end") {
		t.Errorf("65 clusters: %v", err)
	}
	f, _ = build(maxFolder, maxFiles+1)
	if _, err := f.Files(); err == nil || err.Error() != "fat: more than 100 files and folders" {
		t.Errorf("101 files: %v", err)
	}
	// What is no file: gone, a part of a long name, a label. What leads nowhere, or
	// is longer than there is room, is damage.
	f, d := build(1, 2)
	root := d[f.offset(rootCluster):][:512]
	for kind, seen := range map[byte]int{attrFile: 2, 0x0f: 1, attrVolume: 1, attrVolume | attrFile: 1} {
		root[11] = kind
		if names, err := f.Files(); err != nil || len(names) != seen {
			t.Errorf("an entry of kind %x: %q, %v", kind, names, err)
		}
	}
	root[11] = attrDir
	if _, err := f.Files(); err == nil || !strings.Contains(err.Error(), "damaged: cluster 0") {
		t.Errorf("a folder without a cluster: %v", err)
	}
	root[11] = attrFile
	entry := func(cluster uint32, n int64) {
		binary.LittleEndian.PutUint16(root[20:], uint16(cluster>>16))
		binary.LittleEndian.PutUint16(root[26:], uint16(cluster))
		binary.LittleEndian.PutUint32(root[28:], uint32(n))
	}
	all := int64(f.clusters) * f.cluster
	for _, tt := range []struct {
		cluster uint32
		size    int64
		want    string
	}{{3, all, ""}, {3, all + 1, "bytes, the file system less"}, {1, 1, "damaged: cluster 1"}, {f.clusters + 1, 1, ""}, {f.clusters + 2, 1, "damaged: cluster"}, {0, 0, ""}} {
		entry(tt.cluster, tt.size)
		file, err := f.Open("F2")
		if tt.want == "" && (err != nil || file.Size != tt.size) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%d bytes from cluster %d: %v, want %q", tt.size, tt.cluster, err, tt.want)
		}
	}
	entry(0, 0)
	empty, err := f.Open("F2")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(empty); err != nil || len(b) > 0 {
		t.Errorf("an empty file: %q, %v", b, err)
	}
	if _, err := empty.Offset(); err == nil {
		t.Error("an empty file has a first byte")
	}
	if diff := cmp.Diff("F1.X f2.x F3.x f4.X", strings.Join([]string{
		longName(named("F1", "X", 0)), longName(named("F2", "X", lowBase|lowExt)), longName(named("F3", "X", lowExt)), longName(named("F4", "X", lowBase)),
	}, " ")); diff != "" {
		t.Error(diff)
	}
}

// named is an entry of that name.
func named(base, ext string, low byte) []byte {
	e := make([]byte, 32)
	copy(e, fmt.Sprintf("%-8s%-3s", base, ext))
	e[12] = low
	return e
}
