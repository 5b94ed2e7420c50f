package show

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// Alarms are what is wrong with a box, or not as it should stay, one line each
// and in the words of the field; nothing about single real servers.
func Alarms(c status.ConfNews, v status.VRRP, now time.Time) (out []string) {
	say := func(format string, args ...any) { out = append(out, printable.Line(fmt.Sprintf(format, args...))) }
	if p := c.Pending; p != nil {
		say("commit not confirmed: generation %d runs again in %s unless somebody types \"confirm\"", p.Back, Age(now, p.Deadline))
	}
	if c.Reverted != "" {
		say("rolled back: %s", c.Reverted)
	}
	if c.Pair != "" {
		say("%s", c.Pair)
	}
	switch c.Source {
	case "factory":
		say("no configuration yet: load and commit one")
	case "older firmware":
		say("this firmware is older than the configuration: generation %d is the newest that it can read", c.Generation)
	case "last good":
		say("the configuration that was to run cannot be loaded: generation %d runs in its place", c.Generation)
	}
	by := ""
	if v.ResignedBy != "" {
		by = " by " + v.ResignedBy
	}
	switch {
	case v.Maintenance:
		say("maintenance%s: held as backup until \"maintenance off\"", by)
	case v.Resigned:
		say("resigned%s: held as backup until \"resume\"", by)
	}
	for _, i := range v.Instances {
		if i.State == status.VRRPFault {
			why := i.Reason
			if len(i.Faults) > 0 {
				why = strings.Join(i.Faults, ", ")
			}
			say("%s is FAULT for %s: %s", i.Name, Age(i.Since, now), why)
		}
	}
	if h := v.Heartbeat; h != nil {
		if !h.Up {
			say("no heartbeat of the peer for %s", Age(h.Since, now))
		}
		for _, p := range h.Paths {
			if h.Up && !p.Up {
				say("the heartbeat path to %s is down for %s", p.Peer, Age(p.Since, now))
			}
		}
	}
	if v.Error != "" {
		say("vrrp: configuration not applied in full: %s", v.Error)
	}
	return out
}

// Overview is what one page about a box is made of. What a service did not tell
// is its zero value, and Silent names it.
type Overview struct {
	Host   string
	Init   status.Init
	Conf   status.ConfNews
	VRRP   status.VRRP
	Page   status.Page // the virtual servers that are worst
	Net    status.Net
	Last   []status.Entry
	Silent []string
}

// Facts are the same for a program.
type Facts struct {
	Host       string         `json:"host,omitempty"`
	Generation uint64         `json:"generation"`
	Alarms     []string       `json:"alarms"`
	Routers    []RouterFact   `json:"routers"`
	Virtual    status.Sum     `json:"virtual"`
	Last       []status.Entry `json:"last"`
}

// RouterFact is one virtual router at both boxes.
type RouterFact struct {
	Instance string `json:"instance"`
	State    string `json:"state"`
	Peer     string `json:"peer,omitempty"` // what the peer says of it
}

// Facts are what Status tells.
func (o Overview) Facts(now time.Time) Facts {
	f := Facts{Host: o.Host, Generation: o.Conf.Generation, Alarms: o.alarms(now), Routers: []RouterFact{}, Virtual: o.Page.Sum, Last: o.Last}
	if f.Alarms == nil {
		f.Alarms = []string{}
	}
	for _, v := range o.VRRP.Instances {
		r := RouterFact{Instance: v.Name, State: v.State}
		if h := o.VRRP.Heartbeat; h != nil && h.Up {
			for _, p := range h.Routers {
				if p.Instance == v.Name {
					r.Peer = p.State
				}
			}
		}
		f.Routers = append(f.Routers, r)
	}
	return f
}

