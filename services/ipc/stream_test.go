package ipc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc"
)

// streaming serves one verb that streams and returns a client of it.
func streaming(t *testing.T, fn ipc.StreamFunc) *ipc.Client {
	t.Helper()
	dir := ipc.Dir(t.TempDir())
	l, err := net.Listen("unix", dir.Path("s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := ipc.NewServer("s")
	srv.HandleStream("go", fn)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dir.Client("s")
}

// Bytes go both ways at the same time: each piece is answered before the next
// one is sent.
func TestStreamBothWays(t *testing.T) {
	type arg struct{ Name string }
	c := streaming(t, func(_ context.Context, _ ipc.Peer, s *ipc.Stream) error {
		var a arg
		if err := json.Unmarshal(s.Argument, &a); err != nil {
			return err
		}
		s.Note("hello %s", a.Name)
		b := make([]byte, 100)
		for {
			n, err := s.In.Read(b)
			if n > 0 {
				if _, err := fmt.Fprintf(s, "<%s>", b[:n]); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	in, user := io.Pipe()
	screen, out := io.Pipe()
	var notes []string
	done := make(chan error, 1)
	go func() {
		done <- c.Stream(t.Context(), "go", arg{"Änne 🦊 \n"}, in, out, func(s string) { notes = append(notes, s) })
	}()
	for _, word := range []string{"one", "two", "three"} {
		io.WriteString(user, word)
		got := make([]byte, len(word)+2)
		if _, err := io.ReadFull(screen, got); err != nil || string(got) != "<"+word+">" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	user.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || notes[0] != "hello Änne 🦊 \n" {
		t.Errorf("notes %q", notes)
	}
}

// A refusal arrives although megabytes are on their way, and nobody takes more
// of them than was under way.
func TestStreamRefusedEarly(t *testing.T) {
	c := streaming(t, func(_ context.Context, _ ipc.Peer, s *ipc.Stream) error {
		io.ReadFull(s.In, make([]byte, 10))
		return errors.New("not this one: take another")
	})
	for range 20 {
		in := &endless{}
		var refused *ipc.Refused
		err := c.Stream(t.Context(), "go", nil, in, io.Discard, nil)
		if !errors.As(err, &refused) || err.Error() != "not this one: take another" {
			t.Fatalf("error %v", err)
		}
	}
	// And although the user's end stays open and silent.
	in, _ := io.Pipe()
	c = streaming(t, func(context.Context, ipc.Peer, *ipc.Stream) error { return errors.New("no") })
	if err := c.Stream(t.Context(), "go", nil, in, io.Discard, nil); err == nil || err.Error() != "no" {
		t.Errorf("error %v", err)
	}
}

type endless struct{}

func (*endless) Read(p []byte) (int, error) { return len(p), nil }

// Both ends learn that the other one is gone.
func TestStreamBreaks(t *testing.T) {
	c := streaming(t, func(_ context.Context, _ ipc.Peer, s *ipc.Stream) error {
		s.Write([]byte("begin"))
		panic(http.ErrAbortHandler) // as if it crashed
	})
	var out bytes.Buffer
	if err := c.Stream(t.Context(), "go", nil, nil, &out, nil); err == nil || !strings.Contains(err.Error(), "broke off") || out.String() != "begin" {
		t.Errorf("a service that ends: %v, %q", err, &out)
	}

	seen := make(chan error, 1)
	c = streaming(t, func(_ context.Context, _ ipc.Peer, s *ipc.Stream) error {
		s.Note("ready")
		_, err := io.Copy(io.Discard, s.In)
		seen <- err
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	in, user := io.Pipe()
	defer user.Close()
	if err := c.Stream(ctx, "go", nil, in, io.Discard, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	select {
	case err := <-seen:
		if err == nil {
			t.Error("the service takes what broke off for the end")
		}
	case <-time.After(time.Minute):
		t.Fatal("the service does not learn that its caller is gone")
	}

	// What the user's own end breaks with is told too.
	c = streaming(t, func(_ context.Context, _ ipc.Peer, s *ipc.Stream) error {
		s.Note("ready")
		_, err := io.Copy(io.Discard, s.In)
		seen <- err
		return err
	})
	in, user = io.Pipe()
	err := c.Stream(t.Context(), "go", nil, in, io.Discard, func(string) { user.CloseWithError(errors.New("connection lost")) })
	if err == nil {
		t.Error("a torn input is taken for a whole one")
	}
	select {
	case err := <-seen:
		if err == nil {
			t.Error("the service takes a torn input for a whole one")
		}
	case <-time.After(time.Minute):
		t.Fatal("the service still reads")
	}
}

func TestStreamNames(t *testing.T) {
	c := streaming(t, func(_ context.Context, _ ipc.Peer, s *ipc.Stream) error { return nil })
	if err := c.Call(t.Context(), "go", nil, nil); err == nil || !strings.Contains(err.Error(), "no verb") {
		t.Errorf("called as an ordinary verb: %v", err)
	}
	if err := c.Stream(t.Context(), "state", nil, nil, io.Discard, nil); err == nil || !strings.Contains(err.Error(), "no verb") {
		t.Errorf("an unknown one: %v", err)
	}
}

// FuzzFrames is what a service may answer.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("d\x00\x00\x00\x02hi.\x00\x00\x00\x00"))
	f.Add([]byte("e\x00\x00\x00\x01x"))
	f.Add([]byte("n\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) { ipc.ReadFrames(b) })
}
