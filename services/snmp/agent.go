package snmp

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"

	"github.com/gosnmp/gosnmp"
)

// Limits on one request and its answer, in bytes and variables: an answer fits
// into one frame, so that nobody uses the box to multiply traffic.
const (
	maxRequest = 2048
	maxAnswer  = 1400
	maxVars    = 128
)

// agent answers requests of SNMP v1 and v2c from a tree. It has no socket.
type agent struct {
	community                    string
	clients                      []netip.Prefix // none: everybody
	tree                         func() tree    // of this moment, or of a moment ago
	answered, refused, malformed uint64
}

var errRefused = errors.New("not for us")

// answer makes the answer to a packet; nil when there is none. A packet that is
// not understood, of a stranger, or with another community is dropped in
// silence: who guesses learns nothing.
func (a *agent) answer(packet []byte, from netip.Addr) []byte {
	out, err := a.serve(packet, from)
	switch {
	case errors.Is(err, errRefused):
		a.refused++
	case err != nil:
		a.malformed++
	default:
		a.answered++
	}
	return out
}

func (a *agent) allows(from netip.Addr) bool {
	if len(a.clients) == 0 {
		return true
	}
	for _, p := range a.clients {
		if p.Contains(from.Unmap()) {
			return true
		}
	}
	return false
}

func (a *agent) serve(packet []byte, from netip.Addr) ([]byte, error) {
	if !a.allows(from) {
		return nil, errRefused
	}
	req, err := decode(packet)
	if err != nil {
		return nil, err
	}
	if req.Version != gosnmp.Version1 && req.Version != gosnmp.Version2c {
		return nil, errRefused
	}
	if subtle.ConstantTimeCompare([]byte(req.Community), []byte(a.community)) != 1 {
		return nil, errRefused
	}
	if len(req.Variables) > maxVars {
		return nil, fmt.Errorf("%d variables", len(req.Variables))
	}
	names := make([]oid, len(req.Variables))
	for i, v := range req.Variables {
		o, ok := parseOID(v.Name)
		if !ok {
			return nil, fmt.Errorf("bad name %.200q", v.Name)
		}
		names[i] = o
	}
	ans := &gosnmp.SnmpPacket{Version: req.Version, Community: req.Community, PDUType: gosnmp.GetResponse, RequestID: req.RequestID}
	fail := func(e gosnmp.SNMPError, at int) ([]byte, error) {
		ans.Error, ans.ErrorIndex, ans.Variables = e, uint8(min(at, 255)), req.Variables
		return ans.MarshalMsg()
	}
	t := a.tree()
	switch req.PDUType {
	case gosnmp.GetRequest:
		for i, n := range names {
			v, ok := t.get(n)
			if !ok && req.Version == gosnmp.Version1 {
				return fail(gosnmp.NoSuchName, i+1)
			}
			if !ok {
				v = value{gosnmp.NoSuchInstance, nil}
			}
			ans.Variables = append(ans.Variables, pdu(n, v))
		}
	case gosnmp.GetNextRequest:
		for i, n := range names {
			next, v, ok := nextOf(t, n, req.Version)
			if !ok && req.Version == gosnmp.Version1 {
				return fail(gosnmp.NoSuchName, i+1)
			}
			ans.Variables = append(ans.Variables, pdu(next, v))
		}
	case gosnmp.GetBulkRequest:
		if req.Version == gosnmp.Version1 {
			return nil, errRefused
		}
		return bulk(t, ans, names, int(req.NonRepeaters), int(min(req.MaxRepetitions, maxVars)))
	case gosnmp.SetRequest:
		if req.Version == gosnmp.Version1 {
			return fail(gosnmp.ReadOnly, 1)
		}
		return fail(gosnmp.NotWritable, 1)
	default:
		return nil, errRefused
	}
	out, err := ans.MarshalMsg()
	if err == nil && len(out) > maxAnswer {
		return fail(gosnmp.TooBig, 0)
	}
	return out, err
}

// nextOf is the first variable behind a name that the version can carry: v1 has
// no 64-bit counters (RFC 3584 section 4.2.2.1).
func nextOf(t tree, n oid, version gosnmp.SnmpVersion) (oid, value, bool) {
	for {
		next, v, ok := t.next(n)
		if !ok {
			return n, value{gosnmp.EndOfMibView, nil}, false
		}
		if version != gosnmp.Version1 || v.kind != gosnmp.Counter64 {
			return next, v, true
		}
		n = next
	}
}

// bulk answers GetBulk (RFC 3416 section 4.2.3) with as many variables as fit.
func bulk(t tree, ans *gosnmp.SnmpPacket, names []oid, nonRepeaters, repetitions int) ([]byte, error) {
	nonRepeaters = min(nonRepeaters, len(names))
	size := 0
	add := func(n oid, v value) bool {
		p := pdu(n, v)
		if size += sizeOf(p); size > maxAnswer-100 || len(ans.Variables) >= maxVars {
			return false
		}
		ans.Variables = append(ans.Variables, p)
		return true
	}
	for _, n := range names[:nonRepeaters] {
		next, v, _ := nextOf(t, n, ans.Version)
		if !add(next, v) {
			return ans.MarshalMsg()
		}
	}
	at := names[nonRepeaters:]
	for range repetitions {
		ended := true
		for i, n := range at {
			next, v, ok := nextOf(t, n, ans.Version)
			ended = ended && !ok
			at[i] = next
			if !add(next, v) {
				return ans.MarshalMsg()
			}
		}
		if ended {
			break
		}
	}
	return ans.MarshalMsg()
}

// sizeOf bounds the length of a variable on the wire.
func sizeOf(p gosnmp.SnmpPDU) int {
	n := 8 + len(p.Name)
	switch v := p.Value.(type) {
	case string:
		n += len(v) + 4
	case []byte:
		n += len(v) + 4
	default:
		n += 12
	}
	return n
}

func pdu(n oid, v value) gosnmp.SnmpPDU {
	return gosnmp.SnmpPDU{Name: n.String(), Type: v.kind, Value: v.v}
}

// decode reads a packet. The library is made for answers and has had panics on
// hostile bytes before: one must not end the process.
func decode(packet []byte) (p *gosnmp.SnmpPacket, err error) {
	if len(packet) > maxRequest {
		return nil, fmt.Errorf("%d bytes", len(packet))
	}
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("malformed: %v", r)
		}
	}()
	reader := gosnmp.GoSNMP{}
	return reader.SnmpDecodePacket(packet)
}
