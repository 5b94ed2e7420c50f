package ipvs

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/services/ipvs/ipvsnl"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

var cmpAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func rs(addr string, weight int, edit ...func(*model.RealServer)) model.RealServer {
	r := model.RealServer{Addr: ip(addr), Port: 80, ConfPort: 80, Weight: weight, Forward: model.DR,
		Checks: []model.Check{{Kind: model.TCPCheck}}}
	for _, f := range edit {
		f(&r)
	}
	return r
}

func inhibit(r *model.RealServer) { r.InhibitOnFailure = true }
func alpha(r *model.RealServer)   { r.Checks[0].Alpha = true }
func noChecks(r *model.RealServer) {
	r.Checks = nil
}

func vs(addr string, edit func(*model.VirtualServer), real ...model.RealServer) model.VirtualServer {
	id := model.ServiceID{Addr: ip(addr), Port: 80, Protocol: model.TCP}
	v := model.VirtualServer{Name: id.String(), Services: []model.ServiceID{id}, Scheduler: "wrr", Quorum: 1, Real: real, Forward: model.DR}
	if edit != nil {
		edit(&v)
	}
	return v
}

func config(vs ...model.VirtualServer) *model.Config {
	return &model.Config{VirtualServers: vs}
}

// health gives verdicts by real server address; what is not named is up.
func health(gen uint64, c *model.Config, down ...string) *Health {
	h := &Health{Config: gen}
	for _, v := range c.VirtualServers {
		x := VirtualHealth{Name: v.Name}
		sum := 0
		for _, r := range v.Real {
			alive := !slices.Contains(down, r.Addr.String())
			if alive {
				sum += r.Weight
			}
			y := RealHealth{Addr: r.Addr, Port: r.ConfPort, Alive: alive, Settled: true, Weight: -1}
			x.Real = append(x.Real, y)
		}
		x.QuorumUp = sum > 0 && sum >= v.Quorum
		h.Servers = append(h.Servers, x)
	}
	return h
}

