// Package fat writes a fresh FAT32 file system with a few files, from streams of
// known length, and reads such a file system: as much of FAT32 as the slots and
// the EFI system partition of a Ballast disk need. Names are 8.3. Files are
// contiguous where it writes, and need not be where it reads.
package fat

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Numbers of the format (Microsoft's FAT specification 1.03).
const (
	sector      = 512
	reserved    = 32 // sectors before the first table
	tables      = 2
	infoSector  = 1
	backup      = 6 // sector with the copy of the boot sector; that of the info sector is behind it
	rootCluster = 2
	entrySize   = 32
	// minClusters is how many make a file system FAT32: with fewer, a reader takes
	// it for FAT16.
	minClusters = 65525
	endOfChain  = 0x0fffffff
	clusterMask = 0x0fffffff
	attrVolume  = 0x08 // of a part of a long name too
	attrDir     = 0x10
	attrFile    = 0x20
	lowBase     = 0x08 // the name is meant in small letters: Windows and Linux show it so
	lowExt      = 0x10
)

// least is how many clusters Create makes at least: some readers err by a few.
// forEach is for how many of a sector plan makes a sector in each table.
const (
	least   = minClusters + 16
	forEach = (256+tables)/2 - tables
)

// MinSize is that of the smallest file system that Create makes.
const MinSize = (reserved + least + tables*((least+forEach-1)/forEach)) * sector

// Options of a new file system.
type Options struct {
	Label  string // at most 11 capitals
	Serial uint32
	Hidden uint32 // sectors of the disk before the file system
	Time   time.Time
}

// ErrNoFile is of a path that does not lead to a file.
var ErrNoFile = errors.New("no such file")

// geometry is where things are.
type geometry struct {
	cluster  int64 // bytes
	fat      int64 // offset of the first table
	fatSize  int64 // bytes of one table
	data     int64 // offset of cluster 2
	clusters uint32
}

// offset is where a cluster lies.
func (g geometry) offset(c uint32) int64 { return g.data + int64(c-rootCluster)*g.cluster }

// plan chooses the largest clusters, up to 4 KiB, of which there are enough.
func plan(size int64) (geometry, error) {
	for per := int64(8); per >= 1; per /= 2 {
		total := size / sector
		// Each cluster has 4 bytes in each table: the spec's formula, which may leave
		// a table a sector too long.
		fatSectors := (total - reserved + (256*per+tables)/2 - 1) / ((256*per + tables) / 2)
		clusters := (total - reserved - tables*fatSectors) / per
		if clusters >= least {
			return geometry{
				cluster: per * sector, fat: reserved * sector, fatSize: fatSectors * sector,
				data: (reserved + tables*fatSectors) * sector, clusters: uint32(clusters),
			}, nil
		}
	}
	return geometry{}, fmt.Errorf("fat: %d bytes are too few for FAT32: want at least %d", size, MinSize)
}

// shortName is the 11 bytes of a directory entry, and the byte that says which
// half is in small letters.
func shortName(name string) (b [11]byte, low byte, err error) {
	base, ext, _ := strings.Cut(name, ".")
	for i := range b {
		b[i] = ' '
	}
	if len(base) < 1 || len(base) > 8 || len(ext) > 3 || strings.HasSuffix(name, ".") {
		return b, 0, fmt.Errorf("fat: name %q: want 1 to 8 characters, and after a dot at most 3", name)
	}
	for i, half := range []string{base, ext} {
		upper := strings.ToUpper(half)
		for _, c := range []byte(upper) {
			if !(c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '~') {
				return b, 0, fmt.Errorf("fat: name %q: want letters, digits, - and _", name)
			}
		}
		copy(b[8*i:], upper)
		if half != upper {
			if half != strings.ToLower(half) {
				return b, 0, fmt.Errorf("fat: name %q: want small letters or capitals, not both", name)
			}
			low |= []byte{lowBase, lowExt}[i]
		}
	}
	return b, low, nil
}

// ValidPath reports whether a file can have this path: names of at most eight
// characters and three, as shortName takes them.
func ValidPath(name string) bool {
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if _, _, err := shortName(part); err != nil {
			return false
		}
	}
	return true
}

// dosTime is a time in two-second steps since 1980, in UTC.
func dosTime(t time.Time) (date, clock uint16) {
	t = t.UTC()
	if t.Year() < 1980 || t.Year() > 2107 {
		return 1<<5 | 1, 0 // the first of January 1980
	}
	return uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day()), uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
}
