package ipvs

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"ballast/configs/model"
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

func TestExplainMixedFamily(t *testing.T) {
	o := &Op{Request: ipvsnl.Request{Verb: ipvsnl.AddDest, Service: ipvsnl.Service{ID: model.ServiceID{Addr: ip("10.0.0.1"), Port: 1, Protocol: model.TCP}}, Dest: ipvsnl.Dest{Addr: ip("2001:db8::1")}}}
	err := explain(o, errno(unix.EINVAL))
	if !strings.Contains(err.Error(), "lvs_sync_daemon") || !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}
