package bind

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/configs/schema"
)

// TestEveryRowIsBound: a keyword that is said to work is read by the binder,
// and the binder reads no keyword that has no row.
func TestEveryRowIsBound(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(text)
	}
	// These are the whole line, or their being there is all that they say.
	elsewhere := map[string]bool{"include": true, "preempt": true, "auth_pass": true, "key": true, "id": true, "sctp": true, "udp": true, "fwmark": true}
	for _, k := range schema.Keywords() {
		if k.Status != schema.Works || len(k.In) == 0 || strings.HasSuffix(k.Block, "-line") || elsewhere[k.Name] {
			continue
		}
		if !strings.Contains(source.String(), `"`+k.Name+`"`) {
			t.Errorf("%s %s is said to work, and nothing reads it", k.Block, k.Name)
		}
	}
}
