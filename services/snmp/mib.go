package snmp

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// Where things are: KEEPALIVED-MIB below the enterprise of Debian, SNMPv2-MIB,
// IF-MIB.
var (
	keepalived = oid{1, 3, 6, 1, 4, 1, 9586, 100, 5}
	mibGlobal  = keepalived.with(1)
	mibVRRP    = keepalived.with(2)
	mibCheck   = keepalived.with(3)
	mibSystem  = oid{1, 3, 6, 1, 2, 1, 1}
	mibIf      = oid{1, 3, 6, 1, 2, 1, 2}
	mibIfX     = oid{1, 3, 6, 1, 2, 1, 31, 1, 1, 1}
	mibTrapOID = oid{1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0}
	mibUpTime  = mibSystem.with(3, 0)
)

// facts is what the tree is made of: one moment's states.
type facts struct {
	conf    model.Config // with its real servers, without their checks
	vrrp    status.VRRP
	ipvs    status.IPVS
	health  status.Health
	net     status.Net
	notify  status.Notify
	version string
	host    string
	start   time.Time // of the agent
	now     time.Time
}

func (f *facts) routerID() string { return cmp.Or(f.conf.Global.RouterID, f.host) }

// makeTree makes the tree. What the configuration does not enable is not in it.
func makeTree(f *facts) tree {
	tables := []table{system(f), interfaces(f), interfacesX(f), interfaceCount(f)}
	c := f.conf.Global.SNMP
	tables = append(tables, global(f), mail(f), recipients(f))
	if c.VRRP {
		tables = append(tables, groups(f), members(f), instances(f), trackedInterfaces(f), trackedScripts(f), addresses(f), scripts(f), trackedFiles(f), files(f))
	}
	if c.Checker {
		v := newServers(f)
		tables = append(tables, v.virtual(), v.real(), syncDaemon(f), timeouts(f))
	}
	return newTree(tables...)
}

// rowsOf are n rows with the indices 1 to n.
func rowsOf(n int) []oid {
	out := make([]oid, n)
	for i := range out {
		out[i] = oid{uint32(i + 1)}
	}
	return out
}

func global(f *facts) table {
	g := &f.conf.Global
	return scalars(mibGlobal,
		always(1, func(int) value { return text("Ballast " + f.version) }),
		always(2, func(int) value { return text(f.routerID()) }),
		always(4, func(int) value { return choice(g.SNMP.Traps) }),
		always(5, func(int) value { return integer(1) }), // the kernel tells of links
		always(6, func(int) value { return integer(2) }), // the table is adopted, never flushed
		always(7, func(int) value { return integer(1) }),
		always(8, func(int) value { return text("") }),
		always(9, func(int) value { return integer(2) }))
}

func mail(f *facts) table {
	g := &f.conf.Global
	ap, err := netip.ParseAddrPort(g.SMTPServer)
	has := err == nil
	return scalars(mibGlobal.with(3),
		column{1, func(int) (value, bool) { return addrType(ap.Addr()), has }},
		column{2, func(int) (value, bool) { return address(ap.Addr()), has }},
		always(3, func(int) value { return unsigned(uint64(g.SMTPConnectTimeout.Seconds())) }),
		always(4, func(int) value { return text(g.NotificationEmailFrom) }),
		column{6, func(int) (value, bool) { return unsigned(uint64(ap.Port())), has }})
}

func recipients(f *facts) table {
	list := f.conf.Global.NotificationEmail
	return table{mibGlobal.with(3, 5, 1), []column{always(2, func(i int) value { return text(list[i]) })}, rowsOf(len(list))}
}

// vrrpState is VrrpState.
func vrrpState(s string) value {
	switch s {
	case status.VRRPInit:
		return integer(0)
	case status.VRRPBackup:
		return integer(1)
	case status.VRRPMaster:
		return integer(2)
	case status.VRRPFault:
		return integer(3)
	}
	return integer(4)
}

// command is how a command line of the configuration is shown.
func command(c model.Command) string {
	if c.Shell != "" {
		return c.Shell
	}
	return strings.Join(c.Argv, " ")
}

func notifies(n model.Notify) bool {
	for _, c := range []model.Command{n.Master, n.Backup, n.Fault, n.Stop, n.Any} {
		if !c.IsZero() {
			return true
		}
	}
	return false
}

// commandColumn has an instance only where there is a command.
func commandColumn(num uint32, of func(i int) model.Command) column {
	return column{num, func(i int) (value, bool) {
		c := of(i)
		return text(command(c)), !c.IsZero()
	}}
}

func groups(f *facts) table {
	g := f.conf.SyncGroups
	return table{mibVRRP.with(1, 1), []column{
		always(2, func(i int) value { return text(g[i].Name) }),
		always(3, func(i int) value { return vrrpState(f.groupState(g[i].Name)) }),
		always(4, func(i int) value { return choice(g[i].SMTPAlert) }),
		always(5, func(i int) value { return choice(notifies(g[i].Notify)) }),
		commandColumn(6, func(i int) model.Command { return g[i].Notify.Master }),
		commandColumn(7, func(i int) model.Command { return g[i].Notify.Backup }),
		commandColumn(8, func(i int) model.Command { return g[i].Notify.Fault }),
		commandColumn(9, func(i int) model.Command { return g[i].Notify.Any }),
	}, rowsOf(len(g))}
}

