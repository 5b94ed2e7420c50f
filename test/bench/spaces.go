package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/bench/spaces"
)

// routers is a configuration of VRRP for box 0 (the better one) or 1, for both
// daemons: instances virtual routers, the first of them with vips addresses,
// the others with one each.
type routers struct {
	instances, vips int
	advert          time.Duration
	heartbeat       bool // ours only
}

// firstVIP is the address that the client asks; lastVIP is the last one of a
// configuration of one instance.
var firstVIP = netip.MustParseAddr("10.77.0.1")

func nthVIP(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(n / 250), byte(1 + n%250)})
}

// vipsUnder is what all virtual addresses begin with.
const vipsUnder = "10.77."

func (c routers) total() int { return c.instances - 1 + c.vips }

func (c routers) model(box int) model.Config {
	var out model.Config
	next := 0
	address := func() model.Address {
		next++
		return model.Address{Prefix: netip.PrefixFrom(nthVIP(next-1), 32)}
	}
	for i := range c.instances {
		in := model.Instance{
			Name: fmt.Sprintf("VI_%d", i+1), Interface: "eth0", VRID: uint8(1 + i), Priority: uint8(150 - 50*box), Version: 3, AdvertInt: c.advert,
			DownTimerAdverts: 3, McastGroup: netip.MustParseAddr("224.0.0.18"), GARPMasterRepeat: 5, GARPMasterDelay: 5 * time.Second,
			GARPMasterRefreshRepeat: 1, GARPLowerPrioRepeat: 5, GARPLowerPrioDelay: 5 * time.Second,
			VIPs: []model.Address{address()},
		}
		for i == 0 && next < c.vips { // a packet of version 3 has room for 255 addresses only
			in.ExcludedVIPs = append(in.ExcludedVIPs, address())
		}
		out.Instances = append(out.Instances, in)
	}
	if c.heartbeat {
		out.Heartbeat = &model.Heartbeat{
			Key: []byte("key of the bench only"), Interval: 10 * time.Millisecond, Multiplier: 3, Port: 1912,
			Paths: []model.HeartbeatPath{
				{Peer: netip.MustParseAddr(fmt.Sprintf("192.168.200.%d", 2-box))},
				{Peer: netip.MustParseAddr(fmt.Sprintf("10.9.0.%d", 2-box)), Interface: "eth1"},
			},
		}
	}
	return out
}

