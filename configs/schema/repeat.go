package schema

import (
	"slices"
	"strings"
)

// Each as a Keyword's Key: every word behind the keyword is a value of its own.
const Each = -1

// repeating are the keywords of which a block may hold several that count side
// by side: "block keyword", and how many of its first words tell one from
// another. A block that is there twice and adds up (global_defs, system, lists)
// does not repeat.
var repeating = map[string]int{
	" vrrp_instance": 1, " vrrp_sync_group": 1, " vrrp_script": 1, " vrrp_track_process": 1, " track_file": 1, " bfd_instance": 1,
	" virtual_server": 2, " virtual_server_group": 1, " track_group": 1, " garp_group": 0, " include": 0,
	" interface": 1, " bond": 1, " vlan": 1, " mark": 1, " route": 0,

	"system login": 1, "system dns": Each, "system ntp": Each, "system syslog": Each, "login key": 0,
	"interface address": Each, "bond member": Each,
	"mark tcp": 0, "mark udp": 0, "mark sctp": 0,
	"firewall ssh": 0, "firewall allow": 0,
	"heartbeat peer": 0, "snmp listen": 0, "snmp trap_sink": 0, "snmp client": Each, "netboot box": 1,

	"auth_hmac key": 1, "virtual_server_group fwmark": 0, "virtual_server real_server": 2,
	"real_server TCP_CHECK": 0, "real_server HTTP_GET": 0, "real_server SSL_GET": 0, "real_server SMTP_CHECK": 0, "real_server DNS_CHECK": 0,
	"real_server MISC_CHECK": 0, "real_server UDP_CHECK": 0, "real_server PING_CHECK": 0, "real_server BFD_CHECK": 0, "real_server FILE_CHECK": 0,
	"HTTP_GET url": 0, "url status_code": Each, "url regex_options": Each, "url header": 1, "url expect_header": 1, "SMTP_CHECK host": 0,
}

// together are the rows whose names are keywords of their own and only share
// the row. The names of any other row mean the same.
var together = []string{"flag-1", "alpha", "notify_master", "retry"}

// repeat fills Repeats, Key and Together of a row.
func (k *Keyword) repeat() {
	for _, in := range k.In {
		if n, is := repeating[in+" "+k.Name]; is {
			k.Repeats, k.Key = true, n
		}
	}
	k.Together = len(k.Aliases) > 0 && slices.Contains(together, k.Name)
}

// Same tells whether two names of the row mean the same.
func (k *Keyword) Same(a, b string) bool { return a == b || !k.Together }

// HeadWords is how many words behind the keyword belong to the head of a block
// that line opens: "virtual_server fwmark 7" has two, "virtual_server 192.0.2.1"
// has one where a word of the block follows. line begins with the keyword. ok is
// false when words are missing.
func (k *Keyword) HeadWords(line []string) (n int, ok bool) {
	args := line[1:]
	if k.Name == "virtual_server" {
		switch {
		case len(args) == 0:
			return 0, false
		case args[0] == "fwmark" || args[0] == "group":
			return min(2, len(args)), len(args) > 1
		case len(args) > 1 && k.further(Arg{Kind: KindInt, Max: 65535}, args[1]):
			return 2, true
		}
		return 1, true
	}
	for i, a := range k.Args {
		switch {
		case i >= len(args):
			return i, a.Optional
		case a.Optional && !k.further(a, args[i]):
			return i, true
		}
	}
	return len(k.Args), true
}

// further tells whether a word goes on with the head rather than with what
// stands in the block.
func (k *Keyword) further(a Arg, word string) bool {
	return Lookup(k.Opens, word) == nil && (a.Check(word) == nil || strings.Contains(word, "$"))
}
