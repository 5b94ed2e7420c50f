package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strings"
)

// Writer makes a file system. Nothing of it can be read before Close has ended:
// the boot sector is written last.
type Writer struct {
	w    io.WriterAt
	size int64
	o    Options
	geometry
	next   uint32 // first free cluster
	chains []chain
	root   *folder
	open   *file
}

// chain is a run of clusters that belong together.
type chain struct{ first, count uint32 }

// folder is a directory, kept in memory until Close.
type folder struct {
	name    string
	entries []byte
	folders []*folder
	cluster uint32
}

// Create begins a file system of so many bytes at the beginning of w. It first
// makes what is there unreadable.
func Create(w io.WriterAt, size int64, o Options) (*Writer, error) {
	g, err := plan(size)
	if err != nil {
		return nil, err
	}
	if len(o.Label) > 11 || o.Label != strings.ToUpper(o.Label) {
		return nil, fmt.Errorf("fat: label %q: want at most 11 capitals", o.Label)
	}
	f := &Writer{w: w, size: size, o: o, geometry: g, next: rootCluster + 1, root: &folder{cluster: rootCluster}}
	zero := make([]byte, reserved*sector)
	if _, err := w.WriteAt(zero, 0); err != nil {
		return nil, fmt.Errorf("fat: %w", err)
	}
	if o.Label != "" {
		var e [entrySize]byte
		copy(e[:], fmt.Sprintf("%-11s", o.Label))
		e[11] = attrVolume
		f.stamp(e[:])
		f.root.entries = append(f.root.entries, e[:]...)
	}
	return f, nil
}

// stamp puts the time of everything into an entry.
func (f *Writer) stamp(e []byte) {
	date, clock := dosTime(f.o.Time)
	le := binary.LittleEndian
	le.PutUint16(e[14:], clock)
	le.PutUint16(e[16:], date)
	le.PutUint16(e[18:], date)
	le.PutUint16(e[22:], clock)
	le.PutUint16(e[24:], date)
}

// take reserves clusters for so many bytes; none for no bytes.
func (f *Writer) take(size int64) (uint32, error) {
	n := (size + f.cluster - 1) / f.cluster
	if n == 0 {
		return 0, nil
	}
	if int64(f.next)+n > int64(f.clusters)+rootCluster {
		return 0, fmt.Errorf("fat: %d bytes do not fit: %d are free", size, (int64(f.clusters)+rootCluster-int64(f.next))*f.cluster)
	}
	first := f.next
	f.next += uint32(n)
	f.chains = append(f.chains, chain{first, uint32(n)})
	return first, nil
}

// entry adds a name to a folder.
func (f *Writer) entry(d *folder, name string, attr byte, cluster uint32, size int64) error {
	short, low, err := shortName(name)
	if err != nil {
		return err
	}
	for i := 0; i < len(d.entries); i += entrySize {
		if [11]byte(d.entries[i:i+11]) == short && d.entries[i+11] != attrVolume {
			return fmt.Errorf("fat: %s is there already", name)
		}
	}
	d.entries = append(d.entries, f.record(short, low, attr, cluster, size)...)
	return nil
}

func (f *Writer) record(name [11]byte, low, attr byte, cluster uint32, size int64) []byte {
	e := make([]byte, entrySize)
	copy(e, name[:])
	e[11], e[12] = attr, low
	f.stamp(e)
	le := binary.LittleEndian
	le.PutUint16(e[20:], uint16(cluster>>16))
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], uint32(size))
	return e
}

// folder finds or makes the folder of a path.
func (f *Writer) folder(dir string) (*folder, error) {
	d := f.root
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if name == "" {
			continue
		}
		var next *folder
		for _, s := range d.folders {
			if strings.EqualFold(s.name, name) {
				next = s
			}
		}
		if next == nil {
			c, err := f.take(f.cluster)
			if err != nil {
				return nil, err
			}
			if err := f.entry(d, name, attrDir, c, 0); err != nil {
				return nil, err
			}
			up := d.cluster
			if up == rootCluster {
				up = 0 // the format's name for the root, in ".."
			}
			next = &folder{name: name, cluster: c}
			next.entries = append(f.record([11]byte([]byte(".          ")), 0, attrDir, c, 0), f.record([11]byte([]byte("..         ")), 0, attrDir, up, 0)...)
			d.folders = append(d.folders, next)
		}
		d = next
	}
	return d, nil
}

// file is the one that is being written.
type file struct {
	name     string
	at, left int64
}

// Create begins a file of exactly size bytes, with the folders of its path, and
// returns where to write them. The file before must be whole.
func (f *Writer) Create(name string, size int64) (io.Writer, error) {
	if err := f.whole(); err != nil {
		return nil, err
	}
	if size < 0 || size > 0xffffffff {
		return nil, fmt.Errorf("fat: %s: %d bytes: want at most 4 GiB", name, size)
	}
	d, err := f.folder(path.Dir(path.Clean("/" + name)))
	if err != nil {
		return nil, err
	}
	c, err := f.take(size)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, name)
	}
	if err := f.entry(d, path.Base(name), attrFile, c, size); err != nil {
		return nil, err
	}
	f.open = &file{name: name, left: size}
	if c != 0 {
		f.open.at = f.offset(c)
	}
	return (*fileWriter)(f), nil
}

