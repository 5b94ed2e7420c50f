package show_test

import (
	"strings"
	"testing"
	"time"

	"ballast/console/show"
	"ballast/services/ipc/status"
)

func TestUnconfirmedIsShown(t *testing.T) {
	now := time.Unix(100000, 0)
	conf := status.Conf{Generation: 5, Source: "commit", Time: now, Pending: &status.Pending{Generation: 5, Back: 4, Deadline: now.Add(192 * time.Second)}}
	if out := show.Version(status.Init{}, conf, now); !strings.Contains(out, "Not confirmed") || !strings.Contains(out, "generation 4 runs again in 3m12s") {
		t.Errorf("%s", out)
	}
	conf = status.Conf{Generation: 6, Source: "rollback", Time: now, Reverted: "generation 5 by ann\x1b[2J was not confirmed in 5m: generation 4 runs again"}
	if out := show.Version(status.Init{}, conf, now); !strings.Contains(out, "Rolled back") || strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
	out := show.History([]status.Generation{{Generation: 5, Source: "commit", Time: now, Running: true, Pending: true}, {Generation: 4, Source: "commit", Time: now}}, now)
	if strings.Count(out, "not confirmed") != 1 || !strings.Contains(out, "*  5    0s   commit, not confirmed") {
		t.Errorf("%s", out)
	}
}
