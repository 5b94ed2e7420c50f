// Package support carries what a service can tell of the kernel's tables that it
// owns, for the bundle that goes to whoever looks into a fault. Each owner tells
// its own, so that nobody needs more rights than he has anyway.
package support

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ballast/services/ipc"
)

// Verb is the verb that streams parts.
const Verb = "support"

// MaxPart bounds a part; what is longer is cut, and says so.
const MaxPart = 4 << 20

// Part is one file of the bundle.
type Part struct {
	Name  string `json:"name"`
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
}

// Writer takes the parts of a service.
type Writer struct {
	enc *json.Encoder
	err error
}

// Tell makes the verb of what collects the parts, which is called on a goroutine
// of the request, not of the service's main loop.
func Tell(collect func(ctx context.Context, w *Writer)) ipc.StreamFunc {
	return func(ctx context.Context, _ ipc.Peer, st *ipc.Stream) error {
		w := &Writer{enc: json.NewEncoder(st)}
		collect(ctx, w)
		return w.err
	}
}

// Add tells one part: a text, or anything else as JSON. A fault is told in its
// place, and costs no other part.
func (w *Writer) Add(name string, v any, err error) {
	p := Part{Name: name}
	if s, ok := v.(string); ok {
		p.Text = s
	} else if err == nil {
		b, merr := json.MarshalIndent(v, "", " ")
		p.Text, err = string(b)+"\n", merr
	}
	if err != nil {
		p.Error = err.Error()
	}
	if len(p.Text) > MaxPart {
		p.Text = p.Text[:MaxPart] + fmt.Sprintf("\n… cut after %d bytes\n", MaxPart)
	}
	if w.err == nil {
		w.err = w.enc.Encode(p)
	}
}

// Files tells files of the kernel, by the names that they have; one that is not
// there is left out.
func (w *Writer) Files(paths ...string) {
	for _, pattern := range paths {
		names := []string{pattern}
		if strings.ContainsAny(pattern, "*?[") {
			names, _ = filepath.Glob(pattern)
		}
		for _, name := range names {
			text, err := read(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			w.Add(strings.TrimPrefix(name, "/"), text, err)
		}
	}
}

// Values tells many small files as one part, a line each.
func (w *Writer) Values(part string, patterns ...string) {
	var b strings.Builder
	for _, pattern := range patterns {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			if target, err := os.Readlink(name); err == nil {
				fmt.Fprintf(&b, "%s -> %s\n", name, filepath.Base(target))
				continue
			}
			if text, err := read(name); err == nil {
				fmt.Fprintf(&b, "%s %s\n", name, strings.Join(strings.Fields(text), " "))
			}
		}
	}
	if b.Len() > 0 {
		w.Add(part, b.String(), nil)
	}
}

// read reads a file of the kernel, whose size nobody knows before.
func read(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxPart+1))
	return string(b), err
}

// Parts asks a service and calls f with each part. ask is the client's Stream.
func Parts(ctx context.Context, ask func(ctx context.Context, out io.Writer) error, f func(Part) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	asked := make(chan error, 1)
	go func() {
		err := ask(ctx, w)
		w.CloseWithError(errors.Join(err, io.EOF))
		asked <- err
	}()
	var err error
	for d := json.NewDecoder(r); err == nil; {
		var p Part
		if derr := d.Decode(&p); derr != nil {
			break
		}
		err = f(p)
	}
	cancel()
	r.Close()
	return errors.Join(err, <-asked)
}