func (f *Writer) whole() error {
	if f.open != nil && f.open.left != 0 {
		return fmt.Errorf("fat: %s: %d bytes are missing", f.open.name, f.open.left)
	}
	return nil
}

// fileWriter writes the open file. It shows no more of a Writer than that.
type fileWriter Writer

func (f *fileWriter) Write(b []byte) (int, error) {
	if int64(len(b)) > f.open.left {
		return 0, fmt.Errorf("fat: %s: %d bytes more than were announced", f.open.name, int64(len(b))-f.open.left)
	}
	n, err := f.w.WriteAt(b, f.open.at)
	f.open.at += int64(n)
	f.open.left -= int64(n)
	if err != nil {
		err = fmt.Errorf("fat: %s: %w", f.open.name, err)
	}
	return n, err
}

// Close writes the folders and tables, calls sync, and then writes the boot
// sector, which makes all of it readable.
func (f *Writer) Close(sync func() error) error {
	if err := f.whole(); err != nil {
		return err
	}
	if err := f.writeFolder(f.root); err != nil {
		return err
	}
	if err := f.writeTables(); err != nil {
		return err
	}
	boot, info := f.bootSector(), f.infoSector()
	for _, w := range []struct {
		b  []byte
		at int64
	}{{info, infoSector}, {boot, backup}, {info, backup + infoSector}} {
		if _, err := f.w.WriteAt(w.b, w.at*sector); err != nil {
			return fmt.Errorf("fat: %w", err)
		}
	}
	if err := sync(); err != nil {
		return fmt.Errorf("fat: %w", err)
	}
	if _, err := f.w.WriteAt(boot, 0); err != nil {
		return fmt.Errorf("fat: %w", err)
	}
	if err := sync(); err != nil {
		return fmt.Errorf("fat: %w", err)
	}
	return nil
}

func (f *Writer) writeFolder(d *folder) error {
	if int64(len(d.entries)) > f.cluster {
		return fmt.Errorf("fat: more than %d entries in /%s", f.cluster/entrySize, d.name)
	}
	b := make([]byte, f.cluster)
	copy(b, d.entries)
	if _, err := f.w.WriteAt(b, f.offset(d.cluster)); err != nil {
		return fmt.Errorf("fat: %w", err)
	}
	for _, s := range d.folders {
		if err := f.writeFolder(s); err != nil {
			return err
		}
	}
	return nil
}

func (f *Writer) writeTables() error {
	le := binary.LittleEndian
	t := make([]byte, f.fatSize)
	le.PutUint32(t[0:], 0x0ffffff8)
	le.PutUint32(t[4:], endOfChain)
	for _, c := range append(f.chains, chain{rootCluster, 1}) {
		for i := range c.count {
			next := c.first + i + 1
			if i == c.count-1 {
				next = endOfChain
			}
			le.PutUint32(t[(c.first+i)*4:], next)
		}
	}
	for i := range int64(tables) {
		if _, err := f.w.WriteAt(t, f.fat+i*f.fatSize); err != nil {
			return fmt.Errorf("fat: %w", err)
		}
	}
	return nil
}

func (f *Writer) bootSector() []byte {
	le := binary.LittleEndian
	b := make([]byte, sector)
	copy(b, "\xeb\x58\x90BALLAST ")
	le.PutUint16(b[11:], sector)
	b[13] = byte(f.cluster / sector)
	le.PutUint16(b[14:], reserved)
	b[16] = tables
	b[21] = 0xf8 // a disk that is not taken out
	le.PutUint16(b[24:], 63)
	le.PutUint16(b[26:], 255)
	le.PutUint32(b[28:], f.o.Hidden)
	le.PutUint32(b[32:], uint32(f.size/sector))
	le.PutUint32(b[36:], uint32(f.fatSize/sector))
	le.PutUint32(b[44:], rootCluster)
	le.PutUint16(b[48:], infoSector)
	le.PutUint16(b[50:], backup)
	b[64] = 0x80
	b[66] = 0x29
	le.PutUint32(b[67:], f.o.Serial)
	label := f.o.Label
	if label == "" {
		label = "NO NAME"
	}
	copy(b[71:], fmt.Sprintf("%-11s%-8s", label, "FAT32"))
	copy(b[90:], "\xf4\xeb\xfd") // halt: nobody boots from it
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (f *Writer) infoSector() []byte {
	le := binary.LittleEndian
	b := make([]byte, sector)
	le.PutUint32(b[0:], 0x41615252)
	le.PutUint32(b[484:], 0x61417272)
	le.PutUint32(b[488:], f.clusters+rootCluster-f.next)
	le.PutUint32(b[492:], f.next)
	le.PutUint32(b[508:], 0xaa550000)
	return b
}
