package net

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"ballast/services/ipc"
	"ballast/services/ipc/support"
)

// What net tells for a support bundle: the kernel's tables, whoever made them.
func TestSupport(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, c := range []string{"ip link set lo up", "ip link add a0 type veth peer name b0", "ip link set a0 up", "ip link set b0 up", "ip addr add 10.9.0.1/24 dev a0",
		"ip route add 10.77.0.0/16 via 10.9.0.2 table 77", "ip rule add fwmark 5 table 77", "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:0b dev a0",
		"nft add table inet other", "nft add chain inet other in { type filter hook input priority 0 ; }", "nft add rule inet other in tcp dport 80 counter accept", "nft add set inet other s { type ipv4_addr ; }",
		"nft add element inet other s { 192.0.2.7 }"} {
		sh(t, c)
	}
	env, err := ipc.NewEnv(ipc.Dir(t.TempDir()), "net", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server := ipc.NewServer("net")
	server.HandleStream("support", support.Tell((&service{}).support), ipc.GroupAdmin)
	go server.Serve(ctx, env.Listener)
	got := map[string]string{}
	err = support.Parts(ctx, func(ctx context.Context, out io.Writer) error {
		return env.Dir.Client("net").Stream(ctx, "support", nil, nil, out, nil)
	}, func(p support.Part) error {
		if p.Error != "" {
			t.Errorf("%s: %s", p.Name, p.Error)
		}
		if _, twice := got[p.Name]; twice {
			t.Errorf("%s twice", p.Name)
		}
		got[p.Name] = p.Text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, parts := range map[string][]string{
		"links.json":           {`"Name": "a0"`, `"Type": "veth"`, `"RxPackets"`},
		"addresses.txt":        {"a0 10.9.0.1/24"},
		"routes.txt":           {"dev a0", "10.77.0.0/16", "Table: 77"},
		"rules.txt":            {"fwmark 0x5 table 77"},
		"neighbours.txt":       {"a0 10.9.0.2 02:00:00:00:00:0b"},
		"qdiscs.txt":           {"a0 "},
		"ethtool.txt":          {"a0: driver veth", "a0: peer_ifindex "},
		"nftables.txt":         {"table other", "chain in", "Counter", "set s", "c0000207"},
		"proc/net/dev":         {"a0:"},
		"proc/interrupts":      {"CPU0"},
		"proc/meminfo":         {"MemTotal"},
		"proc/cmdline":         {"\n"},
		"sysctl-net.txt":       {"/proc/sys/net/ipv4/conf/a0/rp_filter ", "/proc/sys/net/ipv4/ip_forward "},
		"sysctl-kernel.txt":    {"/proc/sys/kernel/osrelease "},
		"links-sysfs.txt":      {"/sys/class/net/a0/carrier_changes "},
		"hardware/machine.txt": {"/sys/devices/system/cpu/online "},
	} {
		for _, part := range parts {
			if !strings.Contains(got[name], part) {
				t.Errorf("%s has no %q: %.600s", name, part, got[name])
			}
		}
	}
}

func TestCmdLine(t *testing.T) {
	for in, want := range map[string]string{
		"console=ttyS0 ballast.source=http://192.0.2.11:1914/TOKEN/ quiet\n": "console=ttyS0 ballast.source=//192.0.2.11:1914/******** quiet\n",
		"ballast.source=%zz panic=10":                                        "ballast.source=///******** panic=10\n",
		"":                                                                   "\n",
	} {
		if got := cmdLine(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
