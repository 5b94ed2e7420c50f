package gpt

import (
	"fmt"
)

// align is where partitions begin and end, in sectors: whole MiB.
const align = (1 << 20) / Sector

// wiped is how much of a new partition is written with zeros before it exists: on
// a disk that was used before, something lies there that is nobody's now.
const wiped = 1 << 20

// Rest is the partition that is to have the rest of a disk.
type Rest struct {
	Number int
	Name   string
	Type   GUID
	Least  int64 // bytes that it must have
}

// Fill lets the last partition have the rest of a disk of so many bytes, and puts
// the copy of the table to its end: what a disk needs that an image was written
// to which is shorter, or whose content came from a smaller one. A partition that
// is there grows and keeps all; one that is not is made, and its beginning is blank.
// Whenever the power goes, one copy is whole, and Fill may be called again. It
// returns the table, and whether it is another one than before.
func Fill(d Device, size int64, r Rest) (*Table, bool, error) {
	t, err := Read(d, size)
	if err != nil {
		return nil, false, err
	}
	fresh, grown, err := t.fill(size, r)
	if err != nil {
		return nil, false, err
	}
	if fresh {
		p, _ := t.Find(r.Number)
		_, err := d.WriteAt(make([]byte, wiped), p.Offset())
		if err == nil {
			err = d.Sync()
		}
		if err != nil {
			return nil, false, fmt.Errorf("gpt: wipe the beginning of partition %d: %w", r.Number, err)
		}
	}
	changed := fresh || grown || t.FromBackup || t.Sectors != uint64(size/Sector)
	if err := t.Write(d, size); err != nil { // what is there already is not written
		return nil, false, err
	}
	t.Sectors, t.FromBackup = uint64(size/Sector), false
	return t, changed, nil
}

// fill changes the table.
func (t *Table) fill(size int64, r Rest) (fresh, grown bool, err error) {
	end := (Last(size)+1)/align*align - 1 // of the last whole MiB
	behind := uint64(0)                   // the last sector of the others
	at := -1
	for i, p := range t.Partitions {
		if p.Number == r.Number {
			at = i
		} else {
			behind = max(behind, p.Last)
		}
	}
	if behind > Last(size) {
		return false, false, fmt.Errorf("gpt: a disk of %d MiB is smaller than the one that its table was made for", size>>20)
	}
	if at < 0 {
		p := Partition{Number: r.Number, Type: r.Type, GUID: RandomGUID(), Start: (behind + align) / align * align, Last: end, Name: r.Name}
		if p.Start > end || p.Size() < r.Least {
			return false, false, fmt.Errorf("gpt: no room for partition %d, %s: it needs %d MiB behind the others, on a disk of %d", r.Number, r.Name, r.Least>>20, size>>20)
		}
		t.Partitions = append(t.Partitions, p)
		return true, false, nil
	}
	p := &t.Partitions[at]
	switch {
	case p.Name != r.Name:
		return false, false, fmt.Errorf("gpt: partition %d is called %q and not %q: it is left alone", r.Number, p.Name, r.Name)
	case p.Last > Last(size):
		return false, false, fmt.Errorf("gpt: a disk of %d MiB is smaller than the one that its table was made for", size>>20)
	case p.Start > behind && p.Last < end:
		p.Last = end
		return false, true, nil
	}
	return false, false, nil
}
