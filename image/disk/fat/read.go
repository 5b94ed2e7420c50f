package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// FS is a FAT32 file system that is read.
type FS struct {
	r io.ReaderAt
	geometry
	Serial uint32
}

// maxFolder bounds the clusters of a folder that are looked at, maxFiles the
// files and folders that are listed.
const (
	maxFolder = 64
	maxFiles  = 100
)

// deleted is the first byte of an entry that is gone.
const deleted = 0xe5

// Open looks at the file system of at most size bytes at the beginning of r.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	b := make([]byte, sector)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("fat: read the boot sector: %w", err)
	}
	le := binary.LittleEndian
	if b[510] != 0x55 || b[511] != 0xaa || string(b[82:87]) != "FAT32" {
		return nil, errors.New("fat: this is no FAT32 file system")
	}
	per, reserved, tables := int64(b[13]), int64(le.Uint16(b[14:])), int64(b[16])
	total, fatSectors := int64(le.Uint32(b[32:])), int64(le.Uint32(b[36:]))
	if le.Uint16(b[11:]) != sector || per == 0 || per&(per-1) != 0 || reserved == 0 || tables == 0 || fatSectors == 0 ||
		le.Uint32(b[44:]) != rootCluster || total*sector > size {
		return nil, errors.New("fat: the boot sector is damaged, or of a form that is not written here")
	}
	g := geometry{cluster: per * sector, fat: reserved * sector, fatSize: fatSectors * sector, data: (reserved + tables*fatSectors) * sector}
	if total*sector < g.data+g.cluster {
		return nil, errors.New("fat: the boot sector is damaged: no room for files")
	}
	// A table that is shorter than the files' room ends it.
	g.clusters = uint32(min((total*sector-g.data)/g.cluster, g.fatSize/4-rootCluster))
	return &FS{r: r, geometry: g, Serial: le.Uint32(b[67:])}, nil
}

// window is a piece of the first table that was read.
type window struct {
	at int64
	b  []byte
}

// following is the cluster behind c, 0 at the end of the chain.
func (f *FS) following(w *window, c uint32) (uint32, error) {
	at := int64(c) * 4
	if at < w.at || at >= w.at+int64(len(w.b)) {
		w.at = at &^ (sector - 1)
		w.b = make([]byte, min(8*sector, f.fatSize-w.at))
		if _, err := f.r.ReadAt(w.b, f.fat+w.at); err != nil {
			w.b = nil
			return 0, fmt.Errorf("fat: read the table: %w", err)
		}
	}
	n := binary.LittleEndian.Uint32(w.b[at-w.at:]) & clusterMask
	if n >= 0x0ffffff8 {
		return 0, nil
	}
	return n, f.valid(n)
}

func (f *FS) valid(c uint32) error {
	if c < rootCluster || c >= f.clusters+rootCluster {
		return fmt.Errorf("fat: damaged: cluster %d of %d", c, f.clusters)
	}
	return nil
}

// each calls fn with the entries of the folder that begins at a cluster, until it
// returns true.
func (f *FS) each(folder uint32, fn func(e []byte) bool) error {
	b := make([]byte, f.cluster)
	var w window
	for range maxFolder {
		if _, err := f.r.ReadAt(b, f.offset(folder)); err != nil {
			return fmt.Errorf("fat: read a folder: %w", err)
		}
		for e := b; len(e) >= entrySize; e = e[entrySize:] {
			if e[0] == 0 {
				return nil
			}
			if e[0] != deleted && e[11]&attrVolume == 0 && fn(e[:entrySize:entrySize]) {
				return nil
			}
		}
		var err error
		if folder, err = f.following(&w, folder); err != nil || folder == 0 {
			return err
		}
	}
	return errors.New("fat: damaged: a folder without end")
}

// find looks a name up in the folder that begins at a cluster.
func (f *FS) find(folder uint32, name string) ([]byte, error) {
	want, _, err := shortName(name)
	if err != nil {
		return nil, err
	}
	var found []byte
	err = f.each(folder, func(e []byte) bool {
		if [11]byte(e[:11]) == want {
			found = bytes.Clone(e)
		}
		return found != nil
	})
	if err == nil && found == nil {
		err = ErrNoFile
	}
	return found, err
}

// firstCluster and fileSize are fields of an entry.
func firstCluster(e []byte) uint32 {
	return uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:]))
}

func fileSize(e []byte) int64 { return int64(binary.LittleEndian.Uint32(e[28:])) }

// longName is the name of an entry as it was meant.
func longName(e []byte) string {
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if e[12]&lowBase != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&lowExt != 0 {
		ext = strings.ToLower(ext)
	}
	if ext == "" {
		return base
	}
	return base + "." + ext
}

