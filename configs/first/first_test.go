package first_test

import (
	"strings"
	"testing"

	"ballast/configs"
	"ballast/configs/first"
	"ballast/configs/model"
)

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC"

func TestChecks(t *testing.T) {
	nics := []string{"eth0", "eth1"}
	in := func(network string) func(string) error {
		return func(s string) error { return first.Gateway(s, network) }
	}
	for _, tc := range []struct {
		check func(string) error
		s     string
		want  string // of the error; empty: none
	}{
		{first.Host, "lb1", ""}, {first.Host, "lb1.example.net", ""}, {first.Host, "", "for example lb1"}, {first.Host, "-x", "begins"}, {first.Host, strings.Repeat("x", 65), "at most 64"}, {first.Host, "a b", "letters"},
		{func(s string) error { return first.Interface(s, nics) }, "eth1", ""},
		{func(s string) error { return first.Interface(s, nics) }, "eth9", "there are: eth0, eth1"},
		{func(s string) error { return first.Interface(s, nil) }, "eth0", "no network interface is there"},
		{first.Address, "dhcp", ""}, {first.Address, "192.0.2.11/24", ""}, {first.Address, "2001:db8::11/64", ""}, {first.Address, "10.0.0.0/31", ""}, {first.Address, "10.0.0.1/32", ""},
		{first.Address, "192.0.2.11", "write 192.0.2.11/24"}, {first.Address, "192.0.2.0/24", "the network 192.0.2.0/24 itself"}, {first.Address, "192.0.2.255/24", "broadcast"},
		{first.Address, "127.0.0.1/8", "no address of a box"}, {first.Address, "224.0.0.1/4", "no address of a box"}, {first.Address, "", "or dhcp"}, {first.Address, "fe80::1%eth0/64", "or dhcp"},
		{in("192.0.2.11/24"), "", ""}, {in("192.0.2.11/24"), "192.0.2.1", ""}, {in("2001:db8::11/64"), "fe80::1", ""},
		{in("192.0.2.11/24"), "192.0.3.1", "is the length /24 right?"}, {in("192.0.2.11/24"), "192.0.2.11", "this box itself"}, {in("192.0.2.11/24"), "gw", "write an address"}, {in("dhcp"), "192.0.2.1", "leave it out"},
		{in("192.0.2.11/24"), "fe80::1", "not in the network"},
		{first.User, "ann", ""}, {first.User, "Ann", "lower-case"}, {first.User, "", "for example ann"},
		{first.Key, key, ""}, {first.Key, key + " ann@laptop", ""}, {first.Key, "", "a key has a type and a body"}, {first.Key, key[:40], "paste the one line"}, {first.Key, "-----BEGIN OPENSSH PRIVATE KEY-----", "private key"},
		{first.Key, key + ` "x" }`, "leave the name out"},
	} {
		err := tc.check(tc.s)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.s, err, tc.want)
		}
	}
}

// What was answered is a configuration without faults, and says what was answered.
func TestText(t *testing.T) {
	for _, a := range []first.Answers{
		{Host: "lb1", Interface: "eth0", Address: "192.0.2.11/24", Gateway: "192.0.2.1", User: "ann", Key: key + " ann@laptop"},
		{Host: "lb1", Interface: "eth0", Address: "2001:db8::11/64", Gateway: "fe80::1", User: "ann", Key: key},
		{Host: "lb1", Interface: "eth0", Address: "dhcp", User: "ann", Key: key},
		{Interface: "eth0", Address: "dhcp"}, {Host: "lb1"},
	} {
		cfg, problems := new(configs.Loader).Load("first", a.Text(), configs.Options{})
		for _, p := range problems {
			if p.Severity == model.Error {
				t.Errorf("%s\n%s", a.Text(), p)
			}
		}
		if cfg.System.HostName != a.Host {
			t.Errorf("host name %q", cfg.System.HostName)
		}
		if a.Key != "" && (len(cfg.System.Logins) != 1 || cfg.System.Logins[0].Name != a.User || cfg.System.Logins[0].Role != "admin" || cfg.System.Logins[0].Keys[0] != a.Key) {
			t.Errorf("%+v", cfg.System.Logins)
		}
		if a.Address != "" && (len(cfg.Interfaces) != 1 || cfg.Interfaces[0].DHCP != (a.Address == "dhcp") || !cfg.Interfaces[0].DHCP && cfg.Interfaces[0].Addresses[0].String() != a.Address) {
			t.Errorf("%+v", cfg.Interfaces)
		}
		if (a.Gateway != "") != (len(cfg.StaticRoutes) == 1) {
			t.Errorf("%+v", cfg.StaticRoutes)
		}
	}
}

