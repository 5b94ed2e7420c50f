package console

import (
	"fmt"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

// unconfirmed tells every session, before its prompt, that what runs is not for
// good, and once that it came to nothing.
type unconfirmed struct {
	known bool   // told holds what was so when the session began, which the greeting says
	told  string // of status.Conf.Reverted
}

func (u *unconfirmed) note(s status.Conf, now time.Time) string {
	fresh := u.known && s.Reverted != u.told
	u.known, u.told = true, s.Reverted
	switch {
	case s.Pending != nil:
		return fmt.Sprintf("! commit not confirmed: generation %d runs again in %s; \"confirm\" keeps generation %d\n",
			s.Pending.Back, left(s.Pending.Deadline, now), s.Pending.Generation)
	case fresh && s.Reverted != "":
		return "! rolled back: " + printable.Line(s.Reverted) + "\n"
	}
	return ""
}

// left is the time until a deadline, in whole seconds.
func left(deadline, now time.Time) time.Duration {
	return max(0, deadline.Sub(now)).Round(time.Second)
}

// running is what conf told last, without its Config.
func (c *console) running() status.Conf {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conf
}
