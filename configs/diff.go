package configs

import (
	"fmt"
	"slices"
	"strings"
)

// maxEdits bounds the search for the smallest difference. Texts further apart
// are shown as wholly replaced between their common start and end.
const maxEdits = 1000

// Diff is the unified difference of two texts, from a to b, with three lines
// of context; empty when they are equal.
func Diff(a, b string) string {
	if a == b {
		return ""
	}
	x, y := splitLines(a), splitLines(b)
	start := 0
	for start < len(x) && start < len(y) && x[start] == y[start] {
		start++
	}
	endX, endY := len(x), len(y)
	for endX > start && endY > start && x[endX-1] == y[endY-1] {
		endX--
		endY--
	}
	keep := common(x[start:endX], y[start:endY])
	// ops is the whole edit script, line by line.
	type op struct {
		kind byte
		text string
	}
	var ops []op
	for _, l := range x[:start] {
		ops = append(ops, op{' ', l})
	}
	i, j := start, start
	for _, k := range append(keep, [2]int{endX - start, endY - start}) {
		for ; i < start+k[0]; i++ {
			ops = append(ops, op{'-', x[i]})
		}
		for ; j < start+k[1]; j++ {
			ops = append(ops, op{'+', y[j]})
		}
		if i < endX && j < endY {
			ops = append(ops, op{' ', x[i]})
			i++
			j++
		}
	}
	for _, l := range x[endX:] {
		ops = append(ops, op{' ', l})
	}

	const context = 3
	var out strings.Builder
	out.WriteString("--- running\n+++ candidate\n")
	lineX, lineY := 1, 1
	for n := 0; n < len(ops); {
		if ops[n].kind == ' ' {
			n++
			lineX++
			lineY++
			continue
		}
		from := max(n-context, 0)
		// The hunk ends where more than twice the context is unchanged.
		to, same := n, 0
		for m := n; m < len(ops) && same <= 2*context; m++ {
			if ops[m].kind == ' ' {
				same++
			} else {
				same, to = 0, m+1
			}
		}
		to = min(to+context, len(ops))
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
