package snmp

import (
	"fmt"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// The traps of KEEPALIVED-MIB.
var (
	trapGroup    = mibVRRP.with(10, 0, 1)
	trapInstance = mibVRRP.with(10, 0, 2)
	trapReal     = mibCheck.with(5, 0, 1)
	trapQuorum   = mibCheck.with(5, 0, 2)
)

// Kinds of transitions, as their services name them.
const (
	kindInstance = "instance"
	kindGroup    = "group"
	kindVirtual  = "virtual server"
	kindReal     = "real server"
)

// trap makes the trap of a transition (v2c); nil when there is none for it, or
// its object is not in the configuration any more.
func trap(f *facts, t status.Transition, community string, id uint32) []byte {
	var kind oid
	var vars []gosnmp.SnmpPDU
	say := func(n oid, v value) { vars = append(vars, pdu(n, v)) }
	switch t.Kind {
	case kindGroup:
		i := indexOf(f.conf.SyncGroups, func(g model.SyncGroup) bool { return g.Name == t.Object })
		if i == 0 || !f.conf.Global.SNMP.VRRP {
			return nil
		}
		kind = trapGroup
		entry := mibVRRP.with(1, 1)
		say(entry.with(2, i), text(t.Object))
		say(entry.with(3, i), vrrpState(t.To))
	case kindInstance:
		i := indexOf(f.conf.Instances, func(c model.Instance) bool { return c.Name == t.Object })
		if i == 0 || !f.conf.Global.SNMP.VRRP {
			return nil
		}
		kind = trapInstance
		entry := mibVRRP.with(3, 1)
		say(entry.with(2, i), text(t.Object))
		say(entry.with(4, i), vrrpState(t.To))
		initial := status.VRRPBackup
		if f.conf.Instances[i-1].State == model.StateMaster {
			initial = status.VRRPMaster
		}
		say(entry.with(5, i), vrrpState(initial))
	case kindReal, kindVirtual:
		if !f.conf.Global.SNMP.Checker {
			return nil
		}
		kind = trapReal
		name := t.Object
		if t.Kind == kindVirtual {
			kind = trapQuorum
		} else if _, of, ok := strings.Cut(t.Object, " of "); ok {
			name = of
		}
		s := newServers(f)
		i := indexOf(s.list, func(v virtualServer) bool { return v.c.Name == name })
		if i == 0 {
			return nil
		}
		v := &s.list[i-1]
		if t.Kind == kindReal {
			found := false
			for _, r := range s.reals {
				if r.index[0] == i && !r.sorry && strings.HasPrefix(t.Object, "["+r.c.Addr.String()+"]:") &&
					strings.HasSuffix(t.Object, fmt.Sprintf(":%d of %s", r.c.ConfPort, name)) {
					entry := mibCheck.with(4, 1)
					say(entry.with(3).with(r.index...), addrType(r.c.Addr))
					say(entry.with(4).with(r.index...), address(r.c.Addr))
					say(entry.with(5).with(r.index...), unsigned(uint64(r.c.ConfPort)))
					say(entry.with(6).with(r.index...), choice(t.To == "UP"))
					found = true
					break
				}
			}
			if !found {
				return nil
			}
		}
		entry := mibCheck.with(3, 1)
		say(entry.with(2, i), integer(kindOf(v.c)))
		say(entry.with(8, i), protocol(v.c))
		if t.Kind == kindVirtual {
			say(entry.with(23, i), choice(t.To == "UP"))
			say(entry.with(22, i), unsigned(uint64(max(v.c.Quorum, 0))))
		}
		say(entry.with(21, i), unsigned(uint64(v.up)))
		say(entry.with(20, i), unsigned(uint64(len(v.c.Real))))
		switch kindOf(v.c) {
		case 1:
			say(entry.with(4, i), unsigned(uint64(v.c.Services[0].Mark)))
		case 2:
			say(entry.with(5, i), addrType(v.c.Services[0].Addr))
			say(entry.with(6, i), address(v.c.Services[0].Addr))
			say(entry.with(7, i), unsigned(uint64(v.c.Services[0].Port)))
		case 3:
			say(entry.with(3, i), text(groupName(v.c)))
		}
	default:
		return nil
	}
	say(mibGlobal.with(2, 0), text(f.routerID()))
	head := []gosnmp.SnmpPDU{
		pdu(mibUpTime, ticks(uint64(f.now.Sub(f.start)/(10*time.Millisecond)))),
		pdu(mibTrapOID, object(kind)),
	}
	p := gosnmp.SnmpPacket{Version: gosnmp.Version2c, Community: community, PDUType: gosnmp.SNMPv2Trap, RequestID: id, Variables: append(head, vars...)}
	out, err := p.MarshalMsg()
	if err != nil {
		return nil
	}
	return out
}

// indexOf is the row of the first element that fits, from 1; 0: none.
func indexOf[T any](list []T, fits func(T) bool) uint32 {
	for i := range list {
		if fits(list[i]) {
			return uint32(i + 1)
		}
	}
	return 0
}
