package configs

import (
	"fmt"
	"slices"
	"strings"
)

// maxEdits bounds the search for the smallest difference. Texts further apart
// are shown as wholly replaced between their common start and end.
const maxEdits = 1000

// around is how many unchanged lines a difference shows around a changed one.
const around = 3

// Diff is the unified difference of two texts, from a to b, with three lines
// of context; empty when they are equal.
func Diff(a, b string) string {
	if a == b {
		return ""
	}
	// Only what is between the first and the last difference is split into
	// lines, and three lines on both sides of it: texts have megabytes.
	head := 0
	for n := min(len(a), len(b)); head < n && a[head] == b[head]; {
		head++
	}
	head = strings.LastIndexByte(a[:head], '\n') + 1
	tail := 0
	for n := min(len(a), len(b)) - head; tail < n && a[len(a)-1-tail] == b[len(b)-1-tail]; {
		tail++
	}
	if whole := func(s string) bool { at := len(s) - tail; return at == head || s[at-1] == '\n' }; !whole(a) || !whole(b) {
		n := strings.IndexByte(a[len(a)-tail:], '\n')
		tail = max(tail-n-1, 0)
		if n < 0 {
			tail = 0
		}
	}
	before, after := head, len(a)-tail
	for range around {
		before = strings.LastIndexByte(a[:max(before-1, 0)], '\n') + 1
		if n := strings.IndexByte(a[after:], '\n'); n >= 0 {
			after += n + 1
		} else {
			after = len(a)
		}
	}
	x, y := splitLines(a[head:len(a)-tail]), splitLines(b[head:len(b)-tail])
	keep := common(x, y)
	// ops is the edit script, line by line.
	type op struct {
		kind byte
		text string
	}
	var ops []op
	for _, l := range splitLines(a[before:head]) {
		ops = append(ops, op{' ', l})
	}
	i, j := 0, 0
	for _, k := range append(keep, [2]int{len(x), len(y)}) {
		for ; i < k[0]; i++ {
			ops = append(ops, op{'-', x[i]})
		}
		for ; j < k[1]; j++ {
			ops = append(ops, op{'+', y[j]})
		}
		if i < len(x) && j < len(y) {
			ops = append(ops, op{' ', x[i]})
			i++
			j++
		}
	}
	for _, l := range splitLines(a[len(a)-tail : after]) {
		ops = append(ops, op{' ', l})
	}

	var out strings.Builder
	out.WriteString("--- running\n+++ candidate\n")
	lineX := 1 + strings.Count(a[:before], "\n")
	lineY := lineX
	for n := 0; n < len(ops); {
		if ops[n].kind == ' ' {
			n++
			lineX++
			lineY++
			continue
		}
		from := max(n-around, 0)
		// The hunk ends where more than twice the context is unchanged.
		to, same := n, 0
		for m := n; m < len(ops) && same <= 2*around; m++ {
			if ops[m].kind == ' ' {
				same++
			} else {
				same, to = 0, m+1
			}
		}
		to = min(to+around, len(ops))
		hunkX, hunkY := lineX-(n-from), lineY-(n-from)
		var body strings.Builder
		countX, countY := 0, 0
		for m := from; m < to; m++ {
			o := ops[m]
			if o.kind != '+' {
				countX++
			}
			if o.kind != '-' {
				countY++
			}
			body.WriteByte(o.kind)
			body.WriteString(strings.TrimSuffix(o.text, "\n"))
			body.WriteByte('\n')
			if !strings.HasSuffix(o.text, "\n") {
				body.WriteString("\\ No newline at end of file\n")
			}
		}
		if countX == 0 {
			hunkX--
		}
		if countY == 0 {
			hunkY--
		}
		fmt.Fprintf(&out, "@@ -%d,%d +%d,%d @@\n%s", hunkX, countX, hunkY, countY, body.String())
		for ; n < to; n++ {
			if ops[n].kind != '+' {
				lineX++
			}
			if ops[n].kind != '-' {
				lineY++
			}
		}
	}
	return out.String()
}

func splitLines(s string) []string {
	l := strings.SplitAfter(s, "\n")
	if l[len(l)-1] == "" {
		l = l[:len(l)-1]
	}
	return l
}

// common finds the lines that x and y share, as pairs of indexes, by Myers'
// greedy search (An O(ND) Difference Algorithm, 1986). No pairs when the texts
// are further apart than maxEdits.
func common(x, y []string) [][2]int {
	limit := min(len(x)+len(y), maxEdits)
	// reach[d][k+d] is how far into x the path of d edits on diagonal k gets.
	var reach [][]int32
	get := func(d, k int) int {
		if k < -d || k > d {
			return -1
		}
		return int(reach[d][k+d])
	}
	// from picks the diagonal that a path of d edits came from, and where its
	// edit leaves it in x.
	from := func(d, k int) (prev, start int) {
		if k == -d || k != d && get(d-1, k-1) < get(d-1, k+1) {
			return k + 1, get(d-1, k+1) // a line of y was added
		}
		return k - 1, get(d-1, k-1) + 1 // a line of x was deleted
	}
	for d := 0; d <= limit; d++ {
		row := make([]int32, 2*d+1)
		for k := -d; k <= d; k += 2 {
			i := 0
			if d > 0 {
				_, i = from(d, k)
			}
			for i < len(x) && i-k < len(y) && x[i] == y[i-k] {
				i++
			}
			row[k+d] = int32(i)
			if i < len(x) || i-k < len(y) {
				continue
			}
			// Walk back and collect the lines of the diagonals.
			var out [][2]int
			for j := i - k; ; d-- {
				prev, start := k, 0
				if d > 0 {
					prev, start = from(d, k)
				}
				for i > start {
					i--
					j--
					out = append(out, [2]int{i, j})
				}
				if d == 0 {
					slices.Reverse(out)
					return out
				}
				if prev < k {
					i--
				} else {
					j--
				}
				k = prev
			}
		}
		reach = append(reach, row)
	}
	return nil
}
