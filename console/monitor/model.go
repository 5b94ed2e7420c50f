package monitor

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ballast/services/ipc/status"

	tea "charm.land/bubbletea/v2"
)

// Pace of asking.
const (
	refresh = time.Second
	// A fetch takes at most a part of the time: one that is slow is asked for
	// less often.
	restPerFetch = 4
	// askGap is the least time between two fetches, however fast somebody turns
	// pages.
	askGap = 150 * time.Millisecond
	// margin is how many rows around those on the screen are asked for, so that
	// a line further is there at once.
	margin = 10
	// eventsKept is how many events are asked for.
	eventsKept = 100
)

// screen is what is shown.
type screen int

const (
	screenList    screen = iota // virtual servers
	screenServer                // real servers of one
	screenExplain               // one of those, or one virtual router, in words
	screenRouters
	screenEvents
	screenHelp
)

// Options are what a Model is made with.
type Options struct {
	Source Source
	// Act does a command of the command line and returns what it printed: with
	// the user's role, and audited.
	Act         func(ctx context.Context, words ...string) (string, error)
	Host        string
	Mono, ASCII bool
}

// place is where somebody is in a list: the line chosen, and the first one on
// the screen.
type spot struct{ cursor, top int }

// Model is what is shown, and what the user has chosen.
type Model struct {
	opt           Options
	ctx           context.Context
	look          look
	width, height int

	data  Data
	have  bool // data were fetched
	hist  histories
	rows  []Row // of the virtual server that is looked into
	spots [screenHelp + 1]spot

	screen screen
	back   []screen // where Esc leads
	filter string
	sort   string
	rate   rate
	name   string // virtual server under the cursor
	server string // that is looked into
	real   netip.AddrPort
	router string // that is explained
	paused bool
	prompt *prompt
	said   string // what came of the last order
	failed bool

	fetching bool
	again    bool      // the screen changed while a fetch was under way
	asked    time.Time // when the last one began
	seq      int       // of the tick that counts
	sized    func()    // told when a size has come; nil: nobody asks
	later    func(time.Duration, func(time.Time) tea.Msg) tea.Cmd
}

// prompt is a question in the last line.
type prompt struct {
	label string
	text  string
	only  func(r rune) bool // runes that may be typed; nil: one key answers
	done  func(m *Model, text string) tea.Cmd
}

// New makes a Model. ctx ends its fetches.
func New(ctx context.Context, o Options) *Model {
	return &Model{opt: o, ctx: ctx, look: look{mono: o.Mono, ascii: o.ASCII}, width: 80, height: 24, hist: histories{}, later: tea.Tick}
}

type (
	tickMsg struct{ seq int }
	dataMsg struct {
		q    Query
		data Data
		took time.Duration
	}
	actMsg struct {
		text string
		err  error
	}
)

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd { return m.ask(time.Now()) }

// query is what is on the screen.
func (m *Model) query() Query {
	q := Query{Events: m.eventLines(), Page: status.PageQuery{Filter: m.filter, Sort: m.sort, Offset: max(0, m.spots[screenList].top-margin), Limit: m.lines(screenList) + 2*margin}}
	if m.screen == screenEvents {
		q.Events = eventsKept
	}
	if m.server != "" {
		q.Server = m.server
	}
	if m.screen == screenExplain {
		q.Real, q.Instance = m.real, m.router
	}
	return q
}

// ask fetches what is on the screen, one fetch at a time.
func (m *Model) ask(now time.Time) tea.Cmd {
	if m.fetching {
		m.again = true
		return nil
	}
	if wait := m.asked.Add(askGap).Sub(now); wait > 0 && wait <= askGap {
		return m.tick(wait)
	}
	m.fetching, m.again, m.asked = true, false, now
	q, ctx, src := m.query(), m.ctx, m.opt.Source
	return func() tea.Msg {
		began := time.Now()
		d := src.Fetch(ctx, q)
		return dataMsg{q, d, time.Since(began)}
	}
}

