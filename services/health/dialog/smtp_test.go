package dialog

import (
	"strings"
	"testing"
	"time"
)

// converse feeds an answer in pieces and returns what was said and judged.
func converse(d Dialog, in string, size int) string {
	said := string(d.Open())
	for b := []byte(in); len(b) > 0; {
		n := min(size, len(b))
		say, done := d.Hear(b[:n])
		said += string(say)
		if done {
			break
		}
		b = b[n:]
	}
	ok, reason := d.End()
	verdict := "fail "
	if ok {
		verdict = "ok "
	}
	return said + verdict + reason
}

func TestSMTP(t *testing.T) {
	const hello, bye = "HELO lb1\r\n", "QUIT\r\n"
	for _, c := range []struct{ name, in, want string }{
		{"well", "220 mx ready\r\n250 mx\r\n221 bye\r\n", hello + bye + "ok 250 to HELO"},
		{"several lines", "220-mx\r\n220-hello\r\n220 ready\r\n250-mx\r\n250 ok\r\n221-a\r\n221 b\r\n", hello + bye + "ok 250 to HELO"},
		{"bare line feeds", "220 mx\n250 ok\n", hello + bye + "ok 250 to HELO"},
		{"no text", "220\r\n250\r\n", hello + bye + "ok 250 to HELO"},
		{"closed after QUIT", "220 mx\r\n250 ok\r\n", hello + bye + "ok 250 to HELO"},
		{"garbage after QUIT", "220 mx\r\n250 ok\r\n???\r\n", hello + bye + "ok 250 to HELO"},
		{"busy", "421 too busy\r\n", "fail greeting 421, want 220"},
		{"not us", "220 mx\r\n550 who are you\r\n", hello + "fail 550 to HELO, want 250"},
		{"http", "HTTP/1.1 400 Bad\r\n", `fail no SMTP reply code in "HTTP/1.1 400 Bad"`},
		{"long code", "2200 mx\r\n", `fail no SMTP reply code in "2200 mx"`},
		{"closed", "", "fail connection closed without a greeting"},
		{"half a line", "220 mx", "fail connection closed without a greeting"},
		{"closed at HELO", "220 mx\r\n", hello + "fail connection closed without an answer to HELO"},
		{"endless line", strings.Repeat("2", maxReply+1), "fail reply longer than 8 KiB"},
		{"endless reply", strings.Repeat("220-mx\r\n", 2000), "fail reply longer than 8 KiB"},
	} {
		for _, size := range []int{1, 5, 1 << 20} {
			if got := converse(SMTP("lb1"), c.in, size); got != c.want {
				t.Errorf("%s in pieces of %d: %q, want %q", c.name, size, got, c.want)
			}
		}
	}
	d := SMTP("x")
	if ok, why := d.Stalled(time.Second, time.Minute); ok || why != "no greeting within 1s" {
		t.Errorf("%t %s", ok, why)
	}
	d.Hear([]byte("220 mx\r\n"))
	if ok, why := d.Stalled(time.Second, time.Minute); ok || why != "no answer to HELO within 1s" || d.Broken("reset") != "reset instead of an answer to HELO" {
		t.Errorf("%t %s", ok, why)
	}
	d.Hear([]byte("250 ok\r\n"))
	if ok, _ := d.Stalled(time.Second, time.Minute); !ok || !Known(d) {
		t.Error("a server that is slow to say goodbye is well")
	}
	if e := string(d.Evidence()); e != "220 mx\r\n250 ok\r\n" {
		t.Errorf("evidence %q", e)
	}
}

// FuzzSMTP: however a conversation is cut, the verdict is the same, and little
// is held.
func FuzzSMTP(f *testing.F) {
	f.Add([]byte("220-a\r\n220 b\r\n250 c\r\n221 d\r\n"), uint8(3))
	f.Add([]byte("220\n250\n"), uint8(1))
	f.Add([]byte("220 a\r\n5"), uint8(9))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		d := SMTP("x").(*smtp)
		whole := converse(d, string(in), len(in)+1)
		if cap(d.reply) > 4*maxReply {
			t.Errorf("holds %d bytes", cap(d.reply))
		}
		if parts := converse(SMTP("x"), string(in), int(size)+1); parts != whole {
			t.Errorf("whole: %q, in pieces of %d: %q", whole, int(size)+1, parts)
		}
		if strings.Contains(whole, "ok ") && !strings.Contains(string(in), "250") {
			t.Errorf("%q passed", in)
		}
	})
}
