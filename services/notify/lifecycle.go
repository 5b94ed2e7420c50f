package notify

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

const (
	lifeScript    = 10 * time.Second // what startup_script and shutdown_script get when the line is missing
	shutdownLimit = 8 * time.Second  // the most that a box on its way down waits for shutdown_script
	fifoGrace     = time.Second      // for a reader to read what is left
)

// start runs startup_script, once after each boot. Until it is over no other
// script runs: keepalived starts nothing before it. vrrp follows the word of it
// in our state, and takes no address before.
func (s *service) start(ctx context.Context, g *model.Global, first bool) {
	if s.begun {
		return
	}
	s.begun = true
	if !first || g.StartupScript.IsZero() {
		close(s.hold)
		return
	}
	s.setStartup("running")
	cmd, timeout := g.StartupScript, g.StartupScriptTimeout
	if timeout <= 0 {
		timeout = lifeScript
	}
	s.starting.Go(func() {
		res := s.run.run(ctx, cmd, nil, timeout)
		s.tellRun("startup_script", cmd, res)
		s.setStartup(res.detail)
		close(s.hold)
	})
}

func (s *service) setStartup(text string) {
	s.mu.Lock()
	s.startup = text
	s.mu.Unlock()
	poke(s.changed)
}

// tellRun logs what came of a script that runs once.
func (s *service) tellRun(what string, cmd model.Command, res result) {
	text := fmt.Sprintf("%s %s: %s in %s", what, commandText(cmd), res.detail, res.took.Round(time.Millisecond))
	if out := lastLine(res.output); out != "" {
		text += ": " + out
	}
	if res.exit != 0 {
		s.env.Log.Warn(text)
	} else {
		s.env.Log.Info(text)
	}
}

// boxStops asks init whether the whole box is on its way down, or only this
// process is started anew.
func (s *service) boxStops() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var st struct {
		Stopping bool `json:"stopping"`
	}
	_, err := s.env.Dir.Client("init").State(ctx, &st)
	return err == nil && st.Stopping
}

// shutdown runs shutdown_script. vrrp, health and ipvs have ended by now.
func (s *service) shutdown() {
	if s.conf == nil || s.conf.Config.Global.ShutdownScript.IsZero() {
		return
	}
	g := &s.conf.Config.Global
	timeout := g.ShutdownScriptTimeout
	if timeout <= 0 {
		timeout = lifeScript
	}
	s.tellRun("shutdown_script", g.ShutdownScript, s.run.run(context.Background(), g.ShutdownScript, nil, min(timeout, shutdownLimit)))
}

// omega tells that the real servers of virtual servers with omega go away.
func (s *service) omega() {
	if s.conf == nil {
		return
	}
	for _, t := range omegaEnd(s.objects, s.alive) {
		t.Time = time.Now()
		s.do(forHealth, t)
	}
}

func hasOmega(cfg *objects) bool {
	return slices.ContainsFunc(cfg.list, func(vs *model.VirtualServer) bool { return vs.Omega })
}

// aliveOf are the real servers of virtual servers with omega, by the name that
// health gives them.
func aliveOf(cfg *objects, h *status.Health) map[string]bool {
	out := map[string]bool{}
	omega := map[string]*model.VirtualServer{}
	for _, vs := range cfg.list {
		if vs.Omega {
			omega[vs.Name] = vs
		}
	}
	for _, vs := range h.Servers {
		if conf := omega[vs.Name]; conf != nil {
			for _, rs := range vs.Real {
				out[realName(conf, rs.Addr, rs.Port)+" of "+vs.Name] = rs.Alive
			}
		}
	}
	return out
}
