package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ballast/console/show"
	"ballast/services/ipc/status"

	tea "charm.land/bubbletea/v2"
)

// The smallest screen that anything is drawn on.
const (
	leastWidth  = 40
	leastHeight = 10
)

// View implements tea.Model.
func (m *Model) View() tea.View {
	v := tea.NewView(m.Picture())
	v.AltScreen, v.DisableBracketedPasteMode = true, true
	return v
}

// Picture is the screen: as many lines as there are, none too wide.
func (m *Model) Picture() string {
	if m.width < leastWidth || m.height < leastHeight {
		return fmt.Sprintf("%dx%d is too small:\n%dx%d at least", m.width, m.height, leastWidth, leastHeight)
	}
	lines := m.header()
	switch m.screen {
	case screenList:
		lines = append(lines, m.routersBlock()...)
		lines = append(lines, m.sumBlock()...)
		lines = append(lines, m.list()...)
		lines = append(lines, m.eventBlock()...)
	case screenServer:
		lines = append(lines, m.serverScreen()...)
	case screenExplain:
		lines = append(lines, m.scrolled(strings.Split(strings.TrimSuffix(m.data.Explain, "\n"), "\n"))...)
	case screenRouters:
		lines = append(lines, m.routersScreen()...)
	case screenEvents:
		lines = append(lines, m.eventsScreen()...)
	case screenHelp:
		lines = append(lines, m.scrolled(helpText)...)
	}
	lines = lines[:min(len(lines), m.height-1)]
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	return strings.Join(append(lines, m.bottom()), "\n")
}

// Heights of the parts of the first screen.

func (m *Model) tall() bool { return m.height >= 30 }

// alarmLines is how many alarms are shown.
func (m *Model) alarmLines() int {
	most := 2
	if m.tall() {
		most = 4
	}
	return min(most, len(m.alarms()))
}

func (m *Model) routerLines() int {
	most := 4
	if m.tall() {
		most = min(12, m.height/4)
	}
	if m.height < 20 {
		most = 1
	}
	return min(most, len(m.data.VRRP.Instances))
}

func (m *Model) eventLines() int {
	switch {
	case m.height < 20:
		return 0
	case m.tall():
		return m.height / 6
	}
	return 3
}

// lines is how many lines of its list a screen shows.
func (m *Model) lines(s screen) int {
	above := 2 + m.alarmLines() // header, and the line of keys
	switch s {
	case screenList:
		above += 1 + m.routerLines() + 2 + 1 // headings, sum
		if n := m.eventLines(); n > 0 {
			above += n + 1
		}
	case screenServer:
		above += 4 // two about the virtual server, heading, detail
	case screenRouters, screenEvents:
		above++
	}
	return max(1, m.height-above)
}

// header is who and when, who the peer is, and what is wrong.
func (m *Model) header() []string {
	d := &m.data
	r := m.look.row(m.width, head)
	clock := "         "
	if m.have {
		clock = d.At.UTC().Format("15:04:05") + " UTC"
	}
	if m.paused {
		clock = "PAUSED " + clock
	}
	text := " " + m.look.clean(m.opt.Host) + "  "
	if d.Conf.Generation > 0 {
		text += fmt.Sprintf("generation %d", d.Conf.Generation)
		if d.Conf.Source != "" {
			text += ", " + m.look.clean(d.Conf.Source)
		}
		if d.Conf.Author != "" {
			text += " by " + m.look.clean(d.Conf.Author)
		}
		if !d.Conf.Time.IsZero() {
			text += " " + show.Age(d.Conf.Time, d.At) + " ago"
		}
	}
	r.put(plain, m.look.fit(text, m.width-len(clock)-2)).put(plain, " "+clock)
	out := []string{r.String()}
	alarms := m.alarms()
	most := m.alarmLines()
	for i, a := range alarms[:most] {
		if i == most-1 && len(alarms) > most {
			a = fmt.Sprintf("… and %d more: \"show status\" lists all", len(alarms)-most+1)
		}
		out = append(out, m.look.row(m.width, plain).put(bad, "! "+m.look.clean(a)).String())
	}
	return out
}

