package cli

import (
	"context"
	"strings"

	"ballast/configs/report"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

// checkReport is "check" line by line: the report that "ballast check --report"
// makes, with what only this box knows.
func checkReport(ctx context.Context, c *call) (string, error) {
	if len(c.args) > 0 {
		return "", usagef("check report takes no words")
	}
	if err := c.need(ctx, false); err != nil {
		return "", err
	}
	in := c.wire()
	in.Lines = true
	var r status.CheckReport
	if err := c.change(ctx, "check", in, &r); err != nil {
		return "", err
	}
	if c.json {
		r.Merged = "" // the running configuration's secrets, and nothing that a check asks for
		return indented(r)
	}
	var b strings.Builder
	if err := report.Write(&b, r.Lines); err != nil {
		return "", err
	}
	if rest := report.Elsewhere(r.Problems, r.Lines); len(rest) > 0 {
		b.WriteString("\n" + show.Problems(rest))
	}
	b.WriteString("\n" + report.Total(r.Lines, r.Problems))
	if r.Errors > 0 {
		return "", &reportError{strings.TrimSuffix(b.String(), "\n"), r.Errors}
	}
	return b.String(), nil
}