// Status renders one page about a box: what is wrong first, then roles,
// virtual servers and what happened last.
func Status(o Overview, now time.Time) string {
	var b strings.Builder
	host := printable.Line(o.Host)
	if host == "" {
		host = "this box"
	}
	fmt.Fprintf(&b, "%s", host)
	if o.Init.Version != "" {
		fmt.Fprintf(&b, ", Ballast %s, up %s", printable.Line(o.Init.Version), Age(o.Init.Started, now))
	}
	if o.Conf.Generation > 0 {
		fmt.Fprintf(&b, ", generation %d", o.Conf.Generation)
	}
	b.WriteString("\n")
	alarms := o.alarms(now)
	for _, a := range alarms {
		wrapped(&b, "! ", strings.Fields(printable.Line(a)))
	}
	if len(alarms) == 0 {
		b.WriteString("no alarms\n")
	}
	o.routers(&b, now)
	o.virtual(&b)
	if len(o.Last) > 0 {
		b.WriteString("\nLast events\n")
		for _, e := range o.Last {
			wrapped(&b, fmt.Sprintf("  %-11s ", Age(e.Time, now)+" ago"), strings.Fields(transition(e.Transition)))
		}
	}
	return b.String()
}

// alarms are those of the box, and of its parts.
func (o Overview) alarms(now time.Time) []string {
	out := slices.Concat(Alarms(o.Conf, o.VRRP, now), o.Silent)
	for _, p := range o.Init.Services {
		switch p.State {
		case "ready", "idle", "", "stopped": // stopped: one that the configuration does not ask for
		default:
			out = append(out, fmt.Sprintf("service %s is %s for %s", p.Name, p.State, Age(p.Since, now)))
		}
	}
	out = append(out, o.Init.Alarms...)
	if o.Init.Stateless {
		out = append(out, "no data disk: commits do not outlive a reboot")
	}
	for _, l := range o.Net.Links {
		if l.Configured && (!l.Up || !l.Carrier) {
			out = append(out, fmt.Sprintf("interface %s: %s", l.Name, linkState(l)))
		}
	}
	if o.Net.Error != "" {
		out = append(out, "net: configuration not applied in full: "+o.Net.Error)
	}
	s := o.Page.Sum
	if s.Lost > 0 {
		out = append(out, fmt.Sprintf("%d of %d virtual servers have lost their quorum", s.Lost, s.Virtual))
	}
	if s.Down > 0 {
		out = append(out, fmt.Sprintf("%d of %d real servers are down", s.Down, s.Real))
	}
	if s.Ordered > 0 {
		word := "real servers are"
		if s.Ordered == 1 {
			word = "real server is"
		}
		out = append(out, fmt.Sprintf("%d %s not as configured: \"show orders\"", s.Ordered, word))
	}
	return out
}

func (o Overview) routers(b *strings.Builder, now time.Time) {
	if len(o.VRRP.Instances) == 0 {
		return
	}
	peer := map[string]string{}
	if h := o.VRRP.Heartbeat; h != nil && h.Up {
		for _, r := range h.Routers {
			peer[r.Instance] = fmt.Sprintf("%s %d", printable.Line(r.State), r.Priority)
		}
	}
	rows := [][]string{{"Instance", "State", "Since", "Prio", "Peer", "Addresses"}}
	for _, v := range o.VRRP.Instances {
		p := peer[v.Name]
		if p == "" {
			p = "-"
		}
		addr := ""
		if len(v.VIPs) > 0 {
			addr = v.VIPs[0].String()
		}
		if n := len(v.VIPs) - 1; n > 0 {
			addr += fmt.Sprintf(" and %d more", n)
		}
		rows = append(rows, []string{printable.Line(v.Name), v.State, Age(v.Since, now), priority(v), p, addr})
	}
	b.WriteString("\n")
	table(b, "", rows)
}

// MostBad is how many virtual servers are listed.
const MostBad = 10

func (o Overview) virtual(b *strings.Builder) {
	s := o.Page.Sum
	if s.Virtual == 0 {
		return
	}
	fmt.Fprintf(b, "\n%d virtual servers, %d real servers, %d active connections, %s new a second\n", s.Virtual, s.Real, s.Active, countText(s.Stats.CPS))
	rows := [][]string{{"Virtual server", "State", "Alive", "Active"}}
	for _, r := range o.Page.Rows {
		word := ""
		switch {
		case r.Sorry:
			word = "sorry server answers"
		case !r.QuorumUp:
			word = "quorum lost"
		case r.Down > 0:
			word = "in part"
		}
		if word == "" || len(rows) > MostBad {
			break
		}
		rows = append(rows, []string{printable.Line(r.Name), word, fmt.Sprintf("%d of %d", r.Real-r.Down, r.Real), fmt.Sprint(r.Active)})
	}
	if len(rows) > 1 {
		table(b, "", rows)
	}
}
