package configs

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestMerge3(t *testing.T) {
	lines := func(s string) string { return strings.Join(strings.Fields(s), "\n") + "\n" }
	for _, tc := range []struct{ base, ours, theirs, want string }{
		{"a b c d e", "a B c d e", "a b c D e", "a B c D e"},
		{"a b c d e", "b c d e", "a b c d e f", "b c d e f"},
		{"a b c", "a b c", "a x c", "a x c"},
		{"a b c", "a x c", "a b c", "a x c"},
		{"a b c", "a x c", "a x c", "a x c"},
		{"a b c d e", "a x c d e", "a x c D e", "a x c D e"},
		{"a b c d", "x a b c d", "a b c d", "x a b c d"},
		{"a b c d e f", "a b c d e f g", "z a b c d e f", "z a b c d e f g"},
		{"a b c", "a x c", "a y c", ""},
		{"a b c d", "a B c d", "a b C d", ""}, // next to each other: somebody should look
		{"a b c d", "a d", "a b X d", ""},
		{"a b", "a b x", "a b y", ""},
	} {
		got, conflicts := Merge3(lines(tc.base), lines(tc.ours), lines(tc.theirs))
		want := ""
		if tc.want != "" {
			want = lines(tc.want)
		}
		if got != want || (len(conflicts) > 0) != (want == "") {
			t.Errorf("%s: %s and %s: %q, want %q; %+v", tc.base, tc.ours, tc.theirs, got, want, conflicts)
		}
	}
	_, conflicts := Merge3("a\nb\nc\n", "a\nx\nc\n", "a\ny\nc\n")
	if want := (Conflict{2, "b\n", "x\n", "y\n"}); len(conflicts) != 1 || conflicts[0] != want {
		t.Errorf("%+v, want %+v", conflicts, want)
	}
	if got, _ := Merge3("a\nb", "x\nb", "a\nb\nc\n"); got != "" && got != "x\nb\nc\n" {
		t.Errorf("without an end of line: %q", got)
	}
}

// Changes that do not touch each other are both in the result, whichever of the
// two texts is ours.
func TestMerge3IsSymmetric(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(from []string) string {
		out := append([]string{}, from...)
		for range 1 + r.IntN(3) {
			i := r.IntN(len(out))
			switch r.IntN(3) {
			case 0:
				out[i] = out[i][:1] + string(rune('A'+r.IntN(26))) + "\n"
			case 1:
				out = append(out[:i], out[i+1:]...)
			default:
				out = append(out[:i+1], append([]string{string(rune('a'+r.IntN(26))) + "\n"}, out[i+1:]...)...)
			}
		}
		return strings.Join(out, "")
	}
	merged := 0
	for range 3000 {
		var base []string
		for range 5 + r.IntN(20) {
			base = append(base, string(rune('a'+r.IntN(26)))+"\n")
		}
		b := strings.Join(base, "")
		x, y := pick(base), pick(base)
		one, c1 := Merge3(b, x, y)
		two, c2 := Merge3(b, y, x)
		if one != two || len(c1) != len(c2) {
			t.Fatalf("%q: %q and %q: %q %v, the other way %q %v", b, x, y, one, c1, two, c2)
		}
		if len(c1) == 0 {
			merged++
		}
	}
	if merged < 500 {
		t.Errorf("only %d of 3000 merged", merged)
	}
}
