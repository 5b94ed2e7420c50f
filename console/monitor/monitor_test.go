package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/golden"

	tea "charm.land/bubbletea/v2"
)

var now = time.Date(2026, 11, 21, 12, 34, 56, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// fake is a box that answers pages as the real one does.
type fake struct {
	conf    status.ConfNews
	vrrp    status.VRRP
	rows    []status.PageRow
	servers map[string]Server
	events  []status.Entry
	silent  []string
	at      time.Time
	asked   []Query
}

func (f *fake) Fetch(_ context.Context, q Query) Data {
	f.asked = append(f.asked, q)
	d := Data{At: f.at, Conf: f.conf, VRRP: f.vrrp, Problems: f.silent}
	d.Events = f.events[max(0, len(f.events)-q.Events):]
	var hit []status.PageRow
	for _, r := range f.rows {
		d.Page.Sum.Virtual++
		d.Page.Sum.Real += r.Real
		d.Page.Sum.Down += r.Down
		d.Page.Sum.Ordered += r.Ordered
		d.Page.Sum.Active += r.Active
		d.Page.Sum.Stats.Add(r.Stats)
		if !r.QuorumUp {
			d.Page.Sum.Lost++
		}
		if strings.Contains(r.Name, q.Page.Filter) {
			hit = append(hit, r)
		}
	}
	d.Page.Matched = len(hit)
	d.Page.Offset = max(0, min(q.Page.Offset, len(hit)-q.Page.Limit))
	d.Page.Rows = hit[d.Page.Offset:min(len(hit), d.Page.Offset+q.Page.Limit)]
	if s, ok := f.servers[q.Server]; ok {
		d.Server = &s
	}
	if q.Real.IsValid() {
		d.Explain = q.Real.String() + " of " + q.Server + "\n  Health  up\n" + strings.Repeat("  more\n", 60)
	}
	if q.Instance != "" {
		d.Explain = q.Instance + " is MASTER\n"
	}
	return d
}

const web = "[10.0.0.100]:tcp:80"

func pair() *fake {
	st := status.Stats{CPS: 120, InBPS: 1_400_000, OutBPS: 22_000_000}
	f := &fake{at: now,
		conf: status.ConfNews{Generation: 7, Source: "commit", Author: "ann@10.0.0.9", Time: ago(3 * time.Minute)},
		vrrp: status.VRRP{
			Instances: []status.VRRPInstance{
				{Name: "VI_1", State: status.VRRPMaster, Since: ago(3 * time.Hour), Effective: 100, Interface: "eth0", VIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.100/24"), netip.MustParsePrefix("10.0.0.101/24")}},
				{Name: "VI_2", State: status.VRRPBackup, Since: ago(26 * time.Hour), Effective: 90, Interface: "eth1", VIPs: []netip.Prefix{netip.MustParsePrefix("2001:db8::100/64")}},
			},
			Heartbeat: &status.Heartbeat{Up: true, Peer: "lb2", Since: ago(26 * time.Hour), Routers: []status.HeartbeatRouter{{Instance: "VI_1", State: "BACKUP", Priority: 90}, {Instance: "VI_2", State: "MASTER", Priority: 100}}},
		},
		rows: []status.PageRow{
			{Name: web, Scheduler: "wrr", QuorumUp: true, Real: 3, Down: 1, Ordered: 1, Active: 1234, Inactive: 99, Stats: st},
			{Name: "[10.0.0.100]:tcp:443", Scheduler: "wlc", QuorumUp: true, Real: 3, Active: 77, Stats: status.Stats{CPS: 3, InBPS: 900, OutBPS: 12_000}},
			{Name: "[10.0.0.101]:udp:53", Scheduler: "rr", Real: 2, Down: 2},
			{Name: "FWM 3", Scheduler: "sh", Sorry: true, Real: 1, Down: 1, Active: 5},
		},
		events: []status.Entry{
			{Service: "vrrp", Transition: status.Transition{Time: ago(3 * time.Hour), Object: "VI_1", From: "BACKUP", To: "MASTER", Reason: "no advertisement from 10.0.0.12 for 3.61s"}},
			{Service: "health", Transition: status.Transition{Time: ago(13 * time.Minute), Object: "[10.0.0.23]:tcp:80 of " + web, From: "UP", To: "DOWN", Reason: "TCP_CHECK: connection refused"}},
			{Service: "ipvs", Transition: status.Transition{Time: ago(12 * time.Minute), Object: "[10.0.0.23]:tcp:80 of " + web, From: "DR weight 1", To: "absent", Reason: "health: down"}},
			{Service: "ipvs", Transition: status.Transition{Time: ago(time.Minute), Object: "[10.0.0.22]:tcp:80 of " + web, From: "DR weight 1", To: "DR weight 0", Reason: "order of ann@10.0.0.9: drain"}},
		},
		servers: map[string]Server{web: {Name: web,
			Services: []status.Service{{ID: model.ServiceID{Addr: addr("10.0.0.100"), Port: 80}, VirtualServer: web, Scheduler: "wrr", Persistence: 50 * time.Second, Dests: []status.Dest{
				{Addr: addr("10.0.0.21"), Port: 80, Weight: 1, Active: 1200, Inactive: 90, Stats: st},
				{Addr: addr("10.0.0.22"), Port: 80, Order: "drain", Active: 34, Inactive: 9},
				{Addr: addr("10.0.0.29"), Port: 80, Draining: true, Active: 2}}}},
			Health: status.VirtualServerHealth{Name: web, QuorumUp: true, Weight: 1, Quorum: 1, Real: []status.RealServerHealth{
				{Addr: addr("10.0.0.21"), Port: 80, Alive: true, Since: ago(26 * time.Hour), Checks: []status.CheckHealth{{Kind: "HTTP_GET", Up: true, Detail: "ok in 2.1ms: status 200"}}},
				{Addr: addr("10.0.0.22"), Port: 80, Alive: true, Since: ago(26 * time.Hour), Checks: []status.CheckHealth{{Kind: "HTTP_GET", Up: true, Detail: "ok in 2.4ms: status 200"}}},
				{Addr: addr("10.0.0.23"), Port: 80, Since: ago(13 * time.Minute), Checks: []status.CheckHealth{{Kind: "TCP_CHECK", Detail: "connection refused"}}}}},
		}},
	}
	return f
}

// driver plays the terminal and the event loop.
type driver struct {
	t     *testing.T
	m     *Model
	ticks int
	quit  bool
}

func drive(t *testing.T, f *fake, o Options) *driver {
	o.Source = f
	if o.Host == "" {
		o.Host = "lb1"
	}
	d := &driver{t: t, m: New(t.Context(), o)}
	d.m.later = func(_ time.Duration, fn func(time.Time) tea.Msg) tea.Cmd { return func() tea.Msg { return fn(now) } }
	d.run(d.m.Init())
	return d
}

// run does a command, and what comes of it. Ticks are only counted.
func (d *driver) run(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case tickMsg:
		d.ticks++
	case tea.QuitMsg:
		d.quit = true
	default:
		_, next := d.m.Update(msg)
		d.run(next)
	}
}

// refresh is a second that goes by.
func (d *driver) refresh() {
	d.m.asked = time.Time{} // the driver's clock goes faster
	_, cmd := d.m.Update(tickMsg{d.m.seq})
	d.run(cmd)
}

var keys = map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "pgdown": tea.KeyPgDown,
	"pgup": tea.KeyPgUp, "home": tea.KeyHome, "end": tea.KeyEnd, "space": tea.KeySpace, "backspace": tea.KeyBackspace}

