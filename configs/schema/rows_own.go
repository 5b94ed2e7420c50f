package schema

// pairRows are the appliance's blocks and lines for a pair of boxes, for mail
// over TLS and for SNMP.
var pairRows = []compact{
	row("root", "heartbeat", "{heartbeat}", "", 'O', Works, "the private heartbeat between the two boxes of a pair: finds a dead peer in milliseconds"),
	row("heartbeat", "peer", "ip free:[from_ADDRESS]_[dev_IF]", "", 'O', Works, "an address of the other box; repeat for a second path"),
	row("heartbeat", "key", "word:KEY", "", 'O', Works, "secret of the pair, 16…64 bytes: text, or hex: and digits"),
	row("heartbeat", "interval", "int:5..1000", "10", 'O', Works, "milliseconds between heartbeats"),
	row("heartbeat", "multiplier", "int:2..20", "3", 'O', Works, "missed heartbeats until the peer is lost"),
	row("heartbeat", "port", "int:1..65535", "1912", 'O', Works, "UDP port"),

	row("root", "peer", "ip? {peer}", "", 'O', Works, "the other box of the pair, which runs the same configuration: a commit is for both"),
	row("peer", "address", "ip", "", 'O', Works, "address of the other box, where it is not written before the brace"),
	row("peer", "key", "free:\"ssh-ed25519_AAAA…\"", "", 'O', Works, "its public key, as its show peer prints it"),
	row("peer", "port", "int:1..65535", "1913", 'O', Works, "TCP port, the same on both"),
	row("peer", "from", "ip", "the kernel's choice", 'O', Works, "own address: where this box listens and calls from"),

	row("root", "netboot", "{netboot}", "", 'O', Works, "boxes that boot from this one over the network"),
	row("netboot", "box", "word:MAC {box}", "", 'O', Works, "one of them, by the address of the network card that it boots from"),
	row("box", "name", "word:NAME", "", 'O', Works, "which box it is: the NAME of the lines @NAME that are for it; a box of that name does not serve itself"),
	row("box", "interface", "word:IF", "the one in whose network its address is", 'O', Works, "where this box sees it"),
	row("box", "address", "ip", "the one that the configuration gives to NAME there", 'O', Works, "IPv4 address that it has while it boots"),
	row("box", "dhcp", "enum:auto|server|proxy", "auto", 'O', Works, "server gives it an address too, proxy leaves that to a DHCP server of the network; auto looks whether there is one"),

	row("global_defs", "smtp_tls", "enum:off|starttls|on", "off", 'O', Works, "TLS to the mail server: starttls on the usual port, on from the first byte"),
	row("global_defs", "smtp_verify", "bool?", "on", 'O', Works, "verify the mail server's certificate"),
	row("global_defs", "smtp_user", "word:USER", "none", 'O', Works, "log in to the mail server as this user, over TLS only"),
	row("global_defs", "smtp_password", "word:PASSWORD", "none", 'O', Works, "with this password"),

	row("root", "snmp", "{snmp}", "", 'O', Works, "SNMP agent of the box"),
	row("snmp", "listen", "ip int:1..65535?", "port 161", 'O', Works, "address that answers; repeat for more"),
	row("snmp", "community", "word:WORD", "", 'O', Works, "who knows it may read"),
	row("snmp", "trap_sink", "ip int:1..65535?", "port 162", 'O', Works, "where traps go; repeat for more"),
	row("snmp", "client", "words:IP[/LEN]", "everybody", 'O', Works, "who may ask"),
}

// firewallRows are what may reach the box itself.
var firewallRows = []compact{
	row("root", "firewall", "{firewall}", "", 'O', Works, "what may reach the box itself; what its own services need is allowed without it"),
	row("firewall", "default", "enum:drop|accept", "drop", 'O', Works, "what becomes of packets to the box that no rule is about"),
	row("firewall", "log", "bool?", "off", 'O', Works, "dropped packets go into the kernel's log, at most 5 lines a second"),
	row("firewall", "ssh", "free:[from_IP[/LEN]_…]_[on_IF_…]", "everybody", 'O', Works, "who may come in by SSH; repeat for more"),
	row("firewall", "allow", "free:tcp|udp|sctp|icmp|icmp6|gre|esp|ah|vrrp|any|NUMBER_[PORT|A-B_…]_[from_IP[/LEN]_…]_[on_IF_…]", "nothing", 'O', Works,
		"packets to the box that are accepted as well; repeat for more"),
}

// probeRows are the appliance's own options of checks.
var probeRows = []compact{
	row("checker-common@virtual_server real_server TCP_CHECK HTTP_GET SMTP_CHECK DNS_CHECK UDP_CHECK PING_CHECK", "through_vip", "bool?", "off", 'O', Works,
		"probe the VIP by way of the real server, as clients reach it with DR and TUN: a server that does not hold the VIP fails"),
	row("TCP_CHECK", "half_open", "bool?", "off", 'O', Works, "send a SYN, and a RST when it is answered: the server's program sees no connection"),
	row("HTTP_GET", "tls_verify", "bool?", "off", 'O', Works, "the certificate must be valid for the name that is sent"),
	row("HTTP_GET@url", "header", "word:NAME words:VALUE?", "none", 'O', Works, "header field to send; repeat for more"),
	row("HTTP_GET@url", "expect_header", "word:NAME words:VALUE?", "none", 'O', Works, "header field that the answer must have, with this text in it"),
}
