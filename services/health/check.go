package health

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"ballast/configs/model"
	"ballast/services/health/datagram"
	"ballast/services/health/dialog"
	"ballast/services/ipc/status"
)

// check is one probe that runs, for all real servers that want the same one.
type check struct {
	spec   *model.Check // in the configuration of the last apply
	target string       // as it is published
	ident  key          // what must be equal for its state to survive a reload
	rules  []dialog.Rule
	via    *throughVIP // nil: the server's own address is all that is asked
	m      machine
	users  []*realServer
	round  uint64 // the last apply that had a use for it
	shared int    // how many users it had before that

	weight int  // last weight of a dynamic MISC_CHECK, -1: none
	adds   int  // what a FILE_CHECK adds to the configured weight
	added  bool // adds is known
	last   time.Time
	took   time.Duration
	detail string
	fault  *fault // never nil: healthy for one that has not failed

	edge edge // owned by the loop
}

// healthy is the fault of every check that has not failed, which most never do.
var healthy = &fault{}

// fault is the last probe of a check that failed. It is not changed.
type fault struct {
	at     time.Time
	detail string
	answer string // start of what the server had sent
}

// probed reports whether the loop probes for this check; the others are told
// by another service what they are.
func (c *check) probed() bool {
	return c.spec.Kind != model.BFDCheck && c.spec.Kind != model.FileCheck
}

func (c *check) why() string {
	return string(c.spec.Kind) + ": " + c.detail
}

// key stands for a check's definition. A hash, and not the text, because it is
// kept twice for each of maybe 20,000 checks.
type key [16]byte

func keyOfText(c *model.Check) key {
	b, err := json.Marshal(c)
	if err != nil { // plain values always marshal
		b = fmt.Appendf(nil, "%+v", c)
	}
	sum := sha256.Sum256(b)
	return key(sum[:16])
}

// keyOf is equal for checks that can be one probe. alpha is not part of it: it
// only decides what a server is before the first verdict.
func keyOf(c *model.Check) key {
	k := *c
	k.Alpha = false
	return keyOfText(&k)
}

// identOf is equal for checks that ask the same question, whatever their
// timing: their state survives a reload, as in keepalived.
func identOf(c *model.Check) key {
	k := *c
	k.Alpha, k.LogAllFailures = false, false
	k.Retry, k.DelayBeforeRetry, k.DelayLoop, k.Warmup, k.FastRecovery = 0, 0, 0, 0, false
	return keyOfText(&k)
}

// in makes the key of a check depend on where it stands, if its probe does:
// through_vip asks for the addresses of the virtual server.
func (k key) in(vs *model.VirtualServer, r *model.RealServer, c *model.Check) key {
	if !c.ThroughVIP {
		return k
	}
	b := fmt.Appendf(k[:], "%s %d %v", r.Addr, r.Forward, r.Tunnel)
	for _, s := range vs.Services {
		b = append(append(b, ' '), s.String()...)
	}
	sum := sha256.Sum256(b)
	return key(sum[:16])
}

// stale makes the next state tell anew of those who use the check.
func (c *check) stale() {
	for _, r := range c.users {
		r.vs.stale = true
	}
}

func newCheck(spec *model.Check, vs *model.VirtualServer, rs *model.RealServer) (*check, error) {
	c := &check{spec: spec, ident: identOf(spec).in(vs, rs, spec), target: target(spec), weight: -1, fault: healthy}
	c.edge.fd = -1
	c.edge.slot = -1
	web := spec.Kind == model.HTTPGet || spec.Kind == model.SSLGet
	c.m = newMachine(web, len(spec.URLs), spec.Retry, spec.DelayLoop, spec.DelayBeforeRetry, spec.FastRecovery)
	if err := c.prepare(web, vs, rs); err != nil {
		return nil, fmt.Errorf("%s %s: %w", spec.Kind, c.target, err)
	}
	return c, nil
}

func (c *check) prepare(web bool, vs *model.VirtualServer, rs *model.RealServer) (err error) {
	spec := c.spec
	switch spec.Kind {
	case model.TCPCheck, model.HTTPGet, model.SSLGet, model.SMTPCheck, model.PingCheck, model.UDPCheck, model.MiscCheck:
	case model.DNSCheck:
		if _, err := datagram.Query(0, spec.DNSName, spec.DNSType); err != nil {
			return err
		}
	case model.BFDCheck, model.FileCheck:
		if spec.ThroughVIP {
			return errors.New("through_vip: it sends nothing that could go that way")
		}
	default:
		return errors.New("no such kind of check")
	}
	if (spec.HalfOpen || spec.Kind == model.PingCheck) && spec.BindPort != 0 {
		return errors.New("bind_port: its packets have ports of their own, take the line away")
	}
	if spec.ThroughVIP {
		if c.via, err = newThroughVIP(vs, rs); err != nil {
			return err
		}
	}
	if !web {
		return nil
	}
	if len(spec.URLs) == 0 {
		return errors.New("no url block: add url { path /… }")
	}
	for i := range spec.URLs {
		r, err := dialog.NewRule(&spec.URLs[i])
		if err != nil {
			return err
		}
		c.rules = append(c.rules, r)
	}
	return nil
}

func target(c *model.Check) string {
	if c.Kind == model.MiscCheck {
		if c.Command.Shell != "" {
			return c.Command.Shell
		}
		if len(c.Command.Argv) > 0 {
			return c.Command.Argv[0]
		}
		return ""
	}
	switch c.Kind {
	case model.BFDCheck, model.FileCheck:
		return c.Name
	case model.PingCheck:
		return c.Addr.String()
	}
	return netip.AddrPortFrom(c.Addr, c.Port).String()
}

// outcome is what a probe found.
type outcome struct {
	ok     bool
	local  bool   // it could not be done for a reason of our own: no verdict
	away   bool   // this box has no network that leads there
	weight int    // of a dynamic MISC_CHECK, -1: none
	adds   int    // of a FILE_CHECK that passes
	reason string // "connection refused", "status 200"
	answer []byte // start of what the server sent
	took   time.Duration
}

// health is what is published about a check of one real server; held says that
// it counts as down until the first success.
func (c *check) health(held bool) status.CheckHealth {
	h := status.CheckHealth{
		Kind: string(c.spec.Kind), Target: c.target, Up: c.m.up && (c.m.known || !held),
		Known: c.m.known, Last: c.last, Took: c.took, Retries: c.m.left(), Detail: c.detail,
		Failed: c.fault.at, FailedDetail: c.fault.detail, Answer: c.fault.answer,
	}
	if len(c.users) > 1 {
		h.Shared = len(c.users)
	}
	return h
}