func TestFromWords(t *testing.T) {
	nics := []string{"eth0", "eth1"}
	from := func(nics []string, words ...string) (first.Answers, string) {
		a, faults := first.FromWords(func(w string) string {
			for _, s := range words {
				if k, v, _ := strings.Cut(s, "="); k == w {
					return v
				}
			}
			return ""
		}, nics)
		var all []string
		for _, f := range faults {
			all = append(all, f.Error())
		}
		return a, strings.Join(all, "\n")
	}
	commas := strings.ReplaceAll(key, " ", ",")
	all := []string{"ballast.host=lb1", "ballast.address=192.0.2.11/24", "ballast.gateway=192.0.2.1", "ballast.login=ann", "ballast.key=" + commas}
	if a, faults := from(nics, all...); faults != "" || a != (first.Answers{Host: "lb1", Interface: "eth0", Address: "192.0.2.11/24", Gateway: "192.0.2.1", User: "ann", Key: key}) {
		t.Errorf("%+v %s", a, faults)
	}
	if a, faults := from(nics); a != (first.Answers{}) || faults != "" {
		t.Errorf("%+v %s", a, faults)
	}
	for _, tc := range []struct {
		nics  []string
		words []string
		want  first.Answers
		fault string
	}{
		{nics, []string{"ballast.address=dhcp", "ballast.interface=eth1"}, first.Answers{Interface: "eth1", Address: "dhcp"}, ""},
		{nics, []string{"ballast.host=a_b", "ballast.key=" + commas}, first.Answers{User: "admin", Key: key}, "ballast.host: it is left out"},
		{nics, []string{"ballast.address=192.0.2.11"}, first.Answers{}, "ballast.address: it is left out: the length"},
		{nics, []string{"ballast.address=dhcp", "ballast.interface=eth9"}, first.Answers{}, "ballast.interface: it is left out: it is not there"},
		{nil, []string{"ballast.address=dhcp"}, first.Answers{}, "no network interface is there"},
		{nics, []string{"ballast.key=" + commas, "ballast.login=Ann"}, first.Answers{}, "ballast.login: it is left out"},
		{nics, []string{"ballast.key=" + strings.Repeat("x", 3000)}, first.Answers{}, "more than 2048 bytes"},
	} {
		a, faults := from(tc.nics, tc.words...)
		if a != tc.want || (faults == "") != (tc.fault == "") || !strings.Contains(faults, tc.fault) {
			t.Errorf("%q: %+v, faults %q", tc.words, a, faults)
		}
	}
}

// Nothing that a check lets pass breaks out of its place in the text.
func FuzzText(f *testing.F) {
	f.Add("lb1", "192.0.2.11/24", "192.0.2.1", "ann", key+" ann@laptop")
	f.Add("a.b", "dhcp", "", "x", key+" }")
	f.Add("a", "2001:db8::1/64", "fe80::1", "x", key+" $a ~SEQ(1) @x")
	f.Fuzz(func(t *testing.T, host, address, gateway, user, k string) {
		if first.Host(host) != nil || first.Address(address) != nil || first.Gateway(gateway, address) != nil || first.User(user) != nil || first.Key(k) != nil {
			return
		}
		a := first.Answers{Host: host, Interface: "eth0", Address: address, Gateway: gateway, User: user, Key: k}
		cfg, problems := new(configs.Loader).Load("first", a.Text(), configs.Options{})
		for _, p := range problems {
			if p.Severity == model.Error {
				t.Errorf("%q\n%s", a.Text(), p)
			}
		}
		if cfg.System.HostName != host || len(cfg.System.Logins) != 1 || len(cfg.Interfaces) != 1 {
			t.Errorf("%q: %+v", a.Text(), cfg)
		}
	})
}
