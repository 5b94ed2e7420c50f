package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
)

// watch shows the live view until the user leaves it or ctx ends.
func watch(ctx context.Context, s *state) error {
	m := view{s: s, ctx: ctx, width: 80, height: 24}
	// Signals end ctx; the view must not handle them a second time.
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithoutSignalHandler()).Run()
	return err
}

// view is the bubbletea model: a snapshot and what the user has selected.
type view struct {
	s             *state
	ctx           context.Context
	snap          snapshot
	box           int  // selected director
	commands      bool // show how to reach the consoles
	width, height int
}

type tick struct{}

func nextTick() tea.Cmd {
	return tea.Tick(250*time.Millisecond, func(time.Time) tea.Msg { return tick{} })
}

// Init implements tea.Model.
func (v view) Init() tea.Cmd { return nextTick() }

// Update implements tea.Model.
func (v view) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tick:
		v.snap = v.s.snapshot()
		return v, nextTick()
	case tea.WindowSizeMsg:
		v.width, v.height = m.Width, m.Height
	case tea.KeyPressMsg:
		switch k := m.String(); k {
		case "q", "ctrl+c":
			return v, tea.Quit
		case "a":
			v.box = 0
		case "b":
			v.box = 1
		case "tab":
			v.box = 1 - v.box
		case "c":
			v.commands = !v.commands
		case "k", "s", "u", "r":
			return v, v.s.director(v.ctx, v.box, k)
		default:
			if n, err := strconv.Atoi(k); err == nil && n >= 1 && n <= 9 {
				return v, v.s.server(v.ctx, n-1)
			}
		}
	}
	return v, nil
}

// actionTimeout bounds what a key starts.
const actionTimeout = 2 * time.Minute

// director does what a key says to a director, aside.
func (s *state) director(ctx context.Context, i int, key string) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, actionTimeout)
		defer cancel()
		d := s.l.Directors[i]
		var err error
		switch {
		case key == "r" && !d.Running():
			s.say("%s: power on", d.Name())
			s.setUnplugged(i, false)
			err = d.Boot(ctx)
		case !d.Running():
			s.say("%s has no power: r gives it back", d.Name())
		case key == "k":
			s.say("%s: power cord pulled", d.Name())
			d.Kill()
		case key == "s":
			s.say("%s: power button pressed", d.Name())
			if err = d.Stop(ctx); err == nil {
				s.say("%s is off", d.Name())
			}
		case key == "r":
			s.say("%s: reset button pressed", d.Name())
			err = d.VM().Reset(ctx)
		case key == "u":
			out := s.setUnplugged(i, !s.isUnplugged(i))
			what := "plugged in"
			if out {
				what = "pulled"
			}
			s.say("%s: network cables %s", d.Name(), what)
			err = d.Unplug(ctx, out)
		}
		if err != nil {
			s.say("%s: %v", d.Name(), err)
		}
		return nil
	}
}

func (s *state) isUnplugged(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unplugged[i]
}

func (s *state) setUnplugged(i int, out bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unplugged[i] = out
	return out
}

// server stops or starts the n-th real server, aside.
func (s *state) server(ctx context.Context, n int) tea.Cmd {
	return func() tea.Msg {
		list := s.l.Node.Servers()
		if n >= len(list) {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, actionTimeout)
		defer cancel()
		srv, what, do := list[n], "started", list[n].Start
		if srv.Running() {
			what, do = "killed", srv.Stop
		}
		if err := do(ctx); err != nil {
			s.say("%s: %v", srv.Name, err)
			return nil
		}
		s.say("%s: server %s", srv.Name, what)
		return nil
	}
}

// View implements tea.Model.
func (v view) View() tea.View {
	var extra []string
	if v.commands {
		extra = v.s.l.ShortCommands()
	}
	return tea.NewView(v.snap.draw(v.box, v.width, v.height, extra))
}

// draw fits a snapshot into a screen; 80 by 24 is enough for a lab of nine real
// servers.
func (v snapshot) draw(selected, width, height int, extra []string) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	add("Ballast lab, up %v   on the wire: %s", v.up, v.master)
	for i, b := range v.boxes {
		mark := " "
		if i == selected {
			mark = ">"
		}
		add("%s %-11s %s", mark, b.name, b.state())
	}
	add("")
	for _, s := range v.services {
		fail := ""
		if s.failing > 0 {
			fail = fmt.Sprintf("  failing %.0f/s", s.failing)
		}
		if s.silent > 2*time.Second {
			fail = fmt.Sprintf("  NO ANSWER for %.0f s", s.silent.Seconds())
		}
		add("  %-24s %6.1f answers/s  %d failed%s", s.target, s.rate, s.failed, fail)
	}
	most := 1.0
	for _, s := range v.servers {
		most = max(most, s.rate)
	}
	for i, s := range v.servers {
		add("%d %-7s %6.1f/s %-30s %s", i+1, s.name, s.rate, strings.Repeat("█", int(s.rate/most*30+0.5)), s.state())
	}
	add("")
	if v.failover != "" {
		lines = append(lines, wrap("last failover: "+v.failover, width)...)
	} else {
		add("no failover yet")
	}
	bottom := extra
	if bottom == nil {
		bottom = v.events
	}
	room := height - len(lines) - 2 // the keys, and the cursor's line
	if room = max(room, 1); len(bottom) > room {
		bottom = bottom[len(bottom)-room:]
	}
	for _, e := range bottom {
		lines = append(lines, "  "+e)
	}
	lines = append(lines, "a/b box  k kill  s stop  u unplug  r restart  1-9 server  c consoles  q quit")
	for i, l := range lines {
		if extra == nil || !slices.Contains(extra, strings.TrimSpace(l)) { // commands are to be copied whole
			lines[i] = cut(l, width)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func (b box) state() string {
	switch {
	case !b.power:
		return "no power"
	case b.note != "" && b.instances == nil:
		return b.note
	}
	s := strings.Join(b.instances, ", ")
	if s == "" {
		s = "boots"
	}
	if b.note != "" {
		s += " (" + b.note + ")"
	}
	if b.unplugged {
		s += "  CABLES OUT"
	}
	return s
}

func (s server) state() string {
	switch {
	case s.stranger:
		return "not of this lab"
	case !s.running && s.known && s.used:
		return "stopped, not noticed yet"
	case !s.running:
		return "stopped"
	case s.known && !s.used && s.sorry:
		return "waits"
	case s.known && !s.used:
		return "out of the table"
	case s.sorry && s.used:
		return "serves: all others are down"
	}
	return "up"
}

// wrap breaks a text at spaces.
func wrap(s string, width int) []string {
	var out []string
	line := ""
	for _, w := range strings.Fields(s) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > width {
			out = append(out, line)
			line = "  " + w
			continue
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(out, line)
}

func cut(s string, width int) string {
	parts := strings.Split(s, "\n")
	for i, p := range parts {
		if r := []rune(p); len(r) > width && width > 1 {
			parts[i] = string(r[:width-1]) + "…"
		}
	}
	return strings.Join(parts, "\n")
}
