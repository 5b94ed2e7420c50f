package configs

import "slices"

// Conflict is a place that two texts changed in different ways: lines of the
// text that both came from (Line counts from 1), and what became of them.
type Conflict struct {
	Line              int
	Was, Ours, Theirs string
}

// Merge3 puts what changed from base to theirs into ours, which came from base
// too, line by line. Where both changed the same lines, or lines next to each
// other, in different ways, there is a conflict, and no text.
func Merge3(base, ours, theirs string) (string, []Conflict) {
	switch {
	case base == theirs || ours == theirs:
		return ours, nil
	case base == ours:
		return theirs, nil
	}
	b := splitLines(base)
	a, t := changes(b, splitLines(ours)), changes(b, splitLines(theirs))
	var out []string
	var conflicts []Conflict
	at := 0 // lines of base that are done
	for len(a) > 0 || len(t) > 0 {
		// The next region: the first change, and all that touch it.
		from := len(b)
		if len(a) > 0 {
			from = a[0].from
		}
		if len(t) > 0 {
			from = min(from, t[0].from)
		}
		to := from
		var mine, other []lineChange
		for grown := true; grown; {
			grown = false
			for len(a) > 0 && a[0].from <= to {
				mine, to, a, grown = append(mine, a[0]), max(to, a[0].to), a[1:], true
			}
			for len(t) > 0 && t[0].from <= to {
				other, to, t, grown = append(other, t[0]), max(to, t[0].to), t[1:], true
			}
		}
		out = append(out, b[at:from]...)
		at = to
		x, y := region(b, from, to, mine), region(b, from, to, other)
		switch {
		case len(other) == 0 || slices.Equal(x, y):
			out = append(out, x...)
		case len(mine) == 0:
			out = append(out, y...)
		default:
			conflicts = append(conflicts, Conflict{Line: from + 1, Was: together(b[from:to]), Ours: together(x), Theirs: together(y)})
		}
	}
	if len(conflicts) > 0 {
		return "", conflicts
	}
	return together(append(out, b[at:]...)), nil
}

// lineChange says that lines from to to became others.
type lineChange struct {
	from, to int
	lines    []string
}

// changes is how y came from x.
func changes(x, y []string) (list []lineChange) {
	// Texts are alike but for a few places: only what lies between the first
	// and the last difference is compared.
	head := 0
	for n := min(len(x), len(y)); head < n && x[head] == y[head]; {
		head++
	}
	tail := 0
	for n := min(len(x), len(y)) - head; tail < n && x[len(x)-1-tail] == y[len(y)-1-tail]; {
		tail++
	}
	x, y = x[head:len(x)-tail], y[head:len(y)-tail]
	i, j := 0, 0
	for _, k := range append(common(x, y), [2]int{len(x), len(y)}) {
		if k[0] > i || k[1] > j {
			list = append(list, lineChange{head + i, head + k[0], y[j:k[1]]})
		}
		i, j = k[0]+1, k[1]+1
	}
	return list
}

// region is what became of lines from to to.
func region(b []string, from, to int, list []lineChange) (out []string) {
	for _, c := range list {
		out = append(append(out, b[from:c.from]...), c.lines...)
		from = c.to
	}
	return append(out, b[from:to]...)
}

func together(lines []string) string {
	n := 0
	for _, l := range lines {
		n += len(l)
	}
	out := make([]byte, 0, n)
	for i, l := range lines {
		out = append(out, l...)
		if i+1 < len(lines) && len(l) > 0 && l[len(l)-1] != '\n' { // the last line of one text, in the middle of another
			out = append(out, '\n')
		}
	}
	return string(out)
}