func (f *facts) groupState(name string) string {
	for _, g := range f.vrrp.Groups {
		if g.Name == name {
			return g.State
		}
	}
	return ""
}

func members(f *facts) table {
	var rows []oid
	var names []string
	for i, g := range f.conf.SyncGroups {
		for j, m := range g.Instances {
			rows = append(rows, oid{uint32(i + 1), uint32(j + 1)})
			names = append(names, m)
		}
	}
	return table{mibVRRP.with(2, 1), []column{always(2, func(i int) value { return text(names[i]) })}, rows}
}

func (f *facts) instance(name string) status.VRRPInstance {
	for _, v := range f.vrrp.Instances {
		if v.Name == name {
			return v
		}
	}
	return status.VRRPInstance{}
}

func instances(f *facts) table {
	c := f.conf.Instances
	st := make([]status.VRRPInstance, len(c))
	for i := range c {
		st[i] = f.instance(c[i].Name)
	}
	initial := func(i int) value {
		if c[i].State == model.StateMaster {
			return vrrpState(status.VRRPMaster)
		}
		return vrrpState(status.VRRPBackup)
	}
	daemon := f.conf.Global.SyncDaemon
	syncs := func(i int) bool { return daemon != nil && daemon.Instance == c[i].Name }
	return table{mibVRRP.with(3, 1), []column{
		always(2, func(i int) value { return text(c[i].Name) }),
		always(3, func(i int) value { return unsigned(uint64(c[i].VRID)) }),
		always(4, func(i int) value { return vrrpState(st[i].State) }),
		always(5, initial),
		always(6, initial),
		always(7, func(i int) value { return integer(int(c[i].Priority)) }),
		always(8, func(i int) value { return integer(st[i].Effective) }),
		always(9, func(i int) value { return choice(st[i].State == status.VRRPMaster) }),
		always(10, func(i int) value { return text(c[i].Interface) }),
		always(11, func(i int) value { return choice(!c[i].DontTrackPrimary) }),
		always(12, func(i int) value {
			if c[i].Version == 3 {
				return unsigned(uint64(c[i].AdvertInt / (10 * time.Millisecond)))
			}
			return unsigned(uint64(c[i].AdvertInt / time.Second))
		}),
		always(13, func(i int) value { return choice(!c[i].NoPreempt) }),
		always(14, func(i int) value { return unsigned(uint64(c[i].PreemptDelay / time.Second)) }),
		always(15, func(i int) value {
			switch {
			case c[i].AuthAH:
				return integer(2)
			case len(c[i].AuthPass) > 0:
				return integer(1)
			}
			return integer(0)
		}),
		always(16, func(i int) value { return choice(syncs(i)) }),
		column{17, func(i int) (value, bool) {
			if !syncs(i) {
				return value{}, false
			}
			return text(daemon.Interface), true
		}},
		column{18, func(i int) (value, bool) {
			for _, g := range f.conf.SyncGroups {
				if slices.Contains(g.Instances, c[i].Name) {
					return text(g.Name), true
				}
			}
			return value{}, false
		}},
		always(19, func(i int) value { return unsigned(uint64(c[i].GARPMasterDelay / time.Second)) }),
		always(20, func(i int) value { return choice(c[i].SMTPAlert) }),
		always(21, func(i int) value { return choice(notifies(c[i].Notify)) }),
		commandColumn(22, func(i int) model.Command { return c[i].Notify.Master }),
		commandColumn(23, func(i int) model.Command { return c[i].Notify.Backup }),
		commandColumn(24, func(i int) model.Command { return c[i].Notify.Fault }),
		commandColumn(25, func(i int) model.Command { return c[i].Notify.Stop }),
		commandColumn(26, func(i int) model.Command { return c[i].Notify.Any }),
		always(27, func(i int) value { return choice(!c[i].NoAccept) }),
		always(28, func(i int) value { return choice(c[i].PromoteSecondaries) }),
		always(29, func(i int) value { return choice(false) }),
	}, rowsOf(len(c))}
}

func syncDaemon(f *facts) table {
	d := f.conf.Global.SyncDaemon
	if d == nil {
		return scalars(mibCheck.with(6), always(1, func(int) value { return integer(2) }))
	}
	return scalars(mibCheck.with(6),
		always(1, func(int) value { return integer(1) }),
		always(2, func(int) value { return text(d.Interface) }),
		column{3, func(int) (value, bool) { return text(d.Instance), d.Instance != "" }},
		always(4, func(int) value { return integer(int(d.ID)) }),
		always(5, func(int) value { return integer(int(d.MaxLen)) }),
		always(6, func(int) value { return integer(int(d.Port)) }),
		always(7, func(int) value { return integer(int(d.TTL)) }),
		column{8, func(int) (value, bool) { return addrType(d.Group), d.Group.IsValid() }},
		column{9, func(int) (value, bool) { return address(d.Group), d.Group.IsValid() }})
}

func timeouts(f *facts) table {
	t := f.conf.Global.Timeouts
	one := func(num uint32, d time.Duration) column {
		return column{num, func(int) (value, bool) { return integer(int(d.Seconds())), d > 0 }}
	}
	return scalars(mibCheck.with(7), one(1, t.TCP), one(2, t.TCPFin), one(3, t.UDP))
}
