// Package netboot lets other boxes boot from this one: it answers DHCP, TFTP
// and HTTP of the boxes that the configuration or an administrator names by the
// MAC of their network card, and of nobody else. They get the firmware of this
// box, and what makes each of them one box of the pair: configuration, name,
// and an identity that this service makes at the first time and keeps, so that
// a box without a disk is the same box at every boot.
//
// It parses what strangers on the network send, so it owns nothing else: the
// firmware is read from the slot, the configuration comes from conf for the
// boxes that are being served and no others.
package netboot

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
	"ballast/services/netboot/seed"
)

// Bounds of what is asked for by hand.
const (
	defaultFor = 30 * time.Minute
	maxFor     = 24 * time.Hour
	maxBoxes   = 64
)

// lookAgain is how often what can change by itself is looked at: addresses of
// this box, the end of a time.
const lookAgain = 2 * time.Second

type service struct {
	env    *ipc.Env
	server *ipc.Server
	conf   *ipc.Client
	own    func() string // name of this box
	places places

	wake chan struct{} // something is to be looked at
	turn chan struct{} // held by look; holds one

	mu       sync.Mutex
	applied  uint64
	config   model.Config
	byHand   map[string]status.NetbootServe // by MAC
	until    map[string]time.Time           // of byHand
	boxes    map[string]*box                // that are served, by MAC
	segments map[string]*segment            // by interface
	release  func()                         // of Hold; nil: nothing is served
	firmware status.NetbootFirmware
	told     status.Netboot // what was published last

	firmwareAt time.Time // of firmware; held by look
}

// firmwareAge is how often the slot is looked at: what runs from it does not change.
const firmwareAge = time.Minute

// Run is the netboot process. It ends with ctx, or when nobody has a use for it.
func Run(ctx context.Context, env *ipc.Env) error { return run(ctx, env, onBox) }

func run(ctx context.Context, env *ipc.Env, at places) error {
	s := &service{env: env, server: ipc.NewServer("netboot"), conf: env.Dir.Client("conf"), own: at.hostName, places: at, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		byHand: map[string]status.NetbootServe{}, until: map[string]time.Time{}, boxes: map[string]*box{}, segments: map[string]*segment{}}
	s.recall()
	s.release = s.server.Hold() // until it is known whether there is something to serve
	s.server.Publish(status.Netboot{})
	conf := follow.New(s.conf, follow.Head)
	s.server.Handle("serve", s.serve, ipc.GroupAdmin)
	s.server.Handle("stop", s.stop, ipc.GroupAdmin)
	s.server.Handle("forget", s.forget, ipc.GroupAdmin)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	tasks.Go(func() {
		conf.Run(ctx, func(u follow.Update) {
			s.mu.Lock()
			s.config, s.applied = u.Conf.Config, u.Conf.Generation
			s.mu.Unlock()
			s.look(ctx)
			env.Ready()
		})
	})
	tasks.Go(func() {
		t := time.NewTicker(lookAgain)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-s.wake:
			case <-ctx.Done():
				return
			}
			s.mu.Lock()
			known := s.applied > 0
			s.mu.Unlock()
			if known {
				s.look(ctx)
			}
		}
	})
	err := s.server.Serve(ctx, env.Listener)
	cancel()
	s.closeAll()
	return err
}

// keptFile holds what was asked for by hand, for the next start of this
// process; it is gone at a reboot.
const keptFile = "serving.json"

type kept struct {
	status.NetbootServe
	Until time.Time
}

func (s *service) recall() {
	if s.env.Run == "" {
		return
	}
	b, err := os.ReadFile(filepath.Join(s.env.Run, keptFile))
	var list []kept
	if err != nil || json.Unmarshal(b, &list) != nil {
		return
	}
	for _, k := range list[:min(len(list), maxBoxes)] {
		s.byHand[k.MAC], s.until[k.MAC] = k.NetbootServe, k.Until
	}
}

// keep is called with mu held.
func (s *service) keep() {
	if s.env.Run == "" {
		return
	}
	list := []kept{}
	for mac, k := range s.byHand {
		list = append(list, kept{k, s.until[mac]})
	}
	b, err := json.Marshal(list)
	if err == nil {
		err = ipc.WriteDurable(filepath.Join(s.env.Run, keptFile), b)
	}
	if err != nil {
		s.env.Log.Warn("what is served by hand is lost when this service starts anew: " + err.Error())
	}
}