// opsText is what leads from an empty kernel, or have, to what is wanted.
func opsText(have *State, want *Table) string {
	var b strings.Builder
	for _, o := range Diff(have, want, func(model.ServiceID, netip.AddrPort) bool { return false }) {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

func mustCompile(t *testing.T, c *model.Config) *Plan {
	t.Helper()
	p, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDesired(t *testing.T) {
	sorry := func(v *model.VirtualServer) {
		s := rs("10.0.9.9", 1, noChecks)
		v.Sorry = &s
	}
	for name, test := range map[string]struct {
		config *model.Config
		down   []string
		silent bool // health has not spoken
		roles  Roles
		want   string
	}{
		"sorted, with flags, persistence and thresholds": {
			config: config(vs("10.0.0.2", func(v *model.VirtualServer) {
				v.Scheduler, v.SchedFlags = "mh", []string{"mh-port", "mh-fallback", "hashed"}
				v.Persistence, v.Granularity = 50*time.Second, 24
			}, rs("10.0.1.2", 3), rs("10.0.1.1", 1, func(r *model.RealServer) { r.UThreshold, r.LThreshold = 100, 50 })),
				vs("10.0.0.1", func(v *model.VirtualServer) {
					v.OnePacket = true
					v.Services[0].Protocol = model.UDP
				}, rs("10.0.1.1", 1, func(r *model.RealServer) { r.Forward = model.NAT; r.Port = 53 }))),
			want: `add service [10.0.0.1]:udp:80 wrr ops
add destination [10.0.1.1]:udp:53 of [10.0.0.1]:udp:80 NAT weight 1
add service [10.0.0.2]:tcp:80 none (flag-1,flag-2) persistent 50 /24
add destination [10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80 DR weight 1 thresholds 100 50
add destination [10.0.1.2]:tcp:80 of [10.0.0.2]:tcp:80 DR weight 3
edit service [10.0.0.2]:tcp:80: none (flag-1,flag-2) persistent 50 /24 -> mh (mh-fallback,mh-port) persistent 50 /24
`,
		},
		"IPv6, mark and tunnels": {
			config: config(
				model.VirtualServer{Name: "g", Scheduler: "rr", Quorum: 1, Persistence: time.Minute, Granularity: 64, Services: []model.ServiceID{
					{Mark: 7, IPv6: true}, {Addr: ip("2001:db8::1"), Port: 0, Protocol: model.SCTP, IPv6: true}},
					Real: []model.RealServer{
						rs("2001:db8::10", 1, func(r *model.RealServer) { r.Forward = model.TUN }),
						rs("10.0.0.1", 1, func(r *model.RealServer) {
							r.Forward, r.Tunnel = model.TUN, model.Tunnel{Type: "gue", Port: 6080, Csum: "remcsum"}
						}),
						rs("10.0.0.2", 1, func(r *model.RealServer) { r.Forward, r.Tunnel = model.TUN, model.Tunnel{Type: "gre", Csum: "csum"} }),
					}}),
			want: `add service [2001:db8::1]:sctp:0 rr persistent 60 /64
add destination [10.0.0.1]:sctp:80 of [2001:db8::1]:sctp:0 TUN gue port 6080 remcsum weight 1
add destination [10.0.0.2]:sctp:80 of [2001:db8::1]:sctp:0 TUN gre csum weight 1
add destination [2001:db8::10]:sctp:80 of [2001:db8::1]:sctp:0 TUN weight 1
add service FWM 7 rr persistent 60 /64
add destination [10.0.0.1]:80 of FWM 7 TUN gue port 6080 remcsum weight 1
add destination [10.0.0.2]:80 of FWM 7 TUN gre csum weight 1
add destination [2001:db8::10]:80 of FWM 7 TUN weight 1
`,
		},
		"before health speaks: in unless alpha": {
			config: config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1, alpha))), silent: true,
			want: `add service [10.0.0.1]:tcp:80 wrr
add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
`,
		},
		"down: out, or weight 0 with inhibit_on_failure": {
			config: config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1), rs("10.0.1.3", 1, inhibit))),
			down:   []string{"10.0.1.2", "10.0.1.3"},
			want: `add service [10.0.0.1]:tcp:80 wrr
add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
add destination [10.0.1.3]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 0
`,
		},
		"quorum lost: only the sorry server": {
			config: config(vs("10.0.0.1", func(v *model.VirtualServer) { sorry(v); v.Quorum = 2 }, rs("10.0.1.1", 1), rs("10.0.1.2", 1), rs("10.0.1.3", 1, inhibit))),
			down:   []string{"10.0.1.2", "10.0.1.3"},
			want: `add service [10.0.0.1]:tcp:80 wrr
add destination [10.0.1.3]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 0
add destination [10.0.9.9]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
`,
		},
		"quorum lost without sorry server: who lives serves": {
			config: config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Quorum = 2 }, rs("10.0.1.1", 1), rs("10.0.1.2", 1))),
			down:   []string{"10.0.1.2"},
			want: `add service [10.0.0.1]:tcp:80 wrr
add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
`,
		},
		"sorry_server_inhibit": {
			config: config(vs("10.0.0.1", func(v *model.VirtualServer) { sorry(v); v.SorryInhibit = true }, rs("10.0.1.1", 1))),
			want: `add service [10.0.0.1]:tcp:80 wrr
add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
add destination [10.0.9.9]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 0
`,
		},
		"sorry server that is a real server too": {
			config: config(vs("10.0.0.1", func(v *model.VirtualServer) { s := rs("10.0.1.1", 5, noChecks); v.Sorry = &s }, rs("10.0.1.1", 1), rs("10.0.1.2", 1))),
			want: `add service [10.0.0.1]:tcp:80 wrr
add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
add destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
`,
		},
		"all alpha, health silent: sorry server": {
			config: config(vs("10.0.0.1", sorry, rs("10.0.1.1", 1, alpha))), silent: true,
			want: `add service [10.0.0.1]:tcp:80 wrr
add destination [10.0.9.9]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
`,
		},
		"daemons without instance, timeouts": {
			config: &model.Config{Global: model.Global{SyncDaemon: &model.SyncDaemon{Interface: "eth1", ID: 5},
				Timeouts: model.Timeouts{TCP: 100 * time.Second}}},
			want: `set timeouts tcp 100 tcpfin 0 udp 0
start master sync daemon on eth1 id 5
start backup sync daemon on eth1 id 5
`,
		},
		"daemon of a master": {
			config: &model.Config{Global: model.Global{SyncDaemon: &model.SyncDaemon{Interface: "eth1", Instance: "VI_1"}}},
			roles:  Roles{Known: true, Master: map[string]bool{"VI_1": true}},
			want:   "start master sync daemon on eth1 id 0\n",
		},
		"daemon of a backup": {
			config: &model.Config{Global: model.Global{SyncDaemon: &model.SyncDaemon{Interface: "eth1", Instance: "VI_1"}}},
			roles:  Roles{Known: true},
			want:   "start backup sync daemon on eth1 id 0\n",
		},
		"daemon of an unknown role": {
			config: &model.Config{Global: model.Global{SyncDaemon: &model.SyncDaemon{Interface: "eth1", Instance: "VI_1"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, test.config)
			b := NoBeliefs(p)
			if !test.silent {
				b, _ = b.Hear(p, health(1, test.config, test.down...), nil, false)
			}
			if d := cmp.Diff(test.want, opsText(&State{}, Desired(p, b, test.roles))); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestMiscDynamicWeight(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1, func(r *model.RealServer) { r.Checks[0].Dynamic = true })))
	p := mustCompile(t, c)
	h := health(1, c)
	h.Servers[0].Real[0].Weight = 17
	b, _ := NoBeliefs(p).Hear(p, h, nil, false)
	got := Desired(p, b, Roles{})
	if w := got.Services[0].Dests[0].Weight; w != 17 {
		t.Errorf("weight %d, want 17", w)
	}
}

