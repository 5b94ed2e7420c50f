package console

import (
	"net/netip"
	"testing"
	"time"

	"ballast/services/ipc/status"
)

func TestSessionsHearOfAnUnconfirmedCommit(t *testing.T) {
	now := time.Unix(1000, 0)
	var u unconfirmed
	pending := status.Conf{Generation: 5, Pending: &status.Pending{Generation: 5, Back: 4, Deadline: now.Add(192 * time.Second)}}
	back := status.Conf{Generation: 6, Reverted: "generation 5 by ann@10.0.0.9 was not confirmed in 5m: generation 4 runs again"}
	for i, step := range []struct {
		conf status.Conf
		want string
	}{
		{status.Conf{Generation: 4}, ""},
		{pending, "! commit not confirmed: generation 4 runs again in 3m12s; \"confirm\" keeps generation 5\n"},
		{pending, "! commit not confirmed: generation 4 runs again in 3m12s; \"confirm\" keeps generation 5\n"},
		{back, "! rolled back: generation 5 by ann@10.0.0.9 was not confirmed in 5m: generation 4 runs again\n"},
		{back, ""},
		{status.Conf{Generation: 7}, ""},
	} {
		if got := u.note(step.conf, now); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	var late unconfirmed // whose greeting says it
	if got := late.note(back, now); got != "" {
		t.Errorf("told twice: %q", got)
	}
	c := &console{conf: back}
	if got, want := c.warning(), "! rolled back: "+back.Reverted+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Over the real client: the prompt says it, and conf is told by which way the
// session came.
func TestUnconfirmedOnATerminal(t *testing.T) {
	l := newLab(t)
	l.conf.change(func() {
		l.conf.state.Text = someText
		l.conf.state.Pending = &status.Pending{Generation: 7, Back: 6, Deadline: time.Now().Add(10 * time.Minute), Author: "bob@10.0.0.9"}
	})
	l.start()
	s, _ := l.onTerminal("admin")
	s.expect("! commit not confirmed: generation 6 runs again in ", "\"confirm\" keeps generation 7\r\n", "lb1> ")
	s.send("configure\r")
	s.expect("! commit not confirmed", "lb1# ")
	s.send("set vrrp_instance VI_1 priority 77\r")
	s.expect("lb1# ")
	s.send("commit and-quit\r")
	s.expect("committed: generation 8", "lb1> ")
	l.conf.mu.Lock()
	defer l.conf.mu.Unlock()
	if len(l.conf.got) != 1 || l.conf.got[0].Session == nil {
		t.Fatalf("%d commits came, or without a session", len(l.conf.got))
	}
	local := netip.MustParseAddr("127.0.0.1")
	if got, want := *l.conf.got[0].Session, (status.Session{User: "admin", Local: local, Remote: local, Terminal: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
