package firewall

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
)

func noAccepting() []model.Instance {
	vip := func(s string) model.Address { return model.Address{Prefix: netip.MustParsePrefix(s)} }
	return []model.Instance{
		{NoAccept: true, Priority: 100, VIPs: []model.Address{vip("10.0.0.100/24")}, ExcludedVIPs: []model.Address{vip("2001:db8::100/64")}},
		{NoAccept: true, Priority: 255, VIPs: []model.Address{vip("10.0.0.101/24")}}, // the owner
		{Priority: 100, VIPs: []model.Address{vip("10.0.0.102/24")}},
	}
}

func TestNoAccept(t *testing.T) {
	rs := NoAccept(Desired(ftp), noAccepting())
	c := rs.Chains[len(rs.Chains)-1]
	if len(rs.Chains) != 3 || c.Hook != Input || c.Priority <= 99 {
		t.Fatalf("%+v", rs.Chains)
	}
	var got []string
	for _, r := range c.Rules {
		got = append(got, r.comment())
		back, n, ok := parseRule(exprs(r, Count{3, 4}))
		if !ok || back != r || n != (Count{3, 4}) {
			t.Errorf("%s reads back as %+v, %v", r.comment(), back, ok)
		}
	}
	if want := []string{"neighbour discovery", "no_accept 10.0.0.100", "no_accept 2001:db8::100"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if rs := NoAccept(Ruleset{}, nil); len(rs.Chains) != 0 {
		t.Errorf("%+v", rs)
	}
}

// The box does not answer on the address, neighbour discovery for it passes,
// and a second pass changes nothing.
func TestNoAcceptDrops(t *testing.T) {
	namespace(t)
	sh(t, "ip link set lo up")
	sh(t, "ip addr add 10.0.0.100/32 dev lo")
	sh(t, "ip addr add 10.0.0.102/32 dev lo") // of the instance with accept
	table, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	reached := func(addr string, within time.Duration) bool {
		t.Helper()
		c, err := net.DialTimeout("tcp", addr+":9", within)
		if err == nil {
			c.Close()
		}
		return err == nil || errors.Is(err, unix.ECONNREFUSED)
	}
	if !reached("10.0.0.100", 10*time.Second) {
		t.Fatal("the address does not answer without the rule")
	}
	want := NoAccept(Ruleset{}, noAccepting())
	for i, ops := range [][]string{{"add chain no_accept with 3 rules"}, nil} {
		_, got, err := table.Apply(want)
		if err != nil || !slices.Equal(got, ops) {
			t.Errorf("pass %d: %q, %v", i, got, err)
		}
	}
	if reached("10.0.0.100", 200*time.Millisecond) {
		t.Error("the address answers")
	}
	if !reached("10.0.0.102", 10*time.Second) {
		t.Error("an address with accept does not answer")
	}
	held, err := table.Dump()
	if err != nil {
		t.Fatal(err)
	}
	if n := held.NoAccepts(); len(n) != 2 || n[0].Addr != netip.MustParseAddr("10.0.0.100") || n[0].Packets == 0 {
		t.Errorf("%+v", n)
	}
	if len(held.Marks()) != 0 {
		t.Errorf("marks %+v", held.Marks())
	}
}
