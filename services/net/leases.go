package net

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/net/dhcp"
)

// leases runs one DHCP client for each interface that asks for one and is
// present, and holds what they got.
type leases struct {
	log     *slog.Logger
	changed func()

	mu      sync.Mutex
	got     map[string]dhcp.Lease
	clients map[string]*client
	wg      sync.WaitGroup
}

type client struct {
	*dhcp.Client
	cancel context.CancelFunc
	// A client lives as long as these: a NIC that was swapped for another is
	// another client to the server.
	index     int
	mac, host string
}

func newLeases(log *slog.Logger, changed func()) *leases {
	return &leases{log: log, changed: changed, got: map[string]dhcp.Lease{}, clients: map[string]*client{}}
}

// held is a copy of the leases by interface, but for those that expired while
// their NIC was away.
func (l *leases) held() map[string]dhcp.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := maps.Clone(l.got)
	maps.DeleteFunc(out, func(_ string, v dhcp.Lease) bool { return !v.Expires.After(time.Now()) })
	return out
}

// dns is what the leases bring that are held, by name of interface.
func (l *leases) dns() []netip.Addr {
	held := l.held()
	var out []netip.Addr
	for _, name := range slices.Sorted(maps.Keys(held)) {
		out = append(out, held[name].DNS...)
	}
	return out
}

func (l *leases) renew(iface string) (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, c := range l.clients {
		if iface == "" || iface == name {
			c.Renew()
			names = append(names, name)
		}
	}
	return names
}

// follow starts and stops clients as the configuration and the links ask, and
// tells them about carrier.
func (l *leases) follow(c model.Config, f Facts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	want := map[string]Link{}
	asked := map[string]bool{}
	pending := map[int]bool{}
	for _, r := range Renames(f.Links, Desired(c, nil, nil).Names) {
		pending[r.Index] = true
	}
	for _, n := range c.Interfaces {
		if !n.DHCP || n.Disabled {
			continue
		}
		asked[n.Name] = true
		for _, k := range f.Links {
			if (k.Name == n.Name || slices.Contains(k.AltNames, n.Name)) && !pending[k.Index] {
				want[n.Name] = k
			}
		}
	}
	for name, cl := range l.clients {
		k, ok := want[name]
		if ok && k.Index == cl.index && k.MAC == cl.mac && c.System.HostName == cl.host {
			cl.SetCarrier(k.Up && k.Carrier)
			continue
		}
		cl.cancel()
		delete(l.clients, name)
		if !asked[name] || ok && k.MAC != cl.mac {
			delete(l.got, name) // gone from the configuration, or another NIC: not our address any more
		}
	}
	for name, k := range want {
		if l.clients[name] != nil {
			continue
		}
		if _, ok := l.got[name]; !ok {
			if a := adoptable(name, k, c, f); a != nil {
				l.got[name] = *a
			}
		}
		var adopted *dhcp.Lease
		if a, ok := l.got[name]; ok {
			adopted = &a
		}
		ctx, cancel := context.WithCancel(context.Background())
		cl := &client{cancel: cancel, index: k.Index, mac: k.MAC, host: c.System.HostName}
		cl.Client = dhcp.New(name, dhcp.Wire{Interface: k.Name, HostName: c.System.HostName}, adopted, l.log, func(n *dhcp.Lease) {
			l.mu.Lock()
			if ctx.Err() == nil { // a client that was stopped has no say
				if n == nil {
					delete(l.got, name)
				} else {
					l.got[name] = *n
				}
			}
			l.mu.Unlock()
			l.changed()
		})
		cl.SetCarrier(k.Up && k.Carrier)
		l.clients[name] = cl
		l.wg.Go(func() { cl.Run(ctx) })
	}
}

// stop ends every client. The leases and their addresses stay: the next run
// adopts them.
func (l *leases) stop() {
	l.mu.Lock()
	for _, c := range l.clients {
		c.cancel()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// adoptable finds in the kernel the lease that an earlier run held: one of net's
// addresses that expires, with net's routes by that link.
func adoptable(name string, k Link, c model.Config, f Facts) *dhcp.Lease {
	for _, a := range f.Addrs {
		if a.Link != k.Name || a.Proto != status.AddrProtoNet || a.Expires.IsZero() || !a.Prefix.Addr().Is4() {
			continue
		}
		var routes []dhcp.Route
		for _, r := range f.Routes {
			if r.Proto == status.RouteProtoNet && r.Interface == k.Name && r.Metric >= dhcpMetric && r.Metric < dhcpMetric+uint32(len(c.Interfaces)) &&
				r.Dst.Addr().Is4() && r.Table == tableMain {
				routes = append(routes, dhcp.Route{Dst: r.Dst, Via: r.Via})
			}
		}
		return dhcp.Held(a.Prefix, a.Expires, routes)
	}
	return nil
}

// dns are the name servers in use: the configured ones before the leased.
func (s *service) dns() []netip.Addr {
	var out []netip.Addr
	if s.conf != nil {
		out = append(out, s.conf.Config.System.DNS...)
	}
	for _, a := range s.leases.dns() {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// writeResolv keeps resolv.conf in net's own folder, where /etc/resolv.conf of
// the image points. What keeps it from that is told.
func (s *service) writeResolv() (faults []string) {
	if s.env.Run == "" {
		return nil
	}
	var b strings.Builder
	b.WriteString("# written by net\n")
	for _, a := range s.dns() {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	path := filepath.Join(s.env.Run, "resolv.conf")
	if old, err := os.ReadFile(path); err == nil && string(old) == b.String() {
		return nil
	}
	tmp := path + ".new"
	err := os.WriteFile(tmp, []byte(b.String()), 0o644)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return []string{"names cannot be looked up: " + err.Error()}
	}
	return nil
}