func TestCompileErrors(t *testing.T) {
	for name, test := range map[string]struct {
		config *model.Config
		want   string
	}{
		"same service twice": {config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)), vs("10.0.0.1", func(v *model.VirtualServer) { v.Name = "b" }, rs("10.0.1.1", 1))),
			"virtual server b: service [10.0.0.1]:tcp:80 belongs to virtual server [10.0.0.1]:tcp:80 already; remove one of them"},
		"other family without tunnel": {config(vs("10.0.0.1", nil, rs("2001:db8::1", 1))),
			"virtual server [10.0.0.1]:tcp:80: real server 2001:db8::1 port 80: its address family differs from that of service [10.0.0.1]:tcp:80, which only lb_kind TUN allows"},
		"thresholds": {config(vs("10.0.0.1", nil, rs("10.0.1.1", 1, func(r *model.RealServer) { r.UThreshold, r.LThreshold = 1, 2 }))),
			"virtual server [10.0.0.1]:tcp:80: real server 10.0.1.1 port 80: lthreshold 2 is more than uthreshold 1"},
		"negative weight": {config(vs("10.0.0.1", nil, rs("10.0.1.1", -1))),
			"virtual server [10.0.0.1]:tcp:80: real server 10.0.1.1 port 80: weight -1 is out of range 0 to 2147483647"},
		"gue without port": {config(vs("10.0.0.1", nil, rs("10.0.1.1", 1, func(r *model.RealServer) { r.Forward, r.Tunnel.Type = model.TUN, "gue" }))),
			"virtual server [10.0.0.1]:tcp:80: real server 10.0.1.1 port 80: tunnel type gue needs a port"},
		"flag": {config(vs("10.0.0.1", func(v *model.VirtualServer) { v.SchedFlags = []string{"x"} }, rs("10.0.1.1", 1))),
			`virtual server [10.0.0.1]:tcp:80: service [10.0.0.1]:tcp:80: scheduler flag "x"`},
		"interface": {&model.Config{Global: model.Global{SyncDaemon: &model.SyncDaemon{Interface: "a-name-of-16-byt"}}},
			`lvs_sync_daemon: interface name "a-name-of-16-byt" is not 1 to 15 bytes long`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(test.config)
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v\nwant %s", err, test.want)
			}
		})
	}
}

// state makes the kernel's state out of a table.
func state(t *Table) *State {
	k := &fakeKernel{}
	for _, o := range Diff(&State{}, t, nil) {
		if err := k.do(o.Request); err != nil {
			panic(err)
		}
	}
	k.state.sort()
	return &k.state
}