// text is the same for keepalived.
func (c routers) text(box int) string {
	var b strings.Builder
	b.WriteString("global_defs {\n    router_id BENCH\n}\n")
	for _, in := range c.model(box).Instances {
		fmt.Fprintf(&b, "vrrp_instance %s {\n    state BACKUP\n    interface eth0\n    virtual_router_id %d\n    priority %d\n    version 3\n    advert_int %g\n    virtual_ipaddress {\n        %s\n    }\n",
			in.Name, in.VRID, in.Priority, c.advert.Seconds(), in.VIPs[0].Prefix.Addr())
		if len(in.ExcludedVIPs) > 0 {
			b.WriteString("    virtual_ipaddress_excluded {\n")
			for _, a := range in.ExcludedVIPs {
				fmt.Fprintf(&b, "        %s\n", a.Prefix.Addr())
			}
			b.WriteString("    }\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// couple is a pair of routers in network namespaces, ours or keepalived's.
type couple struct {
	*spaces.Net
	routers
	ours  bool
	boxes [2]*spaces.Box
}

func (r *run) couple(c routers, ours bool) (*couple, error) {
	n, err := spaces.New()
	if err != nil {
		return nil, err
	}
	p := &couple{Net: n, routers: c, ours: ours}
	for i := range p.boxes {
		if ours {
			p.boxes[i], err = n.Ours(i, r.Binary, c.model(i))
		} else {
			p.boxes[i], err = n.Keepalived(i, c.text(i))
		}
		if err != nil {
			n.Close()
			return nil, err
		}
	}
	return p, nil
}

// settled waits until the first box has all addresses and the second none, and
// each of ours hears the other.
func (p *couple) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		err := p.isSettled(ctx)
		if err == nil {
			return nil
		}
		if serr := sleep(ctx, 50*time.Millisecond); serr != nil {
			return fmt.Errorf("bench: not settled: %w\n%.3000s\n%.3000s", err, p.boxes[0].Words(), p.boxes[1].Words())
		}
	}
}

func (p *couple) isSettled(ctx context.Context) error {
	for i, want := range []int{p.total(), 0} {
		if n, err := p.Addresses(i, vipsUnder); err != nil || n != want {
			return errors.Join(fmt.Errorf("box %d has %d virtual addresses, want %d", i, n, want), err)
		}
	}
	if !p.ours {
		return nil
	}
	for i, want := range []string{status.VRRPMaster, status.VRRPBackup} {
		v, err := p.boxes[i].State(ctx)
		if err != nil {
			return err
		}
		for _, in := range v.Instances {
			if in.State != want {
				return fmt.Errorf("box %d: %s is %s (%s)", i, in.Name, in.State, in.Reason)
			}
		}
		if h := v.Heartbeat; p.heartbeat && (h == nil || !h.Up || !h.Paths[0].Up || !h.Paths[1].Up || len(h.Routers) != p.instances) {
			return fmt.Errorf("box %d: heartbeat %+v", i, h)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// values takes a figure as often as is asked for, in milliseconds. What was taken
// while the host's clock stood still for longer than patience, and than a tenth
// of the value, is taken anew, a bounded number of times, as with the pairs in
// QEMU.
func (r *run) values(patience time.Duration, take func() (ms float64, from, to time.Time, err error)) (*Series, error) {
	s := &Series{}
	spare := r.Runs/2 + 1
	for len(s.Values) < r.Runs {
		ms, from, to, err := take()
		if err != nil {
			return s, err
		}
		stall := r.host.worst(from, to)
		if stall > max(patience, time.Duration(ms/10*float64(time.Millisecond))) {
			s.Discarded++
			if s.Discarded <= spare {
				continue
			}
			s.Noisy = true
		}
		s.Values = append(s.Values, ms)
		s.Witness = max(s.Witness, stall.Seconds()*1000)
	}
	return s, nil
}

// both takes one row's values of ours and then of keepalived.
func (r *run) both(row Row, take func(ours bool) (*Series, error)) error {
	var err error
	for _, ours := range []bool{true, false} {
		s, terr := take(ours)
		who := "ours"
		if ours {
			row.Ours = s
		} else {
			row.Peer, who = s, "keepalived "+r.report.Keepalived
		}
		if terr != nil {
			err = fmt.Errorf("%s, %s: %w", row.Name, who, terr)
			break
		}
		r.logf("%s, %s: %s", row.Name, who, cell(s, row.Unit))
	}
	r.add(row)
	return err
}

// heartbeats: what two ways between the boxes are good for, at advertisements
// of a second. keepalived has nothing of the kind.
func (r *run) heartbeats(ctx context.Context) error {
	type happening struct {
		name     string
		do, undo func(p *couple) error
	}
	list := []happening{
		{"the master falls silent", func(p *couple) error {
			err := p.Power(0, false)
			p.boxes[0].Freeze()
			return err
		}, func(p *couple) error {
			p.boxes[0].Thaw()
			return p.Power(0, true)
		}},
		{"the master's link drops, the second path stays", func(p *couple) error { return p.Cable(0, false) }, func(p *couple) error { return p.Cable(0, true) }},
		{"planned switchover (resign; SIGTERM)", func(p *couple) error {
			if p.ours {
				return p.boxes[0].Verb(ctx, "resign", status.Resign{By: "bench"})
			}
			p.boxes[0].Stop()
			return nil
		}, nil},
		{"the better box comes back (resume; start)", func(p *couple) error {
			if p.ours {
				return p.boxes[0].Verb(ctx, "resume", status.Resign{By: "bench"})
			}
			return p.boxes[0].Start()
		}, nil},
	}
	series := map[string][2]*Series{}
	for k, ours := range []bool{true, false} {
		p, err := r.couple(routers{instances: 1, vips: 1, advert: time.Second, heartbeat: ours}, ours)
		if err != nil {
			return err
		}
		err = func() error {
			defer p.Close()
			if err := p.Echo(); err != nil {
				return err
			}
			c, err := p.Client(firstVIP)
			if err != nil {
				return err
			}
			for i, h := range list {
				if h.name == list[3].name {
					continue // taken with the one before it
				}
				one := func(h happening) (float64, time.Time, time.Time, error) {
					begin := time.Now()
					err := h.do(p)
					if err == nil {
						err = p.moved(ctx, map[bool]int{true: 0, false: 1}[h.name == list[3].name])
					}
					if err == nil {
						err = c.Answered(ctx, 300*time.Millisecond)
					}
					end := time.Now()
					return c.Outage(begin.Add(-100*time.Millisecond)).Seconds() * 1000, begin, end, err
				}
				back := &Series{}
				s, err := r.values(30*time.Millisecond, func() (ms float64, from, to time.Time, err error) {
					if err = p.settled(ctx); err == nil {
						err = sleep(ctx, time.Second)
					}
					if err == nil {
						err = c.Answered(ctx, 200*time.Millisecond)
					}
					if err != nil {
						return
					}
					if ms, from, to, err = one(h); err != nil {
						return
					}
					if h.undo != nil {
						return ms, from, to, h.undo(p)
					}
					if err = sleep(ctx, time.Second); err != nil {
						return
					}
					ms2, from2, to2, err := one(list[i+1])
					if len(back.Values) < r.Runs {
						back.Values = append(back.Values, ms2)
						stall := r.host.worst(from2, to2).Seconds() * 1000
						back.Witness = max(back.Witness, stall)
						back.Noisy = back.Noisy || stall > max(30, ms2/10)
					}
					return ms, from, to, err
				})
				set := func(name string, s *Series) {
					x := series[name]
					x[k] = s
					series[name] = x
					r.logf("%s, %s: %s", name, [2]string{"ours", "keepalived " + r.report.Keepalived}[k], cell(s, "ms"))
				}
				set(h.name, s)
				if h.undo == nil {
					set(list[i+1].name, back)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", h.name, err)
				}
			}
			return nil
		}()
		if err != nil {
			return err
		}
	}
	for _, h := range list {
		r.add(Row{Group: "heartbeat", Name: h.name, Unit: "ms", Ours: series[h.name][0], Peer: series[h.name][1]})
	}
	return nil
}

// moved waits until a box has all addresses.
func (p *couple) moved(ctx context.Context, box int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		n, err := p.Addresses(box, vipsUnder)
		if err == nil && n == p.total() {
			return nil
		}
		if serr := sleep(ctx, 20*time.Millisecond); serr != nil {
			return errors.Join(fmt.Errorf("bench: box %d has %d of %d virtual addresses: %w", box, n, p.total(), serr), err)
		}
	}
}

// addresses: the master of a thousand addresses dies; the last one must answer
// from the other box.
func (r *run) addresses(ctx context.Context) error {
	const advert = 100 * time.Millisecond
	return r.both(Row{Group: "addresses", Name: "1,000 addresses, v3 100 ms, master dies: until the last answers ARP (protocol: at most 361)", Unit: "ms"},
		func(ours bool) (*Series, error) {
			p, err := r.couple(routers{instances: 1, vips: 1000, advert: advert}, ours)
			if err != nil {
				return nil, err
			}
			defer p.Close()
			arp, err := p.ARP()
			if err != nil {
				return nil, err
			}
			return r.values(advert, func() (ms float64, from, to time.Time, err error) {
				if err = p.settled(ctx); err == nil {
					err = sleep(ctx, time.Second)
				}
				if err != nil {
					return
				}
				last := nthVIP(p.vips - 1)
				tctx, cancel := context.WithTimeout(ctx, 30*time.Second)
				defer cancel()
				from = time.Now()
				if err = p.Power(0, false); err != nil {
					return
				}
				p.boxes[0].Freeze()
				_, err = arp.Await(tctx, last, p.MAC(1))
				to = time.Now()
				p.boxes[0].Thaw()
				return to.Sub(from).Seconds() * 1000, from, to, errors.Join(err, p.Power(0, true))
			})
		})
}

// during is how long processor time is counted.
const during = 20 * time.Second

// manyInstances: what 250 virtual routers cost who advertises and who listens.
// All four boxes run at once, so that they see the same machine.
func (r *run) manyInstances(ctx context.Context) error {
	c := routers{instances: 250, vips: 1, advert: time.Second}
	var pairs [2]*couple
	for i, ours := range []bool{true, false} {
		p, err := r.couple(c, ours)
		if err != nil {
			return err
		}
		defer p.Close()
		pairs[i] = p
	}
	for _, p := range pairs {
		if err := p.settled(ctx); err != nil {
			return err
		}
	}
	r.logf("250 instances: masters and backups are settled")
	if err := sleep(ctx, 10*time.Second); err != nil { // garp_master_delay, and the end of the start
		return err
	}
	var figures [2][2]Series // by side (master, backup) and pair
	var memory [2][2]Series
	for range min(r.Runs, 3) {
		var before [2][2]time.Duration
		for i, p := range pairs {
			for side, b := range p.boxes {
				var err error
				if before[side][i], err = b.Used(); err != nil {
					return err
				}
			}
		}
		begin := time.Now()
		if err := sleep(ctx, during); err != nil {
			return err
		}
		took := time.Since(begin)
		for i, p := range pairs {
			if err := p.isSettled(ctx); err != nil {
				return fmt.Errorf("bench: 250 instances: the roles have changed meanwhile: %w", err)
			}
			for side, b := range p.boxes {
				after, err := b.Used()
				if err != nil {
					return err
				}
				s := &figures[side][i]
				s.Values = append(s.Values, float64((after-before[side][i]).Microseconds())/1000*during.Seconds()/took.Seconds())
				s.Witness = max(s.Witness, r.host.worst(begin, time.Now()).Seconds()*1000)
				memory[side][i].Values = append(memory[side][i].Values, float64(b.RSS())/(1<<20))
			}
		}
	}
	for side, name := range []string{"master", "backup"} {
		r.add(Row{Group: "instances", Name: "250 instances, 1 s, " + name + ": processor time of 20 s", Unit: "ms", Ours: &figures[side][0], Peer: &figures[side][1]})
	}
	for side, name := range []string{"master", "backup"} {
		r.add(Row{Group: "instances", Name: "250 instances, " + name + ": RSS", Unit: "MiB", Ours: &memory[side][0], Peer: &memory[side][1]})
	}
	return nil
}

// inSpaces takes the groups that need root, and no virtual machine.
func (r *run) inSpaces(ctx context.Context) error {
	r.host = newTicker()
	defer r.host.close()
	for _, g := range []struct {
		name string
		take func(context.Context) error
	}{{"heartbeat", r.heartbeats}, {"death", r.deaths}, {"addresses", r.addresses}, {"instances", r.manyInstances}} {
		if !r.wants(g.name) {
			continue
		}
		if err := g.take(ctx); err != nil {
			return err
		}
	}
	return nil
}
