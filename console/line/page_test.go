package line

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	numbered := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "line %d\n", i+1)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, text, keys string
		last, not        string // what is shown last, and what not at all
		err              error
	}{
		{"fits", numbered(9), "", "line 9", "more", nil},
		{"one too many", numbered(10), "q", "line 9", "line 10", nil},
		{"page", numbered(30), " q", "line 18", "line 19", nil},
		{"to the end", numbered(20), "  ", "line 20", "", nil},
		{"line by line", numbered(30), "\r\x1b[Bjq", "line 12", "line 13", nil},
		{"to the last", numbered(30), "G", "line 30", "line 15", nil},
		{"back", numbered(30), " bq", "line 9", "line 19", nil},
		{"up", numbered(30), "  \x1b[Aq", "line 26", "line 28", nil},
		{"to the first", numbered(30), "  gq", "line 9", "", nil},
		{"search", numbered(30), "/NE 17\rq", "line 25", "line 26", nil},
		{"search again", numbered(300), "/7\rnnq", "line 35", "line 36", nil},
		{"search given up", numbered(30), "/NE 17\x03q", "", "line 10", nil},
		{"not there", numbered(30), "/zebra\rq", "not found further down", "line 10", nil},
		{"nothing to search", numbered(30), "nq", "nothing was searched for: /TEXT", "", nil},
		{"ctrl-c", numbered(30), "\x03", "line 9", "line 10", nil},
		{"gone", numbered(30), "", "line 9", "line 10", ErrEnd},
		{"help", numbered(30), "hq", "space page", "line 10", nil},
		{"long lines", strings.Repeat(strings.Repeat("x", 200)+"\n", 10), "q", "xxx", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			e := New(feed(c.keys), &out)
			if err := e.Page(context.Background(), c.text, 10); !errors.Is(err, c.err) {
				t.Errorf("ended with %v", err)
			}
			got := strings.TrimRight(shown(out.String()), " \n")
			rows := strings.Split(got, "\n")
			if last := rows[len(rows)-1]; !strings.HasPrefix(last, c.last) || c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("shows\n%s\nwant it to end in %q, and no %q", got, c.last, c.not)
			}
			if strings.Contains(out.String(), "\x1b") || strings.Contains(strings.ReplaceAll(out.String(), "\r\n", ""), "\n") {
				t.Errorf("screen %q", out.String())
			}
			if c.name == "long lines" && len(rows) != 3 { // three rows each of nine
				t.Errorf("%d long lines on a screen", len(rows))
			}
		})
	}
}
