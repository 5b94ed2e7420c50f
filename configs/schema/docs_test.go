package schema

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"ballast/test/golden"

	"github.com/google/go-cmp/cmp"
)

const manual = "../../docs/configuration.md"

// withoutEffect is the table of the keywords of a status: by reason, in the
// order of the rows.
func withoutEffect(status Status) string {
	var reasons []string
	words := map[string][]string{}
	for i := range Keywords() {
		k := &Keywords()[i]
		if k.Status != status {
			continue
		}
		if words[k.Reason] == nil {
			reasons = append(reasons, k.Reason)
		}
		for n, name := range append([]string{k.Name}, k.Aliases...) {
			text := "`" + name + "`"
			if n == len(k.Aliases) && !slices.Equal(k.In, []string{""}) && !slices.Equal(k.In, []string{"global_defs"}) {
				text += " (" + strings.Join(k.In, ", ") + ")"
			}
			words[k.Reason] = append(words[k.Reason], text)
		}
	}
	var b strings.Builder
	b.WriteString("| keywords | why |\n|---|---|\n")
	for _, r := range reasons {
		fmt.Fprintf(&b, "| %s | %s |\n", strings.Join(words[r], ", "), r)
	}
	return b.String()
}

// TestManualWithoutEffect holds the manual's tables of keywords that have no
// effect, or are not implemented, against the rows; -update writes them anew.
func TestManualWithoutEffect(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		heading string
		status  Status
	}{{"### Keywords without effect", NoEffect}, {"### Keywords that are not implemented", Planned}} {
		head, rest, ok := strings.Cut(string(text), "\n"+c.heading+"\n")
		at := strings.Index(rest, "\n| ")
		end := strings.Index(rest, "|\n\n")
		if !ok || at < 0 || end < at {
			t.Fatalf("%s has no %q with a table", manual, c.heading)
		}
		got, want := rest[at+1:end+2], withoutEffect(c.status)
		if golden.Update() {
			text = []byte(head + "\n" + c.heading + "\n" + rest[:at+1] + want + rest[end+2:])
			continue
		}
		if d := cmp.Diff(got, want); d != "" {
			t.Errorf("%s, %s (-update accepts):\n%s", manual, c.heading, d)
		}
	}
	if golden.Update() {
		if err := os.WriteFile(manual, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestManualOwnKeywords: the manual names each keyword of the appliance's own.
func TestManualOwnKeywords(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	for i := range Keywords() {
		k := &Keywords()[i]
		if k.Class == 'O' && !strings.Contains(string(text), "`"+k.Name) && !strings.Contains(string(text), "\n    "+k.Name) && !strings.Contains(string(text), "\n        "+k.Name) {
			t.Errorf("%s does not name %s of %s", manual, k.Name, strings.Join(k.In, ", "))
		}
	}
}
