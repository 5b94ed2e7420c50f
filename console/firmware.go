package console

import (
	"context"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

const (
	firmwareWait  = 2 * time.Second // how long a login waits for what firmware says
	firmwareEvery = 3 * time.Second // between looks while a trial or an upgrade is on
)

// watchFirmware keeps what everybody should know of the firmware. It asks at the
// start, then whenever somebody comes, and now and then while something goes on:
// a watch would keep a service up that ends by itself when nobody needs it.
func (c *console) watchFirmware(ctx context.Context) {
	for ctx.Err() == nil {
		var next <-chan time.Time
		if c.lookAtFirmware(ctx) {
			next = time.After(firmwareEvery)
		}
		select {
		case <-next:
		case <-c.firmwareAsked:
		case <-ctx.Done():
		}
	}
}

// lookAtFirmware asks once and reports whether something goes on.
func (c *console) lookAtFirmware(ctx context.Context) (busy bool) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var st struct { // the little of status.Firmware that is wanted
		Notice  string                   `json:"notice"`
		Trial   *status.FirmwareTrial    `json:"trial"`
		Upgrade *status.FirmwareProgress `json:"upgrade"`
		Pair    struct {
			Goes bool `json:"goes"`
		} `json:"pair"`
	}
	_, err := c.env.Dir.Client("firmware").State(ctx, &st)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.firmwareKnown)
		c.firmwareKnown = make(chan struct{})
	}()
	if err != nil {
		return false // what was known stays
	}
	text := ""
	if st.Notice != "" {
		text = "! " + printable.Line(st.Notice) + "\n"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.firmware != text {
		c.firmware = text
		c.bump()
	}
	return st.Trial != nil || st.Upgrade != nil || st.Pair.Goes
}

// firmwareNews is what somebody who comes now should know: as fresh as it is to
// be had within a moment.
func (c *console) firmwareNews(ctx context.Context) string {
	c.mu.Lock()
	known := c.firmwareKnown
	c.mu.Unlock()
	select {
	case c.firmwareAsked <- struct{}{}:
	default: // it is being asked
	}
	select {
	case <-known:
	case <-time.After(firmwareWait):
	case <-ctx.Done():
	}
	return c.firmwareWarning()
}

func (c *console) firmwareWarning() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.firmware
}