// serve begins to serve a box for a while.
func (s *service) serve(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var r status.NetbootServe
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("netboot serve: argument: %w", err)
	}
	hw, err := net.ParseMAC(r.MAC)
	if err != nil || len(hw) != 6 || hw[0]&1 != 0 {
		return nil, fmt.Errorf("%.40q is no MAC address of a network card: write six bytes, as 52:54:00:12:34:56", r.MAC)
	}
	r.MAC = hw.String()
	mode := model.DHCPMode(r.DHCP)
	switch {
	case !seed.ValidName(r.Name):
		return nil, fmt.Errorf("%.80q is no name of a box: netboot serve MAC as NAME", r.Name)
	case r.Address.IsValid() && !r.Address.Is4():
		return nil, fmt.Errorf("%s is no IPv4 address: boxes boot by IPv4 only", r.Address)
	case mode != model.DHCPAuto && mode != model.DHCPServer && mode != model.DHCPProxy:
		return nil, fmt.Errorf("dhcp %.20q: want server or proxy", r.DHCP)
	case r.For < 0 || r.For > maxFor:
		return nil, fmt.Errorf("for %v: want at most %v", r.For, maxFor)
	case r.For == 0:
		r.For = defaultFor
	}
	s.mu.Lock()
	if _, again := s.byHand[r.MAC]; !again && len(s.byHand) >= maxBoxes {
		s.mu.Unlock()
		return nil, fmt.Errorf("%d boxes are being served: \"netboot stop NAME\" ends one", maxBoxes)
	}
	s.byHand[r.MAC], s.until[r.MAC] = r, time.Now().Add(r.For)
	s.keep()
	if b := s.boxes[r.MAC]; b != nil {
		b.asked = 0 // conf may say otherwise now
	}
	known := s.applied > 0
	s.mu.Unlock()
	s.env.Log.Info(fmt.Sprintf("%s is served as %s for %v, asked by %s", r.MAC, r.Name, r.For, r.By))
	if !known {
		return nil, errors.New("the configuration is not known yet: it is served as soon as conf answers; see \"show netboot\"")
	}
	s.look(ctx)
	st := s.state()
	i := slices.IndexFunc(st.Boxes, func(b status.NetbootBox) bool { return b.MAC == r.MAC })
	if i < 0 {
		return nil, fmt.Errorf("%s is not served: see \"show netboot\"", r.MAC)
	}
	return st.Boxes[i], nil
}

// stop ends what was begun by hand.
func (s *service) stop(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var r status.NetbootStop
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("netboot stop: argument: %w", err)
	}
	name := strings.ToLower(r.Box)
	if hw, err := net.ParseMAC(r.Box); err == nil {
		name = hw.String()
	}
	s.mu.Lock()
	n := 0
	for mac, k := range s.byHand {
		if r.Box == "" || mac == name || strings.EqualFold(k.Name, r.Box) {
			delete(s.byHand, mac)
			delete(s.until, mac)
			n++
		}
	}
	configured := slices.ContainsFunc(s.config.Netboot, func(b model.NetbootBox) bool { return b.MAC == name || strings.EqualFold(b.Name, r.Box) })
	s.keep()
	s.mu.Unlock()
	s.look(ctx)
	switch {
	case n > 0 && configured:
		return "stopped: from now on as the configuration says", nil
	case configured:
		return nil, fmt.Errorf("%s is served by the configuration: delete it from the netboot block", r.Box)
	case n == 0 && r.Box != "":
		return nil, fmt.Errorf("%.80q is not served: \"show netboot\" lists who is", r.Box)
	}
	return fmt.Sprintf("stopped: %d", n), nil
}

// Serves reports whether a configuration has boxes for the box self to serve,
// so that the service is to run without being asked.
func Serves(c model.Config, self string) bool {
	return slices.ContainsFunc(c.Netboot, func(b model.NetbootBox) bool { return short(b.Name) != short(self) })
}