// Files returns the paths of all files, in the order of the folders.
func (f *FS) Files() ([]string, error) {
	l := lister{fs: f, left: maxFiles}
	err := l.folder(rootCluster, "")
	return l.names, err
}

// lister collects names. Folders that lead back to themselves end it as too
// many files do.
type lister struct {
	fs    *FS
	left  int
	names []string
}

func (l *lister) folder(first uint32, path string) error {
	var err error
	ferr := l.fs.each(first, func(e []byte) bool {
		if e[0] == '.' {
			return false
		}
		name := path + "/" + longName(e)
		if l.left--; l.left < 0 {
			err = fmt.Errorf("fat: more than %d files and folders", maxFiles)
		} else if e[11]&attrDir == 0 {
			l.names = append(l.names, name)
		} else if err = l.fs.valid(firstCluster(e)); err == nil {
			err = l.folder(firstCluster(e), name)
		}
		return err != nil
	})
	return errors.Join(err, ferr)
}

// File is one that is read.
type File struct {
	Size int64

	fs    *FS
	table window
	at    uint32 // cluster of the next byte
	rest  []byte // of the cluster that was read
	left  int64
	err   error
	buf   []byte
}

// Open finds a file by its path.
func (f *FS) Open(name string) (*File, error) {
	c := uint32(rootCluster)
	parts := strings.Split(strings.Trim(name, "/"), "/")
	for i, part := range parts {
		e, err := f.find(c, part)
		if err != nil {
			return nil, fmt.Errorf("fat: %s: %w", name, err)
		}
		c = firstCluster(e)
		last := i == len(parts)-1
		if dir := e[11]&attrDir != 0; dir == last {
			return nil, fmt.Errorf("fat: %s: %w", name, ErrNoFile)
		}
		size := fileSize(e)
		if last && size == 0 {
			return &File{fs: f}, nil
		}
		if err := f.valid(c); err != nil {
			return nil, fmt.Errorf("%w: %s", err, name)
		}
		if last {
			if size > int64(f.clusters)*f.cluster {
				return nil, fmt.Errorf("fat: damaged: %s has %d bytes, the file system less", name, size)
			}
			return &File{Size: size, fs: f, at: c, left: size}, nil
		}
	}
	return nil, ErrNoFile // not reached: there is at least one part
}

// Offset is where the first byte of a file lies in the file system. Only the
// bytes up to the end of its first sector are known to follow it.
func (f *File) Offset() (int64, error) {
	if f.Size == 0 || f.left != f.Size {
		return 0, errors.New("fat: a file that is empty or partly read has no first byte")
	}
	return f.fs.offset(f.at), nil
}

// Contiguous tells whether all of a file follows its first byte, as Writer
// writes it. It reads the table, and nothing of the file.
func (f *File) Contiguous() error {
	if _, err := f.Offset(); err != nil {
		return err
	}
	var w window
	c := f.at
	for left := f.Size - f.fs.cluster; left > 0; left -= f.fs.cluster {
		n, err := f.fs.following(&w, c)
		if err != nil {
			return err
		}
		if n != c+1 {
			return errors.New("fat: the file is in pieces, or cut")
		}
		c = n
	}
	return nil
}

// readAhead is how much of a file is asked for at once where it is contiguous.
const readAhead = 256 << 10

// Read implements io.Reader.
func (f *File) Read(to []byte) (int, error) {
	if len(f.rest) == 0 && f.err == nil && f.left > 0 {
		f.err = f.fill()
	}
	if len(f.rest) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		return 0, io.EOF
	}
	n := copy(to, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// fill reads the clusters that follow one another.
func (f *File) fill() error {
	if f.at == 0 {
		return fmt.Errorf("fat: damaged: a file ends %d bytes early", f.left)
	}
	if f.buf == nil {
		f.buf = make([]byte, max(readAhead, f.fs.cluster))
	}
	first, n := f.at, int64(0)
	for n+f.fs.cluster <= int64(len(f.buf)) && n < f.left {
		next, err := f.fs.following(&f.table, f.at)
		if err != nil {
			return err
		}
		n += f.fs.cluster
		contiguous := next == f.at+1
		f.at = next
		if !contiguous {
			break
		}
	}
	n = min(n, f.left)
	if _, err := f.fs.r.ReadAt(f.buf[:n], f.fs.offset(first)); err != nil {
		return fmt.Errorf("fat: %w", err)
	}
	f.rest = f.buf[:n]
	f.left -= n
	return nil
}
