package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"ballast/configs/printable"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

// indented prints a value as JSON for people and for jq; a real server's words
// may be in it.
func indented(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return "", fmt.Errorf("json: %w", err)
	}
	return printable.JSON(b.String()), nil
}

// raw prints the state of a service as it is.
func raw(ctx context.Context, c *call, service string) (string, error) {
	var v json.RawMessage
	if err := c.state(ctx, service, &v); err != nil {
		return "", err
	}
	return indented(v)
}

func showVRRP(ctx context.Context, c *call) (string, error) {
	if len(c.args) > 1 {
		return "", usagef("show vrrp [INSTANCE] takes one instance name at most, for example: show vrrp VI_1")
	}
	if c.json && len(c.args) == 0 {
		return raw(ctx, c, "vrrp")
	}
	var st status.VRRP
	if err := c.state(ctx, "vrrp", &st); err != nil {
		return "", err
	}
	name := strings.Join(c.args, "")
	if c.json {
		for _, v := range st.Instances {
			if v.Name == name {
				return indented(v)
			}
		}
	}
	text, ok := show.VRRP(st, name, c.s.now())
	if !ok {
		return "", noInstance(name, st)
	}
	return text, nil
}

func showIPVS(ctx context.Context, c *call) (string, error) {
	if c.json {
		return raw(ctx, c, "ipvs")
	}
	var st status.IPVS
	if err := c.state(ctx, "ipvs", &st); err != nil {
		return "", err
	}
	var h status.Health
	c.state(ctx, "health", &h) // without it the last column is empty
	return show.IPVS(st, h, c.s.now()), nil
}

// ipvsView shows one view of the state of ipvs.
func ipvsView(render func(status.IPVS) string) func(context.Context, *call) (string, error) {
	return func(ctx context.Context, c *call) (string, error) {
		if c.json {
			return raw(ctx, c, "ipvs")
		}
		var st status.IPVS
		if err := c.state(ctx, "ipvs", &st); err != nil {
			return "", err
		}
		return render(st), nil
	}
}

var (
	showIPVSStats = ipvsView(show.IPVSStats)
	showIPVSRates = ipvsView(show.IPVSRates)
)

func showConnections(ctx context.Context, c *call) (string, error) {
	conns := []status.Conn{}
	if err := c.verb(ctx, "ipvs", "connections", nil, &conns); err != nil {
		return "", err
	}
	if c.json {
		return indented(conns)
	}
	return show.Connections(conns), nil
}

func showHealth(ctx context.Context, c *call) (string, error) {
	if c.json {
		return raw(ctx, c, "health")
	}
	var st status.Health
	if err := c.state(ctx, "health", &st); err != nil {
		return "", err
	}
	return show.Health(st, strings.Join(c.args, " "), c.s.now()), nil
}

// netView shows one view of the state of net.
func netView(render func(status.Net) string) func(context.Context, *call) (string, error) {
	return func(ctx context.Context, c *call) (string, error) {
		if c.json {
			return raw(ctx, c, "net")
		}
		var st status.Net
		if err := c.state(ctx, "net", &st); err != nil {
			return "", err
		}
		return render(st), nil
	}
}

var (
	showInterfaces = netView(show.Interfaces)
	showRoutes     = netView(show.Routes)
	showMarks      = netView(show.Marks)
	showFirewall   = netView(show.Firewall)
)

func showLog(ctx context.Context, c *call) (string, error) {
	var q status.LogQuery
	for _, a := range c.args {
		n, err := strconv.Atoi(a)
		switch {
		case err == nil && n > 0 && q.Lines == 0:
			q.Lines = n
		case err != nil && q.Service == "":
			q.Service = a
		default:
			return "", usagef("show log [SERVICE] [LINES], for example: show log vrrp 50")
		}
	}
	lines := []status.LogLine{}
	if err := c.verb(ctx, "init", "log", q, &lines); err != nil {
		return "", err
	}
	if c.json {
		return indented(lines)
	}
	return show.Log(lines), nil
}

// generation reads the optional number of a generation.
func generation(args []string) (uint64, error) {
	if len(args) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || n == 0 || len(args) > 1 {
		return 0, usagef("%q is not the number of a generation; \"show history\" lists them", shown(strings.Join(args, " ")))
	}
	return n, nil
}

func showConfiguration(ctx context.Context, c *call) (string, error) {
	args, secrets := c.args, false
	if k := len(args); k > 0 && args[k-1] == "secrets" { // not shortened: nobody shows them by accident
		args, secrets = args[:k-1], true
	}
	if secrets && c.s.Role < Admin {
		return "", fmt.Errorf("show configuration secrets: permission denied: it needs role %s, %s has role %s", Admin, shown(c.s.User), c.s.Role)
	}
	n, err := generation(args)
	if err != nil {
		return "", err
	}
	var cand status.Candidate
	if err := c.verb(ctx, "conf", "text", status.TextQuery{Generation: n, Masked: !secrets}, &cand); err != nil {
		return "", err
	}
	if !secrets {
		cand.Text = c.s.mask(cand.Text)
	}
	switch {
	case c.json:
		return indented(cand)
	case c.set:
		return commandsOf(cand.Text), nil
	}
	return endLine(cand.Text), nil
}

func endLine(text string) string {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

// history lists the generations, newest first.
func (c *call) history(ctx context.Context) ([]status.Generation, error) {
	gens := []status.Generation{}
	err := c.verb(ctx, "conf", "history", nil, &gens)
	return gens, err
}

func showHistory(ctx context.Context, c *call) (string, error) {
	gens, err := c.history(ctx)
	if err != nil {
		return "", err
	}
	if c.json {
		return indented(gens)
	}
	return show.History(gens, c.s.now()), nil
}

func showFiles(ctx context.Context, c *call) (string, error) {
	files := []status.File{}
	if err := c.verb(ctx, "conf", "file-list", nil, &files); err != nil {
		return "", err
	}
	if c.json {
		return indented(files)
	}
	return show.Files(files), nil
}

func showVersion(ctx context.Context, c *call) (string, error) {
	if c.json {
		return raw(ctx, c, "init")
	}
	var in status.Init
	if err := c.state(ctx, "init", &in); err != nil {
		return "", err
	}
	var conf status.Conf
	c.state(ctx, "conf", &conf) // without it the line is left out
	return show.Version(in, conf, c.s.now()), nil
}

func showProcesses(ctx context.Context, c *call) (string, error) {
	if c.json {
		return raw(ctx, c, "init")
	}
	var in status.Init
	if err := c.state(ctx, "init", &in); err != nil {
		return "", err
	}
	return show.Processes(in, c.s.now()), nil
}

// What can be completed.

func instances(ctx context.Context, c *call, n int) (names []string) {
	var st status.VRRP
	if n > 0 || c.state(ctx, "vrrp", &st) != nil {
		return nil
	}
	for _, v := range st.Instances {
		names = append(names, v.Name)
	}
	return names
}

func services(ctx context.Context, c *call, n int) (names []string) {
	var st status.Init
	if n > 0 || c.state(ctx, "init", &st) != nil {
		return nil
	}
	for _, p := range st.Services {
		names = append(names, p.Name)
	}
	return names
}

func files(ctx context.Context, c *call, n int) (names []string) {
	var list []status.File
	if n > 0 || c.verb(ctx, "conf", "file-list", nil, &list) != nil {
		return nil
	}
	for _, f := range list {
		names = append(names, f.Path)
	}
	return names
}

func words(list ...string) func(context.Context, *call, int) []string {
	return func(context.Context, *call, int) []string { return list }
}
