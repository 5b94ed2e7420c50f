package journal

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ballast/services/ipc/status"
)

func texts(ls []status.LogLine) []string {
	var out []string
	for _, l := range ls {
		out = append(out, fmt.Sprintf("%s<%d>%s", l.Service, l.Priority, l.Text))
	}
	return out
}

func TestWriter(t *testing.T) {
	tests := []struct {
		name   string
		writes []string
		want   []string
	}{
		{"priority", []string{"<4>late\n<5>VI_1: up\n"}, []string{"a<4>late", "a<5>VI_1: up"}},
		{"in pieces", []string{"<", "3>b", "roken", "\n\n", "<6>x"}, []string{"a<3>broken"}},
		{"no priority", []string{"plain\n", "<9>x\n<4\n"}, []string{"a<6>plain", "a<6><9>x", "a<6><4"}},
		{"crash", []string{"panic: nil map\n\ngoroutine 1 [running]:\n"}, []string{"a<3>panic: nil map", "a<6>goroutine 1 [running]:"}},
		{"terminal escapes", []string{"<4>x\x1b[2Jy\u009bz\tok\xff\n"}, []string{"a<4>x?[2Jy?z ok?"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := New(nil)
			w := j.Writer("a")
			for _, s := range tt.writes {
				io.WriteString(w, s)
			}
			ls, err := j.Lines(status.LogQuery{})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, texts(ls)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	j := New(nil)
	w := j.Writer("flood")
	io.WriteString(w, strings.Repeat("x", 10<<20)) // a line of 10 MB
	io.WriteString(w, "\n<5>after\n")
	ls, err := j.Lines(status.LogQuery{Service: "flood", Lines: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(ls) != 2 || len(ls[0].Text) > MaxLine+4 || !strings.HasSuffix(ls[0].Text, " ...") || ls[1].Text != "after" {
		t.Errorf("a long line became %d lines, the first of %d bytes", len(ls), len(ls[0].Text))
	}
	line := strings.Repeat("y", 1000)
	for i := range 3 * MaxLines {
		fmt.Fprintf(w, "<5>%d %s\n", i, line)
	}
	r := j.rings["flood"]
	sum := 0
	for _, l := range r.lines {
		sum += len(l.Text)
	}
	if len(r.lines) > MaxLines || sum > MaxBytes || sum != r.bytes {
		t.Errorf("the ring holds %d lines of %d bytes (counted %d)", len(r.lines), sum, r.bytes)
	}
	if last := r.lines[len(r.lines)-1].Text; !strings.HasPrefix(last, fmt.Sprint(3*MaxLines-1)) {
		t.Errorf("newest line is %.10q", last)
	}
}

func TestLines(t *testing.T) {
	j := New(nil)
	clock := time.Unix(1000, 0)
	j.now = func() time.Time { clock = clock.Add(time.Second); return clock }
	for i := range 5 {
		j.Print(Notice, "i%d", i)
		io.WriteString(j.Writer("net"), fmt.Sprintf("<4>n%d\n", i))
	}
	tests := []struct {
		name string
		q    status.LogQuery
		want []string
		err  string
	}{
		{"newest of all", status.LogQuery{Lines: 3}, []string{"net<4>n3", "init<5>i4", "net<4>n4"}, ""},
		{"one service", status.LogQuery{Service: "net", Lines: 2}, []string{"net<4>n3", "net<4>n4"}, ""},
		{"after", status.LogQuery{After: time.Unix(1008, 0)}, []string{"init<5>i4", "net<4>n4"}, ""},
		{"after the last", status.LogQuery{After: time.Unix(2000, 0)}, nil, ""},
		{"unknown", status.LogQuery{Service: "nte"}, nil, `nothing of "nte": there are kernel, init, net`},
		{"negative", status.LogQuery{Lines: -1}, nil, "-1 lines"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := j.Lines(tt.q)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if d := cmp.Diff(tt.want, texts(got), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestParseKmsg(t *testing.T) {
	boot := time.Unix(0, 0)
	tests := []struct {
		in   string
		want status.LogLine
		ok   bool
	}{
		{"6,339,5140900,-;NET: Registered PF_INET6\n SUBSYSTEM=x\n", status.LogLine{Time: time.UnixMicro(5140900), Service: "kernel", Priority: 6, Text: "NET: Registered PF_INET6"}, true},
		{"12,1,7,c;ballast: up", status.LogLine{Time: time.UnixMicro(7), Service: "kernel", Priority: 4, Text: "ballast: up"}, true},
		{"6,339", status.LogLine{}, false},
		{"x,1,2;y", status.LogLine{}, false},
		{"", status.LogLine{}, false},
	}
	for _, tt := range tests {
		got, ok := parseKmsg(tt.in, boot)
		if ok != tt.ok || !cmp.Equal(got, tt.want) {
			t.Errorf("%q: %+v, %v", tt.in, got, ok)
		}
	}
}

// A console that takes nothing must not hold up the journal.
func TestConsoleStuck(t *testing.T) {
	r, w := io.Pipe()
	c := NewConsole(Warning, w)
	j := New(c.Show)
	for i := range 1000 {
		j.Print(Error, "line %d", i)
	}
	j.Print(Info, "not shown")
	got := make([]byte, 16)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	go func() { io.Copy(&all, r); r.Close() }()
	c.Drain(5 * time.Second)
	w.Close()
	if c.dropped.Load() != 0 {
		t.Error("dropped lines were not told")
	}
}

func TestConsole(t *testing.T) {
	var b strings.Builder
	c := NewConsole(Warning, &b)
	j := New(c.Show)
	j.Print(Info, "hidden")
	io.WriteString(j.Writer("net"), "<5>hidden\n<4>eth0: no carrier\n")
	j.Print(Notice, "ready")
	c.SetLevel(Notice)
	io.WriteString(j.Writer("net"), "<5>eth0: up\n")
	c.Drain(5 * time.Second)
	var got []string
	for line := range strings.Lines(b.String()) {
		_, text, _ := strings.Cut(line, "] ")
		got = append(got, text)
	}
	if d := cmp.Diff([]string{"net: eth0: no carrier\r\n", "ready\r\n", "net: eth0: up\r\n"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzWriter(f *testing.F) {
	f.Add([]byte("<4>a\nb\n\xff"))
	f.Add([]byte("panic: x\n<"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j := New(nil)
		j.Writer("x").Write(b)
		parseKmsg(string(b), time.Time{})
		ls, _ := j.Lines(status.LogQuery{Lines: MaxLines})
		for _, l := range ls {
			if strings.ContainsAny(l.Text, "\n\r\x1b") || l.Priority < 0 || l.Priority > 7 {
				t.Errorf("%+v", l)
			}
		}
	})
}
