package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// verbRun runs a program once, for health.
func (s *service) verbRun(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var r status.Run
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	if r.Timeout <= 0 || r.Command.IsZero() {
		return nil, errors.New("run: want a command and a timeout above 0")
	}
	s.mu.Lock()
	busy := s.running[r.Name]
	s.running[r.Name] = true
	s.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("run %s: the run before has not ended", r.Name)
	}
	defer func() {
		s.mu.Lock()
		delete(s.running, r.Name)
		s.runs++
		s.mu.Unlock()
	}()
	res := s.run.run(ctx, r.Command, nil, r.Timeout)
	detail := res.detail
	if out := lastLine(res.output); out != "" {
		detail += ": " + out
	}
	return status.RunResult{Exit: res.exit, Output: res.output, Detail: detail, Took: res.took}, nil
}

// verbMail sends a message through the configured smtp_server.
func (s *service) verbMail(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var m status.Mail
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	return nil, s.post.add(mail{to: m.To, subject: m.Subject, body: m.Body})
}

// verbTrackFile writes the number of a track_file.
func (s *service) verbTrackFile(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var v status.TrackValue
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, err
	}
	return nil, s.files.set(v.Name, v.Value)
}

// verbNote keeps a transition of a service that comes and goes, and has no ring
// that somebody could watch.
func (s *service) verbNote(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var t status.Transition
	if err := json.Unmarshal(body, &t); err != nil {
		return nil, err
	}
	if t.Object == "" || t.Kind == "" {
		return nil, errors.New("note: want a transition with object and kind")
	}
	s.journal.note("firmware", t)
	return nil, nil
}

// verbJournal answers with transitions of all services.
func (s *service) verbJournal(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.JournalQuery
	if len(body) > 0 {
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, err
		}
	}
	return s.journal.query(q), nil
}