func TestDiff(t *testing.T) {
	base := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)))
	table := func(c *model.Config, down ...string) *Table {
		p, err := Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := NoBeliefs(p).Hear(p, health(1, c, down...), nil, false)
		return Desired(p, b, Roles{Known: true})
	}
	daemons := func(d model.SyncDaemon) *model.Config { return &model.Config{Global: model.Global{SyncDaemon: &d}} }
	for name, test := range map[string]struct {
		have  *State
		touch func(*State)
		want  *Table
		text  string
	}{
		"nothing": {have: state(table(base)), want: table(base)},
		"add before delete, delete at once what is down": {
			have: state(table(base, "10.0.1.1")), want: table(base, "10.0.1.2"),
			text: `add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1
delete destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80
`},
		"edits in place": {
			have: state(table(base)),
			want: table(config(vs("10.0.0.1", func(v *model.VirtualServer) {
				v.Scheduler, v.Persistence, v.Granularity = "sh", time.Minute, 32
			}, rs("10.0.1.1", 5), rs("10.0.1.2", 1, func(r *model.RealServer) { r.Forward = model.TUN })))),
			text: `edit service [10.0.0.1]:tcp:80: wrr -> sh persistent 60 /32
edit destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80: weight 1 -> 5
edit destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80: DR weight 1 -> TUN weight 1
`},
		"removed real server: weight 0": {
			have: state(table(base)), want: table(config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))),
			text: "edit destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80: weight 1 -> 0 (drain)\n"},
		"drain with connections": {
			have: state(table(base)), touch: func(s *State) { d := &s.Services[0].Dests[1]; d.Weight, d.Active = 0, 1 },
			want: table(config(vs("10.0.0.1", nil, rs("10.0.1.1", 1))))},
		"drained": {
			have: state(table(base)), touch: func(s *State) { s.Services[0].Dests[1].Weight = 0 },
			want: table(config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))),
			text: "delete destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80 (drain)\n"},
		"drain under sh lends the fallback": {
			have: state(table(config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "sh" }, rs("10.0.1.1", 1), rs("10.0.1.2", 1))))),
			want: table(config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "sh" }, rs("10.0.1.1", 1)))),
			text: `edit service [10.0.0.1]:tcp:80: sh -> sh (sh-fallback)
edit destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80: weight 1 -> 0 (drain)
`},
		"and takes it back": {
			have:  state(table(config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "mh" }, rs("10.0.1.1", 1))))),
			touch: func(s *State) { s.Services[0].Flags = ipvsnl.FlagSched1 },
			want:  table(config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "mh" }, rs("10.0.1.1", 1)))),
			text:  "edit service [10.0.0.1]:tcp:80: mh (mh-fallback) -> mh\n"},
		"dh cannot drain": {
			have: state(table(config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "dh" }, rs("10.0.1.1", 1), rs("10.0.1.2", 1))))),
			want: table(config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "dh" }, rs("10.0.1.1", 1)))),
			text: "delete destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80\n"},
		"removed virtual server: weight 0 all over": {
			have: state(table(base)), want: table(config()),
			text: `edit destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:80: weight 1 -> 0 (drain)
edit destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80: weight 1 -> 0 (drain)
`},
		"removed virtual server, one destination still has connections": {
			have: state(table(base)), touch: func(s *State) {
				s.Services[0].Dests[0].Weight, s.Services[0].Dests[1].Weight, s.Services[0].Dests[1].Inactive = 0, 0, 3
			}, want: table(config())},
		"removed virtual server, drained": {
			have: state(table(base)), touch: func(s *State) { s.Services[0].Dests[0].Weight, s.Services[0].Dests[1].Weight = 0, 0 },
			want: table(config()), text: "delete service [10.0.0.1]:tcp:80 (drain)\n"},
		"removed virtual server that hides a new one": {
			have: state(table(base)), want: table(config(vs("10.0.0.1", func(v *model.VirtualServer) {
				v.Services[0].Port, v.Persistence, v.Granularity = 0, time.Minute, 32
			}, rs("10.0.1.1", 1)))),
			text: `add service [10.0.0.1]:tcp:0 wrr persistent 60 /32
add destination [10.0.1.1]:tcp:80 of [10.0.0.1]:tcp:0 DR weight 1
delete service [10.0.0.1]:tcp:80 (drain)
`},
		"daemon defaults are equal": {
			have: state(table(daemons(model.SyncDaemon{Interface: "e", MaxLen: 10}))), want: table(daemons(model.SyncDaemon{Interface: "e", MaxLen: 10}))},
		"daemon changed": {
			have: state(table(daemons(model.SyncDaemon{Interface: "e", Instance: "V"}))), want: table(daemons(model.SyncDaemon{Interface: "e", Instance: "V", ID: 7})),
			text: "stop backup sync daemon on e id 0\nstart backup sync daemon on e id 7\n"},
		"daemon changes its role: the new one first": {
			have: state(&Table{Daemons: []ipvsnl.Daemon{{Role: ipvsnl.Master, Interface: "e"}}}), want: table(daemons(model.SyncDaemon{Interface: "e", Instance: "V"})),
			text: "start backup sync daemon on e id 0\nstop master sync daemon on e id 0\n"},
		"daemon removed": {
			have: state(table(daemons(model.SyncDaemon{Interface: "e"}))), want: table(config()),
			text: "stop master sync daemon on e id 0\nstop backup sync daemon on e id 0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.touch != nil {
				test.touch(test.have)
			}
			if d := cmp.Diff(test.text, opsText(test.have, test.want)); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// world is a reconciler over a fake kernel on a clock of its own.
type world struct {
	k     *fakeKernel
	r     *reconciler
	clock time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{k: &fakeKernel{t: t, strict: true}, clock: time.Unix(1e9, 0)}
	w.k.state.Timeouts = ipvsnl.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}
	w.restart()
	return w
}

// restart is a new process over the same kernel.
func (w *world) restart() {
	w.r = newReconciler(w.k, slog.New(slog.DiscardHandler), func() time.Time { return w.clock })
}

// do runs fn and returns the operations that the kernel got.
func (w *world) do(fn func()) string {
	w.k.requests = nil
	fn()
	var b strings.Builder
	for _, q := range w.k.requests {
		o := &Op{Request: q}
		if q.Verb == ipvsnl.EditDest {
			b.WriteString("edit destination " + o.object() + " to " + destText(q.Dest) + "\n")
			continue
		}
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

func (w *world) full() { w.clock = w.clock.Add(2 * time.Second); w.r.pass() }

// sweep is one sweep of the table.
func (w *world) sweep() {
	w.clock = w.clock.Add(2 * time.Second)
	if err := w.r.sweep(w.k); err != nil {
		w.k.t.Error(err)
	}
}

func TestRestartChangesNothing(t *testing.T) {
	c := config(
		vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1), rs("10.0.1.3", 2, inhibit), rs("10.0.1.4", 1, alpha)),
		vs("10.0.0.2", func(v *model.VirtualServer) { s := rs("10.0.9.9", 1, noChecks); v.Sorry = &s }, rs("10.0.1.2", 1)),
		vs("10.0.0.3", nil, rs("10.0.1.5", 4, func(r *model.RealServer) { r.Checks[0].Dynamic = true })),
	)
	c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", Instance: "VI_1", ID: 51}
	h := health(1, c, "10.0.1.2", "10.0.1.3")
	h.Servers[2].Real[0].Weight = 9
	w := newWorld(t)
	w.r.configure(1, c)
	w.r.roles = Roles{Known: true, Master: map[string]bool{"VI_1": true}}
	w.full()
	w.r.hear(h)
	w.full()
	if got := w.do(w.full); got != "" {
		t.Fatalf("second pass:\n%s", got)
	}
	fresh := health(1, c) // a health process that has just started and assumes
	for i := range fresh.Servers {
		for j := range fresh.Servers[i].Real {
			fresh.Servers[i].Real[j].Settled = false
		}
	}
	for name, next := range map[string]func(){
		"health never speaks": func() {
			for range 5 {
				w.full()
			}
		},
		"health speaks at once": func() { w.r.hear(h); w.full() },
		"health is fresh too":   func() { w.r.hear(fresh); w.full(); w.full(); w.r.hear(h); w.full() },
		"health before conf":    func() { w.full() },
	} {
		t.Run(name, func(t *testing.T) {
			w.restart()
			if name == "health before conf" {
				w.r.hear(h)
			}
			got := w.do(func() {
				w.full()
				w.r.configure(1, c)
				w.r.event()
				next()
				w.r.roles = Roles{Known: true, Master: map[string]bool{"VI_1": true}}
				w.r.event()
				w.full()
			})
			if got != "" {
				t.Errorf("operations after a restart:\n%s", got)
			}
		})
	}
}

