// Package locked has a buffer that several goroutines may use at once: one test
// reads what a process or a logger is still writing.
package locked

import (
	"bytes"
	"sync"
)

// Buffer keeps what is written to it. The zero value is empty.
type Buffer struct {
	Max int // bytes of which it keeps no more; 0: it keeps all

	mu sync.Mutex
	b  bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(p)
	if b.Max > 0 {
		p = p[:min(n, b.Max-b.b.Len())]
	}
	b.b.Write(p)
	return n, nil
}

// String is all that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Reset forgets it.
func (b *Buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}
