package console

import (
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