// A vrrp that starts anew says for a moment that it has no instances, and one
// that has not yet taken over a commit lacks the instance of the sync daemon.
func TestSyncDaemonKeepsItsRole(t *testing.T) {
	state := func(text string) *instances {
		var v instances
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		return &v
	}
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))
	c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", Instance: "VI_1", ID: 51}
	w := newWorld(t)
	w.r.configure(1, c)
	tell := func(text string) string {
		return w.do(func() {
			if w.r.learn(state(text)) {
				w.r.event()
			}
			w.full()
		})
	}
	tell(`{"config":1,"instances":[{"name":"VI_1","state":"MASTER"}]}`)
	for _, text := range []string{`{"config":0,"instances":null}`, `{"config":1,"instances":[{"name":"VI_1","state":"MASTER"}]}`} {
		if got := tell(text); got != "" {
			t.Errorf("after %s:\n%s", text, got)
		}
	}
	c2 := *c
	c2.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", Instance: "VI_2", ID: 51}
	if got := w.do(func() { w.r.configure(2, &c2); w.r.event(); w.full() }); got != "" {
		t.Errorf("before vrrp has VI_2:\n%s", got)
	}
	if got := tell(`{"config":2,"instances":[{"name":"VI_2","state":"MASTER"}]}`); got != "" {
		t.Errorf("VI_2 is master too:\n%s", got)
	}
	if d := cmp.Diff("start backup sync daemon on eth1 id 51\nstop master sync daemon on eth1 id 51\n", tell(`{"config":2,"instances":[{"name":"VI_2","state":"BACKUP"}]}`)); d != "" {
		t.Error(d)
	}
}

func TestStartWaitsForHealth(t *testing.T) {
	old := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.9", nil, rs("10.0.1.1", 1)))
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.3", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	w := newWorld(t)
	w.r.configure(1, old)
	w.full()
	w.restart()
	w.r.configure(2, c)
	added := "add service [10.0.0.2]:tcp:80 wrr\nadd destination [10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80 DR weight 1\n"
	if d := cmp.Diff(added, w.do(w.full)); d != "" {
		t.Errorf("before health spoke: -want +got\n%s", d)
	}
	got := w.do(func() { w.r.hear(health(2, c)); w.r.event() })
	for _, line := range []string{"add destination [10.0.1.3]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1\n", "edit destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80 to DR weight 0", "edit destination [10.0.1.1]:tcp:80 of [10.0.0.9]:tcp:80 to DR weight 0"} {
		if !strings.Contains(got, line) {
			t.Errorf("after health spoke: no %q in\n%s", line, got)
		}
	}
}

func TestAssumptionsOfHealthAreHeldForAWhile(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)))
	w := newWorld(t)
	w.r.configure(1, c)
	w.full()
	w.r.hear(health(1, c, "10.0.1.2"))
	w.r.event()
	fresh := health(1, c)
	for j := range fresh.Servers[0].Real {
		fresh.Servers[0].Real[j].Settled = false
	}
	if got := w.do(func() { w.r.hear(fresh); w.r.event(); w.full() }); got != "" {
		t.Errorf("on an assumption:\n%s", got)
	}
	w.clock = w.clock.Add(HoldBound)
	if got := w.do(w.full); got != "add destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80 DR weight 1\n" {
		t.Errorf("after %s: %q", HoldBound, got)
	}
	w.r.hear(health(1, c, "10.0.1.2"))
	w.r.event()
	if got := w.do(func() { w.r.hear(health(1, c)); w.r.event() }); !strings.HasPrefix(got, "add destination [10.0.1.2]") {
		t.Errorf("on a probe: %q", got)
	}
}

