package cli

import (
	"context"
	"errors"
	"fmt"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// FullScreen edits a text on the whole screen. check tells what is wrong with one.
type FullScreen func(ctx context.Context, text string, check func(context.Context, string) ([]model.Problem, error)) (result string, changed bool, err error)

// editFull opens the candidate in the editor of the whole screen.
func editFull(ctx context.Context, c *call) (string, error) {
	if c.s.FullScreen == nil {
		return "", errors.New("edit full needs a terminal; without one: load, set, delete")
	}
	out := ""
	if c.s.editing == nil {
		var err error
		if out, err = c.enter(ctx, false); err != nil {
			return "", err
		}
	}
	text, _ := c.s.Candidate()
	check := func(ctx context.Context, text string) ([]model.Problem, error) {
		in := c.wire()
		in.Text = text
		var r status.CheckReport
		err := c.change(ctx, "check", in, &r)
		return r.Problems, err
	}
	text, changed, err := c.s.FullScreen(ctx, text, check)
	if err != nil {
		return "", fmt.Errorf("edit full: %w", err)
	}
	if !changed {
		return out + "nothing was taken over\n", nil
	}
	if err := c.s.SetCandidate(text); err != nil {
		return "", err
	}
	return out + "taken over; \"compare\" shows what changes, \"commit\" makes it run\n", nil
}
