package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxFrame bounds a message: a configuration, and what is said about it. It is
// pair.MaxFrame of services/conf, which a test holds against it.
const MaxFrame = 36<<20 + 1

// errAbsent is an answer of no bytes.
var errAbsent = errors.New("its configuration service does not answer")

// writeFrame sends a message: four bytes of length, and it. An answer of no bytes
// says that there is none.
func writeFrame(w io.Writer, b []byte) error {
	if len(b) > MaxFrame {
		return fmt.Errorf("a message of %d bytes is longer than %d", len(b), MaxFrame)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	if len(b) < 4096 {
		_, err := w.Write(append(head, b...))
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// readFrame reads a message. Memory is taken as it comes, not as it is announced.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 {
		return nil, errAbsent
	}
	if n > MaxFrame {
		return nil, fmt.Errorf("a message of %d bytes is not possible", n)
	}
	var b bytes.Buffer
	b.Grow(int(min(n, 64<<10)))
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b.Bytes(), nil
}
