package cli

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/console/show"
	"ballast/services/ipc/status"
)

// server reads "10.0.0.5", "10.0.0.5:80", "2001:db8::5" or "[2001:db8::5]:80"; port
// 0 means any.
func server(text string) (netip.Addr, uint16, error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		return a, 0, nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.Addr{}, 0, usagef("%q is not a real server; write its address, with :PORT when only that one is meant", shown(text))
	}
	return ap.Addr(), ap.Port(), nil
}

// orderArgs reads "SERVER [of VIRTUAL]"; usage is told when it is something else.
func orderArgs(args []string, usage string) (o status.ServerOrder, err error) {
	if len(args) != 1 && len(args) != 3 {
		return o, usagef("%s", usage)
	}
	if len(args) == 3 {
		if _, err := pick(args[1], []string{"of"}); err != nil {
			return o, usagef("%s", usage)
		}
		o.VirtualServer = args[2]
	}
	o.Addr, o.Port, err = server(args[0])
	return o, err
}

// order makes the command that gives one order about a real server.
func order(action string) func(context.Context, *call) (string, error) {
	usage := fmt.Sprintf("%[1]s SERVER [of VIRTUAL], for example: %[1]s 10.0.0.5:80 of [10.0.0.100]:tcp:80", action)
	if action == status.OrderWeight {
		usage = "weight SERVER N [of VIRTUAL], for example: weight 10.0.0.5:80 5 of [10.0.0.100]:tcp:80"
	}
	return func(ctx context.Context, c *call) (string, error) {
		args := c.args
		weight := 0
		if action == status.OrderWeight {
			if len(args) < 2 {
				return "", usagef("%s", usage)
			}
			n, err := strconv.ParseUint(args[1], 10, 31)
			if err != nil {
				return "", usagef("%q is not a weight; want 0…2147483647", shown(args[1]))
			}
			weight, args = int(n), slices.Delete(slices.Clone(args), 1, 2)
		}
		o, err := orderArgs(args, usage)
		if err != nil {
			return "", err
		}
		o.Action, o.Weight, o.By = action, weight, c.s.author()
		dests := []status.Dest{}
		if err := c.verb(ctx, "ipvs", "order", o, &dests); err != nil {
			return "", err
		}
		if c.json {
			return indented(dests)
		}
		return show.Ordered(action, dests), nil
	}
}

func showOrders(ctx context.Context, c *call) (string, error) {
	var st struct { // the little of status.IPVS that is asked for
		Orders []status.Order `json:"orders"`
		Asleep []status.Order `json:"asleep"`
	}
	if err := c.state(ctx, "ipvs", &st); err != nil {
		return "", err
	}
	if c.json {
		if st.Orders == nil {
			st.Orders = []status.Order{}
		}
		return indented(st.Orders)
	}
	return show.Orders(st.Orders, st.Asleep, c.s.now()), nil
}

func showScripts(ctx context.Context, c *call) (string, error) { return c.notify(ctx, show.Scripts) }

func showFIFOs(ctx context.Context, c *call) (string, error) {
	return c.notify(ctx, func(n status.Notify, _ time.Time) string { return show.FIFOs(n) })
}

// notify renders the state of notify.
func (c *call) notify(ctx context.Context, render func(status.Notify, time.Time) string) (string, error) {
	var st status.Notify
	if err := c.state(ctx, "notify", &st); err != nil {
		return "", err
	}
	if c.json {
		return indented(st)
	}
	return render(st, c.s.now()), nil
}