// wanted are the boxes to serve, by MAC. Called with mu held.
func (s *service) wanted() map[string]box {
	out := map[string]box{}
	self := short(s.own())
	for _, b := range s.config.Netboot {
		if short(b.Name) != self {
			out[b.MAC] = box{NetbootBox: b}
		}
	}
	for mac, k := range s.byHand {
		if !time.Now().Before(s.until[mac]) {
			delete(s.byHand, mac)
			delete(s.until, mac)
			s.env.Log.Info(fmt.Sprintf("%s is not served as %s any more: its time is over", mac, k.Name))
			s.keep()
			continue
		}
		out[mac] = box{NetbootBox: model.NetbootBox{MAC: mac, Name: k.Name, Interface: k.Interface, Addr: k.Address, DHCP: model.DHCPMode(k.DHCP)},
			by: k.By, until: s.until[mac]}
	}
	return out
}

func short(name string) string {
	s, _, _ := strings.Cut(name, ".")
	return strings.ToLower(s)
}

// look brings what is served in line with what is wanted and with what is
// there. One runs at a time.
func (s *service) look(ctx context.Context) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	want := s.wanted()
	if len(want) > 0 && s.release == nil {
		s.release = s.server.Hold()
	}
	s.mu.Unlock()
	links := s.links()
	needed := map[string]netip.Prefix{}
	for mac, w := range want {
		s.mu.Lock()
		b := s.boxes[mac]
		if b == nil || !reflect.DeepEqual(b.NetbootBox, w.NetbootBox) {
			b = &box{NetbootBox: w.NetbootBox}
			s.boxes[mac] = b
		}
		b.by, b.until = w.by, w.until
		s.mu.Unlock()
		s.settle(ctx, b, links)
		if b.network.IsValid() {
			needed[b.ifname] = b.network
		}
	}
	s.mu.Lock()
	maps.DeleteFunc(s.boxes, func(mac string, _ *box) bool { _, is := want[mac]; return !is })
	var gone []*segment
	for name, g := range s.segments {
		if p, is := needed[name]; !is || p != g.network || g.broken() {
			gone = append(gone, g)
			delete(s.segments, name)
		}
	}
	s.mu.Unlock()
	for _, g := range gone {
		g.close()
	}
	for name, p := range needed {
		s.mu.Lock()
		have := s.segments[name] != nil
		s.mu.Unlock()
		if have {
			continue
		}
		g, err := s.open(name, p)
		s.mu.Lock()
		for _, b := range s.boxes {
			if b.ifname == name {
				b.fault = ""
				if err != nil {
					b.fault = err.Error()
				}
			}
		}
		if err == nil {
			s.segments[name] = g
		}
		s.mu.Unlock()
	}
	if len(want) > 0 && time.Since(s.firmwareAt) > firmwareAge {
		s.lookAtFirmware()
	}
	s.mu.Lock()
	if len(want) == 0 && s.release != nil {
		s.release()
		s.release = nil
	}
	s.mu.Unlock()
	s.publish()
}

// links are the networks of this box by addresses that stay: a virtual address
// goes to the other box with its role.
func (s *service) links() []link {
	s.mu.Lock()
	instances := s.config.Instances
	s.mu.Unlock()
	virtual := map[netip.Addr]bool{}
	for i := range instances {
		for _, v := range slices.Concat(instances[i].VIPs, instances[i].ExcludedVIPs) {
			virtual[v.Prefix.Addr()] = true
		}
	}
	return slices.DeleteFunc(s.places.links(), func(l link) bool { return virtual[l.network.Addr()] })
}

// askAgain is how long an answer of conf counts that was a fault.
const askAgain = 10 * time.Second

// addresses are those that the configuration gives to a box. conf reads the
// whole configuration for that, so it is asked once for each.
func (s *service) addresses(ctx context.Context, b *box) ([]status.NetbootAddress, error) {
	s.mu.Lock()
	generation := s.applied
	if b.asked == generation && (b.refused == nil || time.Since(b.askedAt) < askAgain) {
		defer s.mu.Unlock()
		return b.configured, b.refused
	}
	name := b.Name
	s.mu.Unlock()
	ctx, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	var c status.NetbootContent
	err := s.conf.Call(ctx, "netboot-seed", status.NetbootQuery{Name: name}, &c)
	s.mu.Lock()
	defer s.mu.Unlock()
	b.asked, b.askedAt, b.configured, b.refused = generation, time.Now(), c.Addresses, err
	return c.Addresses, err
}

