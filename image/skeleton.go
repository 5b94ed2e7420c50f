package image

import (
	"fmt"

	"ballast/board"
	"ballast/image/archive"
)

// account is one user of the image. The services' numbers are those of
// services/ipc/users.go, which a test compares.
type account struct {
	name     string
	uid, gid int
	home     string
}

var accounts = []account{
	{"root", 0, 0, "/"},
	{"conf", 101, 100, "/"},
	{"net", 102, 100, "/"},
	{"vrrp", 103, 100, "/"},
	{"ipvs", 104, 100, "/"},
	{"health", 105, 100, "/"},
	{"console", 106, 100, "/"},
	{"notify", 107, 100, "/"},
	{"snmp", 108, 100, "/"},
	{"pacer", 109, 100, "/"},
	{"peer", 110, 100, "/"},
	{"firmware", 111, 100, "/"},
	{"netboot", 112, 100, "/"},
	{"capture", 113, 100, "/"},
	{"netseed", 114, 114, "/"},
	{"keepalived_script", 200, 200, "/tmp"}, // what scripts run as when nobody says otherwise
	{"nobody", 65534, 65534, "/"},
}

// skeleton adds folders, device nodes and the files of /etc.
func skeleton(a *archive.Archive, b board.Board, version string) {
	for _, d := range []string{"bin", "data", "dev", "etc", "etc/ballast", "etc/keepalived", "lib/firmware", "mnt", "opt", "proc", "run", "sys",
		"usr/lib", "usr/libexec/keepalived", "usr/local/bin", "usr/local/sbin", "usr/share", "var/lib", "var/log", "var/cache"} {
		a.Dir(d, 0o755)
	}
	a.Dir("tmp", 0o1777)
	a.Dir("root", 0o700)
	// Scripts call programs by whichever path their author's machine had.
	for link, target := range map[string]string{
		"sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin", "var/run": "/run", "var/lock": "/run/lock", "var/tmp": "/tmp",
		"etc/resolv.conf": "/run/service/net/resolv.conf", "etc/mtab": "/proc/self/mounts",
	} {
		a.Symlink(link, target)
	}
	// The kernel opens the console for init before anything is mounted.
	a.CharDev("dev/console", 0o600, 5, 1)
	a.CharDev("dev/null", 0o666, 1, 3)

	passwd := ""
	for _, u := range accounts {
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", u.name, u.uid, u.gid, u.home)
	}
	for name, text := range map[string]string{
		"passwd":          passwd,
		"group":           "root:x:0:\ntty:x:5:\nballast:x:100:\nkeepalived_script:x:200:\nnogroup:x:65534:\n",
		"shells":          "/bin/sh\n/bin/bash\n",
		"hosts":           "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n",
		"nsswitch.conf":   "passwd: files\ngroup: files\nhosts: files dns\n",
		"protocols":       protocols,
		"services":        portNames,
		"os-release":      osRelease(version, b.Name),
		"ballast/board":   b.Name + "\n",
		"ballast/version": version + "\n",
	} {
		a.File("etc/"+name, []byte(text), 0o644)
	}
}

// protocols and portNames are what tools and configurations call by name, with
// the numbers of IANA's registries.
const protocols = `ip 0 IP
icmp 1 ICMP
igmp 2 IGMP
ipip 4 IPENCAP
tcp 6 TCP
udp 17 UDP
ipv6 41 IPv6
gre 47 GRE
esp 50 IPSEC-ESP
ah 51 IPSEC-AH
ipv6-icmp 58 IPv6-ICMP
vrrp 112 VRRP
sctp 132 SCTP
`

const portNames = `ftp-data 20/tcp
ftp 21/tcp
ssh 22/tcp
telnet 23/tcp
smtp 25/tcp mail
domain 53/tcp
domain 53/udp
bootps 67/udp
bootpc 68/udp
tftp 69/udp
http 80/tcp www
kerberos 88/tcp
kerberos 88/udp
pop3 110/tcp
ntp 123/udp
imap2 143/tcp imap
snmp 161/udp
snmp-trap 162/udp
ldap 389/tcp
https 443/tcp
https 443/udp
syslog 514/udp
submission 587/tcp
ldaps 636/tcp
rsync 873/tcp
imaps 993/tcp
pop3s 995/tcp
openvpn 1194/udp
ms-sql-s 1433/tcp
radius 1812/udp
radius-acct 1813/udp
nfs 2049/tcp
mysql 3306/tcp
ms-wbt-server 3389/tcp
postgresql 5432/tcp
sip 5060/tcp
sip 5060/udp
sip-tls 5061/tcp
redis 6379/tcp
http-alt 8080/tcp
`
