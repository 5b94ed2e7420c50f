package kernel

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/iprule"
)

// SetRule adds a policy rule with the given protocol. The kernel holds the same
// rule more than once only where nobody asks it not to.
func SetRule(r model.Rule, proto uint8) Op {
	return ruleOp("add", unix.RTM_NEWRULE, netlink.Create|netlink.Excl, r, proto, unix.EEXIST)
}

// UnsetRule removes a policy rule if it is there.
func UnsetRule(r model.Rule, proto uint8) Op {
	return ruleOp("remove", unix.RTM_DELRULE, 0, r, proto, unix.ENOENT)
}

func ruleOp(what string, typ uint16, flags netlink.HeaderFlags, r model.Rule, proto uint8, ok unix.Errno) Op {
	return Op{what: what + " rule " + iprule.Text(r), ok: ok, msg: netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   iprule.Marshal(r, proto),
	}}
}

// Rules lists the policy rules that carry a protocol, in the kernel's order.
// What it gives back can be compared with what was set, once iprule.Normal made that
// alike.
func (r *Rtnl) Rules(proto uint8) ([]model.Rule, error) {
	msgs, err := r.dump(unix.RTM_GETRULE, make([]byte, unix.SizeofRtMsg))
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	var out []model.Rule
	for _, m := range msgs {
		if n, p, ok := iprule.Parse(m.Data); ok && p == proto {
			out = append(out, n)
		}
	}
	return out, nil
}
