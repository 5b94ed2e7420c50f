package locked

import (
	"fmt"
	"testing"
)

// A bounded buffer keeps the first, and takes the rest as a writer should.
func TestMax(t *testing.T) {
	b := Buffer{Max: 5}
	for range 3 {
		if n, err := fmt.Fprint(&b, "abc"); n != 3 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	if got := b.String(); got != "abcab" {
		t.Errorf("it keeps %q", got)
	}
	b.Reset()
	fmt.Fprint(&b, "xyz")
	if got := b.String(); got != "xyz" {
		t.Errorf("anew it keeps %q", got)
	}
}
