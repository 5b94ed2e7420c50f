package bind

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// defaults are what global_defs sets for the blocks that follow.
type defaults struct {
	version            int
	group4, group6     netip.Addr
	garpDelay          time.Duration
	garpRepeat         int
	garpRefresh        time.Duration
	garpRefreshRepeat  int
	lowerDelay         time.Duration // -1: as garpDelay
	lowerRepeat        int           // -1: as garpRepeat
	garpGap, gnaGap    time.Duration
	downAdverts        int
	lowerNoAdvert      bool
	higherSend         bool
	checkUnicast       bool
	skipCheck          bool
	strict             bool
	checksumNoPseudo   bool
	iface              string
	garpSet, repeatSet bool
	minGARP            bool
	ownerIgnore        bool
	priorityChanges    bool
	extra              time.Duration // garp_extra_if
	extraAll           bool
	vmacPrefix         string
	vmacAddrPrefix     string
	syncID             int // -1: the instance's VRID
	syncPos            model.Pos
}

func factory() defaults {
	return defaults{
		version: 2, group4: netip.AddrFrom4([4]byte{224, 0, 0, 18}), group6: netip.MustParseAddr("ff02::12"),
		garpDelay: 5 * time.Second, garpRepeat: 5, garpRefreshRepeat: 1, lowerDelay: -1, lowerRepeat: -1,
		downAdverts: 3, iface: "eth0", syncID: -1, vmacPrefix: "vrrp",
	}
}

// global binds one global_defs block. late: an instance stands above it.
func (b *binder) global(n *syntax.Node, late bool) {
	g, d := &b.cfg.Global, &b.defaults
	b.each("global_defs", n.Children, func(k *schema.Keyword, n *syntax.Node) {
		if late && k.Status == schema.Works && (strings.HasPrefix(k.Name, "vrrp_") || strings.HasPrefix(k.Name, "v3_")) && k.Name != "vrrp_startup_delay" {
			b.note(n.Pos, "move global_defs to the top", "%s stands below an instance: keepalived would not apply it there, here it counts for all instances", n.Name())
		}
		if b.globalMore(k, n) {
			return
		}
		switch k.Name {
		case "router_id":
			g.RouterID = n.Arg(0)
		case "notification_email":
			for _, l := range n.Children {
				for _, w := range l.Words {
					g.NotificationEmail = append(g.NotificationEmail, w.Text)
				}
			}
		case "notification_email_from":
			g.NotificationEmailFrom = n.Arg(0)
		case "smtp_server":
			port := n.Arg(1)
			if port == "" {
				port = "25"
			}
			b.places["smtp_server"] = n.Pos
			g.SMTPServer = net.JoinHostPort(n.Arg(0), port)
		case "smtp_helo_name":
			g.SMTPHELO = n.Arg(0)
		case "smtp_connect_timeout":
			g.SMTPConnectTimeout = max(seconds(n), time.Second)
		case "smtp_alert":
			g.SMTPAlert = tristate(n)
		case "smtp_alert_vrrp":
			g.SMTPAlertVRRP = tristate(n)
		case "smtp_alert_checker":
			g.SMTPAlertChecker = tristate(n)
		case "no_email_faults":
			g.NoEmailFaults = true
		case "default_interface":
			d.iface = n.Arg(0)
		case "script_user":
			g.ScriptUser = b.user(n, n.Arg(0))
		case "enable_script_security":
			g.EnableScriptSecurity = true
		case "dynamic_interfaces":
			g.DynamicInterfaces = true
		case "vrrp_startup_delay":
			g.StartupDelay = duration(n)
		case "vrrp_version":
			d.version = number(n)
		case "vrrp_mcast_group4":
			if a, err := schema.Addr(n.Arg(0)); err == nil && a.Is4() && a.IsMulticast() {
				d.group4 = a
			} else {
				b.fail(n.ArgPos(0), "write an address of 224.0.0.0/4", "%s: %s is no IPv4 multicast address", n.Name(), n.Arg(0))
			}
		case "vrrp_mcast_group6":
			if a, err := schema.Addr(n.Arg(0)); err == nil && a.Is6() && a.IsMulticast() {
				d.group6 = a
			} else {
				b.fail(n.ArgPos(0), "write an address of ff00::/8", "%s: %s is no IPv6 multicast address", n.Name(), n.Arg(0))
			}
		case "vrrp_garp_master_delay":
			d.garpDelay, d.garpSet = seconds(n), true
		case "vrrp_garp_master_repeat":
			d.garpRepeat, d.repeatSet = max(number(n), 1), true
		case "vrrp_garp_master_refresh":
			d.garpRefresh = seconds(n)
		case "vrrp_garp_master_refresh_repeat":
			d.garpRefreshRepeat = max(number(n), 1)
		case "vrrp_garp_lower_prio_delay":
			d.lowerDelay = seconds(n)
		case "vrrp_garp_lower_prio_repeat":
			d.lowerRepeat = number(n)
		case "vrrp_garp_interval":
			d.garpGap = duration(n)
		case "vrrp_gna_interval":
			d.gnaGap = duration(n)
		case "vrrp_min_garp":
			d.minGARP = truth(n)
		case "vrrp_down_timer_adverts":
			d.downAdverts = number(n)
		case "vrrp_lower_prio_no_advert":
			d.lowerNoAdvert = truth(n)
		case "vrrp_higher_prio_send_advert":
			d.higherSend = truth(n)
		case "vrrp_check_unicast_src":
			d.checkUnicast = truth(n)
		case "vrrp_skip_check_adv_addr":
			d.skipCheck = truth(n)
		case "vrrp_strict":
			d.strict = truth(n)
		case "v3_checksum_as_v2":
			d.checksumNoPseudo = true
		case "lvs_sync_daemon":
			b.syncDaemon(n)
		case "lvs_timeouts":
			b.timeouts(n)
		}
	}, nil)
}

