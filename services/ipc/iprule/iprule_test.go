package iprule_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/model"
	"ballast/services/ipc/iprule"
)

var p = netip.MustParsePrefix

var samples = []struct {
	text string
	rule model.Rule
}{
	{"100 lookup 254", model.Rule{Preference: 100, NoTrack: true, TrackGroup: "g", Protocol: 4}},
	{"100 not from 10.1.0.0/16 to 10.2.0.0/16 lookup 1000", model.Rule{Preference: 100, Not: true, From: p("10.1.2.3/16"), To: p("10.2.0.0/16"), Table: 1000}},
	{"7 from 2001:db8::/32 prohibit", model.Rule{Preference: 7, IPv6: true, From: p("2001:db8::/32"), Action: "prohibit"}},
	{"7 fwmark 0x3/0xff iif eth0 oif eth1 goto 9", model.Rule{Preference: 7, Mark: 0x103, MarkMask: 0xff, IIF: "eth0", OIF: "eth1", Action: "goto", Goto: 9}},
	{"1 l3mdev", model.Rule{Preference: 1, L3MDev: true}},
	{"2 lookup 5", model.Rule{Preference: 2, Table: 5, TOS: 0x10, Realms: 3, UIDRange: true, UIDTo: 1000, TunnelID: 1 << 40, IPProto: 6,
		SPort: model.PortRange{From: 80}, DPort: model.PortRange{From: 1, To: 9}, SuppressPrefix: 1, SuppressGroup: 4}},
}

func TestThereAndBack(t *testing.T) {
	for _, s := range samples {
		got, proto, ok := iprule.Parse(iprule.Marshal(s.rule, 0xb0))
		if !ok || proto != 0xb0 {
			t.Errorf("%s: %v, protocol %d", s.text, ok, proto)
		}
		want := iprule.Normal(s.rule)
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("%s (-want +got):\n%s", s.text, d)
		}
		if text := iprule.Text(want); text != s.text {
			t.Errorf("%q, want %q", text, s.text)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range samples {
		f.Add(iprule.Marshal(s.rule, 18))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, _, ok := iprule.Parse(b); ok && iprule.Normal(r) != iprule.Normal(iprule.Normal(r)) {
			t.Errorf("rule %+v", r)
		}
	})
}
