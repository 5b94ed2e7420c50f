package cli

import (
	"context"
	"errors"
	"io"

	"ballast/configs/printable"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

const upgradeArgs = "[usb|URL] [noreboot] [older] [again]"

var upgradeWords = []string{"again", "noreboot", "older", "usb"}

// upgrade writes another firmware into the slot that does not run and starts it
// on trial.
func upgrade(ctx context.Context, c *call) (string, error) {
	q := status.FirmwareUpgrade{By: c.s.author()}
	source, err := sourceWords(c.args, upgradeWords, map[string]*bool{"noreboot": &q.NoReboot, "older": &q.Older, "again": &q.Again}, func(a string) error {
		return usagef("upgrade does not take %q: want %s; a file is sent: ssh USER@BOX upgrade < FILE.bundle", a, upgradeArgs)
	}, usagef("upgrade takes one source, %s or what is sent", upgradeArgs))
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
		return "", errors.New("nothing can be sent here: ssh USER@BOX upgrade < FILE.bundle, without a terminal; or \"upgrade URL\", \"upgrade usb\"")
	}
	question := "Upgrade this box? It reboots into the new firmware; its virtual routers resign first."
	if q.NoReboot {
		question = "Upgrade this box? The new firmware starts at the next reboot."
	}
	if err := c.consent(ctx, question); err != nil {
		return "", err
	}
	return "", c.firmwareStream(ctx, st, "upgrade", q, in)
}

// firmwareStream calls a verb that writes a firmware, and shows how far it is.
func (c *call) firmwareStream(ctx context.Context, st *Streams, verb string, q any, in io.Reader) error {
	bar := &show.Bar{Width: st.Width, Print: st.Note}
	lines := rows(func(p status.FirmwareProgress) {
		bar.Draw(printable.Line(p.Step), p.Done, p.Total, c.s.now())
	})
	err := c.stream(ctx, "firmware", verb, q, in, lines, func(text string) {
		bar.End()
		st.Note(printable.Text(text))
	})
	bar.End()
	return err
}

func showFirmware(ctx context.Context, c *call) (string, error) {
	var st status.Firmware
	if err := c.state(ctx, "firmware", &st); err != nil {
		return "", err
	}
	if c.json {
		return indented(st)
	}
	return show.Firmware(st, c.s.now()), nil
}

// rollbackFirmware starts the other slot, or ends a trial.
func rollbackFirmware(ctx context.Context, c *call) (string, error) {
	q := status.FirmwareOrder{By: c.s.author()}
	for _, a := range c.args {
		if _, err := pick(a, []string{"noreboot"}); err != nil {
			return "", usagef("rollback firmware does not take %q: want [noreboot]", shown(a))
		}
		q.NoReboot = true
	}
	if err := c.consent(ctx, "Start the firmware of the other slot? The box reboots; its virtual routers resign first."); err != nil {
		return "", err
	}
	return c.firmwareOrder(ctx, "rollback", q)
}

// confirmFirmware keeps what runs before it is confirmed by itself.
func confirmFirmware(ctx context.Context, c *call) (string, error) {
	return c.firmwareOrder(ctx, "confirm", status.FirmwareOrder{By: c.s.author()})
}

// firmwareOrder calls a verb that may read a whole slot from a slow disk.
func (c *call) firmwareOrder(ctx context.Context, verb string, q status.FirmwareOrder) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commitBound)
	defer cancel()
	var a status.FirmwareAnswer
	if err := c.explain("firmware", c.s.Services.Call(ctx, "firmware", verb, q, &a)); err != nil {
		return "", err
	}
	if c.json {
		return indented(a)
	}
	return printable.Text(a.Text) + "\n", nil
}
