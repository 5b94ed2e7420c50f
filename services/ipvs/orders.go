package ipvs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// order is what the operator told about a real server.
type order uint8

const (
	asConfigured order = iota
	orderDrain
	orderDisable
	orderWeight
)

var orderNames = [...]string{asConfigured: status.OrderEnable, orderDrain: status.OrderDrain, orderDisable: status.OrderDisable, orderWeight: status.OrderWeight}

// KeepOrders is how long an order about a real server that left the
// configuration is remembered: a rollback, or the next commit, may bring it
// back, and must not send clients to a machine that somebody works on. It is
// time that this process ran: a box without a battery has no other.
const KeepOrders = time.Hour

// sleptStep is how exactly that time is kept over a restart.
const sleptStep = 10 * time.Minute

// Orders are the operator's orders. They outlive commits, restarts and reboots.
type Orders struct {
	list    map[orderKey]*kept
	changed bool // since they were last written
}

// orderKey is a real server by its virtual server, address and ConfPort.
type orderKey struct {
	virtual string
	server  netip.AddrPort
}

type kept struct {
	status.Order
	Left  time.Time     `json:"left,omitzero"`  // when its real server left the configuration; zero: it is there
	Slept time.Duration `json:"slept,omitzero"` // since then, as far as it was counted

	counted time.Time     // until when; zero: this process has not begun to
	written time.Duration // Slept as in the file
}

func (o *kept) key() orderKey {
	return orderKey{o.VirtualServer, netip.AddrPortFrom(o.Addr, o.Port)}
}

func (o *kept) String() string {
	s := fmt.Sprintf("%s of %s: %s", netip.AddrPortFrom(o.Addr, o.Port), o.VirtualServer, o.Action)
	if o.Action == status.OrderWeight {
		s += fmt.Sprintf(" %d", o.Weight)
	}
	if o.By != "" {
		s += ", ordered by " + o.By
	}
	return s
}

// belief is the order as part of a belief.
func (o *kept) belief() (order, int32) {
	for i, n := range orderNames {
		if n == o.Action {
			return order(i), int32(o.Weight)
		}
	}
	return asConfigured, 0
}

// valid is for what comes from a file or a caller.
func validOrder(action string, weight int) error {
	switch {
	case !slices.Contains(orderNames[:], action):
		return fmt.Errorf("no action %q; there are %s", action, strings.Join(orderNames[1:], ", ")+" and "+status.OrderEnable)
	case action == status.OrderWeight && (weight < 0 || weight > math.MaxInt32):
		return fmt.Errorf("weight %d is out of range 0 to %d", weight, math.MaxInt32)
	}
	return nil
}

const ordersFile = "orders.json"

// LoadOrders reads the orders from a folder. What cannot be read is set aside
// and told by the error; the orders that come with it are to be used anyway.
func LoadOrders(dir string) (*Orders, error) {
	o := &Orders{}
	if dir == "" {
		return o, nil
	}
	path := filepath.Join(dir, ordersFile)
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return o, nil
	case err != nil:
		return o, fmt.Errorf("ipvs: orders of the operator: %w", err)
	}
	if bad := o.decode(b); bad != nil {
		aside := path + ".damaged"
		if err := os.Rename(path, aside); err != nil {
			return o, fmt.Errorf("ipvs: orders of the operator: %w; %w", bad, err)
		}
		return o, fmt.Errorf("ipvs: orders of the operator: %s is damaged and was set aside as %s, %d orders of it are in force; check with \"show orders\": %w",
			path, filepath.Base(aside), len(o.list), bad)
	}
	return o, nil
}

// decode takes in a file; what is good of it is kept when something is not.
func (o *Orders) decode(b []byte) error {
	var f struct {
		Orders []json.RawMessage `json:"orders"`
	}
	err := json.Unmarshal(b, &f)
	for _, raw := range f.Orders {
		var k kept
		bad := json.Unmarshal(raw, &k)
		switch {
		case bad != nil:
		case k.VirtualServer == "" || !k.Addr.IsValid():
			bad = errors.New("an order without its servers")
		case k.Action == status.OrderEnable:
			bad = errors.New("an order that orders nothing")
		default:
			bad = validOrder(k.Action, k.Weight)
		}
		if bad != nil {
			err = cmp.Or(err, bad)
			continue
		}
		k.written = k.Slept
		o.set(&k)
	}
	return err
}

