package bootenv

import (
	"bytes"
	"strings"
	"testing"

	"ballast/image/layout"
)

func TestRoundTrip(t *testing.T) {
	for _, e := range []Env{Default, Default.Trial(layout.B), {Good: layout.B, Try: layout.A, Left: 1}, Default.Trial(layout.B).Confirm(layout.B)} {
		b := e.Bytes()
		if len(b) != Size {
			t.Errorf("%+v: %d bytes", e, len(b))
		}
		if n := len(bytes.TrimRight(b, "#")); n > Sector {
			t.Errorf("%+v: %d bytes that count do not fit into a sector", e, n)
		}
		got, err := Parse(b)
		if err != nil || got != e {
			t.Errorf("%+v came back as %+v, %v", e, got, err)
		}
		if got, err := Parse(b[:Sector]); err != nil || got != e {
			t.Errorf("first sector of %+v: %+v, %v", e, got, err)
		}
	}
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		e    Env
		want layout.Slot
	}{
		{Default, layout.A},
		{Default.Trial(layout.B), layout.B},
		{Env{Good: layout.A, Try: layout.B}, layout.A}, // no attempt left
		{Default.Trial(layout.B).Reject(), layout.A},
		{Default.Trial(layout.B).Confirm(layout.B), layout.B},
	} {
		if got := c.e.Next(); got != c.want {
			t.Errorf("%+v starts %q, want %q", c.e, got, c.want)
		}
	}
	if e := Default.Trial(layout.B).Reject(); e != Default {
		t.Errorf("after a trial that failed: %+v", e)
	}
}

func TestParseFaults(t *testing.T) {
	block := func(lines string) []byte {
		return []byte(head + lines + strings.Repeat("#", Size-len(head)-len(lines)))
	}
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{make([]byte, Size), "does not begin"},
		{[]byte(head), "want at least"},
		{block("try=B\nleft=1\n"), "good is missing"},
		{block("good=C\n"), `good is "C"`},
		{block("good=A\ntry=x\n"), `try is "x"`},
		{block("good=A\nleft=9\n"), `left is "9"`},
		{block("good=A\ngood=B\n"), "twice"},
	} {
		if _, err := Parse(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.b[:40], err, c.want)
		}
	}
	if e, err := Parse(block("good=B\nsaved_entry=0\n")); err != nil || e.Good != layout.B {
		t.Errorf("a name of somebody else: %+v, %v", e, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Default.Bytes())
	f.Add(Default.Trial(layout.B).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := Parse(e.Bytes()); err != nil || again != e {
			t.Errorf("%+v came back as %+v, %v", e, again, err)
		}
	})
}
