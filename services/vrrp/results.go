package vrrp

import (
	"maps"
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// setResults takes over what notify found out. What was known stays until
// there is something new: a notify that starts again knows nothing at first.
func (s *service) setResults(n *status.Notify) {
	s.notified = n
	s.scriptOver(n)
	scripts := make(map[string]status.ScriptResult, len(n.Scripts))
	for _, v := range n.Scripts {
		if old, have := s.scripts[v.Name]; have && old.Known && !v.Known && !v.Missing {
			v = old
		}
		scripts[v.Name] = v
	}
	files := make(map[string]status.FileResult, len(n.Files))
	for _, v := range n.Files {
		files[v.Name] = v
	}
	processes := make(map[string]status.ProcessResult, len(n.Processes))
	for _, v := range n.Processes {
		processes[v.Name] = v
	}
	for name, old := range s.scripts {
		if _, have := scripts[name]; !have && s.tracks(name, scriptsOf) {
			scripts[name] = old
		}
	}
	for name, old := range s.files {
		if _, have := files[name]; !have && s.tracks(name, filesOf) {
			files[name] = old
		}
	}
	for name, old := range s.processes {
		if _, have := processes[name]; !have && s.tracks(name, processesOf) {
			processes[name] = old
		}
	}
	same := maps.EqualFunc(s.scripts, scripts, func(a, b status.ScriptResult) bool {
		return a.Known == b.Known && a.OK == b.OK && a.Missing == b.Missing && a.Detail == b.Detail
	}) && maps.EqualFunc(s.files, files, func(a, b status.FileResult) bool {
		return a.Value == b.Value && a.Detail == b.Detail
	}) && maps.EqualFunc(s.processes, processes, func(a, b status.ProcessResult) bool {
		return a.OK == b.OK && a.Count == b.Count
	})
	s.scripts, s.files, s.processes = scripts, files, processes
	if !same {
		s.reevaluate()
	}
}

// reevaluate lets every router see what its trackers say now.
func (s *service) reevaluate() {
	for _, r := range s.routers {
		r.evaluate()
	}
}

// setMissing takes over what of the track_groups net cannot restore.
func (s *service) setMissing(list []status.Missing) {
	what := map[string][]string{}
	for _, m := range list {
		what[m.Group] = append(what[m.Group], m.What)
	}
	for group := range s.lost {
		if what[group] == nil {
			s.setLost(group, "")
		}
	}
	for _, group := range slices.Sorted(maps.Keys(what)) {
		s.setLost(group, strings.Join(what[group], ", "))
	}
}

// setLost tells what of a track_group was taken away and cannot be restored;
// empty: it is whole again.
func (s *service) setLost(group, what string) {
	if s.lost[group] == what {
		return
	}
	if what == "" {
		delete(s.lost, group)
	} else {
		s.lost[group] = what
	}
	s.reevaluate()
}

// tracks tells whether an instance or a group tracks a name.
func (s *service) tracks(name string, of func(*model.Instance, *model.SyncGroup) []string) bool {
	for _, r := range s.routers {
		g := &model.SyncGroup{}
		if r.group != nil {
			g = &r.group.cfg
		}
		if slices.Contains(of(&r.cfg, g), name) {
			return true
		}
	}
	return false
}

func scriptsOf(i *model.Instance, g *model.SyncGroup) (names []string) {
	for _, t := range slices.Concat(i.TrackScripts, g.TrackScripts) {
		names = append(names, t.Script)
	}
	return names
}

func filesOf(i *model.Instance, g *model.SyncGroup) []string {
	return names(slices.Concat(i.TrackFiles, g.TrackFiles))
}

func processesOf(i *model.Instance, g *model.SyncGroup) []string {
	return names(slices.Concat(i.TrackProcesses, g.TrackProcesses))
}

func names(list []model.Track) (out []string) {
	for _, t := range list {
		out = append(out, t.Name)
	}
	return out
}