func (d *driver) press(list ...string) *driver {
	d.t.Helper()
	for _, k := range list {
		msg := tea.KeyPressMsg{}
		switch code, named := keys[k]; {
		case named:
			msg.Code = code
			if k == "space" {
				msg.Text = " "
			}
		case k == "ctrl+c":
			msg.Code, msg.Mod = 'c', tea.ModCtrl
		default:
			r, _ := utf8.DecodeRuneInString(k)
			msg.Code, msg.Text = r, k
		}
		d.m.asked = time.Time{}
		_, cmd := d.m.Update(msg)
		d.run(cmd)
	}
	return d
}

func (d *driver) size(w, h int) *driver {
	d.m.asked = time.Time{}
	_, cmd := d.m.Update(tea.WindowSizeMsg{Width: w, Height: h})
	d.run(cmd)
	return d
}

// text is the picture without styles.
func (d *driver) text() string {
	l := d.m.look
	defer func() { d.m.look = l }()
	d.m.look.none = true
	return d.m.Picture()
}

// check compares with a golden file, and makes sure that it fits the screen.
func (d *driver) check(name string) {
	d.t.Helper()
	text := d.text()
	lines := strings.Split(text, "\n")
	if len(lines) != d.m.height {
		d.t.Errorf("%s: %d lines on a screen of %d", name, len(lines), d.m.height)
	}
	for _, l := range lines {
		if n := utf8.RuneCountInString(l); n > d.m.width {
			d.t.Errorf("%s: %d columns on a screen of %d: %q", name, n, d.m.width, l)
		}
		for _, r := range l {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
				d.t.Errorf("%s: control character %U", name, r)
			}
		}
	}
	golden.Check(d.t, "testdata/"+name+".txt", text+"\n")
}