func (b *binder) finishGlobal() {
	g, d := &b.cfg.Global, &b.defaults
	if g.SMTPConnectTimeout == 0 {
		g.SMTPConnectTimeout = 30 * time.Second
	}
	for _, t := range []*time.Duration{&g.StartupScriptTimeout, &g.ShutdownScriptTimeout} {
		if *t == 0 {
			*t = 10 * time.Second
		}
	}
	for _, t := range []*time.Duration{&g.SNMP.ServiceAge, &g.SNMP.ServerAge} {
		if *t == 0 {
			*t = 5 * time.Second
		}
	}
	if g.VMACAddrPrefix = d.vmacAddrPrefix; g.VMACAddrPrefix == "" {
		g.VMACAddrPrefix = d.vmacPrefix
	}
	b.finishFIFOs()
	b.finishMail()
	if d.minGARP {
		if !d.garpSet {
			d.garpDelay = 0
		}
		if !d.repeatSet {
			d.garpRepeat = 1
		}
	}
	if d.lowerDelay < 0 {
		d.lowerDelay = d.garpDelay
	}
	if d.lowerRepeat < 0 {
		d.lowerRepeat = d.garpRepeat
	}
}

// scriptUser is the one user of the box that scripts run as.
const scriptUser = "keepalived_script"

// user maps the user of a script to the one that the box has.
func (b *binder) user(n *syntax.Node, name string) string {
	if name == scriptUser {
		return name
	}
	b.note(n.Pos, "", "scripts run as %s here, not as %s", scriptUser, quote(name))
	b.mapped(n, "scripts run as "+scriptUser)
	return ""
}

// syncDaemon reads IF [[inst] INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group IP].
func (b *binder) syncDaemon(n *syntax.Node) {
	s := &model.SyncDaemon{Interface: n.Arg(0)}
	b.defaults.syncID, b.defaults.syncPos = -1, n.Pos
	args := n.Args()[1:]
	for i := 0; i < len(args); i++ {
		word, value := args[i].Text, ""
		if i+1 < len(args) {
			value = args[i+1].Text
		}
		at := n.ArgPos(i + 2)
		limited := func(lo, hi float64) (int, bool) {
			v, err := schema.Arg{Min: lo, Max: hi}.Int(value)
			if err != nil {
				b.fail(at, "", "%s %s: %v", n.Name(), word, err)
			}
			i++
			return int(v), err == nil
		}
		switch word {
		case "inst":
			s.Instance = value
			i++
		case "id":
			if v, ok := limited(0, 255); ok {
				b.defaults.syncID = v
			}
		case "maxlen":
			if v, ok := limited(1, 65507); ok {
				s.MaxLen = uint16(v)
			}
		case "port":
			if v, ok := limited(1, 65535); ok {
				s.Port = uint16(v)
			}
		case "ttl":
			if v, ok := limited(1, 255); ok {
				s.TTL = uint8(v)
			}
		case "group":
			a, err := schema.Addr(value)
			if err != nil || !a.IsMulticast() {
				b.fail(at, "", "%s group: %s is no multicast address", n.Name(), quote(value))
			} else {
				s.Group = a
			}
			i++
		default:
			if i > 0 || s.Instance != "" {
				b.fail(n.ArgPos(i+1), "write lvs_sync_daemon IF [INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group IP]", "%s: unknown word %s", n.Name(), quote(word))
				continue
			}
			s.Instance = word
		}
	}
	b.cfg.Global.SyncDaemon = s
	b.places["sync_daemon"] = n.Pos
}

// finishSyncDaemon resolves the default sync id, which is the VRID of the
// instance.
func (b *binder) finishSyncDaemon() {
	s := b.cfg.Global.SyncDaemon
	if s == nil {
		return
	}
	if b.defaults.syncID >= 0 {
		s.ID = uint8(b.defaults.syncID)
	}
	if s.Instance == "" {
		return
	}
	names := func() (out []string) {
		for _, in := range b.cfg.Instances {
			out = append(out, in.Name)
		}
		return out
	}
	for i := range b.cfg.Instances {
		in := &b.cfg.Instances[i]
		if in.Name == s.Instance {
			if b.defaults.syncID < 0 {
				s.ID = in.VRID
			}
			return
		}
	}
	fix := b.meant(s.Instance, names, "name one of the vrrp_instance blocks")
	b.fail(b.defaults.syncPos, fix, "lvs_sync_daemon: there is no vrrp_instance %s", quote(s.Instance))
}

func (b *binder) timeouts(n *syntax.Node) {
	args := n.Args()
	for i := 0; i < len(args); i += 2 {
		var to *time.Duration
		switch args[i].Text {
		case "tcp":
			to = &b.cfg.Global.Timeouts.TCP
		case "tcpfin":
			to = &b.cfg.Global.Timeouts.TCPFin
		case "udp":
			to = &b.cfg.Global.Timeouts.UDP
		}
		if to == nil || i+1 >= len(args) {
			b.fail(n.ArgPos(i), "write lvs_timeouts tcp S tcpfin S udp S", "lvs_timeouts: %s is not tcp, tcpfin or udp with a value", quote(args[i].Text))
			return
		}
		v, err := schema.Arg{Max: 31 * 86400}.Int(args[i+1].Text)
		if err != nil {
			b.fail(n.ArgPos(i+1), "", "lvs_timeouts %s: %v", args[i].Text, err)
			continue
		}
		*to = time.Duration(v) * time.Second
	}
}

func itoa(v int) string { return strconv.Itoa(v) }
