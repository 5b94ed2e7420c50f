package packet

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What keepalived sends under auth_type AH, password 1111, comes out of the
// encoder byte for byte.
func TestAHEqualsTheCapturedOne(t *testing.T) {
	src, dst := netip.MustParseAddr("192.168.200.1"), netip.MustParseAddr("224.0.0.18")
	for i, f := range frames(t, "v2_ah") {
		want := f[etherLen:]
		a := Advert{Version: 2, VRID: 51, Priority: 100, AuthType: AuthAH, AdvertInt: time.Second, Addrs: addrs("192.168.200.16")}
		if i == 3 {
			a.Priority = 0
		}
		got := AppendIPv4(nil, ProtocolAH, uint16(i+1), 255, src, dst, AHLen+a.Len())
		got = AppendAH(got, src, uint32(i+1))
		got = a.Append(got, src, dst, false)
		h := NewAH([]byte("1111"))
		h.Sign(got, false)
		if d := cmp.Diff(hex.EncodeToString(want), hex.EncodeToString(got)); d != "" {
			t.Errorf("frame %d (-want +got):\n%s", i, d)
		}
		if seq, err := h.Check(want, false); seq != uint32(i+1) || err != nil {
			t.Errorf("frame %d: sequence %d, %v", i, seq, err)
		}
	}
}

// Whatever is changed on the way is noticed, but for what routers may change.
func TestAHNoticesChanges(t *testing.T) {
	b := frames(t, "v2_ah")[0][etherLen:]
	for _, unicast := range []bool{false, true} {
		h := NewAH([]byte("1111"))
		h.Sign(b, unicast)
		for i := range b {
			c := bytes.Clone(b)
			c[i] ^= 1
			_, err := h.Check(c, unicast)
			mutable := i == 1 || i == 6 || i == 7 || i == 10 || i == 11 || i == 8 && unicast || i == 22 || i == 23
			if i == 22 || i == 23 { // reserved: covered by the check value
				mutable = false
			}
			if mutable == (err != nil) {
				t.Errorf("unicast %v: octet %d changed: %v", unicast, i, err)
			}
		}
		if _, err := NewAH([]byte("1112")).Check(b, unicast); err != ErrAHAuth {
			t.Errorf("another password: %v", err)
		}
	}
}

// The vectors of the protocol's description: key 00..1f, VRID 51, priority 200,
// sequence 6800000080000000.
func TestTrailerVectors(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	h := NewHMAC(key)
	for _, c := range []struct {
		src, dst, vip, want string
		ipv6                bool
	}{
		{"198.51.100.10", "224.0.0.18", "192.0.2.100", "3133c80100644402c0000264010100006800000080000000" +
			"1b84bc4e8e43892dc6d98448f8ee2265", false},
		{"fe80::10", "fe80::20", "fe80::100", "3133c8010064a2e9fe800000000000000000000000000100010100006800000080000000" +
			"c8c56146ebfd66ee10ec4d8186461b78", true},
	} {
		src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
		a := Advert{Version: 3, VRID: 51, Priority: 200, Type: TypeAdvertisement, IPv6: c.ipv6, AdvertInt: time.Second, Addrs: addrs(c.vip)}
		b := a.Append([]byte("head"), src, dst, true)
		b = h.Append(b, 4, &a, Trailer{Key: 1, Seq: 0x6800000080000000}, src, dst)[4:]
		if d := cmp.Diff(c.want, hex.EncodeToString(b)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		got, err := Decode(b, c.ipv6)
		if err != nil || got.Verify(b, src, dst, true) != nil {
			t.Errorf("decode: %v, verify: %v", err, got.Verify(b, src, dst, true))
		}
		trail, ok, err := got.Trail(b)
		if trail != (Trailer{1, 0x6800000080000000}) || !ok || err != nil {
			t.Errorf("trailer %+v %v %v", trail, ok, err)
		}
		if err := h.Check(b, &got, src); err != nil {
			t.Error(err)
		}
		if err := h.Check(b, &got, dst); err != ErrTrailerAuth {
			t.Errorf("from another source: %v", err)
		}
		for i := range b {
			m := bytes.Clone(b)
			m[i] ^= 1
			if i == 6 || i == 7 || i == 3 { // the checksum guards itself; another count is another message
				continue
			}
			got, err := Decode(m, c.ipv6)
			if err != nil {
				continue
			}
			if err := h.Check(m, &got, src); err == nil {
				t.Errorf("octet %d changed, and the signature is still right", i)
			}
		}
		if _, ok, err := got.Trail(b[:len(b)-TrailerLen]); ok || err != nil {
			t.Errorf("no trailer: %v %v", ok, err)
		}
		b[len(b)-TrailerLen] = 2
		if _, ok, err := got.Trail(b); ok || err != ErrTrailer {
			t.Errorf("a trailer of another type: %v %v", ok, err)
		}
	}
}

func TestAuthDoesNotAllocate(t *testing.T) {
	b := bytes.Clone(frames(t, "v2_ah")[0][etherLen:])
	ah, h := NewAH([]byte("1111")), NewHMAC([]byte(strings.Repeat("k", 32)))
	src, dst := netip.MustParseAddr("192.168.200.1"), netip.MustParseAddr("224.0.0.18")
	a := Advert{Version: 3, VRID: 51, Priority: 100, AdvertInt: time.Second, Addrs: addrs("192.168.200.16")}
	buf := make([]byte, 0, 200)
	if n := testing.AllocsPerRun(100, func() {
		ah.Sign(b, false)
		ah.Check(b, false)
		buf = a.Append(buf[:0], src, dst, false)
		buf = h.Append(buf, 0, &a, Trailer{Key: 1, Seq: 7}, src, dst)
		if h.Check(buf, &a, src) != nil {
			t.Error("wrong signature")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzAH(f *testing.F) {
	for _, fr := range frames(f, "v2_ah") {
		f.Add(fr[etherLen:])
	}
	h := NewAH([]byte("1111"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ip, err := DecodeIPv4(b)
		if err == nil && ip.Proto == ProtocolAH && len(ip.Payload) < AHLen {
			t.Fatalf("%x passes without an authentication header", b)
		}
		if _, err := h.Check(b, false); err != nil {
			return
		}
		c := bytes.Clone(b)
		h.Sign(c, false)
		if !bytes.Equal(b, c) {
			t.Fatalf("%x passes, but is signed as %x", b, c)
		}
	})
}

func FuzzTrailer(f *testing.F) {
	h := NewHMAC([]byte(strings.Repeat("k", 32)))
	src, dst := netip.MustParseAddr("192.168.200.1"), netip.MustParseAddr("224.0.0.18")
	for _, v := range []uint8{2, 3} {
		a := Advert{Version: v, VRID: 51, Priority: 100, AdvertInt: time.Second, Addrs: addrs("192.168.200.16")}
		f.Add(h.Append(a.Append(nil, src, dst, false), 0, &a, Trailer{Key: 1, Seq: 7}, src, dst), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, ipv6 bool) {
		src := src
		if ipv6 {
			src = netip.MustParseAddr("fe80::1")
		}
		a, err := Decode(b, ipv6)
		if err != nil {
			return
		}
		_, ok, _ := a.Trail(b)
		if err := h.Check(b, &a, src); err == nil && len(b) < a.Len()+TrailerLen {
			t.Fatalf("%x passes without a trailer", b)
		} else if ok && err == ErrTrailer {
			t.Fatalf("%x has a trailer that is too short to check", b)
		}
	})
}