func (d *driver) want(parts ...string) {
	d.t.Helper()
	text := d.text()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			d.t.Errorf("no %q in:\n%s", p, text)
		}
	}
}

// lively makes two minutes of rates.
func (d *driver) lively(f *fake) *driver {
	for i := range 120 {
		f.at = now.Add(time.Duration(i-119) * time.Second)
		f.rows[0].Stats.CPS = uint64(60 + i%40)
		f.rows[1].Stats.CPS = uint64(i / 10)
		d.refresh()
	}
	return d
}

func TestPictures(t *testing.T) {
	f := pair()
	d := drive(t, f, Options{})
	d.lively(f).check("80x24")
	d.size(120, 40).check("120x40")
	d.size(60, 16).check("60x16")
	d.size(80, 24).press("enter").check("server")
	d.press("down", "enter").check("explain")
	d.press("esc", "esc", "v").check("routers")
	d.press("esc", "o").check("events")
	d.press("esc", "?").check("help")
	d.press("esc", "space").want("PAUSED 12:34:56 UTC")
	f = pair()
	d = drive(t, f, Options{ASCII: true})
	d.lively(f).check("ascii")
	for _, r := range d.text() {
		if r > 0x7e {
			t.Errorf("%q on a terminal of ASCII", r)
		}
	}
	if d.size(20, 5).text() != "20x5 is too small:\n40x10 at least" {
		t.Errorf("a small screen: %q", d.text())
	}
}

func TestColours(t *testing.T) {
	for _, tc := range []struct {
		mono bool
		name string
	}{{false, "colour"}, {true, "mono"}} {
		d := drive(t, pair(), Options{Mono: tc.mono})
		text := d.m.Picture()
		golden.Check(t, "testdata/"+tc.name+".txt", strings.ReplaceAll(text, "\x1b", "␛")+"\n")
		if tc.mono && (strings.Contains(text, "\x1b[3") || strings.Contains(text, "\x1b[1;3")) {
			t.Error("colours on a terminal without")
		}
	}
}

