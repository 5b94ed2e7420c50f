package dialog

import (
	"strings"
	"testing"

	"ballast/configs/model"
)

// TestRoom: what is kept for a regex is counted, bounded over all dialogs, and
// given back; the regex over much of it is left to End.
func TestRoom(t *testing.T) {
	rule, err := NewRule(&model.URL{Path: "/", Regex: "needle"})
	if err != nil {
		t.Fatal(err)
	}
	const head = "HTTP/1.0 200 OK\r\n\r\n"
	hear := func(body string) Dialog {
		d := HTTP1(nil, &rule)
		d.Hear([]byte(head))
		for len(body) > 0 {
			n := min(len(body), 10000)
			if _, done := d.Hear([]byte(body[:n])); done {
				break
			}
			body = body[n:]
		}
		return d
	}
	before := texts.Load()
	long := strings.Repeat("hay", maxRegex/3-10) + "needle" + strings.Repeat("hay", 100)
	d := hear(long)
	if held := texts.Load() - before; held != maxRegex || !Heavy(d) {
		t.Errorf("holds %d bytes, heavy %t", held, Heavy(d))
	}
	if ok, why := d.End(); !ok || Heavy(d) {
		t.Errorf("%t %s, heavy still %t", ok, why, Heavy(d))
	}
	Release(d)
	Release(d)
	if d := hear("needle"); Heavy(d) {
		t.Error("a short answer is heavy")
	} else if Release(d); texts.Load() != before {
		t.Errorf("%d bytes are not given back", texts.Load()-before)
	}
	texts.Add(maxTexts - before - 50000)
	defer func() { texts.Store(before) }()
	d = hear(long)
	if ok, why := d.End(); ok || !Starved(d) || !strings.HasPrefix(why, "answers that a regex waits for hold 64 MiB") {
		t.Errorf("%t %q, starved %t", ok, why, Starved(d))
	}
	Release(d)
	if left := texts.Load(); left != maxTexts-50000 {
		t.Errorf("%d bytes are held, want %d", left, maxTexts-50000)
	}
}
