package net

import (
	"slices"
	"strings"
	"testing"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// The filter is there before an interface comes up, follows the configuration, and
// knows interfaces by whatever name the configuration has for them.
func TestFilterFollows(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	sh(t, "ip link add eth0 type veth peer name p0")
	sh(t, "ip link property add dev eth0 altname uplink")
	b := newBox(t)
	rules := func(n status.Net) (out []string) {
		if n.Firewall == nil {
			t.Fatal("the state has no filter")
		}
		for _, r := range n.Firewall.Rules {
			out = append(out, r.Does+" "+r.Rule)
		}
		return out
	}
	c := model.Config{Interfaces: []model.Interface{{Name: "eth0"}}}
	st := b.commit(c)
	if got := rules(st); !slices.Contains(got, "accept SSH") || got[len(got)-1] != "drop everything else" || st.Firewall.Default != "drop" {
		t.Errorf("%q", got)
	}
	ops := b.log.applied()
	filter := slices.IndexFunc(ops, func(o string) bool { return strings.HasPrefix(o, "add chain input") })
	up := slices.Index(ops, "set eth0 up")
	if filter < 0 || up < 0 || up < filter {
		t.Errorf("the interface comes up before the filter is there: %q", ops)
	}

	c.Firewall = model.Firewall{SSH: []model.Whence{{Interfaces: []string{"uplink"}}}, Log: true}
	if got := rules(b.commit(c)); slices.Contains(got, "accept SSH") || !slices.Contains(got, "accept SSH on uplink") || !slices.Contains(got, "log log") {
		t.Errorf("%q", got)
	}
	if out := sh(t, "nft list chain inet ballast input"); !strings.Contains(out, `iifname "eth0" tcp dport 22`) {
		t.Errorf("the kernel knows another name:\n%s", out)
	}
	// Somebody else takes it away: it comes back.
	b.log.applied()
	sh(t, "nft delete table inet ballast")
	sh(t, "ip link set p0 up") // an event, which brings the next pass
	b.log.await(t, "add chain input")

	c.Firewall = model.Firewall{Accept: true}
	st = b.commit(c)
	if got := rules(st); got[len(got)-1] != "accept everything else" || st.Firewall.Default != "accept" {
		t.Errorf("%q", got)
	}
}
