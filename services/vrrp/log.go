package vrrp

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// logger hands lines to a goroutine of its own: whoever reads the log may be
// slow, the loop never waits for it. A line that does not fit is counted.
type logger struct {
	lines chan line
	lost  int
	last  map[string]time.Time
}

type line struct {
	level slog.Level
	text  string
}

func newLogger() *logger {
	return &logger{lines: make(chan line, 256), last: map[string]time.Time{}}
}

// write writes lines until ctx ends, then what is left.
func (l *logger) write(ctx context.Context, to *slog.Logger) {
	for {
		select {
		case n := <-l.lines:
			to.Log(context.Background(), n.level, n.text)
			continue
		default:
		}
		select {
		case n := <-l.lines:
			to.Log(context.Background(), n.level, n.text)
		case <-ctx.Done():
			return
		}
	}
}

func (l *logger) put(level slog.Level, format string, args []any) {
	text := fmt.Sprintf(format, args...)
	if l.lost > 0 {
		text = fmt.Sprintf("%s (%d lines before this one are lost)", text, l.lost)
	}
	select {
	case l.lines <- line{level, text}:
		l.lost = 0
	default:
		l.lost++
	}
}

func (l *logger) info(format string, args ...any) { l.put(slog.LevelInfo, format, args) }
func (l *logger) warn(format string, args ...any) { l.put(slog.LevelWarn, format, args) }

// quiet is how long a warning of one kind is not repeated.
const quiet = 30 * time.Second

// limited warns, but of one subject only now and then: what a peer or a broken
// interface can cause at any rate must not fill the log.
func (l *logger) limited(subject, format string, args ...any) {
	now := time.Now()
	if at, ok := l.last[subject]; ok && now.Sub(at) < quiet {
		return
	}
	if len(l.last) > 1000 {
		clear(l.last)
	}
	l.last[subject] = now
	l.warn(format, args...)
}

func (l *logger) limitedRouter(r *router, format string, args ...any) {
	l.limited(r.cfg.Name+format, r.cfg.Name+": "+format, args...)
}
