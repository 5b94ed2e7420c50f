package datagram

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
)

func TestQuery(t *testing.T) {
	for _, c := range []struct{ name, kind, want, err string }{
		{".", "SOA", "123401000001000000000000" + "00" + "00060001", ""},
		{"", "", "123401000001000000000000" + "00" + "00060001", ""},
		{"ab.c.", "aaaa", "123401000001000000000000" + "0261620163" + "00" + "001c0001", ""},
		{"a..b", "A", "", "each part has 1 to 63 bytes"},
		{strings.Repeat("x", 64), "A", "", "each part has 1 to 63 bytes"},
		{strings.Repeat("abcdefg.", 40), "A", "", "more than 255 bytes"},
		{".", "PTR", "", "type PTR"},
	} {
		b, err := Query(0x1234, c.name, c.kind)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s %s: error %v, want %s", c.name, c.kind, err, c.err)
			}
			continue
		}
		if d := cmp.Diff(c.want, hex.EncodeToString(b)); d != "" || err != nil {
			t.Error(c.name, err, d)
		}
	}
}

func TestDNSJudge(t *testing.T) {
	x, err := DNS(&model.Check{Kind: model.DNSCheck, DNSType: "A", DNSName: "Example.org"})
	if err != nil {
		t.Fatal(err)
	}
	reply := func(change func(b []byte) []byte) []byte {
		b := append([]byte(nil), x.Payload()...)
		b[2] |= 0x80
		return change(b)
	}
	same := func(b []byte) []byte { return b }
	for _, c := range []struct {
		name  string
		reply []byte
		want  Verdict
		why   string
	}{
		{"good", reply(same), Pass, "answer NOERROR"},
		{"good with answers", append(reply(same), 1, 2, 3), Pass, "answer NOERROR"},
		{"refused", reply(func(b []byte) []byte { b[3] |= 5; return b }), Fail, "answer REFUSED"},
		{"nxdomain", reply(func(b []byte) []byte { b[3] |= 3; return b }), Fail, "answer NXDOMAIN"},
		{"odd code", reply(func(b []byte) []byte { b[3] |= 15; return b }), Fail, "answer with rcode 15"},
		{"another id", reply(func(b []byte) []byte { b[0]++; return b }), Ignore, ""},
		{"our own query comes back", x.Payload(), Ignore, ""},
		{"other case", reply(func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "Example", "eXAMPLE")) }), Pass, "answer NOERROR"},
		{"another question", reply(func(b []byte) []byte { b[14]++; return b }), Ignore, ""},
		{"no question in an error", reply(func(b []byte) []byte { b[3] |= 2; b[5] = 0; return b[:12] }), Fail, "answer SERVFAIL"},
		{"cut", reply(func(b []byte) []byte { return b[:20] }), Fail, "answer cut off inside the question"},
		{"tiny", []byte{1, 2, 3}, Fail, "answer of 3 bytes: shorter than a DNS header"},
		{"nothing", nil, Fail, "answer of 0 bytes: shorter than a DNS header"},
	} {
		if v, why := x.Judge(c.reply); v != c.want || why != c.why {
			t.Errorf("%s: %d %q, want %d %q", c.name, v, why, c.want, c.why)
		}
	}
	if ok, why := x.Silence(time.Second); ok || why != "no answer within 1s" {
		t.Errorf("%t %q", ok, why)
	}
}

func TestUDPJudge(t *testing.T) {
	free := &model.Check{Kind: model.UDPCheck, MaxReply: 255}
	strict := &model.Check{
		Kind: model.UDPCheck, Payload: []byte("ping"), RequireReply: true, MinReply: 2, MaxReply: 6,
		Reply: []byte{'o', 'k', 0x30}, ReplyMask: []byte{0xff, 0xff, 0xf0},
	}
	for _, c := range []struct {
		name  string
		spec  *model.Check
		reply string
		want  Verdict
		why   string
	}{
		{"anything", free, "whatever", Pass, "reply of 8 bytes"},
		{"empty", free, "", Pass, "reply of 0 bytes"},
		{"as wanted", strict, "ok7", Pass, "reply of 3 bytes"},
		{"wildcard", strict, "ok0+", Pass, "reply of 4 bytes"},
		{"wrong byte", strict, "oK7", Fail, "byte 1 of the reply is 0x4b, want 0x6b"},
		{"wrong half", strict, "okA", Fail, "byte 2 of the reply is 0x41, want 0x30"},
		{"short", strict, "o", Fail, "reply of 1 bytes, want at least 2"},
		{"shorter than given", strict, "ok", Fail, "reply of 2 bytes, want 3 that are given"},
		{"long", strict, "ok7ok7o", Fail, "reply of more than 6 bytes"},
	} {
		if v, why := UDP(c.spec).Judge([]byte(c.reply)); v != c.want || why != c.why {
			t.Errorf("%s: %d %q, want %d %q", c.name, v, why, c.want, c.why)
		}
	}
	if ok, _ := UDP(free).Silence(time.Second); !ok {
		t.Error("silence is no failure without require_reply")
	}
	if ok, why := UDP(strict).Silence(time.Second); ok || why != "no reply within 1s" {
		t.Errorf("%t %q", ok, why)
	}
	a, b := UDP(free).Payload(), UDP(free).Payload()
	if len(a) != randomPayload || string(a) == string(b) {
		t.Errorf("payload %x then %x is not random", a, b)
	}
	if n := ReplyRoom(strict); n != 7 {
		t.Errorf("room for %d bytes", n)
	}
}

// FuzzDNSReply: whatever comes, only a reply with our id and no error passes.
func FuzzDNSReply(f *testing.F) {
	q, err := Query(0x1234, "example.org", "A")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q)
	f.Add(q[:12])
	f.Add([]byte{0x12, 0x34, 0x81, 0x80, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, _ := (&dns{id: 0x1234, query: q}).Judge(b)
		if v != Pass {
			return
		}
		if len(b) < dnsHeader || binary.BigEndian.Uint16(b) != 0x1234 || b[2]&0x80 == 0 || b[3]&15 != 0 {
			t.Errorf("%x passed", b)
		}
	})
}