// tick asks again later; an earlier one does not count any more.
func (m *Model) tick(after time.Duration) tea.Cmd {
	m.seq++
	seq := m.seq
	return m.later(after, func(time.Time) tea.Msg { return tickMsg{seq} })
}

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tickMsg:
		if msg.seq != m.seq || m.paused {
			return m, nil
		}
		return m, m.ask(time.Now())
	case dataMsg:
		m.fetching = false
		m.take(msg.q, msg.data)
		if m.again {
			return m, m.tick(askGap)
		}
		return m, m.tick(max(refresh-msg.took, restPerFetch*msg.took))
	case actMsg:
		m.said, m.failed = strings.TrimSpace(msg.text), msg.err != nil
		if msg.err != nil {
			m.said = msg.err.Error()
		}
		m.said, _, _ = strings.Cut(m.said, "\n")
		return m, m.ask(time.Now())
	case tea.WindowSizeMsg:
		if m.sized != nil {
			m.sized()
		}
		if msg.Width > 0 && msg.Height > 0 {
			m.width, m.height = min(msg.Width, 500), min(msg.Height, 300)
			m.settle()
			return m, m.ask(time.Now())
		}
	case tea.KeyPressMsg:
		return m, m.key(msg.String(), msg.Text)
	}
	return m, nil
}

// take takes in what was fetched for q.
func (m *Model) take(q Query, d Data) {
	if d.Explain == "" && m.data.Explain != "" && m.screen == screenExplain {
		d.Explain = m.data.Explain // it is gone, or somebody does not answer
	}
	if d.Page.Rows == nil && d.Page.Sum.Virtual == 0 && len(d.Problems) > 0 {
		d.Page = m.data.Page // as it was: Problems tell
	}
	m.data, m.have = d, true
	m.hist.add("", d.At, d.Page.Sum.Stats)
	for i := range d.Page.Rows {
		m.hist.add("v "+d.Page.Rows[i].Name, d.At, d.Page.Rows[i].Stats)
	}
	// The cursor stays with its virtual server where that moves.
	s := &m.spots[screenList]
	if m.sort != status.SortFile && m.name != "" {
		for i := range d.Page.Rows {
			if at := d.Page.Offset + i; d.Page.Rows[i].Name == m.name && at >= s.top && at < s.top+m.lines(screenList) {
				s.cursor = at
			}
		}
	}
	if q.Server == m.server && m.server != "" {
		m.rows = nil
		if d.Server != nil {
			m.rows = d.Server.Rows()
		}
		for i := range m.rows {
			m.hist.add(m.realName(m.rows[i].Addr), d.At, m.rows[i].Stats)
		}
	}
	m.settle()
}

func (m *Model) realName(a netip.AddrPort) string { return "r " + a.String() + " " + m.server }

// length is how many lines the list of a screen has.
func (m *Model) length(s screen) int {
	switch s {
	case screenList:
		return m.data.Page.Matched
	case screenServer:
		return len(m.rows)
	case screenRouters:
		return len(m.data.VRRP.Instances)
	case screenEvents:
		return len(m.data.Events)
	case screenExplain:
		return strings.Count(m.data.Explain, "\n")
	}
	return len(helpText)
}

// chooses reports whether a screen has a line that is chosen; the others only
// scroll.
func (s screen) chooses() bool { return s == screenList || s == screenServer || s == screenRouters }

// settle keeps cursor and first line where there is something.
func (m *Model) settle() {
	for i := range m.spots {
		s, n, lines := &m.spots[i], m.length(screen(i)), m.lines(screen(i))
		s.cursor = max(0, min(s.cursor, n-1))
		if screen(i).chooses() {
			s.top = max(min(s.top, s.cursor), s.cursor-lines+1)
		}
		s.top = max(0, min(s.top, n-lines))
	}
	m.name = ""
	if r := m.chosen(); r != nil {
		m.name = r.Name
	}
}

