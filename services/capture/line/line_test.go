package line

import (
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEthernet(t *testing.T) {
	const eth = "01005e000012 00005e000133 "
	for _, tt := range []struct{ frame, want string }{
		{eth + "0800 4500 0028 0000 0000 ff70 0000 0a000002 e0000012 31 33 64 02 0064 0000 0a000050 0a000051", "IP 10.0.0.2 > 224.0.0.18: VRRPv3 vrid 51 prio 100 intvl 100cs addrs 10.0.0.80,10.0.0.81"},
		{eth + "0800 4500 0028 0000 0000 ff70 0000 0a000002 e0000012 21 33 00 01 01 01 0000 0a000050 7365637265740000", "IP 10.0.0.2 > 224.0.0.18: VRRPv2 vrid 51 prio 0 (resigns) intvl 1s auth simple addrs 10.0.0.80"},
		{eth + "86dd 60000000 0018 70 ff fe800000000000000000000000000001 ff020000000000000000000000000012 31 34 c8 01 0064 0000 20010db8000000000000000000000080", "IP6 fe80::1 > ff02::12: VRRPv3 vrid 52 prio 200 intvl 100cs addrs 2001:db8::80"},
		{eth + "8100 6005 0800 4500 0028 0000 4000 4006 0000 0a000002 0a000001 0fa0 0050 00000001 00000002 5012 0200 0000 0000", "vlan 5 IP 10.0.0.2:4000 > 10.0.0.1:80: TCP [S.] seq 1 ack 2 win 512, length 0"},
		{eth + "0806 0001 0800 06 04 0001 00005e000133 0a000050 000000000000 0a000050", "00:00:5e:00:01:33 > 01:00:5e:00:00:12 ARP 10.0.0.80 is at 00:00:5e:00:01:33, gratuitous"},
		{eth + "0806 0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002", "00:00:5e:00:01:33 > 01:00:5e:00:00:12 ARP who has 10.0.0.2, tell 10.0.0.1"},
		{eth + "0800 4500 0034 0000 0000 ff11 0000 0a000002 0a000001 c000 0ec8 0020 0000 20c00318 00000001 00000002 000186a0 000186a0 00000000", "IP 10.0.0.2:49152 > 10.0.0.1:3784: UDP BFD Up, diag 0, my 0x1, your 0x2, length 24"},
		{eth + "0800 4500 001c 0000 0000 4001 0000 0a000002 0a000001 0800 0000 0007 0009", "IP 10.0.0.2 > 10.0.0.1: ICMP echo request, id 7, seq 9, length 8"},
		{eth + "86dd 60000000 0018 3a ff fe800000000000000000000000000001 ff0200000000000000000001ff000001 8700 0000 00000000 fe800000000000000000000000000002", "IP6 fe80::1 > ff02::1:ff00:1: ICMP6 neighbour solicitation, fe80::2"},
		{eth + "0800 4500 0028 0000 00b9 ff11 0000 0a000002 0a000001 0000000000000000", "IP 10.0.0.2 > 10.0.0.1: fragment at 1480 of protocol 17, length 20"},
		{eth + "88cc 0000", "00:00:5e:00:01:33 > 01:00:5e:00:00:12 LLDP, length 2"},
		{eth + "9999 0000", "00:00:5e:00:01:33 > 01:00:5e:00:00:12 type 0x9999, length 2"},
		{"0000", "a frame of 2 bytes"},
	} {
		b := unhex(t, tt.frame)
		if got := Ethernet(b, 0, len(b)); got != tt.want {
			t.Errorf("%s\nwant\n%s", got, tt.want)
		}
	}
	if s := Ethernet(unhex(t, eth+"0800 4500 0028 0000 0000 ff70 0000 0a000002 e0000012 21 33 64 01 01 01 0000 0a000050 7365637265740000"), 0, 42); strings.Contains(s, "secret") {
		t.Errorf("the password is told: %s", s)
	}
}

func FuzzEthernet(f *testing.F) {
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x08\x00E"), uint16(0), 60)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x86\xdd\x60"), uint16(5), 60)
	f.Fuzz(func(t *testing.T, b []byte, tag uint16, n int) {
		for _, kind := range []uint16{typeIP4, typeIP6, typeARP, typeVLAN} {
			Network(kind, b, n)
		}
		for i := 6; i >= 4; i -= 2 { // what IP finds inside, without luck
			Network(typeIP4, append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 255, byte(tag), 0, 0, 1, 2, 3, 4, 1, 2, 3, 4}, b...), n)
		}
		if s := Ethernet(b, tag, n); s == "" || strings.ContainsAny(s, "\n\x1b") {
			t.Errorf("%q", s)
		}
	})
}
