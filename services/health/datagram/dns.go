package datagram

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"ballast/configs/model"
)

// DNS wire format (RFC 1035 section 4).
const (
	dnsHeader  = 12
	maxMessage = 4096 // far above the 512 that an answer without EDNS may have
	flagReply  = 0x8000
	flagWant   = 0x0100 // recursion desired, as keepalived sends it
	flagCut    = 0x0200
	classIN    = 1
)

// DNSTypes are the types that a DNS_CHECK may ask for, by number.
var DNSTypes = map[string]uint16{
	"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28, "RRSIG": 46, "DNSKEY": 48,
}

var rcodes = [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE"}

type dns struct {
	id    uint16
	query []byte
}

// DNS is a DNS_CHECK. The error says what cannot be asked.
func DNS(c *model.Check) (Exchange, error) {
	d := &dns{id: uint16(rand.Uint32())}
	q, err := Query(d.id, c.DNSName, c.DNSType)
	d.query = q
	return d, err
}

// Query is one question with class IN.
func Query(id uint16, name, kind string) ([]byte, error) {
	if kind == "" {
		kind = "SOA"
	}
	number, ok := DNSTypes[strings.ToUpper(kind)]
	if !ok {
		return nil, fmt.Errorf("type %s: not one that can be asked for: use A, NS, CNAME, SOA, MX, TXT, AAAA, RRSIG or DNSKEY", kind)
	}
	b := binary.BigEndian.AppendUint16(nil, id)
	b = binary.BigEndian.AppendUint16(b, flagWant)
	b = append(b, 0, 1, 0, 0, 0, 0, 0, 0)
	if name = strings.TrimSuffix(name, "."); name != "" {
		for label := range strings.SplitSeq(name, ".") {
			if label == "" || len(label) > 63 {
				return nil, fmt.Errorf("name %s: each part has 1 to 63 bytes", name)
			}
			b = append(append(b, byte(len(label))), label...)
		}
	}
	b = append(b, 0)
	if len(b)-dnsHeader > 255 {
		return nil, fmt.Errorf("name %s: more than 255 bytes", name)
	}
	b = binary.BigEndian.AppendUint16(b, number)
	return binary.BigEndian.AppendUint16(b, classIN), nil
}

func (d *dns) Payload() []byte { return d.query }

// Judge takes any reply with our id and rcode 0, as keepalived does: what it
// answers is not looked at. A reply with another id, or to another question,
// is somebody else's or an old one.
func (d *dns) Judge(reply []byte) (Verdict, string) {
	rcode, err := readReply(reply, d.query)
	switch {
	case errors.Is(err, errNotOurs):
		return Ignore, ""
	case err != nil:
		return Fail, err.Error()
	case rcode != 0:
		return Fail, "answer " + rcodeName(rcode)
	}
	return Pass, "answer NOERROR"
}

func (d *dns) Silence(after time.Duration) (bool, string) {
	return false, fmt.Sprintf("no answer within %s", after)
}

var errNotOurs = errors.New("no reply to this query")

// readReply reads the head of a message and compares the question, where it
// has one: some servers leave it out of an error.
func readReply(b, query []byte) (rcode int, err error) {
	if len(b) < dnsHeader {
		return 0, fmt.Errorf("answer of %d bytes: shorter than a DNS header", len(b))
	}
	flags := binary.BigEndian.Uint16(b[2:])
	if binary.BigEndian.Uint16(b) != binary.BigEndian.Uint16(query) || flags&flagReply == 0 {
		return 0, errNotOurs
	}
	if binary.BigEndian.Uint16(b[4:]) == 1 && flags&flagCut == 0 {
		q := query[dnsHeader:]
		if len(b) < dnsHeader+len(q) {
			return 0, errors.New("answer cut off inside the question")
		}
		// Names compare without case; lengths below 64 are not changed by it.
		if !strings.EqualFold(string(b[dnsHeader:dnsHeader+len(q)]), string(q)) {
			return 0, errNotOurs
		}
	}
	return int(flags & 15), nil
}

func rcodeName(n int) string {
	if n < len(rcodes) {
		return rcodes[n]
	}
	return fmt.Sprintf("with rcode %d", n)
}