// journal asks for transitions that name object. Without the journal (notify
// may be down) what the services remember themselves has to do.
func (c *call) journal(ctx context.Context, q status.JournalQuery, rings ...ring) []status.Entry {
	var list []status.Entry
	if c.verb(ctx, "notify", "journal", q, &list) == nil {
		return list
	}
	for _, r := range rings {
		for _, t := range r.list {
			if strings.Contains(t.Object, q.Object) {
				list = append(list, status.Entry{Service: r.service, Transition: t})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b status.Entry) int { return a.Time.Compare(b.Time) })
	return list
}

// ring is what one service remembers of its transitions.
type ring struct {
	service string
	list    []status.Transition
}

func showJournal(ctx context.Context, c *call) (string, error) {
	var q status.JournalQuery
	for _, a := range c.args {
		n, err := strconv.Atoi(a)
		switch {
		case err == nil && n > 0 && q.Limit == 0:
			q.Limit = n
		case err != nil && q.Object == "":
			q.Object = a
		default:
			return "", usagef("show journal [OBJECT] [LINES], for example: show journal VI_1 50")
		}
	}
	list := []status.Entry{}
	if err := c.verb(ctx, "notify", "journal", q, &list); err != nil {
		return "", err
	}
	if c.json {
		return indented(list)
	}
	return show.Journal(list), nil
}

func explainVRRP(ctx context.Context, c *call) (string, error) {
	var st status.VRRP
	if err := c.state(ctx, "vrrp", &st); err != nil {
		return "", err
	}
	name := strings.Join(c.args, " ")
	if name == "" && len(st.Instances) == 1 {
		name = st.Instances[0].Name
	}
	list := slices.DeleteFunc(c.journal(ctx, status.JournalQuery{Object: name, Service: "vrrp", Limit: 100}, ring{"vrrp", st.Transitions}),
		func(e status.Entry) bool { return e.Object != name })
	text, ok := show.ExplainVRRP(st, name, list, c.s.now())
	if !ok {
		return "", noInstance(name, st)
	}
	return text, nil
}

func noInstance(name string, st status.VRRP) error {
	var names []string
	for _, v := range st.Instances {
		names = append(names, v.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("there is no instance %q: the running configuration has no vrrp_instance", shown(name))
	}
	return fmt.Errorf("there is no instance %q; there are: %s", shown(name), strings.Join(names, ", "))
}

func explainServer(ctx context.Context, c *call) (string, error) {
	if len(c.args) != 1 {
		return "", usagef("explain server ADDRESS[:PORT], for example: explain server 10.0.0.5:80")
	}
	addr, port, err := server(c.args[0])
	if err != nil {
		return "", err
	}
	var h status.Health
	if err := c.state(ctx, "health", &h); err != nil {
		return "", err
	}
	var st status.IPVS
	if err := c.state(ctx, "ipvs", &st); err != nil {
		return "", err
	}
	list := c.journal(ctx, status.JournalQuery{Object: "[" + addr.String() + "]:", Limit: 400}, ring{"health", h.Transitions}, ring{"ipvs", st.Transitions})
	text, ok := show.ExplainServer(st, h, addr, port, list, c.s.now())
	if !ok {
		return "", fmt.Errorf("no virtual server has the real server %s; see \"show health\"", shown(c.args[0]))
	}
	return text, nil
}

// vrrpView shows one view of the state of vrrp.
func vrrpView(render func(*call, status.VRRP) string) func(context.Context, *call) (string, error) {
	return func(ctx context.Context, c *call) (string, error) {
		var st status.VRRP
		if err := c.state(ctx, "vrrp", &st); err != nil {
			return "", err
		}
		if c.json {
			return indented(struct {
				Heartbeat *status.Heartbeat   `json:"heartbeat"`
				BFD       []status.BFDSession `json:"bfd"`
				Timers    status.Lateness     `json:"timers"`
				StandIn   status.StandIn      `json:"standIn"`
			}{st.Heartbeat, st.BFD, st.Timers, st.StandIn})
		}
		return render(c, st), nil
	}
}

var (
	showHeartbeat = vrrpView(func(c *call, st status.VRRP) string { return show.Heartbeat(st, c.s.now()) })
	showBFD       = vrrpView(func(c *call, st status.VRRP) string { return show.BFD(st, c.s.now()) })
	showTimers    = vrrpView(func(_ *call, st status.VRRP) string { return show.Timers(st.Timers, st.StandIn) })
)

func trackFile(ctx context.Context, c *call) (string, error) {
	if len(c.args) != 2 {
		return "", usagef("track-file NAME VALUE, for example: track-file load 50")
	}
	n, err := strconv.Atoi(c.args[1])
	if err != nil {
		return "", usagef("track-file %s: %q is not a whole number; for example: track-file %[1]s 50", shown(c.args[0]), shown(c.args[1]))
	}
	if err := c.verb(ctx, "notify", "track-file", status.TrackValue{Name: c.args[0], Value: n}, nil); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s is %d\n", shown(c.args[0]), n), nil
}

// What can be completed.

// mostServers bounds what is offered of a large table.
const mostServers = 200

func realServers(ctx context.Context, c *call, n int) (names []string) {
	if n > 0 {
		return nil
	}
	var h status.Health
	if c.state(ctx, "health", &h) != nil {
		return nil
	}
	seen := map[netip.AddrPort]bool{}
	for _, v := range h.Servers {
		for _, r := range v.Real {
			ap := netip.AddrPortFrom(r.Addr, r.Port)
			if !seen[ap] && len(names) < mostServers {
				seen[ap] = true
				names = append(names, ap.String())
			}
		}
	}
	return names
}