func TestHealthEventsTouchOneService(t *testing.T) {
	var v []model.VirtualServer
	for i := range 50 {
		v = append(v, vs(fmt.Sprintf("10.0.0.%d", i+1), nil, rs(fmt.Sprintf("10.0.1.%d", i+1), 1), rs("10.0.2.1", 1)))
	}
	c := config(v...)
	w := newWorld(t)
	w.r.configure(1, c)
	w.full()
	w.r.hear(health(1, c))
	w.r.event()
	before := w.k.dumps
	got := w.do(func() {
		if !w.r.hear(health(1, c, "10.0.1.7")) {
			t.Error("news are no news")
		}
		w.r.event()
	})
	if d := cmp.Diff("delete destination [10.0.1.7]:tcp:80 of [10.0.0.7]:tcp:80\n", got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if w.k.dumps != before {
		t.Errorf("%d dumps: what was read last is still true", w.k.dumps-before)
	}
	if w.r.hear(health(1, c, "10.0.1.7")) {
		t.Error("the same health is news")
	}
	if last := w.r.ring[len(w.r.ring)-1]; last.Reason != "health: down" || last.To != "absent" {
		t.Errorf("transition %+v", last)
	}
	if w.r.repairs != 0 {
		t.Errorf("%d repairs", w.r.repairs)
	}
}

func TestRepairs(t *testing.T) {
	c := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	w := newWorld(t)
	w.r.configure(1, c)
	w.full()
	s := w.k.state.Services[0]
	s.Dests[0].Weight = 9                                                                           // changed
	s.Scheduler = "rr"                                                                              // changed
	s.Dests = append(s.Dests, ipvsnl.DestState{Dest: ipvsnl.Dest{Addr: ip("10.9.9.9"), Weight: 1}}) // added
	w.k.state.Services = slices.Delete(w.k.state.Services, 1, 2)                                    // deleted
	ops := w.r.ops
	w.full()
	if w.r.repairs != 5 || w.r.ops-ops != 5 {
		t.Errorf("%d repairs, %d operations, want 5: %q", w.r.repairs, w.r.ops-ops, w.r.lastOps)
	}
	w.full() // the stranger is gone
	if got := w.do(w.full); got != "" || len(w.k.state.Services[0].Dests) != 2 || w.r.repairs != 5 {
		t.Errorf("afterwards: repairs %d, %s, %+v", w.r.repairs, got, w.k.state.Services[0].Dests)
	}
}

func TestDrain(t *testing.T) {
	c1 := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	c2 := config(vs("10.0.0.1", nil, rs("10.0.1.1", 1)))
	w := newWorld(t)
	w.r.configure(1, c1)
	w.full()
	conns := func(n uint32) {
		for i := range w.k.state.Services {
			for j := range w.k.state.Services[i].Dests {
				w.k.state.Services[i].Dests[j].Active = n
			}
		}
	}
	conns(2)
	w.r.configure(2, c2)
	w.full()
	if got := w.do(func() { w.full(); w.full() }); got != "" {
		t.Errorf("while draining:\n%s", got)
	}
	st := w.r.snapshot().status()
	if d := st.Services[0].Dests[1]; !d.Draining || d.Weight != 0 {
		t.Errorf("destination %+v, want draining", d)
	}
	if s := st.Services[1]; s.VirtualServer != "" || !s.Dests[0].Draining {
		t.Errorf("service %+v, want draining", s)
	}
	w.clock = w.clock.Add(DrainBound)
	if d := cmp.Diff("delete destination [10.0.1.2]:tcp:80 of [10.0.0.1]:tcp:80\ndelete service [10.0.0.2]:tcp:80\n", w.do(w.full)); d != "" {
		t.Errorf("after the bound: -want +got\n%s", d)
	}
	if w.r.repairs != 0 || len(w.r.drains) != 0 && w.do(w.full) != "" {
		t.Errorf("repairs %d, drains %v", w.r.repairs, w.r.drains)
	}

	// Back in the configuration during a drain: it serves again, at once.
	w.r.configure(3, c1)
	w.full()
	conns(1)
	w.r.configure(4, c2)
	w.full()
	w.r.configure(5, c1)
	got := w.do(w.full)
	if !strings.Contains(got, "edit") || strings.Contains(got, "add") || strings.Contains(got, "delete") {
		t.Errorf("back from a drain:\n%s", got)
	}
}

func TestFailures(t *testing.T) {
	c := config(vs("10.0.0.1", func(v *model.VirtualServer) { v.Scheduler = "foo" }, rs("10.0.1.1", 1), rs("10.0.1.2", 1)), vs("10.0.0.2", nil, rs("10.0.1.1", 1)))
	w := newWorld(t)
	w.k.strict = false
	w.k.refuse = func(r ipvsnl.Request) error {
		if r.Verb == ipvsnl.AddService && r.Service.Scheduler == "foo" {
			return errno(unix.ENOENT)
		}
		return nil
	}
	w.r.configure(1, c)
	w.full()
	want := `add service [10.0.0.1]:tcp:80 foo: no such file or directory (the kernel has no scheduler "foo": load module ip_vs_foo, or choose another lb_algo)`
	if d := cmp.Diff(want, w.r.problem()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if got := len(w.k.state.Services); got != 1 || w.r.snapshot().head.Config != 1 {
		t.Errorf("%d services, generation %d", got, w.r.snapshot().head.Config)
	}
	// Tried again with growing gaps, the rest undisturbed.
	tries := 0
	for range 60 {
		if w.do(w.full) != "" {
			tries++
		}
	}
	if tries < 3 || tries > 10 {
		t.Errorf("%d tries in 2 minutes", tries)
	}
	w.k.refuse = nil
	w.clock = w.clock.Add(backoffMax)
	w.full()
	if w.r.problem() != "" || len(w.k.state.Services) != 2 {
		t.Errorf("after the module came: %q, %d services", w.r.problem(), len(w.k.state.Services))
	}
	if w.r.repairs != 0 {
		t.Errorf("%d repairs", w.r.repairs)
	}

	w.k.dumpErr = fmt.Errorf("ipvs: %w", ipvsnl.ErrNoIPVS)
	w.full()
	w.r.configure(2, c)
	w.full()
	if s := w.r.snapshot().head; !strings.Contains(s.Error, "module ip_vs is not loaded") || s.Config != 2 {
		t.Errorf("without IPVS: %+v", s)
	}
}

func TestExplainMixedFamily(t *testing.T) {
	o := &Op{Request: ipvsnl.Request{Verb: ipvsnl.AddDest, Service: ipvsnl.Service{ID: model.ServiceID{Addr: ip("10.0.0.1"), Port: 1, Protocol: model.TCP}}, Dest: ipvsnl.Dest{Addr: ip("2001:db8::1")}}}
	err := explain(o, errno(unix.EINVAL))
	if !strings.Contains(err.Error(), "lvs_sync_daemon") || !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}

// TestTransitions leads the strict kernel through random worlds, applied on
// one another: every pass must succeed, the second one must be empty, and what
// the kernel then holds must be what is wanted plus what drains.
func TestTransitions(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	schedulers := []string{"rr", "wrr", "wlc", "sh", "mh", "dh", "fo"}
	pick := func(n int) bool { return rnd.IntN(n) == 0 }
	randomReal := func(i int) model.RealServer {
		r := rs(fmt.Sprintf("10.0.1.%d", i), rnd.IntN(4), func(r *model.RealServer) {
			r.Forward = model.Forward(rnd.IntN(3))
			r.InhibitOnFailure = pick(4)
			r.UThreshold = uint32(rnd.IntN(3))
			if pick(5) {
				r.Checks = nil
			} else {
				r.Checks[0].Alpha = pick(5)
				r.Checks[0].Dynamic = pick(5)
			}
		})
		return r
	}
	random := func() *model.Config {
		c := &model.Config{}
		for i := range 6 {
			if pick(3) {
				continue
			}
			v := vs(fmt.Sprintf("10.0.0.%d", i+1), func(v *model.VirtualServer) {
				v.Scheduler = schedulers[rnd.IntN(len(schedulers))]
				v.Quorum = 1 + rnd.IntN(3)
				if pick(2) {
					v.Persistence, v.Granularity = time.Duration(1+rnd.IntN(3))*time.Minute, 24+rnd.IntN(9)
				}
				if pick(4) {
					v.Services = append(v.Services, model.ServiceID{Mark: uint32(i + 1)})
				}
				if pick(6) {
					v.Services[0].Port = 0
				}
				if pick(3) {
					s := randomReal(rnd.IntN(8)) // may be a real server too
					s.Checks = nil
					v.Sorry, v.SorryInhibit = &s, pick(2)
				}
			})
			for j := range 8 {
				if !pick(3) {
					v.Real = append(v.Real, randomReal(j))
				}
			}
			rnd.Shuffle(len(v.Real), func(a, b int) { v.Real[a], v.Real[b] = v.Real[b], v.Real[a] })
			c.VirtualServers = append(c.VirtualServers, v)
		}
		if pick(2) {
			c.Global.SyncDaemon = &model.SyncDaemon{Interface: "eth1", ID: uint8(rnd.IntN(2)), Instance: []string{"", "V"}[rnd.IntN(2)]}
		}
		c.Global.Timeouts.TCP = time.Duration(rnd.IntN(3)) * time.Minute
		return c
	}
	randomHealth := func(gen uint64, c *model.Config) *Health {
		var down []string
		for i := range 8 {
			if pick(3) {
				down = append(down, fmt.Sprintf("10.0.1.%d", i))
			}
		}
		h := health(gen, c, down...)
		for i := range h.Servers {
			for j := range h.Servers[i].Real {
				if pick(6) {
					h.Servers[i].Real[j].Weight = rnd.IntN(5)
				}
				if pick(9) {
					h.Servers[i].Real[j].Settled = false
				}
			}
		}
		return h
	}
	w := newWorld(t)
	c, gen := config(), uint64(0)
	for n := range 1500 {
		w.clock = w.clock.Add(time.Duration(rnd.IntN(200)) * time.Second)
		what := ""
		w.k.requests = nil
		switch rnd.IntN(9) {
		case 0, 1:
			c, gen = random(), gen+1
			w.r.configure(gen, c)
			what = "configuration"
		case 2, 3, 4:
			w.r.hear(randomHealth(gen, c))
			what = "health"
		case 5:
			w.r.roles = Roles{Known: true, Master: map[string]bool{"V": pick(2)}}
			what = "role"
		case 6:
			for i := range w.k.state.Services { // connections come and go
				for j := range w.k.state.Services[i].Dests {
					w.k.state.Services[i].Dests[j].Active = uint32(rnd.IntN(2))
				}
			}
			what = "connections"
		case 7:
			orders := w.r.orders
			w.restart()
			w.r.orders = orders
			w.r.configure(gen, c)
			what = "restart"
		case 8:
			for range 1 + rnd.IntN(3) {
				w.r.order(status.ServerOrder{Addr: ip(fmt.Sprintf("10.0.1.%d", rnd.IntN(8))), Weight: rnd.IntN(3),
					Action: []string{status.OrderDrain, status.OrderDisable, status.OrderWeight, status.OrderEnable, status.OrderEnable}[rnd.IntN(5)]})
			}
			what = "order"
		}
		w.r.event()
		if !w.r.settled {
			w.clock = w.clock.Add(HealthWait)
			w.full()
		}
		if w.r.settled && w.r.plan != nil {
			checkKept(t, w)
		}
		w.clock = w.clock.Add(2 * time.Second)
		look := func() { w.r.pass() }
		if pick(2) {
			look = func() { w.r.sweep(w.k) }
		}
		look()
		look() // a drain that has nothing to wait for ends
		look() // and gives the fallback back
		if got := w.do(look); got != "" {
			t.Fatalf("step %d, %s: one more pass does\n%s", n, what, got)
		}
		if w.r.plan != nil {
			checkHolds(t, w)
		}
		if w.r.problem() != "" {
			t.Errorf("step %d, %s: %s", n, what, w.r.problem())
		}
		if w.r.repairs != 0 {
			t.Errorf("step %d, %s: %d repairs: %q", n, what, w.r.repairs, w.r.repaired)
		}
		if t.Failed() {
			t.Fatalf("step %d, %s: operations\n%s", n, what, w.r.lastOps)
		}
	}
	t.Logf("%d operations, %d passes", w.r.ops, w.r.passes)
}

// checkKept checks that what is believed of the kernel is true, and that what
// is left to do is to end drains.
func checkKept(t *testing.T, w *world) {
	t.Helper()
	have, _ := w.k.Dump(nil, nil)
	conf := func(s *State) (out []string) {
		for _, h := range s.Services {
			out = append(out, h.ID.String()+" "+serviceText(h.Service))
			for _, d := range h.Dests {
				out = append(out, destName(h.ID, d.Dest)+" "+destText(d.Dest))
			}
		}
		return out
	}
	if d := cmp.Diff(conf(have), conf(w.r.have)); d != "" {
		t.Errorf("what is believed of the kernel: -kernel +belief\n%s", d)
	}
	for _, o := range Diff(have, w.r.want, func(model.ServiceID, netip.AddrPort) bool { return false }) {
		if !o.Drain || o.Verb == ipvsnl.EditDest {
			t.Errorf("not done: %s", o.String())
		}
	}
}

// checkHolds compares the kernel with what is wanted, field by field.
func checkHolds(t *testing.T, w *world) {
	t.Helper()
	have, _ := w.k.Dump(nil, nil)
	want := w.r.want
	for _, w := range want.Services {
		e := *w
		h := have.find(e.ID)
		if h == nil {
			t.Errorf("no service %s", e.ID)
			continue
		}
		var got []ipvsnl.Dest
		lent := false
		for _, d := range h.Dests {
			if _, ok := findDest(e.Dests, key(d.Dest)); !ok && d.Weight == 0 && d.Active > 0 && !slices.Contains(e.Out, key(d.Dest)) {
				lent = e.Scheduler == "sh" || e.Scheduler == "mh"
				continue // drains
			}
			got = append(got, d.Dest)
		}
		if lent {
			e.Flags |= ipvsnl.FlagSched1
		}
		if d := cmp.Diff(e.Service, h.Service, cmpAddrs); d != "" {
			t.Errorf("service %s: -want +got\n%s", e.ID, d)
		}
		if d := cmp.Diff(e.Dests, got, cmpAddrs); d != "" {
			t.Errorf("destinations of %s: -want +got\n%s", e.ID, d)
		}
	}
	for _, h := range have.Services {
		if _, ok := findEntry(want.Services, h.ID); ok {
			continue
		}
		busy := false
		for _, d := range h.Dests {
			busy = busy || d.Active > 0
			if d.Weight != 0 {
				t.Errorf("service %s drains with weight %d", h.ID, d.Weight)
			}
		}
		if !busy {
			t.Errorf("service %s is neither wanted nor busy", h.ID)
		}
	}
}
