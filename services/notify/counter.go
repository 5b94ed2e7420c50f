package notify

import "ballast/configs/model"

// counter turns the results of a vrrp_script into OK or KO, as keepalived
// counts: result runs from 0 to rise+fall-1, and the script is OK from rise up.
// Before the first result the script is neither; then one success or one
// failure is enough, whatever rise and fall say.
type counter struct {
	rise, fall int
	result     int
	known      bool
}

func newCounter(s *model.Script) counter {
	c := counter{rise: max(s.Rise, 1), fall: max(s.Fall, 1)}
	if s.InitFail {
		c.known = true
		return c
	}
	c.result = c.rise - 1
	return c
}

func (c *counter) ok() bool { return c.known && c.result >= c.rise }

// inherit keeps the verdict across a reload that changed rise or fall.
func (c *counter) inherit(old counter) {
	if old.known {
		c.resume(old.ok())
	}
}

// resume begins with a verdict.
func (c *counter) resume(ok bool) {
	c.known = true
	if ok {
		c.result = c.rise + c.fall - 1
	} else {
		c.result = 0
	}
}

// add takes one result and reports whether the verdict changed or is the first.
func (c *counter) add(success bool) (news bool) {
	was, known := c.ok(), c.known
	switch {
	case success && c.result < c.rise-1:
		c.result++
	case success:
		c.result, c.known = c.rise+c.fall-1, true
	case c.result > c.rise:
		c.result--
	default:
		c.result, c.known = 0, true
	}
	return c.known != known || c.ok() != was
}
