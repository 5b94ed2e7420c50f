package board

import "slices"

// What every board of a director needs from the kernel, whatever its hardware.
var (
	// ipvsModules is IPVS with all its schedulers.
	ipvsModules = []string{"kernel/net/netfilter/ipvs/*"}

	// filterModules are what marks, filters and NAT of replies are made of.
	filterModules = []string{
		"nf_tables", "nft_ct", "nft_limit", "nft_log", "nft_masq", "nft_nat", "nft_redir", "nft_reject",
		"nft_reject_inet", "nft_fib_inet", "nft_chain_nat", "nft_compat", "nf_conntrack", "nf_conntrack_netlink",
		"nf_conntrack_ftp", "nf_nat", "nf_nat_ftp", "nf_conntrack_tftp", "nf_nat_tftp", "nf_log_syslog", "nfnetlink_log",
	}

	// linkModules are kinds of interfaces that a configuration may ask for, and
	// the tunnels that IPVS sends through.
	linkModules = []string{
		"8021q", "bonding", "macvlan", "ipvlan", "dummy", "bridge", "ipip", "ip6_tunnel", "sit", "ip_gre", "ip6_gre", "fou", "fou6", "veth", "ifb", "vrf",
	}

	// diagModules let the console show sockets and packets.
	diagModules = []string{"inet_diag", "tcp_diag", "udp_diag", "raw_diag", "af_packet_diag", "netlink_diag"}

	// qdiscModules shape and queue.
	qdiscModules = []string{"sch_fq", "sch_fq_codel", "sch_ingress", "sch_htb", "cls_u32", "tcp_bbr"}

	// fileModules are file systems of disks.
	fileModules = []string{"ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1"}

	// crcModules are the checksum that ext4, conntrack and SCTP ask the kernel's
	// crypto layer for by the name of an algorithm, which no dependency tells.
	crcModules = []string{"crc32c_generic", "crc32c-intel"}

	// loadAlways is loaded at every boot: the services begin with these, and
	// being asked for one by one through a helper process would cost each of them
	// a tenth of a second.
	loadAlways = []string{
		"crc32c_generic", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_sh", "ip_vs_dh", "ip_vs_mh",
		"nf_tables", "nft_ct", "nft_masq", "nft_chain_nat", "ipip", "nf_conntrack_netlink",
	}
)

// directorModules is everything above.
var directorModules = slices.Concat(ipvsModules, filterModules, linkModules, diagModules, qdiscModules, fileModules, crcModules)

// directorCmdLine is what every director's kernel is told.
//
//   - panic=10: a kernel that panicked, or lost PID 1, starts anew after 10 s.
//   - loglevel=4: the console belongs to our own lines; the kernel's errors still show.
//   - printk.devkmsg=on: init's lines in the kernel's log are not thinned out.
var directorCmdLine = []string{"panic=10", "loglevel=4", "printk.devkmsg=on"}
