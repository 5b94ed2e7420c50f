package cli

import (
	"context"
	"fmt"
	"strconv"

	"ballast/console/show"
	"ballast/services/ipc/status"
)

func showAudit(ctx context.Context, c *call) (string, error) {
	var q status.AuditQuery
	for _, a := range c.args {
		n, err := strconv.Atoi(a)
		switch {
		case err == nil && n > 0 && q.Limit == 0:
			q.Limit = n
		case err != nil && q.User == "":
			q.User = a
		default:
			return "", usagef("show audit [USER] [LINES], for example: show audit ann 50")
		}
	}
	list := []status.AuditEntry{}
	if err := c.verb(ctx, "notify", "audit-log", q, &list); err != nil {
		return "", err
	}
	if c.json {
		return indented(list)
	}
	return show.Audit(list), nil
}

func showSessions(ctx context.Context, c *call) (string, error) {
	if c.json {
		return raw(ctx, c, "console")
	}
	var st status.Console
	if err := c.state(ctx, "console", &st); err != nil {
		return "", err
	}
	return show.Sessions(st, c.s.now()), nil
}

func kick(ctx context.Context, c *call) (string, error) {
	if len(c.args) != 1 {
		return "", usagef("kick SESSION takes the number of a session, for example: kick 3; \"show sessions\" lists them")
	}
	id, err := strconv.ParseUint(c.args[0], 10, 64)
	if err != nil {
		return "", usagef("%q is not the number of a session; \"show sessions\" lists them", shown(c.args[0]))
	}
	var s status.ConsoleSession
	if err := c.verb(ctx, "console", "kick", status.Kick{ID: id, By: c.s.author()}, &s); err != nil {
		return "", err
	}
	return fmt.Sprintf("session %d of %s from %s is closed\n", id, shown(s.User), shown(s.Address)), nil
}

// sessions lists the numbers of those that are open, for completion.
func sessions(ctx context.Context, c *call, n int) (ids []string) {
	var st status.Console
	if n > 0 || c.state(ctx, "console", &st) != nil {
		return nil
	}
	for _, s := range st.Sessions {
		ids = append(ids, strconv.FormatUint(s.ID, 10))
	}
	return ids
}