func TestStates(t *testing.T) {
	drive(t, &fake{at: now}, Options{}).check("empty")
	f := pair()
	f.vrrp.Heartbeat.Up, f.vrrp.Heartbeat.Since = false, ago(12*time.Second)
	drive(t, f, Options{}).check("peer_down")
	f = pair()
	f.conf.Pair = "lb1 and lb2 run different configurations: see \"show drift\""
	drive(t, f, Options{}).want("! lb1 and lb2 run different configurations")
	f = pair()
	f.conf.Pending = &status.Pending{Generation: 7, Back: 6, Deadline: now.Add(192 * time.Second), Author: "ann@10.0.0.9"}
	f.vrrp.Maintenance, f.vrrp.Resigned, f.vrrp.ResignedBy = true, true, "bob@serial"
	f.silent = []string{"notify does not answer"}
	drive(t, f, Options{}).check("pending")
	f = pair()
	evil := "evil\x1b[2J\r\n\u009b31m\u202e日本語\u0301\xff"
	f.rows[0].Name, f.vrrp.Instances[0].Name, f.vrrp.Instances[0].Interface = evil, evil, evil
	f.vrrp.Heartbeat.Peer, f.conf.Author, f.events[3].Object, f.events[3].Reason, f.silent = evil, evil, evil, evil, []string{evil}
	s := f.servers[web]
	s.Health.Real[0].Checks[0].Detail, s.Services[0].Scheduler, s.Name = evil, evil, evil
	f.servers[evil] = s
	d := drive(t, f, Options{Host: evil})
	d.check("hostile")
	d.press("enter").check("hostile_server")
	if d.m.server != evil {
		t.Errorf("looks into %q", d.m.server)
	}
}

func many(n int) *fake {
	f := pair()
	f.rows = nil
	for i := range n {
		f.rows = append(f.rows, status.PageRow{Name: fmt.Sprintf("[10.%d.%d.%d]:tcp:80", i>>16, i>>8&255, i&255), QuorumUp: true, Real: 2, Active: uint64(i)})
	}
	return f
}

func TestTenThousand(t *testing.T) {
	f := many(10000)
	d := drive(t, f, Options{})
	d.press("pgdown", "pgdown", "down").check("10k")
	d.press("end").want("> [10.0.39.15]:tcp:80", "10000/10000")
	d.press("up").want("> [10.0.39.14]:tcp:80")
	d.press("home").want("> [10.0.0.0]:tcp:80", "1/10000")
	for range 300 {
		d.press("p")
	}
	for _, q := range f.asked {
		if q.Page.Limit > 60 || q.Server != "" {
			t.Fatalf("more was asked for than is on the screen: %+v", q)
		}
	}
	if n := len(d.m.hist); n > mostSeries {
		t.Errorf("%d series are kept", n)
	}
	d.press("/", "3", "9", ".", "x", "backspace", "1", "enter").want(`Matching "39.1"`, "[10.0.39.1]:tcp:80", "[10.0.39.10]:tcp:80")
	d.press("esc").want("1/10000")
	d.press("/", "n", "o", "n", "e", "enter").want("nothing matches")
	d.press("/", "ctrl+c").want("nothing done", "nothing matches")
}

// Sorted rows move; the cursor stays with its virtual server.
func TestCursorFollows(t *testing.T) {
	f := pair()
	d := drive(t, f, Options{})
	d.press("s", "s").want("sort: connections")
	d.press("down").want("> [10.0.0.100]:tcp:443")
	if got := f.asked[len(f.asked)-1].Page.Sort; got != status.SortConnections {
		t.Errorf("asked for sort %q", got)
	}
	f.rows[0], f.rows[1], f.rows[3] = f.rows[1], f.rows[3], f.rows[0]
	d.refresh()
	d.want("> [10.0.0.100]:tcp:443")
	d.press("enter", "esc").want("> [10.0.0.100]:tcp:443")
}

