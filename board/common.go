package board

import "slices"

// What every board of a director needs from the kernel, whatever its hardware.
var (
	// ipvsModules is IPVS with all its schedulers.
	ipvsModules = []string{"kernel/net/netfilter/ipvs/*"}

	// filterModules are what marks, filters and NAT of replies are made of.
	filterModules = []string{
		"nf_tables", "nft_ct", "nft_limit", "nft_log", "nft_socket", "nft_masq", "nft_nat", "nft_redir", "nft_reject",
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

	// recordModules keep what a kernel that panics says for the next boot, and have
	// it panic when PID 1 hangs. init picks one of the keepers.
	recordModules = []string{"ramoops", "efi-pstore", "pretimeout_panic"}

	// variableModules show what UEFI and the boot loader tell of this boot.
	variableModules = []string{"efivarfs"}

	// loadAlways is loaded at every boot: the services begin with these, and
	// being asked for one by one through a helper process would cost each of them
	// a tenth of a second.
	loadAlways = []string{
		"crc32c_generic", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_sh", "ip_vs_dh", "ip_vs_mh",
		"nf_tables", "nft_socket", "nft_limit", "nft_ct", "nft_masq", "nft_chain_nat", "ipip", "nf_conntrack_netlink",
	}
)

// loadLater is what a commit, the capture of packets, or a stick or keyboard that
// somebody brings may ask the kernel for, and what is asked for by others than the
// director's own processes is not: they may not.
var loadLater = slices.Concat(ipvsModules, fileModules, []string{
	"8021q", "bonding", "macvlan", "ipvlan", "nft_log", "nf_log_syslog", "tcp_bbr", "sch_fq", "af_packet_diag", "inet_diag",
	"usb-storage", "uas", "sd_mod", "usbhid", "hid-generic", "hid-logitech-dj", // a stick, a keyboard at a screen
})

// directorModules is everything above.
var directorModules = slices.Concat(ipvsModules, filterModules, linkModules, diagModules, qdiscModules, fileModules, crcModules, recordModules, variableModules)

// directorCmdLine is what every director's kernel is told.
//
//   - panic=10: a kernel that panicked, or lost PID 1, starts anew after 10 s.
//   - loglevel=4: the console belongs to our own lines; the kernel's errors still show.
//   - printk.devkmsg=on: init's lines in the kernel's log are not thinned out.
//   - oops=panic, softlockup_panic=1, nmi_watchdog=panic: a kernel with a fault, or
//     one of whose processors is stuck, is not half a director but none; the other box of the
//     pair is there for that. watchdog_thresh=20: stuck is 20 s without interrupts, or
//     40 s in the kernel; a hypervisor that takes the processors away for shorter kills nobody.
//     A task that hangs (a dying disk, mostly) is only logged: forwarding does not need the disk.
//   - reserve_mem=…, ramoops.…: memory in which the words of a panic outlive the reset.
//     At a multiple of 64 MiB: firmwares of different size, whose initramfs lies at the end
//     of the memory, find it at the same place.
//   - module.sig_enforce=1: only modules that Debian signed are loaded. init locks
//     the rest of the kernel down when it has set what can be set no more then.
//   - bonding.max_bonds=0: the driver is loaded at every boot and makes no bond0 by itself.
//   - gpt: the backup of a partition table counts where the first copy is damaged.
var directorCmdLine = []string{
	"panic=10", "loglevel=4", "printk.devkmsg=on", "oops=panic", "softlockup_panic=1", "nmi_watchdog=panic", "watchdog_thresh=20",
	"reserve_mem=2M:64M:oops", "ramoops.mem_name=oops", "ramoops.ecc=1", "ramoops.record_size=0x40000", "gpt",
	"module.sig_enforce=1", "bonding.max_bonds=0",
}
