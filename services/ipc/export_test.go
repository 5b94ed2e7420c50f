package ipc

import (
	"bufio"
	"bytes"
	"io"
)

// ReadFrames reads b as an answer of a verb that streams.
func ReadFrames(b []byte) {
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		if _, _, err := readFrame(r, io.Discard); err != nil {
			return
		}
	}
}
