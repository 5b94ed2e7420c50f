package ipc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// LogHandler writes one line a record: a kernel-style priority, the message,
// and key=value pairs. init adds the time and the service's name, and keeps
// the lines in a ring.
//
//	<5>VI_1: backup -> master: no advertisement from 10.0.0.12 for 3.61s
type LogHandler struct {
	w     io.Writer
	mu    *sync.Mutex
	attrs string
	level slog.Leveler
}

// NewLogHandler writes to w records of level Info and above.
func NewLogHandler(w io.Writer) *LogHandler {
	return &LogHandler{w: w, mu: &sync.Mutex{}, level: slog.LevelInfo}
}

// Enabled implements slog.Handler.
func (h *LogHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Priority is the syslog severity (RFC 5424) of a level.
func Priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 5
	}
	return 7
}

// Handle implements slog.Handler.
func (h *LogHandler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<%d>%s%s", Priority(r.Level), oneLine(r.Message), h.attrs)
	r.Attrs(func(a slog.Attr) bool { writeAttr(&b, a); return true })
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(b.Bytes())
	return err
}

func writeAttr(w io.Writer, a slog.Attr) {
	v := oneLine(a.Value.Resolve().String())
	if strings.ContainsAny(v, " =\"") {
		v = fmt.Sprintf("%q", v)
	}
	fmt.Fprintf(w, " %s=%s", a.Key, v)
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " | ") }

// WithAttrs implements slog.Handler.
func (h *LogHandler) WithAttrs(as []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range as {
		writeAttr(&b, a)
	}
	c := *h
	c.attrs = b.String()
	return &c
}

// WithGroup implements slog.Handler; groups are not shown.
func (h *LogHandler) WithGroup(string) slog.Handler { return h }
