package pair

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"ballast/configs/printable"
	"ballast/configs/store"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func example() Message {
	return Message{Release: Release, Kind: Prepare, Txn: NewTxn(), Box: "lb1", Sees: sum, Author: "ann", Comment: "first", Source: "commit",
		Confirm: 5 * time.Minute, Files: []store.FileRef{{Path: "/etc/keepalived/a.sh", Mode: 0o755, Sum: sum}}, Payload: []byte("vs a\n")}
}

func TestMessage(t *testing.T) {
	want := example()
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// What the other box says of itself reaches the store, the log and the history.
func TestMessageIsShowable(t *testing.T) {
	m := example()
	m.Box, m.Author, m.Comment = "lb\x1b1", "ann\n", "\x1b]0;x\x07"
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{got.Box, got.Author, got.Comment} {
		if s != printable.Line(s) {
			t.Errorf("%q", s)
		}
	}
}

func TestMessageRefused(t *testing.T) {
	for name, change := range map[string]func(*Message){
		"no commit":     func(m *Message) { m.Txn = "" },
		"short name":    func(m *Message) { m.Txn = "abcd" },
		"kind":          func(m *Message) { m.Kind = "reboot" },
		"path":          func(m *Message) { m.Files[0].Path = "/etc/../passwd" },
		"mode":          func(m *Message) { m.Files[0].Mode = 0o4755 },
		"sum":           func(m *Message) { m.Files[0].Sum = strings.ToUpper(sum) },
		"size":          func(m *Message) { m.Files[0].Size = store.MaxFile + 1 },
		"twice":         func(m *Message) { m.Files = append(m.Files, m.Files[0]) },
		"verdict":       func(m *Message) { m.Verdict = 9 },
		"comment":       func(m *Message) { m.Comment = strings.Repeat("x", maxName+1) },
		"source":        func(m *Message) { m.Source = "factory" },
		"payload":       func(m *Message) { m.Kind = Apply },
		"text":          func(m *Message) { m.Payload = []byte{0xff, 0xfe} },
		"file unnamed":  func(m *Message) { m.Kind, m.Sum = Blob, "" },
		"file too long": func(m *Message) { m.Kind, m.Sum, m.Payload = Blob, sum, make([]byte, store.MaxFile+1) },
		"confirm":       func(m *Message) { m.Confirm = -time.Second },
	} {
		m := example()
		change(&m)
		b, err := m.Encode()
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := DecodeMessage(b); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, bad := range []string{"", "{}", "{}\x00", `{"release":1,"kind":"hello"}`, `{"release":1,"kind":"fetch","more":1}` + "\x00",
		`{"release":1,"kind":"hello"}{}` + "\x00", `{"release":2,"kind":"fetch"}` + "\x00"} {
		if _, err := DecodeMessage([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestReleases: while a pair is upgraded its boxes may speak different releases.
// They go on seeing each other, and all else is refused by what tells why.
func TestReleases(t *testing.T) {
	for _, hello := range []string{`{"release":2,"kind":"hello","box":"lb2"}`, `{"release":1,"kind":"hello","box":"lb2","news":{"a":[1]}}`} {
		if m, err := DecodeMessage([]byte(hello + "\x00")); err != nil || m.Box != "lb2" {
			t.Errorf("%s: %+v, %v", hello, m, err)
		}
	}
	_, err := DecodeMessage([]byte(`{"release":2,"kind":"prepare","news":true}` + "\x00text"))
	if err == nil || !strings.Contains(err.Error(), "the other box speaks release 2 of the protocol, this one 1") {
		t.Errorf("a commit of another release: %v", err)
	}
	a, err := DecodeAnswer([]byte(`{"state":{"box":"lb2","content":"` + sum + `","release":2,"mood":"good"},"news":1}` + "\x00"))
	if err != nil || a.State.Release != 2 || a.State.Content != sum {
		t.Errorf("an answer of another release: %+v, %v", a, err)
	}
}

func TestAnswerIsFitForATerminal(t *testing.T) {
	a := Answer{Refused: "no\x1b[2J", State: State{Box: "lb\x1b2", Content: sum}}
	b, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAnswer(b)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.Refused+got.State.Box, "\x1b") {
		t.Errorf("%q %q reach a terminal", got.Refused, got.State.Box)
	}
}

func FuzzMessage(f *testing.F) {
	b, _ := example().Encode()
	f.Add(b)
	f.Add([]byte(`{"release":1,"kind":"hello"}` + "\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		m.Release = Release
		n, err := DecodeMessage(again)
		if err != nil {
			t.Fatalf("%q: %v", again, err)
		}
		if d := cmp.Diff(m, n, cmpopts.EquateEmpty()); d != "" {
			t.Error(d)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	b, _ := Answer{Refused: "no", Missing: []string{sum}, State: State{Box: "lb2", Content: sum}, Payload: []byte("x")}.Encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := DecodeAnswer(b)
		if err == nil && bytes.ContainsRune([]byte(a.Refused), 0x1b) {
			t.Errorf("%q", a.Refused)
		}
	})
}