// alarms are what somebody should know before anything else.
func (m *Model) alarms() []string {
	if !m.have {
		return nil
	}
	return append(show.Alarms(m.data.Conf, m.data.VRRP, m.data.At), m.data.Problems...)
}

// peerWord says what is known of the other box.
func (m *Model) peerWord() (style, string) {
	h := m.data.VRRP.Heartbeat
	switch {
	case h == nil:
		return faint, "no heartbeat configured"
	case !h.Up:
		return bad, "PEER NOT HEARD for " + show.Age(h.Since, m.data.At)
	}
	name := "peer"
	if h.Peer != "" {
		name += " " + m.look.clean(h.Peer)
	}
	return good, name + " heard for " + show.Age(h.Since, m.data.At)
}

// routersBlock is the heading of the virtual routers, and the first of them:
// those in trouble come before others.
func (m *Model) routersBlock() []string {
	n := map[string]int{}
	for i := range m.data.VRRP.Instances {
		n[m.data.VRRP.Instances[i].State]++
	}
	var words []string
	for _, s := range []string{status.VRRPMaster, status.VRRPBackup, status.VRRPFault, status.VRRPInit, status.VRRPStop} {
		if n[s] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	if len(words) == 0 {
		words = []string{"none"}
	}
	st, peer := m.peerWord()
	out := []string{m.look.row(m.width, plain).put(strong, "Virtual routers ").put(plain, strings.Join(words, ", ")+"   ").put(st, peer).String()}
	list := slices.Clone(m.data.VRRP.Instances)
	slices.SortStableFunc(list, func(a, b status.VRRPInstance) int { return trouble(b) - trouble(a) })
	lines := m.routerLines()
	for i := range list[:lines] {
		if i == lines-1 && len(list) > lines {
			out = append(out, m.look.row(m.width, plain).put(faint, m.look.clean(fmt.Sprintf("  … %d more: v", len(list)-lines+1))).String())
			break
		}
		out = append(out, m.router1(&list[i], false))
	}
	return out
}

func trouble(v status.VRRPInstance) int {
	if v.State == status.VRRPFault {
		return 1
	}
	return 0
}

func roleStyle(state string) style {
	switch state {
	case status.VRRPMaster:
		return good
	case status.VRRPFault:
		return bad
	}
	return plain
}

// router1 is the line of a virtual router.
func (m *Model) router1(v *status.VRRPInstance, chosen bool) string {
	r := m.line(chosen)
	r.cell(strong, m.look.clean(v.Name), 12+max(0, min(18, m.width-90)))
	r.cell(roleStyle(v.State), m.look.clean(v.State), 6)
	r.cell(plain, show.Age(v.Since, m.data.At), 6)
	prio := fmt.Sprintf("prio %d", v.Effective)
	r.cell(plain, prio, 8)
	peer := "-"
	if h := m.data.VRRP.Heartbeat; h != nil && h.Up {
		for _, p := range h.Routers {
			if p.Instance == v.Name {
				peer = fmt.Sprintf("%s %d", m.look.clean(p.State), p.Priority)
			}
		}
	}
	r.cell(plain, "peer "+peer, 15)
	r.cell(plain, m.look.clean(v.Interface), 6+max(0, min(9, m.width-90)))
	if len(v.VIPs) > 0 {
		vip := v.VIPs[0].String()
		if n := len(v.VIPs) - 1; n > 0 {
			vip += fmt.Sprintf(" +%d", n)
		}
		r.put(plain, vip)
	}
	return r.String()
}

// line begins a line of a list.
func (m *Model) line(chosen bool) *row {
	if chosen {
		return m.look.row(m.width, cursor).put(plain, "> ")
	}
	return m.look.row(m.width, plain).put(plain, "  ")
}

// sumBlock is the sum over all virtual servers.
func (m *Model) sumBlock() []string {
	s := &m.data.Page.Sum
	r := m.look.row(m.width, plain).put(strong, "Virtual servers ").put(plain, fmt.Sprint(s.Virtual))
	if s.Lost > 0 {
		r.put(plain, ", ").put(bad, fmt.Sprintf("%d without quorum", s.Lost))
	}
	r.put(plain, "   ").put(strong, "Real ").put(plain, fmt.Sprint(s.Real))
	if s.Down > 0 {
		r.put(plain, ", ").put(bad, fmt.Sprintf("%d DOWN", s.Down))
	}
	if s.Ordered > 0 {
		r.put(plain, ", ").put(warn, fmt.Sprintf("%d by order", s.Ordered))
	}
	r.put(plain, "   ").put(strong, count(s.Active)).put(plain, " active")
	sum := m.hist[""]
	w := max(6, (m.width-48)/3)
	t := m.look.row(m.width, plain)
	for i, x := range []string{"  new/s", "in/s", "out/s"} {
		v := [rates]string{count(s.Stats.CPS), size(s.Stats.InBPS), size(s.Stats.OutBPS)}[i]
		t.put(plain, x+" ").put(strong, fmt.Sprintf("%6s ", v)).put(plain, sum.spark(rate(i), w, m.look.ascii)+"  ")
	}
	return []string{r.String(), t.String()}
}

// The columns of the list; the name gets a part of what is left, and the
// sparkline the rest.
func (m *Model) columns(fixed int) (name, spark int) {
	left := m.width - fixed
	name = max(10, min(left*3/4, 24+max(0, left-31)/2))
	return name, max(0, left-name-1)
}

var rateNames = [rates]string{"new/s", "in/s", "out/s"}

// list is the heading and the page of virtual servers.
func (m *Model) list() []string {
	name, spark := m.columns(2 + 6 + 8 + 8 + 7 + 6 + 6)
	title := "  Virtual server"
	if m.filter != "" {
		title = "  Matching \"" + m.look.clean(m.filter) + "\""
	}
	h := m.look.row(m.width, strong).cell(plain, title, name+2).cell(plain, "State", 5).num(plain, "Real", 7).num(plain, "Active", 7).num(plain, "New/s", 6).num(plain, "In/s", 5).num(plain, "Out/s", 5)
	title = rateNames[m.rate]
	if spark > 12 {
		title += ", 2 minutes"
	}
	h.put(plain, m.look.fit(title, spark))
	out := []string{h.String()}
	s := m.spots[screenList]
	for i := s.top; i < s.top+m.lines(screenList); i++ {
		at := i - m.data.Page.Offset
		if i >= m.data.Page.Matched {
			if i == 0 && m.have {
				out = append(out, m.empty())
			}
			break
		}
		if at < 0 || at >= len(m.data.Page.Rows) {
			out = append(out, "  "+m.look.dots()) // on its way
			continue
		}
		v := &m.data.Page.Rows[at]
		r := m.line(i == s.cursor)
		st, word := stateOf(v)
		r.cell(plain, m.look.clean(v.Name), name).cell(st, word, 5)
		st = plain
		if v.Down > 0 {
			st = bad
		}
		real := fmt.Sprintf("%d/%d", v.Real-v.Down, v.Real)
		if v.Ordered > 0 {
			real += "*"
		}
		r.num(st, real, 7).num(plain, count(v.Active), 7).num(plain, count(v.Stats.CPS), 6).num(plain, size(v.Stats.InBPS), 5).num(plain, size(v.Stats.OutBPS), 5)
		r.put(plain, m.hist["v "+v.Name].spark(m.rate, spark, m.look.ascii))
		out = append(out, r.String())
	}
	for len(out) < 1+m.lines(screenList) {
		out = append(out, "")
	}
	return out
}

func (m *Model) empty() string {
	if m.filter != "" {
		return "  nothing matches; Esc shows all"
	}
	return "  no virtual server is configured"
}

func stateOf(v *status.PageRow) (style, string) {
	switch {
	case v.Sorry:
		return bad, "SORRY"
	case !v.QuorumUp:
		return bad, "DOWN"
	case v.Down > 0:
		return warn, "part"
	}
	return good, "up"
}

// eventBlock is what happened last.
func (m *Model) eventBlock() []string {
	n := m.eventLines()
	if n == 0 {
		return nil
	}
	out := []string{m.look.row(m.width, plain).put(strong, "Last events").String()}
	list := m.data.Events
	for _, e := range list[max(0, len(list)-n):] {
		out = append(out, m.event(e))
	}
	if len(list) == 0 && m.have {
		out = append(out, "  none yet")
	}
	return out
}

func (m *Model) event(e status.Entry) string {
	text := e.Object + ": "
	if e.From != "" {
		text += e.From + " -> "
	}
	text += e.To
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	at := e.Time.UTC().Format("15:04:05")
	if m.data.At.Sub(e.Time) > 12*time.Hour {
		at = e.Time.UTC().Format("Jan _2  ")
	}
	return m.look.row(m.width, plain).put(faint, "  "+at+" ").cell(plain, m.look.clean(e.Service), 6).put(plain, m.look.clean(text)).String()
}

// serverScreen is one virtual server with its real servers.
func (m *Model) serverScreen() []string {
	r := m.look.row(m.width, plain).put(strong, m.look.clean(m.server))
	second := m.look.row(m.width, plain)
	if s := m.data.Server; s != nil && s.Name == m.server {
		if len(s.Services) > 0 {
			x := &s.Services[0]
			text := "  " + x.Scheduler
			if len(x.Flags) > 0 {
				text += " (" + strings.Join(x.Flags, ",") + ")"
			}
			if x.Persistence > 0 {
				text += fmt.Sprintf(", persistent %d", int(x.Persistence.Seconds()))
			}
			if n := len(s.Services); n > 1 {
				text += fmt.Sprintf(", %d services", n)
			}
			r.put(plain, m.look.clean(text))
		}
		if s.Health.Name != "" {
			word, st := "quorum up", good
			if !s.Health.QuorumUp {
				word, st = "QUORUM LOST", bad
			}
			second.put(st, "  "+word).put(plain, fmt.Sprintf(" (weight %d, needs %d)", s.Health.Weight, s.Health.Quorum))
		}
	}
	name, spark := m.columns(2 + 9 + 7 + 7 + 7 + 7 + 6 + 6 + 6)
	h := m.look.row(m.width, strong).cell(plain, "  Real server", name+2).cell(plain, "State", 8).cell(plain, "Since", 6).num(plain, "Weight", 6).num(plain, "Active", 6).num(plain, "Inact", 6).num(plain, "New/s", 5).num(plain, "In/s", 5).num(plain, "Out/s", 5)
	h.put(plain, m.look.fit(rateNames[m.rate], spark))
	out := []string{r.String(), second.String(), h.String()}
	s := m.spots[screenServer]
	for i := s.top; i < min(len(m.rows), s.top+m.lines(screenServer)); i++ {
		v := &m.rows[i]
		r := m.line(i == s.cursor)
		weight := "-"
		if v.Weight >= 0 {
			weight = count(uint64(v.Weight))
		}
		r.cell(plain, v.Addr.String(), name).cell(realStyle(v.State), v.State, 8).cell(plain, show.Age(v.Since, m.data.At), 6).num(plain, weight, 6).
			num(plain, count(v.Active), 6).num(plain, count(v.Inactive), 6).num(plain, count(v.Stats.CPS), 5).num(plain, size(v.Stats.InBPS), 5).num(plain, size(v.Stats.OutBPS), 5)
		r.put(plain, m.hist[m.realName(v.Addr)].spark(m.rate, spark, m.look.ascii))
		out = append(out, r.String())
	}
	if len(m.rows) == 0 && m.have && m.data.Server == nil {
		out = append(out, "  it is not in the configuration any more")
	}
	for len(out) < 3+m.lines(screenServer) {
		out = append(out, "")
	}
	if v := m.chosenReal(); v != nil && v.Detail != "" {
		out = append(out, m.look.row(m.width, plain).put(plain, "  "+m.look.clean(v.Detail)).String())
	}
	return out
}

func realStyle(state string) style {
	switch state {
	case "up":
		return good
	case "DOWN":
		return bad
	}
	return warn
}

// routersScreen is all virtual routers.
func (m *Model) routersScreen() []string {
	st, peer := m.peerWord()
	out := []string{m.look.row(m.width, plain).put(strong, "Virtual routers   ").put(st, peer).String()}
	s := m.spots[screenRouters]
	for i := s.top; i < min(len(m.data.VRRP.Instances), s.top+m.lines(screenRouters)); i++ {
		out = append(out, m.router1(&m.data.VRRP.Instances[i], i == s.cursor))
	}
	if len(m.data.VRRP.Instances) == 0 {
		out = append(out, "  no vrrp_instance is configured")
	}
	return out
}

// eventsScreen is what happened, newest first.
func (m *Model) eventsScreen() []string {
	out := []string{m.look.row(m.width, plain).put(strong, "Events, newest first").String()}
	list := slices.Clone(m.data.Events)
	slices.Reverse(list)
	s := m.spots[screenEvents]
	for _, e := range list[min(s.top, len(list)):min(len(list), s.top+m.lines(screenEvents))] {
		out = append(out, m.event(e))
	}
	return out
}

// scrolled is a part of a text.
func (m *Model) scrolled(text []string) []string {
	var out []string
	s := m.spots[m.screen]
	for _, l := range text[min(s.top, len(text)):min(len(text), s.top+m.lines(m.screen))] {
		out = append(out, m.look.row(m.width, plain).put(plain, m.look.clean(l)).String())
	}
	return out
}

// helpText is the screen of help.
var helpText = strings.Split(`Keys
  up down j k      one line            PgUp PgDn P p    one page
  Home End g G     first, last         Enter right l    look into it
  q Esc left h     back; q on the first screen leaves, Ctrl-C everywhere
  space            pause               ?                this help
  v                virtual routers     o                events
  /                filter by name or real server; Esc shows all again
  s                sort: as configured, by state, connections, rate, traffic
  r                sparklines: new/s, in/s, out/s

About a real server, as the commands of the same name:
  d drain          no new connections  x disable        out of the table
  e enable         as configured       w weight         asks for the number

State of a virtual server: up; part, some real servers are down; DOWN, its
quorum is lost; SORRY, its sorry server answers. Real 2/3*: two of three are
alive, and one is not as configured, by order.
Rates are the kernel's own, sparklines show the last two minutes.`, "\n")

// bottom is the last line: a question, what came of an order, or the keys.
func (m *Model) bottom() string {
	r := m.look.row(m.width, plain)
	switch {
	case m.prompt != nil:
		text := m.look.clean(m.prompt.label + m.prompt.text)
		if n := len([]rune(text)); n > m.width-1 { // what is typed is seen
			text = string([]rune(text)[n-m.width+1:])
		}
		return r.put(strong, text).put(cursor, " ").String()
	case m.said != "":
		st := good
		if m.failed {
			st = bad
		}
		return r.put(st, m.look.clean(m.said)).String()
	}
	keys := "q back  ? help"
	switch m.screen {
	case screenList:
		sort := m.sort
		if sort == "" {
			sort = "file"
		}
		at := ""
		if n := m.data.Page.Matched; n > m.lines(screenList) {
			at = fmt.Sprintf("%d/%d  ", m.spots[screenList].cursor+1, n)
		}
		keys = at + "Enter open  / filter  s sort: " + sort + "  r rate  v routers  o events  ? help  q quit"
	case screenServer:
		keys = "Enter explain  d drain  x disable  e enable  w weight  r rate  ? help  q back"
	case screenRouters:
		keys = "Enter explain  ? help  q back"
	case screenExplain:
		if m.real.IsValid() {
			keys = "d drain  x disable  e enable  w weight  ? help  q back"
		}
	}
	return r.put(faint, keys).String()
}