func TestOrdersByKey(t *testing.T) {
	var did []string
	var refuse error
	o := Options{Act: func(_ context.Context, words ...string) (string, error) {
		did = append(did, strings.Join(words, "|"))
		return "10.0.0.21:80: weight 0, 12 active\nmore\n", refuse
	}}
	d := drive(t, pair(), o)
	d.press("d").want("orders are about real servers")
	d.press("enter", "d").want("drain 10.0.0.21:80 of " + web + ": no new connections for it? [y/N]")
	d.press("n").want("nothing done")
	d.press("d", "enter").want("nothing done")
	d.press("x").want("its connections end? [y/N]")
	d.press("y").want("10.0.0.21:80: weight 0, 12 active")
	d.press("w", "a", "2", "5", "0", "backspace").want("weight of 10.0.0.21:80 of " + web + ": 25")
	d.press("enter")
	d.press("w", "enter").want("a weight is a number")
	d.press("w", "esc").want("nothing done")
	d.press("down", "e")
	refuse = errors.New("drain: permission denied: it needs role operate\nline two")
	d.press("enter", "d", "y").want("permission denied: it needs role operate")
	d.press("esc", "end", "d").want("it is not in the configuration")
	want := []string{"disable|10.0.0.21:80|of|" + web, "weight|10.0.0.21:80|25|of|" + web, "enable|10.0.0.22:80|of|" + web, "drain|10.0.0.22:80|of|" + web}
	if strings.Join(did, "\n") != strings.Join(want, "\n") {
		t.Errorf("orders:\n%s", strings.Join(did, "\n"))
	}
}

func TestKeysLeave(t *testing.T) {
	for _, tc := range []struct {
		keys []string
		quit bool
	}{
		{[]string{"q"}, true}, {[]string{"ctrl+c"}, true}, {[]string{"esc"}, false}, {[]string{"enter", "q"}, false}, {[]string{"enter", "q", "q"}, true},
		{[]string{"enter", "enter", "ctrl+c"}, true}, {[]string{"?", "q"}, false}, {[]string{"z", "backspace"}, false}, {[]string{"v", "enter", "esc", "esc"}, false},
		{[]string{"/", "q"}, false},
	} {
		if d := drive(t, pair(), Options{}).press(tc.keys...); d.quit != tc.quit {
			t.Errorf("%v: left %v, want %v", tc.keys, d.quit, tc.quit)
		}
	}
}

// One fetch at a time, however many keys are pressed while it runs; none while
// it is paused.
func TestPace(t *testing.T) {
	f := many(1000)
	m := New(t.Context(), Options{Source: f})
	first := m.Init()
	for range 50 {
		if _, cmd := m.Update(tea.KeyPressMsg{Code: tea.KeyPgDown}); cmd != nil {
			t.Fatal("a second fetch was begun")
		}
	}
	_, cmd := m.Update(first())
	if cmd == nil || len(f.asked) != 1 {
		t.Fatalf("%d fetches", len(f.asked))
	}
	late := m.seq
	m.Update(tea.KeyPressMsg{Code: tea.KeySpace})
	if _, cmd = m.Update(tickMsg{m.seq}); cmd != nil {
		t.Error("it is asked while paused")
	}
	m.asked = time.Time{}
	if _, cmd = m.Update(tea.KeyPressMsg{Code: tea.KeySpace}); cmd == nil {
		t.Fatal("it is not asked after the pause")
	}
	m.Update(cmd())
	if _, cmd = m.Update(tickMsg{late}); cmd != nil {
		t.Error("an old tick counts")
	}
	// What is slow is asked for less often.
	if _, cmd = m.Update(dataMsg{data: Data{At: now}, took: 100 * time.Millisecond}); cmd == nil {
		t.Error("it is not asked again")
	}
}

