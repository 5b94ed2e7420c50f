package cli

import (
	"context"
	"errors"

	"ballast/configs/printable"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

const upgradePairArgs = "[usb|URL] [older]"

// upgradePair brings both boxes of a pair to another firmware, one after the
// other.
func upgradePair(ctx context.Context, c *call) (string, error) {
	q := status.FirmwareUpgrade{By: c.s.author()}
	source, err := sourceWords(c.args, []string{"older", "usb"}, map[string]*bool{"older": &q.Older}, func(a string) error {
		return usagef("upgrade pair does not take %q: want %s, continue or abort; a file is sent: ssh USER@BOX upgrade pair < FILE.bundle", a, upgradePairArgs)
	}, usagef("upgrade pair takes one source, %s or what is sent", upgradePairArgs))
	if err != nil {
		return "", err
	}
	q.Source = source
	st := c.streams()
	in := st.In
	switch {
	case q.Source != "":
		in = nil
	case in == nil:
		return "", errors.New("nothing can be sent here: ssh USER@BOX upgrade pair < FILE.bundle, without a terminal; or \"upgrade pair URL\", \"upgrade pair usb\"")
	}
	if err := c.consent(ctx, "Upgrade both boxes? They reboot one after the other; clients go on being served."); err != nil {
		return "", err
	}
	bar := &show.PairBar{Width: st.Width, Print: st.Note}
	lines := rows(func(p status.FirmwarePairProgress) {
		if p.Text == "" {
			bar.Draw(p)
			return
		}
		bar.End()
		st.Note(c.s.now().Format("15:04:05 ") + printable.Line(p.Text) + "\n")
	})
	err = c.stream(ctx, "firmware", "upgrade-pair", q, in, lines, func(text string) {
		bar.End()
		st.Note(printable.Text(text))
	})
	bar.End()
	return "", err
}

// pairAsk continues or aborts an upgrade of the pair.
func pairAsk(what, done string) func(context.Context, *call) (string, error) {
	return func(ctx context.Context, c *call) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, commitBound)
		defer cancel()
		q := status.FirmwarePairAsk{Ask: what, By: c.s.author()}
		if err := c.explain("firmware", c.s.Services.Call(ctx, "firmware", "upgrade-pair-ask", q, nil)); err != nil {
			return "", err
		}
		return done + "\n", nil
	}
}