// chosen is the virtual server under the cursor; nil: none, or it is not here
// yet.
func (m *Model) chosen() *status.PageRow {
	i := m.spots[screenList].cursor - m.data.Page.Offset
	if i < 0 || i >= len(m.data.Page.Rows) {
		return nil
	}
	return &m.data.Page.Rows[i]
}

// chosenReal is the real server that an order would be about.
func (m *Model) chosenReal() *Row {
	if i := m.spots[screenServer].cursor; i < len(m.rows) {
		return &m.rows[i]
	}
	return nil
}

// move moves the cursor, or the text where there is none.
func (m *Model) move(by int) tea.Cmd {
	s := &m.spots[m.screen]
	if m.screen.chooses() {
		s.cursor += by
		// A page further is a page, not a line at its edge.
		if lines := m.lines(m.screen); by >= lines || by <= -lines {
			s.top += by
		}
	} else {
		s.top += by
	}
	before := m.spots[screenList].top
	m.settle()
	if m.screen == screenList && m.spots[screenList].top != before {
		return m.ask(time.Now())
	}
	return nil
}

// enter shows another screen.
func (m *Model) enter(s screen) tea.Cmd {
	m.back = append(m.back, m.screen)
	m.screen, m.spots[s] = s, spot{}
	return m.ask(time.Now())
}

// leave goes back; from the first screen it ends the view.
func (m *Model) leave() tea.Cmd {
	if len(m.back) == 0 {
		return tea.Quit
	}
	last := len(m.back) - 1
	m.screen, m.back = m.back[last], m.back[:last]
	m.data.Explain = ""
	if m.screen == screenList {
		m.server, m.rows = "", nil
	}
	m.settle()
	return m.ask(time.Now())
}

var sorts = []string{status.SortFile, status.SortState, status.SortConnections, status.SortRate, status.SortTraffic}

// key acts on a key.
func (m *Model) key(key, text string) tea.Cmd {
	if m.prompt != nil {
		return m.answer(key, text)
	}
	m.said = ""
	switch key {
	case "ctrl+c":
		return tea.Quit
	case "q", "esc", "left", "backspace", "h":
		if m.screen == screenList && m.filter != "" && key != "q" {
			return m.setFilter("")
		}
		if m.screen == screenList && key != "q" {
			return nil // a stray key is no reason to leave
		}
		return m.leave()
	case "up", "k":
		return m.move(-1)
	case "down", "j":
		return m.move(1)
	case "pgdown", "ctrl+f", "p":
		return m.move(m.lines(m.screen))
	case "pgup", "ctrl+b", "P":
		return m.move(-m.lines(m.screen))
	case "home", "g":
		return m.move(-m.length(m.screen))
	case "end", "G":
		return m.move(m.length(m.screen))
	case "enter", "right", "l":
		return m.open()
	case "space", " ":
		m.paused = !m.paused
		if !m.paused {
			return m.ask(time.Now())
		}
	case "?":
		if m.screen != screenHelp {
			return m.enter(screenHelp)
		}
	case "v":
		if m.screen != screenRouters {
			return m.enter(screenRouters)
		}
	case "o":
		if m.screen != screenEvents {
			return m.enter(screenEvents)
		}
	case "r":
		m.rate = (m.rate + 1) % rates
	default:
		return m.special(key)
	}
	return nil
}

// special are keys of one screen.
func (m *Model) special(key string) tea.Cmd {
	switch {
	case key == "/" && m.screen == screenList:
		m.prompt = &prompt{label: "filter: ", text: m.filter, only: func(r rune) bool { return r >= ' ' && r != 0x7f }, done: (*Model).setFilter}
	case key == "s" && m.screen == screenList:
		for i, s := range sorts {
			if s == m.sort {
				m.sort = sorts[(i+1)%len(sorts)]
				break
			}
		}
		m.spots[screenList] = spot{}
		return m.ask(time.Now())
	case key == "d" || key == "x" || key == "e" || key == "w":
		return m.order(key)
	}
	return nil
}