func TestSeries(t *testing.T) {
	s := &series{}
	if got := s.spark(rateConns, 4, false); got != "    " {
		t.Errorf("nothing known: %q", got)
	}
	for i := range 30 {
		s.add(now.Add(time.Duration(i)*time.Second), status.Stats{CPS: uint64(i)})
	}
	if got := s.spark(rateConns, 12, false); got != "         ▄▆█" {
		t.Errorf("thirty seconds: %q", got)
	}
	if got := s.spark(rateConns, 12, true); got != "         -+#" {
		t.Errorf("ASCII: %q", got)
	}
	if got := s.spark(rateIn, 12, false); got != "         ▁▁▁" {
		t.Errorf("no traffic: %q", got)
	}
	s.add(now.Add(49*time.Second), status.Stats{CPS: 29}) // seconds that were not looked at
	if got := s.spark(rateConns, 12, false); got != "       ▄▆███" {
		t.Errorf("a gap: %q", got)
	}
	s.add(now, status.Stats{}) // the clock was set back
	s.add(now.Add(time.Hour), status.Stats{CPS: 5})
	if got := s.spark(rateConns, 12, false); got != "           █" {
		t.Errorf("an hour later: %q", got)
	}
	if (*series)(nil).spark(rateConns, 2, false) != "  " || s.spark(rateConns, -1, false) != "" {
		t.Error("no series, no columns")
	}
}

func TestOnce(t *testing.T) {
	text := Once(t.Context(), pair(), "lb1", 80, 24, false)
	if strings.Contains(text, "\x1b") || strings.Contains(text, "q quit") {
		t.Errorf("styles or keys in:\n%s", text)
	}
	golden.Check(t, "testdata/once.txt", text)
}

func TestRows(t *testing.T) {
	s := Server{Health: status.VirtualServerHealth{Real: []status.RealServerHealth{
		{Addr: addr("10.0.0.1"), Port: 8080, Alive: true}, {Addr: addr("10.0.0.2"), Port: 81, Alive: true}, {Addr: addr("10.0.0.2"), Port: 82, Alive: true}, {Addr: addr("10.0.0.3"), Disabled: true}}},
		Services: []status.Service{{Dests: []status.Dest{
			{Addr: addr("10.0.0.1"), Port: 80, Weight: 5, Active: 1}, // DR: the port of the service
			{Addr: addr("10.0.0.2"), Port: 82, Order: "weight", Weight: 7, Active: 2},
			{Addr: addr("10.0.0.9"), Port: 80, Sorry: true, Weight: 1}}},
			{Dests: []status.Dest{{Addr: addr("10.0.0.1"), Port: 80, Weight: 5, Active: 10}, {Addr: addr("10.0.0.9"), Port: 80, Sorry: true, Weight: 1, Active: 3}}}}}
	var got []string
	for _, r := range s.Rows() {
		got = append(got, fmt.Sprintf("%s %s %d %d", r.Addr, r.State, r.Weight, r.Active))
	}
	want := "10.0.0.1:8080 up 5 11\n10.0.0.2:81 up -1 0\n10.0.0.2:82 weight 7 2\n10.0.0.3:0 disabled -1 0\n10.0.0.9:80 sorry 1 3"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// Whatever is typed, whatever the size: one picture that fits.
func FuzzKeys(f *testing.F) {
	f.Add("jj\rd y/10\x1b", uint8(80), uint8(24))
	f.Add("v\r?ossssrrp", uint8(40), uint8(10))
	f.Fuzz(func(t *testing.T, typed string, w, h uint8) {
		src := many(30)
		src.rows[0].Name = web
		d := drive(t, src, Options{Act: func(context.Context, ...string) (string, error) { return "", errors.New(typed) }})
		d.size(int(w), int(h))
		for _, r := range typed[:min(len(typed), 40)] {
			switch r {
			case '\r':
				d.press("enter")
			case 27:
				d.press("esc")
			default:
				d.press(string(r))
			}
			if w < leastWidth || h < leastHeight {
				continue
			}
			lines := strings.Split(d.text(), "\n")
			if len(lines) != int(h) {
				t.Fatalf("%d lines on a screen of %d", len(lines), h)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > int(w) {
					t.Fatalf("too wide: %q", l)
				}
			}
		}
	})
}
