package snmp

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gosnmp/gosnmp"
)

// oid is an object identifier.
type oid []uint32

func parseOID(s string) (oid, bool) {
	s = strings.TrimPrefix(s, ".")
	if s == "" {
		return oid{}, true
	}
	parts := strings.Split(s, ".")
	if len(parts) > maxOID {
		return nil, false
	}
	out := make(oid, 0, len(parts))
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return nil, false
		}
		out = append(out, uint32(n))
	}
	return out, true
}

// maxOID is the greatest number of sub-identifiers (RFC 3416 section 4.1).
const maxOID = 128

func (o oid) String() string {
	var b strings.Builder
	for _, n := range o {
		b.WriteByte('.')
		b.WriteString(strconv.FormatUint(uint64(n), 10))
	}
	return b.String()
}

func (o oid) with(more ...uint32) oid { return append(slices.Clone(o), more...) }

func (o oid) under(root oid) bool { return len(o) >= len(root) && slices.Equal(o[:len(root)], root) }

// value is one variable without its name.
type value struct {
	kind gosnmp.Asn1BER
	v    any
}

func integer(n int) value           { return value{gosnmp.Integer, n} }
func unsigned(n uint64) value       { return value{gosnmp.Gauge32, uint32(min(n, 1<<32-1))} }
func counter32(n uint64) value      { return value{gosnmp.Counter32, uint32(n)} } // it wraps, as counters do
func counter64(n uint64) value      { return value{gosnmp.Counter64, n} }
func text(s string) value           { return value{gosnmp.OctetString, s} }
func octets(b []byte) value         { return value{gosnmp.OctetString, b} }
func object(o oid) value            { return value{gosnmp.ObjectIdentifier, o.String()} }
func ticks(hundredths uint64) value { return value{gosnmp.TimeTicks, uint32(hundredths)} }

// choice is INTEGER { yes(1), no(2) }: enabled, true, set and their like.
func choice(yes bool) value {
	if yes {
		return integer(1)
	}
	return integer(2)
}

// column is one column of a table. get answers for the row at an index of
// table.rows; ok is false where the row has no such instance.
type column struct {
	num uint32
	get func(row int) (v value, ok bool)
}

// always makes a column whose instances all exist.
func always(num uint32, get func(row int) value) column {
	return column{num, func(row int) (value, bool) { return get(row), true }}
}

// table is a conceptual table, or, with the one empty row index and columns
// that end in .0, a group of scalars. Nothing is made before it is asked for: a
// table of 20,000 real servers has 800,000 instances.
type table struct {
	entry   oid
	columns []column // by number
	rows    []oid    // index parts, sorted
}

// scalars makes a group of scalars below root.
func scalars(root oid, columns ...column) table {
	return table{root, columns, []oid{{0}}}
}

// get finds the instance that name names.
func (t *table) get(name oid) (value, bool) {
	if !name.under(t.entry) || len(name) <= len(t.entry) {
		return value{}, false
	}
	c, ok := slices.BinarySearchFunc(t.columns, name[len(t.entry)], func(c column, n uint32) int { return int(int64(c.num) - int64(n)) })
	if !ok {
		return value{}, false
	}
	r, ok := slices.BinarySearchFunc(t.rows, name[len(t.entry)+1:], slices.Compare)
	if !ok {
		return value{}, false
	}
	return t.columns[c].get(r)
}

// next finds the first instance behind name.
func (t *table) next(name oid) (oid, value, bool) {
	c, r := 0, 0
	switch {
	case name.under(t.entry) && len(name) > len(t.entry):
		var exact bool
		c, exact = slices.BinarySearchFunc(t.columns, name[len(t.entry)], func(c column, n uint32) int { return int(int64(c.num) - int64(n)) })
		if exact {
			var same bool
			r, same = slices.BinarySearchFunc(t.rows, name[len(t.entry)+1:], slices.Compare)
			if same {
				r++
			}
		}
	case slices.Compare(name, t.entry) > 0 && !name.under(t.entry):
		return nil, value{}, false // behind the whole table
	}
	for ; c < len(t.columns); c, r = c+1, 0 {
		for ; r < len(t.rows); r++ {
			if v, ok := t.columns[c].get(r); ok {
				return t.entry.with(t.columns[c].num).with(t.rows[r]...), v, true
			}
		}
	}
	return nil, value{}, false
}

// tree is everything that the agent knows, its tables by their entry.
type tree []table

func newTree(tables ...table) tree {
	t := tree(tables)
	slices.SortFunc(t, func(a, b table) int { return slices.Compare(a.entry, b.entry) })
	return t
}

func (t tree) get(name oid) (value, bool) {
	for i := range t {
		if v, ok := t[i].get(name); ok {
			return v, true
		}
	}
	return value{}, false
}

func (t tree) next(name oid) (oid, value, bool) {
	for i := range t {
		if n, v, ok := t[i].next(name); ok {
			return n, v, ok
		}
	}
	return nil, value{}, false
}
