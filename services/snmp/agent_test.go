package snmp

import (
	"net/netip"
	"testing"

	"github.com/gosnmp/gosnmp"
)

func request(t testing.TB, kind gosnmp.PDUType, version gosnmp.SnmpVersion, community string, names ...string) []byte {
	t.Helper()
	p := gosnmp.SnmpPacket{Version: version, Community: community, PDUType: kind, RequestID: 7, MaxRepetitions: 50}
	for _, n := range names {
		p.Variables = append(p.Variables, gosnmp.SnmpPDU{Name: n, Type: gosnmp.Null})
	}
	b, err := p.MarshalMsg()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testAgent() *agent {
	tr := makeTree(example())
	return &agent{community: "c0mmunity", clients: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, tree: func() tree { return tr }}
}

var manager = netip.MustParseAddr("192.0.2.9")

func TestAgent(t *testing.T) {
	const host, wide, nothing = ".1.3.6.1.2.1.1.5.0", ".1.3.6.1.2.1.31.1.1.1.6.7", ".1.3.6.1.2.1.1.99.0"
	for _, c := range []struct {
		name    string
		packet  []byte
		from    string
		dropped bool
		err     gosnmp.SNMPError
		first   any
	}{
		{name: "get", packet: request(t, gosnmp.GetRequest, gosnmp.Version2c, "c0mmunity", host), first: "lb1"},
		{name: "get v1", packet: request(t, gosnmp.GetRequest, gosnmp.Version1, "c0mmunity", host), first: "lb1"},
		{name: "nothing there", packet: request(t, gosnmp.GetRequest, gosnmp.Version2c, "c0mmunity", nothing)},
		{name: "nothing there, v1", packet: request(t, gosnmp.GetRequest, gosnmp.Version1, "c0mmunity", nothing), err: gosnmp.NoSuchName},
		{name: "next v1 leaves 64 bits out", packet: request(t, gosnmp.GetNextRequest, gosnmp.Version1, "c0mmunity", ".1.3.6.1.2.1.31.1.1.1.5"), first: uint(0)},
		{name: "set", packet: request(t, gosnmp.SetRequest, gosnmp.Version2c, "c0mmunity", host), err: gosnmp.NotWritable},
		{name: "bulk", packet: request(t, gosnmp.GetBulkRequest, gosnmp.Version2c, "c0mmunity", ".1.3.6.1"), first: "Ballast 0.1 LVS director"},
		{name: "bulk v1", packet: request(t, gosnmp.GetBulkRequest, gosnmp.Version1, "c0mmunity", ".1.3.6.1"), dropped: true},
		{name: "community", packet: request(t, gosnmp.GetRequest, gosnmp.Version2c, "public", host), dropped: true},
		{name: "no community", packet: request(t, gosnmp.GetRequest, gosnmp.Version2c, "", host), dropped: true},
		{name: "stranger", packet: request(t, gosnmp.GetRequest, gosnmp.Version2c, "c0mmunity", host), from: "198.51.100.1", dropped: true},
		{name: "answer", packet: request(t, gosnmp.GetResponse, gosnmp.Version2c, "c0mmunity", wide), dropped: true},
		{name: "noise", packet: []byte("GET / HTTP/1.0\r\n\r\n"), dropped: true},
		{name: "nothing", dropped: true},
		{name: "long", packet: make([]byte, maxRequest+1), dropped: true},
	} {
		from := manager
		if c.from != "" {
			from = netip.MustParseAddr(c.from)
		}
		out := testAgent().answer(c.packet, from)
		if c.dropped || out == nil {
			if (out == nil) != c.dropped {
				t.Errorf("%s: answer %x", c.name, out)
			}
			continue
		}
		if len(out) > maxAnswer {
			t.Errorf("%s: %d bytes", c.name, len(out))
		}
		p, err := decode(out)
		if err != nil || p.RequestID != 7 || p.PDUType != gosnmp.GetResponse || p.Error != c.err {
			t.Errorf("%s: %+v, %v", c.name, p, err)
			continue
		}
		got := p.Variables[0].Value
		if b, ok := got.([]byte); ok {
			got = string(b)
		}
		if c.err == 0 && got != c.first {
			t.Errorf("%s: %v (%T), want %v (%T)", c.name, got, got, c.first, c.first)
		}
	}
}

// Whatever comes in, the agent lives, answers nobody who does not know the
// community, and never answers with more than fits into a frame.
func FuzzAnswer(f *testing.F) {
	for _, k := range []gosnmp.PDUType{gosnmp.GetRequest, gosnmp.GetNextRequest, gosnmp.GetBulkRequest, gosnmp.SetRequest} {
		f.Add(request(f, k, gosnmp.Version2c, "c0mmunity", ".1.3.6.1.2.1.1.5.0", ".1.3"))
		f.Add(request(f, k, gosnmp.Version1, "public", ".1.3.6.1.4.1.9586"))
	}
	a := testAgent()
	f.Fuzz(func(t *testing.T, packet []byte) {
		out := a.answer(packet, manager)
		if len(out) > maxAnswer+len(packet) {
			t.Errorf("%d bytes", len(out))
		}
	})
}
