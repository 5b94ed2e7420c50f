// Package spare keeps what makes a box itself in a second place, beside the data
// disk's file system: when that is lost, the box is still reached by its name,
// addresses and users, and knows its peer. It is two copies on the same disk, each
// of which has a number and a checksum; the older one is overwritten, so that a
// power cut leaves the old or the new state. The disk holds these secrets anyway.
package spare

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Record is what makes a box itself.
type Record struct {
	Host string `json:"host"`
	// Text is that part of the configuration which is about the box and not about
	// its work: name, users, interfaces, routes, peer.
	Text string `json:"text"`
	Peer bool   `json:"peer"` // Text has a peer block: the other box has the rest
	// Files are the keys of SSH and of the peer, by their path below the data folder.
	Files []File `json:"files"`
}

// File is one small file with its owner.
type File struct {
	Path    string `json:"path"`
	UID     int    `json:"uid"`
	Content []byte `json:"content"`
}

// Same reports whether two records say the same.
func (r Record) Same(o Record) bool {
	a, err := json.Marshal(r)
	b, err2 := json.Marshal(o)
	return err == nil && err2 == nil && bytes.Equal(a, b)
}

// Size is how much room the two copies need, Half that of one.
const (
	Half = 256 << 10
	Size = 2 * Half
)

const (
	head    = 64
	maxBody = Half - head
	maxJSON = 4 << 20
)

var magic = []byte("BALLAST SPARE 1\n")

// Disk is the room: its first byte is at 0.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// encode makes one copy: magic, number, length, checksum of all the rest, and
// the compressed JSON.
func encode(r Record, number uint64) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(text) > maxJSON {
		return nil, fmt.Errorf("%d bytes are more than %d", len(text), maxJSON)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(64<<10))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	body := z.EncodeAll(text, nil)
	if len(body) > maxBody {
		return nil, fmt.Errorf("%d bytes are more than the %d that there is room for", len(body), maxBody)
	}
	b := make([]byte, head, (head+len(body)+511)/512*512)
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[16:], number)
	binary.LittleEndian.PutUint64(b[24:], uint64(len(body)))
	b = append(b, body...)
	sum := sum(b[:32], body)
	copy(b[32:], sum[:])
	return b[:cap(b)], nil
}

func sum(front, body []byte) [32]byte {
	h := sha256.New()
	h.Write(front)
	h.Write(body)
	return [32]byte(h.Sum(nil))
}

// ErrNone is the error of a place that holds no copy.
var ErrNone = errors.New("no copy is kept there")

// decode reads one copy.
func decode(b []byte) (r Record, number uint64, err error) {
	if len(b) < head || !bytes.Equal(b[:len(magic)], magic) {
		return r, 0, ErrNone
	}
	number = binary.LittleEndian.Uint64(b[16:])
	n := binary.LittleEndian.Uint64(b[24:])
	if n > uint64(len(b)-head) {
		return r, 0, fmt.Errorf("%d bytes of %d", n, len(b)-head)
	}
	body := b[head:][:n]
	if sum(b[:32], body) != [32]byte(b[32:64]) {
		return r, 0, errors.New("its checksum is wrong")
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxJSON), zstd.WithDecoderLowmem(true))
	if err != nil {
		return r, 0, err
	}
	defer z.Close()
	text, err := z.DecodeAll(body, nil)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return Record{}, 0, fmt.Errorf("its content: %w", err)
	}
	return r, number, nil
}

// Read returns the newest copy that is whole.
func Read(d io.ReaderAt) (Record, error) {
	r, _, _, err := newest(d)
	return r, err
}

// newest also returns its number, and where it lies: half 0 or 1.
func newest(d io.ReaderAt) (best Record, number uint64, half int, err error) {
	found := false
	var errs []error
	for i := range 2 {
		b := make([]byte, Half)
		if _, err := d.ReadAt(b, int64(i*Half)); err != nil {
			errs = append(errs, err)
			continue
		}
		r, n, err := decode(b)
		switch {
		case err == nil && (!found || n > number):
			best, number, half, found = r, n, i, true
		case err != nil && !errors.Is(err, ErrNone):
			errs = append(errs, fmt.Errorf("copy %d: %w", i+1, err))
		}
	}
	if found {
		return best, number, half, nil
	}
	if len(errs) > 0 {
		return Record{}, 0, 1, fmt.Errorf("spare copy of the identity: %w", errors.Join(errs...))
	}
	return Record{}, 0, 1, fmt.Errorf("spare copy of the identity: %w", ErrNone)
}

// Write keeps a record; nothing is written when the newest copy says the same.
func Write(d Disk, r Record) (written bool, err error) {
	have, number, half, rerr := newest(d)
	if rerr == nil && have.Same(r) {
		return false, nil
	}
	b, err := encode(r, number+1)
	if err == nil {
		_, err = d.WriteAt(b, int64((1-half)*Half))
	}
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		return false, fmt.Errorf("spare copy of the identity: %w", err)
	}
	return true, nil
}

// Wipe writes zeros over both copies.
func Wipe(d Disk) error {
	_, err := d.WriteAt(make([]byte, Size), 0)
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		return fmt.Errorf("spare copy of the identity: wipe: %w", err)
	}
	return nil
}