// save writes the orders into a folder if they changed. The file is whole at
// any time.
func (o *Orders) save(dir string) error {
	if dir == "" || !o.changed {
		return nil
	}
	b, err := json.MarshalIndent(struct {
		Orders []*kept `json:"orders"`
	}{o.sorted()}, "", "  ")
	if err == nil {
		err = ipc.WriteDurable(filepath.Join(dir, ordersFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("ipvs: orders of the operator are not kept over a restart: %w", err)
	}
	o.changed = false
	for _, k := range o.list {
		k.written = k.Slept
	}
	return nil
}

func (o *Orders) set(k *kept) {
	if o.list == nil {
		o.list = map[orderKey]*kept{}
	}
	o.list[k.key()] = k
}

func (o *Orders) sorted() []*kept {
	out := slices.Collect(maps.Values(o.list))
	slices.SortFunc(out, func(a, b *kept) int {
		return cmp.Or(cmp.Compare(a.VirtualServer, b.VirtualServer), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return out
}

// status lists the orders in force, or those that sleep.
func (o *Orders) status(asleep bool) []status.Order {
	if len(o.list) == 0 {
		return nil
	}
	var out []status.Order
	for _, k := range o.sorted() {
		if k.Left.IsZero() != asleep {
			out = append(out, k.Order)
		}
	}
	return out
}

// place writes the orders into the beliefs about a new plan, and finds out
// which real servers left and which are back.
func (r *reconciler) place() {
	if len(r.orders.list) == 0 {
		return
	}
	now := r.now()
	out := &Beliefs{virtual: slices.Clone(r.beliefs.virtual)}
	for _, k := range r.orders.sorted() {
		i, found := r.plan.names[k.VirtualServer]
		j := -1
		if found {
			j = slices.IndexFunc(r.plan.Virtual[i].Real, func(s Real) bool { return s.confKey() == k.key().server })
		}
		switch {
		case j < 0 && k.Left.IsZero():
			k.Left, k.Slept, k.counted, r.orders.changed = now, 0, now, true
			r.log.Warn(fmt.Sprintf("%s: the real server left the configuration; the order is forgotten if it does not come back within %s", k, KeepOrders))
			continue
		case j < 0:
			continue
		case !k.Left.IsZero():
			k.Left, k.Slept, r.orders.changed = time.Time{}, 0, true
			r.log.Warn(fmt.Sprintf("%s: the real server is in the configuration again, and the order in force", k))
		}
		vb := out.virtual[i].clone()
		vb.real[j].order, vb.real[j].other = k.belief()
		out.virtual[i] = vb
		if k.Action == status.OrderDrain && !r.plan.Virtual[i].drainable() {
			r.log.Warn(fmt.Sprintf("%s: scheduler dh would go on sending clients to a drained server and refuse them: it is taken out at once", k))
		}
	}
	r.beliefs = out
}

// forget drops the orders about real servers that left long ago.
func (r *reconciler) forget() {
	now := r.now()
	for key, k := range r.orders.list {
		if k.Left.IsZero() {
			continue
		}
		// Not by the date: that is decades off until somebody tells this box the
		// time. Between two looks the time that runs is counted.
		if !k.counted.IsZero() {
			k.Slept += max(0, now.Sub(k.counted))
		}
		k.counted = now
		switch {
		case k.Slept >= KeepOrders:
			r.log.Warn(fmt.Sprintf("%s: forgotten, the real server is not in the configuration", k))
			delete(r.orders.list, key)
			r.orders.changed = true
		case k.Slept-k.written >= sleptStep:
			r.orders.changed = true
		}
	}
}

// takeBack drops the sleeping orders that q means, and tells whether there was
// one.
func (r *reconciler) takeBack(q status.ServerOrder) (any bool) {
	addr := q.Addr.Unmap().WithZone("")
	for _, k := range r.orders.sorted() {
		if k.Left.IsZero() || k.Addr.Unmap().WithZone("") != addr || q.Port != 0 && k.Port != q.Port || q.VirtualServer != "" && k.VirtualServer != q.VirtualServer {
			continue
		}
		by := ""
		if q.By != "" {
			by = " by " + q.By
		}
		r.log.Info(fmt.Sprintf("%s: taken back%s; the real server is not in the configuration now", k, by))
		delete(r.orders.list, k.key())
		r.orders.changed, any = true, true
	}
	return any
}

// order does what the operator told, in the kernel too, and returns how the
// real servers stand now.
func (r *reconciler) order(q status.ServerOrder) ([]status.Dest, error) {
	switch {
	case r.plan == nil || !r.adopted:
		return nil, errors.New("ipvs: there is no configuration yet; try again in a moment")
	case !q.Addr.IsValid():
		return nil, errors.New("ipvs: which real server? give its address")
	}
	if err := validOrder(q.Action, q.Weight); err != nil {
		return nil, fmt.Errorf("ipvs: %w", err)
	}
	places, err := r.plan.servers(q)
	if q.Action == status.OrderEnable && r.takeBack(q) && err != nil {
		return []status.Dest{}, nil
	}
	if err != nil {
		return nil, err
	}
	was := r.beliefs
	out := &Beliefs{virtual: slices.Clone(was.virtual)}
	for _, at := range places {
		v := r.plan.Virtual[at.virtual]
		if q.Action == status.OrderDrain && !v.drainable() {
			return nil, fmt.Errorf("ipvs: virtual server %s: scheduler dh would go on sending clients to a drained server, and refuse them; choose another lb_algo, or disable the server, which ends its connections", v.Name)
		}
	}
	now := r.now()
	for _, at := range places {
		v := r.plan.Virtual[at.virtual]
		s := v.Real[at.real].confKey()
		k := &kept{Order: status.Order{VirtualServer: v.Name, Addr: s.Addr(), Port: s.Port(), Action: q.Action, By: q.By, Since: now}}
		if q.Action == status.OrderWeight {
			k.Weight = q.Weight
		}
		old := r.orders.list[k.key()]
		switch {
		case q.Action == status.OrderEnable:
			if old == nil {
				continue
			}
			delete(r.orders.list, k.key())
			r.enabled = s
		case old != nil && old.Left.IsZero() && old.Action == k.Action && old.Weight == k.Weight:
			continue
		default:
			r.orders.set(k)
		}
		r.log.Info(k.String())
		r.orders.changed = true
		vb := out.virtual[at.virtual].clone()
		vb.real[at.real].order, vb.real[at.real].other = k.belief()
		out.virtual[at.virtual] = vb
	}
	r.beliefs = out
	only := make([]int, 0, len(places))
	for _, at := range places {
		only = append(only, at.virtual)
	}
	r.restate(r.plan, was, slices.Compact(only))
	r.event()
	r.enabled = netip.AddrPort{}
	return r.ordered(places)
}

// serverAt is the place of a real server in a plan.
type serverAt struct{ virtual, real int }

// servers finds the real servers that an order means. A port is one of the
// configuration, else one of the kernel, which is another under DR and TUN.
func (p *Plan) servers(q status.ServerOrder) ([]serverAt, error) {
	addr := q.Addr.Unmap().WithZone("")
	from, to := 0, len(p.Virtual)
	if q.VirtualServer != "" {
		i, ok := p.names[q.VirtualServer]
		if !ok {
			return nil, fmt.Errorf("ipvs: there is no virtual server %q; \"show ipvs\" lists them, the way they are to be written", q.VirtualServer)
		}
		from, to = i, i+1
	}
	var out, byKernel []serverAt
	sorry := ""
	for i := from; i < to; i++ {
		v := p.Virtual[i]
		for j := range v.Real {
			s := &v.Real[j]
			if s.Dest.Addr != addr {
				continue
			}
			if q.Port == 0 || s.ConfPort == q.Port {
				out = append(out, serverAt{i, j})
			} else if s.Dest.Port == q.Port {
				byKernel = append(byKernel, serverAt{i, j})
			}
		}
		if v.Sorry != nil && v.Sorry.Dest.Addr == addr {
			sorry = v.Name
		}
	}
	if len(out) == 0 {
		out = byKernel
	}
	if len(out) > 0 {
		return out, nil
	}
	what := addr.String()
	if q.Port != 0 {
		what = netip.AddrPortFrom(addr, q.Port).String()
	}
	where := ""
	if q.VirtualServer != "" {
		where = " in virtual server " + q.VirtualServer
	}
	if sorry != "" {
		return nil, fmt.Errorf("ipvs: %s is a sorry server, of virtual server %s; orders are for real servers", what, sorry)
	}
	return nil, fmt.Errorf("ipvs: there is no real server %s%s; \"show ipvs\" lists them", what, where)
}

// ordered is how real servers stand in the kernel, and the first thing that
// keeps one from being as it should.
func (r *reconciler) ordered(places []serverAt) ([]status.Dest, error) {
	if r.lost && r.kernErr != nil {
		return nil, fmt.Errorf("the order is kept and will be carried out: %w", r.kernErr)
	}
	if !r.settled {
		return nil, errors.New("ipvs: the order is kept and will be carried out when health has spoken, in a few seconds")
	}
	out := []status.Dest{}
	snap := r.snapshot()
	for _, at := range places {
		v := r.plan.Virtual[at.virtual]
		d := v.Real[at.real].Dest
		for i := range v.Services {
			id := v.Services[i].ID
			if len(r.failed) > 0 {
				for _, name := range []string{id.String(), destName(id, d) + " of " + id.String()} {
					if f := r.failed[name]; f != nil {
						return nil, fmt.Errorf("the order is kept and will be carried out: %w", f.err)
					}
				}
			}
			o := r.beliefs.virtual[at.virtual].real[at.real].order
			x := status.Dest{Addr: d.Addr, Port: d.Port, Forward: forwardText(d.Forward), Tunnel: tunnelText(d)}
			if o != asConfigured {
				x.Order = orderNames[o]
			}
			if h := r.have.find(id); h != nil {
				if hd := h.find(key(d)); hd != nil {
					j, _ := findEntry(r.want.Services, id)
					x = snap.dest(h, hd, r.want.Services[j])
				}
			}
			out = append(out, x)
		}
	}
	return out, nil
}
