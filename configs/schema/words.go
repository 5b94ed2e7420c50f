package schema

import (
	"slices"
	"strings"
	"sync"
)

// Word is one word of a row that stands for several: what is said of the row
// does not fit them all.
type Word struct {
	Name    string
	Args    []Arg
	Default string
	Help    string
}

func word(name, args, def, help string) Word {
	w := Word{Name: name, Default: def, Help: help}
	for _, a := range strings.Fields(args) {
		w.Args = append(w.Args, arg(a))
	}
	return w
}

// wordRows are the words of rows whose words are not names of one and the same
// thing, by block and the row's name. Only the manual, completion and reports
// look at them: no process makes them as it starts.
var wordRows = sync.OnceValue(func() map[[2]string][]Word {
	return map[[2]string][]Word{
		{"virtual_server", "flag-1"}: {
			word("flag-1", "", "off", "first flag of the scheduler, by number"),
			word("flag-2", "", "off", "second flag of the scheduler"),
			word("flag-3", "", "off", "third flag of the scheduler"),
			word("sh-port", "", "off", "scheduler sh: the client's port counts as well"),
			word("sh-fallback", "", "off", "scheduler sh: another server when the hashed one takes no connections"),
			word("mh-port", "", "off", "scheduler mh: the client's port counts as well"),
			word("mh-fallback", "", "off", "scheduler mh: another server when the hashed one takes no connections"),
			word("hashed", "", "off", "the service is kept by hash, as the kernel always does"),
		},
		{"real_server", "alpha"}: {
			word("alpha", "bool?", "virtual server's", "this one is down until its first success"),
			word("retry", "int:1..4294967295", "virtual server's", "further tries before this one is down"),
			word("delay_before_retry", "timer:0..", "virtual server's", "seconds between the tries of this one"),
			word("warmup", "timer:0..", "virtual server's", "its first probe comes at random within this time"),
			word("connect_timeout", "timer:0.000001..", "virtual server's", "seconds to connect to this one, and for each later step"),
			word("delay_loop", "timer:0.000001..", "virtual server's", "seconds between probes of this one"),
		},
		{"checker-common", "retry@BFD_CHECK"}: {
			word("retry", "int:0..4294967295", "", "tries of a check that probes"),
			word("delay_before_retry", "timer:0..", "", "time between tries of a check that probes"),
			word("warmup", "timer:0..", "", "start of a check that probes"),
			word("delay_loop", "timer:0.000001..", "", "pace of a check that probes"),
			word("log_all_failures", "bool?", "", "log of a check that probes"),
		},
		{"vrrp_sync_group", "notify_master"}: {
			word("notify_master", "cmd", "none", "run when the group becomes master"),
			word("notify_backup", "cmd", "none", "run when the group becomes backup"),
			word("notify_fault", "cmd", "none", "run when the group goes into fault"),
			word("notify_stop", "cmd", "none", "run when the box stops"),
			word("notify", "cmd", "none", "run on every change, with GROUP NAME STATE PRIORITY behind its arguments"),
		},
		{"route-line", "src"}: {
			word("src", "word:IP", "none", "source address of what the box sends itself"),
			word("from", "word:IP/LEN", "none", "routes by source address are not implemented: a warning, and the route is left out"),
		},
		{"route-line", "nexthop"}: {
			word("nexthop", "free:via_IP_[dev_IF]_[weight_1…256]_[onlink]", "none", "one gateway of several; repeat for each"),
			word("or", "word:IP", "none", "old way to write a second gateway of the same weight, behind via"),
		},
		{"route-line", "blackhole"}: {
			word("blackhole", "", "unicast", "drop silently"),
			word("unreachable", "", "unicast", "answer that the host cannot be reached"),
			word("prohibit", "", "unicast", "answer that it is forbidden"),
			word("throw", "", "unicast", "go on with the next policy rule"),
			word("unicast", "", "unicast", "a plain route"),
			word("local", "", "unicast", "not implemented: a warning, and the route is left out"),
			word("broadcast", "", "unicast", "not implemented, as local"),
			word("multicast", "", "unicast", "not implemented either, as local"),
			word("anycast", "", "unicast", "another type that is not implemented, as local"),
			word("nat", "", "unicast", "gone from the kernel; as local"),
			word("xresolve", "", "unicast", "never was in the kernel; as local"),
		},
		{"route-line", "mtu"}: {
			word("mtu", "free:[lock]_N", "the interface's", "largest packet; lock keeps path MTU discovery from changing it"),
			word("advmss", "free:[lock]_N", "from the MTU", "segment size that TCP announces"),
			word("hoplimit", "free:[lock]_0…255", "the system's", "hop limit of what is sent"),
			word("rtt", "free:[lock]_TIME", "none", "first estimate of the round trip, as 200ms"),
			word("rttvar", "free:[lock]_TIME", "none", "first estimate of how much that varies"),
			word("reordering", "free:[lock]_N", "the system's", "reordering that TCP takes for granted"),
			word("window", "free:[lock]_N", "none", "largest window that TCP announces, bytes"),
			word("cwnd", "free:[lock]_N", "none", "bound of the congestion window; needs lock"),
			word("ssthresh", "free:[lock]_N", "none", "first slow start threshold"),
			word("initcwnd", "free:[lock]_N", "the kernel's", "first congestion window, packets"),
			word("initrwnd", "free:[lock]_N", "the kernel's", "first receive window, packets"),
			word("rto_min", "free:[lock]_TIME", "the kernel's", "shortest time until TCP sends again"),
			word("quickack", "enum:0|1", "0", "acknowledge at once"),
			word("congctl", "free:[lock]_NAME", "the system's", "congestion control, as cubic"),
			word("features", "enum:ecn", "none", "negotiate congestion notification"),
			word("fastopen_no_cookie", "enum:0|1", "0", "TCP fast open without a cookie"),
		},
		{"route-line", "encap"}: {
			word("encap", "free:TYPE_…", "none", "no effect, with a warning: the box has no tunnel that takes its ends from a route"),
			word("ttl-propagate", "enum:enabled|disabled", "none", "no effect, with a warning: the box has no MPLS"),
			word("expires", "word:TIME", "never", "no effect, with a warning: a route lasts as long as the configuration asks for it"),
			word("pref", "enum:low|medium|high", "medium", "preference of an IPv6 router"),
			word("realms", "word:[FROM/]TO", "none", "realms, by number"),
			word("tos", "word:TOS", "any", "type of service that the route is for"),
			word("dsfield", "word:TOS", "any", "another name of tos"),
			word("protocol", "word:NAME|N", "keepalived", "who set the route, as tools show it"),
			word("scope", "word:global|site|link|host|nowhere|N", "by the gateway", "how far the destination is"),
			word("onlink", "", "off", "the gateway is on the link, whatever the addresses say"),
			word("append", "", "off", "behind the routes of the same kind that are there"),
			word("prepend", "", "on", "before them"),
			word("vrf", "word:NAME", "none", "no effect, with a warning: the box has no VRF; name the table by number"),
			word("dev", "word:IF", "the gateway's", "interface"),
			word("oif", "word:IF", "the gateway's", "another name of dev"),
			word("no_track", "", "off", "the loss of the route is no fault"),
			word("track_group", "word:GROUP", "none", "group that fails when the route goes"),
		},
		{"rule-line", "from"}: {
			word("from", "word:IP[/LEN]", "any", "source address"),
			word("to", "word:IP[/LEN]", "any", "destination address"),
		},
		{"rule-line", "lookup"}: {
			word("lookup", "word:TABLE", "", "look into this table"),
			word("table", "word:TABLE", "", "another name of lookup"),
			word("goto", "int:0..4294967295", "", "go on at the rule of this preference"),
			word("nop", "", "", "do nothing"),
			word("type", "enum:unreachable|prohibit|blackhole", "", "refuse or drop; the word type may be left out"),
			word("realms", "word:[FROM/]TO", "none", "realms of what the rule is for, by number"),
		},
		{"rule-line", "fwmark"}: {
			word("fwmark", "word:MARK[/MASK]", "any", "firewall mark"),
			word("not", "", "off", "what the rest of the line does not fit"),
			word("tos", "word:TOS", "any", "type of service"),
			word("dsfield", "word:TOS", "any", "another name of tos"),
			word("iif", "word:IF", "any", "interface that the packet came by"),
			word("dev", "word:IF", "any", "another name of iif"),
			word("oif", "word:IF", "any", "interface that a socket of the box is bound to"),
			word("uidrange", "word:FIRST-LAST", "any", "user numbers of the sockets"),
			word("tunnel-id", "int:0..", "any", "number of the tunnel that the packet came by"),
			word("l3mdev", "", "off", "look into the table of the VRF"),
			word("ipproto", "word:NAME|N", "any", "protocol above IP"),
			word("ip_proto", "word:NAME|N", "any", "another name of ipproto"),
			word("sport", "word:PORT|A-B", "any", "source port"),
			word("dport", "word:PORT|A-B", "any", "destination port"),
			word("protocol", "int:0..255", "keepalived", "who set the rule, as tools show it"),
			word("suppress_prefixlength", "int:0..128", "none", "take no route of this prefix length or a shorter one"),
			word("sup_pl", "int:0..128", "none", "another name of suppress_prefixlength"),
			word("suppress_ifgroup", "word:N|default", "none", "take no route by an interface of this group"),
			word("sup_group", "word:N|default", "none", "another name of suppress_ifgroup"),
			word("inet", "", "by the addresses", "a rule for IPv4"),
			word("inet6", "", "by the addresses", "a rule for IPv6"),
			word("no_track", "", "off", "the loss of the rule is no fault"),
			word("track_group", "word:GROUP", "none", "group that fails when the rule goes"),
		},
	}
})

// Words are what is to say of each word of a row that stands for several
// things; nil: the row says it all, and its aliases are other names.
func (k *Keyword) Words() []Word {
	name := k.Name
	if slices.Contains(k.In, "BFD_CHECK") && k.Class == 'L' && name == "retry" {
		name += "@BFD_CHECK"
	}
	return wordRows()[[2]string{k.Block, name}]
}

// Word is what is to say of one name of the row.
func (k *Keyword) Word(name string) Word {
	for _, w := range k.Words() {
		if w.Name == name {
			return w
		}
	}
	return Word{Name: name, Args: k.Args, Default: k.Default, Help: k.Help}
}

// Grammar prints the arguments of a word.
func (w Word) Grammar() string { return grammar(w.Args, "") }