func (m *Model) setFilter(text string) tea.Cmd {
	m.filter = strings.TrimSpace(text)
	m.spots[screenList] = spot{}
	return m.ask(time.Now())
}

// open looks into what is chosen.
func (m *Model) open() tea.Cmd {
	switch m.screen {
	case screenList:
		if r := m.chosen(); r != nil {
			m.server, m.rows = r.Name, nil
			return m.enter(screenServer)
		}
	case screenServer:
		if r := m.chosenReal(); r != nil && r.Configured {
			m.real, m.router, m.data.Explain = r.Addr, "", ""
			return m.enter(screenExplain)
		}
	case screenRouters:
		if i := m.spots[screenRouters].cursor; i < len(m.data.VRRP.Instances) {
			m.real, m.router, m.data.Explain = netip.AddrPort{}, m.data.VRRP.Instances[i].Name, ""
			return m.enter(screenExplain)
		}
	}
	return nil
}

// order asks about an order for the real server that is chosen, and gives it.
func (m *Model) order(key string) tea.Cmd {
	var a netip.AddrPort
	switch r := m.chosenReal(); {
	case m.screen == screenExplain && m.real.IsValid():
		a = m.real
	case m.screen == screenList:
		m.said, m.failed = "orders are about real servers: Enter shows them", true
		return nil
	case m.screen != screenServer || r == nil:
		return nil
	case !r.Configured:
		m.said, m.failed = "it is not in the configuration: no order can be given about it", true
		return nil
	default:
		a = r.Addr
	}
	verb := map[string]string{"d": status.OrderDrain, "x": status.OrderDisable, "e": status.OrderEnable, "w": status.OrderWeight}[key]
	server, name, target := a.String(), m.server, fmt.Sprintf("%s of %s", a, m.look.clean(m.server))
	switch key {
	case "e":
		return m.act(verb, server, "of", name)
	case "w":
		m.prompt = &prompt{label: "weight of " + target + ": ", only: func(r rune) bool { return r >= '0' && r <= '9' }, done: func(m *Model, text string) tea.Cmd {
			if _, err := strconv.ParseUint(text, 10, 31); err != nil {
				m.said, m.failed = "nothing done: a weight is a number, 0…2147483647", true
				return nil
			}
			return m.act(verb, server, text, "of", name)
		}}
		return nil
	}
	what := "no new connections for it"
	if key == "x" {
		what = "its connections end"
	}
	m.prompt = &prompt{label: fmt.Sprintf("%s %s: %s? [y/N] ", verb, target, what), done: func(m *Model, text string) tea.Cmd {
		if text != "y" && text != "Y" {
			m.said, m.failed = "nothing done", false
			return nil
		}
		return m.act(verb, server, "of", name)
	}}
	return nil
}

func (m *Model) act(words ...string) tea.Cmd {
	act, ctx := m.opt.Act, m.ctx
	if act == nil {
		m.said, m.failed = "no orders can be given here", true
		return nil
	}
	m.said, m.failed = words[0]+" "+words[1]+" …", false
	return func() tea.Msg {
		text, err := act(ctx, words...)
		return actMsg{text, err}
	}
}

// mostTyped bounds what is typed into the last line.
const mostTyped = 100

// answer acts on a key while there is a question.
func (m *Model) answer(key, text string) tea.Cmd {
	p := m.prompt
	switch {
	case key == "ctrl+c" || key == "esc":
		m.prompt = nil
		m.said, m.failed = "nothing done", false
	case p.only == nil || key == "enter":
		m.prompt = nil
		if p.only == nil {
			return p.done(m, text)
		}
		return p.done(m, p.text)
	case key == "backspace" || key == "ctrl+h":
		if r := []rune(p.text); len(r) > 0 {
			p.text = string(r[:len(r)-1])
		}
	case key == "ctrl+u":
		p.text = ""
	default:
		for _, r := range text {
			if p.only(r) && len(p.text) < mostTyped {
				p.text += string(r)
			}
		}
	}
	return nil
}
