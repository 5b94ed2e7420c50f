package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"ballast/console/show"
	"ballast/services/ipc/status"
)

// showCrash lists the records of crashes, or shows one.
func showCrash(ctx context.Context, c *call) (string, error) {
	var q status.CrashQuery
	if len(c.args) > 1 {
		return "", usagef("show crash [N], for example: show crash 1")
	}
	if len(c.args) == 1 {
		n, err := strconv.Atoi(c.args[0])
		if err != nil || n < 1 {
			return "", usagef("show crash wants the number of a record, not %q; \"show crash\" lists them", shown(c.args[0]))
		}
		q.Number = n
	}
	var a status.CrashAnswer
	if err := c.verb(ctx, "init", "crash", q, &a); err != nil {
		return "", err
	}
	var in status.Init
	if err := c.state(ctx, "init", &in); err != nil {
		return "", err
	}
	switch {
	case c.json && a.Report != nil:
		return indented(a.Report)
	case c.json:
		return indented(struct {
			Start status.Start   `json:"start"`
			List  []status.Crash `json:"list"`
		}{in.Start, a.List})
	case a.Report != nil:
		return show.Crash(*a.Report), nil
	}
	return show.Crashes(a.List, in.Start), nil
}

// crashes are the numbers of the records.
func crashes(ctx context.Context, c *call, n int) (out []string) {
	var a status.CrashAnswer
	if n > 0 || c.verb(ctx, "init", "crash", status.CrashQuery{}, &a) != nil {
		return nil
	}
	for _, r := range a.List {
		out = append(out, strconv.Itoa(r.Number))
	}
	return out
}

// keepIdentity is the word that leaves the box what it is called and reached by.
const keepIdentity = "keep-identity"

func factoryReset(ctx context.Context, c *call) (string, error) {
	r := status.FactoryReset{By: c.s.author()}
	for _, a := range c.args {
		if _, err := pick(a, []string{keepIdentity}); err != nil {
			return "", usagef("factory-reset %s %w", shown(a), err)
		}
		r.KeepIdentity = true
	}
	goes, stays := "its configuration with all generations, keys, script files, journal, audit log and crash records", "The firmware in both slots stays."
	if r.KeepIdentity {
		goes = "its configuration with all generations, script files, journal, audit log and crash records"
		stays = "Host name, interfaces, routes, users and keys stay, and so does the firmware in both slots."
	}
	if c.s.Ask == nil && !c.s.OneShot {
		return "", errors.New("factory-reset: nobody can be asked")
	}
	if err := c.consent(ctx, fmt.Sprintf("Reboot this box and wipe %s? %s", goes, stays)); err != nil {
		return "", err
	}
	if err := c.verb(ctx, "init", "factory-reset", r, nil); err != nil {
		return "", err
	}
	return "rebooting; the data is wiped before anything starts again\n", nil
}
