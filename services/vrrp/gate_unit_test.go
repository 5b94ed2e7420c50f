package vrrp

import (
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// How long the wait for startup_script lasts, whatever notify says.
func TestGateOfStartupScript(t *testing.T) {
	g := model.Global{StartupScript: model.Command{Argv: []string{"x"}}, StartupScriptTimeout: 3 * time.Second}
	for name, c := range map[string]struct {
		global model.Global
		before *status.Notify // told before the configuration came
		after  *status.Notify
		wait   time.Duration
		open   bool
	}{
		"none":                  {model.Global{}, nil, nil, 0, true},
		"nobody tells":          {g, nil, nil, 7 * time.Second, false},
		"nobody tells, over":    {g, nil, nil, 8 * time.Second, true},
		"default limit":         {model.Global{StartupScript: g.StartupScript}, nil, nil, 14 * time.Second, false},
		"default limit, over":   {model.Global{StartupScript: g.StartupScript}, nil, nil, 15 * time.Second, true},
		"runs":                  {g, nil, &status.Notify{Startup: "running", Applied: status.Applied{Config: 5}}, time.Second, false},
		"ended":                 {g, nil, &status.Notify{Startup: "exit code 0", Applied: status.Applied{Config: 5}}, 0, true},
		"ended before":          {g, &status.Notify{Startup: "exit code 0"}, nil, 0, true},
		"notify is behind":      {g, nil, &status.Notify{Applied: status.Applied{Config: 4}}, time.Second, false},
		"ran at an earlier run": {g, nil, &status.Notify{Applied: status.Applied{Config: 5}}, 0, true},
	} {
		s := &service{log: newLogger(), now: time.Hour, notified: c.before}
		s.closeGate(5, 0, &c.global)
		if c.after != nil {
			s.setResults(c.after)
		}
		s.now += c.wait
		s.postpone()
		if s.gate.open() != c.open {
			t.Errorf("%s: open is %v", name, s.gate.open())
		}
	}
}
