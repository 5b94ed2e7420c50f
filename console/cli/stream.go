package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"ballast/services/ipc"
)

// Streams is how a command that works for a while talks to its user meanwhile.
// Out and Note may be called from the command's goroutine only.
type Streams struct {
	// In is what the user sends along, as it comes; nil: nothing can be sent.
	In io.Reader
	// Out takes output that is no text, as it comes; nil: there is only a terminal.
	Out io.Writer
	// Note shows text beside the output, at once.
	Note func(text string)
	// Width is that of a terminal on which a line may be drawn again and again; 0:
	// there is none.
	Width int
}

// Streamer is Services that also reach verbs that stream.
type Streamer interface {
	Stream(ctx context.Context, service, verb string, arg any, in io.Reader, out io.Writer, note func(string)) error
}

// Stream implements Streamer.
func (i *IPC) Stream(ctx context.Context, service, verb string, arg any, in io.Reader, out io.Writer, note func(string)) error {
	return i.client(service).Stream(ctx, verb, arg, in, out, note)
}

// streams are the session's; without any what there is to tell goes nowhere.
func (c *call) streams() *Streams {
	if c.s.Streams == nil {
		return &Streams{Note: func(string) {}}
	}
	return c.s.Streams
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// rows takes the output of a verb of firmware that is a row of JSON objects, one a
// line, as they come.
func rows[T any](each func(T)) io.Writer {
	var rest bytes.Buffer
	return writerFunc(func(b []byte) (int, error) {
		rest.Write(b)
		for {
			line, err := rest.ReadBytes('\n')
			if err != nil {
				rest.Write(line)
				return len(b), nil
			}
			var row T
			if err := json.Unmarshal(line, &row); err != nil {
				return len(b), fmt.Errorf("what firmware tells: %w", err)
			}
			each(row)
		}
	})
}

// stream calls a verb that streams, for as long as it takes.
func (c *call) stream(ctx context.Context, service, verb string, arg any, in io.Reader, out io.Writer, note func(string)) error {
	s, ok := c.s.Services.(Streamer)
	if !ok {
		return errors.New("verbs that stream cannot be reached from here")
	}
	err := s.Stream(ctx, service, verb, arg, in, out, note)
	var refused *ipc.Refused
	if err == nil || errors.As(err, &refused) || errors.Is(err, context.Canceled) {
		return c.explain(service, err)
	}
	return err // it says where it broke off
}
