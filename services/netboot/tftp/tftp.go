// Package tftp gives files to machines that boot: TFTP (RFC 1350), read only,
// with the options that make it bearable for a firmware of 35 MB: blksize (RFC
// 2348), timeout and tsize (RFC 2349), windowsize (RFC 7440).
package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Opcodes.
const (
	opRead  = 1
	opWrite = 2
	opData  = 3
	opAck   = 4
	opError = 5
	opOACK  = 6
)

// Error codes.
const (
	errUndefined = 0
	errNotFound  = 1
	errAccess    = 2
	errIllegal   = 4
)

// Bounds of what a client may ask for. A block of 1,468 bytes fills an Ethernet
// packet; larger ones would be fragments, which boot ROMs do not put together.
const (
	defaultBlock = 512
	minBlock     = 8
	maxBlock     = 1468
	maxWindow    = 32
	maxRequest   = 1500
)

// request is a read request, with what was agreed on for it.
type request struct {
	name    string
	block   int
	window  int
	timeout time.Duration // 0: the server's choice
	agreed  []option      // in the order of the request; tsize without its value
}

type option struct{ name, value string }

// fault is what a client is told.
type fault struct {
	code uint16
	text string
}

func (f fault) Error() string { return f.text }

// packet is the fault as an ERROR packet.
func (f fault) packet() []byte {
	b := binary.BigEndian.AppendUint16(nil, opError)
	b = binary.BigEndian.AppendUint16(b, f.code)
	return append(append(b, f.text...), 0)
}

// parseRequest reads the first packet of a client. An error that is no fault is
// not answered.
func parseRequest(b []byte) (request, error) {
	if len(b) < 4 || len(b) > maxRequest {
		return request{}, errors.New("no request")
	}
	switch binary.BigEndian.Uint16(b) {
	case opRead:
	case opWrite:
		return request{}, fault{errAccess, "nothing can be written here"}
	default:
		return request{}, errors.New("no request")
	}
	if b[len(b)-1] != 0 {
		return request{}, fault{errIllegal, "the request does not end"}
	}
	words := strings.Split(string(b[2:len(b)-1]), "\x00")
	if len(words) < 2 {
		return request{}, fault{errIllegal, "the request has no mode"}
	}
	// A file is sent as it is in netascii too: what boots has no lines, and there
	// are clients that write it whatever they fetch.
	if m := strings.ToLower(words[1]); m != "octet" && m != "netascii" {
		return request{}, fault{errIllegal, "want mode octet"}
	}
	r := request{name: words[0], block: defaultBlock, window: 1}
	for rest := words[2:]; len(rest) >= 2; rest = rest[2:] {
		r.option(strings.ToLower(rest[0]), rest[1])
	}
	return r, nil
}

// option takes one option, or leaves it out as RFC 2347 wants it.
func (r *request) option(name, value string) {
	for _, o := range r.agreed {
		if o.name == name {
			return
		}
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return
	}
	switch name {
	case "blksize":
		if n < minBlock {
			return
		}
		r.block = min(n, maxBlock)
		value = strconv.Itoa(r.block)
	case "windowsize":
		if n < 1 {
			return
		}
		r.window = min(n, maxWindow)
		value = strconv.Itoa(r.window)
	case "timeout":
		if n < 1 || n > 255 {
			return
		}
		r.timeout = time.Duration(n) * time.Second
	case "tsize":
		value = ""
	default:
		return
	}
	r.agreed = append(r.agreed, option{name, value})
}

// oack is the answer to the options; nil: there were none.
func (r request) oack(size int64) []byte {
	if len(r.agreed) == 0 {
		return nil
	}
	b := binary.BigEndian.AppendUint16(nil, opOACK)
	for _, o := range r.agreed {
		if o.name == "tsize" {
			o.value = strconv.FormatInt(size, 10)
		}
		b = append(append(b, o.name...), 0)
		b = append(append(b, o.value...), 0)
	}
	return b
}

// reply is what a client sends while a file goes to it.
type reply struct {
	block uint16
	ended error // the client gave up
}

func parseReply(b []byte) (reply, bool) {
	if len(b) < 4 {
		return reply{}, false
	}
	switch binary.BigEndian.Uint16(b) {
	case opAck:
		return reply{block: binary.BigEndian.Uint16(b[2:])}, true
	case opError:
		text, _, _ := bytes.Cut(b[4:], []byte{0})
		return reply{ended: &Ended{Code: int(binary.BigEndian.Uint16(b[2:])), Text: strings.ToValidUTF8(string(text[:min(len(text), 100)]), "?")}}, true
	}
	return reply{}, false
}

// Ended is the error of a client that said that it wants no more. UEFI firmware
// does so after it has asked for the size of a file.
type Ended struct {
	Code int
	Text string
}

func (e *Ended) Error() string { return fmt.Sprintf("the client ended it: %q (%d)", e.Text, e.Code) }
