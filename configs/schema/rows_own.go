package schema

// pairRows are the appliance's blocks and lines for a pair of boxes, for mail
// over TLS and for SNMP.
var pairRows = []Keyword{
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

// probeRows are the appliance's own options of checks.
var probeRows = []Keyword{
	row("checker-common@virtual_server real_server TCP_CHECK HTTP_GET SMTP_CHECK DNS_CHECK UDP_CHECK PING_CHECK", "through_vip", "bool?", "off", 'O', Works,
		"probe the VIP by way of the real server, as clients reach it with DR and TUN: a server that does not hold the VIP fails"),
	row("TCP_CHECK", "half_open", "bool?", "off", 'O', Works, "send a SYN, and a RST when it is answered: the server's program sees no connection"),
	row("HTTP_GET", "tls_verify", "bool?", "off", 'O', Works, "the certificate must be valid for the name that is sent"),
	row("HTTP_GET@url", "header", "word:NAME words:VALUE?", "none", 'O', Works, "header field to send; repeat for more"),
	row("HTTP_GET@url", "expect_header", "word:NAME words:VALUE?", "none", 'O', Works, "header field that the answer must have, with this text in it"),
}