// settle finds out where a box is to be seen, and what it gets there.
func (s *service) settle(ctx context.Context, b *box, links []link) {
	s.mu.Lock()
	want, keys := b.NetbootBox, b.keys
	s.mu.Unlock()
	configured, fault := s.addresses(ctx, b)
	if fault == nil && keys.Peer == nil {
		keys, fault = s.identity(want.Name)
	}
	name, network, addr := "", netip.Prefix{}, want.Addr
	if fault == nil {
		name, network, addr, fault = locate(want, configured, links)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.keys = keys
	b.ifname, b.network, b.addr = name, network, addr
	if fault != nil {
		b.network, b.fault = netip.Prefix{}, fault.Error()
	} else if g := s.segments[name]; g != nil && g.network == network {
		b.fault = ""
	}
	b.pinned = false
	if key, err := seed.Public(keys.Peer); err == nil && s.config.Pair != nil {
		b.pinned = s.config.Pair.Key == seed.Line(key)
	}
}

// link is an interface of this box with an IPv4 network.
type link struct {
	name    string
	network netip.Prefix // own address and length
}

// locate tells by which interface a box is served, by which own address, and
// which address it gets; an invalid one only where another server gives it one.
// It is pure.
func locate(want model.NetbootBox, configured []status.NetbootAddress, links []link) (name string, network netip.Prefix, addr netip.Addr, err error) {
	on := func(l link) bool { return want.Interface == "" || l.name == want.Interface }
	fits := func(l link, a netip.Addr) bool {
		return on(l) && a.Is4() && l.network.Bits() < 31 && l.network.Contains(a) && l.network.Addr() != a
	}
	candidates := []netip.Addr{want.Addr}
	if !want.Addr.IsValid() {
		candidates = nil
		for _, a := range configured {
			candidates = append(candidates, a.Prefix.Addr())
		}
	}
	for _, a := range candidates {
		for _, l := range links {
			if fits(l, a) {
				return l.name, l.network, a, nil
			}
		}
	}
	// Another server gives the address: the interface is what counts.
	if want.Interface != "" && want.DHCP != model.DHCPServer {
		for _, l := range links {
			if on(l) && l.network.Bits() < 31 {
				return l.name, l.network, netip.Addr{}, nil
			}
		}
		return "", network, addr, fmt.Errorf("interface %s of this box has no IPv4 network: give it an address, or name another one", want.Interface)
	}
	where := "any interface of this box"
	if want.Interface != "" {
		where = want.Interface
	}
	if want.Addr.IsValid() {
		return "", network, addr, fmt.Errorf("%s is in no network of %s: name an address of one, \"show interfaces\" lists them", want.Addr, where)
	}
	return "", network, addr, fmt.Errorf("the configuration gives %s no address in a network of %s: name one with \"address\", or with \"interface\" where another DHCP server is", want.Name, where)
}

// poke has everything looked at soon.
func (s *service) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *service) closeAll() {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.segments))
	clear(s.segments)
	s.mu.Unlock()
	for _, g := range all {
		g.close()
	}
}

func (s *service) publish() {
	st := s.state()
	s.mu.Lock()
	same := reflect.DeepEqual(s.told, st)
	s.told = st
	s.mu.Unlock()
	if !same {
		s.server.Publish(st)
	}
}

func (s *service) state() status.Netboot {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := status.Netboot{Applied: status.Applied{Config: s.applied}, Firmware: s.firmware}
	for _, b := range s.boxes {
		g := s.segments[b.ifname]
		n := status.NetbootBox{MAC: b.MAC, Name: b.Name, Interface: b.ifname, Address: b.addr, By: b.by, Until: b.until, PeerKeyHere: b.pinned,
			Given: b.given, GivenAt: b.givenAt, Events: slices.Clone(b.events), Error: b.fault}
		if b.network.IsValid() {
			n.Server = b.network.Addr()
		}
		if g != nil && b.network.IsValid() {
			if proxy, known := b.proxied(g); proxy {
				n.DHCP, n.Other = "proxy", g.other
			} else if known {
				n.DHCP = "server"
			}
		}
		if key, err := seed.Public(b.keys.Peer); err == nil {
			n.PublicKey = seed.Line(key)
		}
		if key, err := seed.Public(b.keys.SSH); err == nil {
			n.HostKey = seed.Fingerprint(key)
		}
		if b.transfer != nil {
			t := *b.transfer
			n.Transfer = &t
		}
		st.Boxes = append(st.Boxes, n)
	}
	slices.SortFunc(st.Boxes, func(a, b status.NetbootBox) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.MAC, b.MAC))
	})
	return st
}
