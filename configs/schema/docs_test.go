package schema

import (
	"os"
	"strings"
	"testing"
)

const manual = "../../docs/configuration.md"

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
