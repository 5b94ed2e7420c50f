package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/configs"
	"ballast/configs/edit"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

// candidate is the configuration that a session has made but not committed.
type candidate struct {
	text     string
	override bool
	base     uint64 // the running generation when it was made
	told     bool   // its findings were shown when it was loaded
	// full: text is all of a configuration, made from clean, and not what
	// somebody sent, which conf completes.
	full  bool
	clean string
	doc   *edit.Doc // of text; nil: not needed yet
}

// put makes text the candidate's.
func (k *candidate) put(text string) {
	if k.text != text {
		k.text, k.doc, k.told = text, nil, false
	}
}

// changed reports whether there is something to commit.
func (k *candidate) changed() bool { return k != nil && !(k.full && k.text == k.clean) }

// tree is the text for editing.
func (k *candidate) tree() *edit.Doc {
	if k.doc == nil {
		k.doc = edit.New(k.text)
	}
	return k.doc
}

// Dirty reports whether the session holds a candidate that is not committed.
func (s *Session) Dirty() bool { return s.candidate.changed() }

// Edited reports whether the session has changed the configuration in
// configure mode and not committed that.
func (s *Session) Edited() bool { return s.candidate.changed() && s.candidate.full }

// Candidate is the text that the session changes, secrets included. ok is
// false outside configure mode.
func (s *Session) Candidate() (text string, ok bool) {
	if s.editing == nil || s.candidate == nil {
		return "", false
	}
	return s.candidate.text, true
}

// SetCandidate replaces the text that the session changes.
func (s *Session) SetCandidate(text string) error {
	if s.editing == nil || s.candidate == nil {
		return errors.New("there is no candidate: \"configure\" makes one")
	}
	s.candidate.put(text)
	s.settle()
	s.Editors.note(s)
	return nil
}

// textOf asks for the text of a generation; 0: the one that runs.
func (c *call) textOf(ctx context.Context, generation uint64) (string, error) {
	var t status.Candidate
	if err := c.change(ctx, "text", status.TextQuery{Generation: generation}, &t); err != nil {
		return "", err
	}
	return t.Text, nil
}

// full makes sure that the candidate is a whole text: what runs, when there is
// none.
func (c *call) full(ctx context.Context) error {
	k := c.s.candidate
	if k != nil && k.full {
		return nil
	}
	running, err := c.running(ctx)
	if err != nil {
		return err
	}
	base := running.Generation
	if k != nil {
		base = k.base
	}
	text, err := c.textOf(ctx, base)
	if err != nil {
		return err
	}
	next := &candidate{text: text, override: true, base: base, full: true, clean: text}
	if k != nil {
		next.text = k.text
		if !k.override {
			next.text = configs.Merge(text, k.text)
		}
		next.told = k.told
	}
	c.s.candidate = next
	return nil
}

// Editors knows which sessions hold a candidate: more than one person may be
// at work, and everybody is told.
type Editors struct {
	mu   sync.Mutex
	list map[*Session]Editor
}

// Editor is one who changes the configuration.
type Editor struct {
	Author    string    `json:"author"`
	Since     time.Time `json:"since"`
	Changed   bool      `json:"changed"`   // there is something to commit
	Exclusive bool      `json:"exclusive"` // nobody else may commit
}

// note brings the list up to date with what s does.
func (e *Editors) note(s *Session) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.editing == nil && s.candidate == nil {
		delete(e.list, s)
		return
	}
	was, ok := e.list[s]
	if !ok {
		was = Editor{Author: s.author(), Since: s.now()}
	}
	was.Changed = s.Dirty()
	was.Exclusive = s.editing != nil && s.editing.exclusive
	if e.list == nil {
		e.list = map[*Session]Editor{}
	}
	e.list[s] = was
}

// leave takes a session off the list.
func (e *Editors) leave(s *Session) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.list, s)
}

// others are the editors but s, the one who was first first.
func (e *Editors) others(s *Session) []Editor {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []Editor
	for o, one := range e.list {
		if o != s {
			list = append(list, one)
		}
	}
	slices.SortFunc(list, func(a, b Editor) int { return a.Since.Compare(b.Since) })
	return list
}

// lock enters s as the only one who may commit. An error names who is in the way.
func (e *Editors) lock(s *Session) error {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for o, one := range e.list {
		if o != s && (one.Exclusive || one.Changed) {
			return fmt.Errorf("not exclusive: %s; \"configure\" shares", one.line(s.now()))
		}
	}
	if e.list == nil {
		e.list = map[*Session]Editor{}
	}
	e.list[s] = Editor{Author: s.author(), Since: s.now(), Exclusive: true}
	return nil
}

// locked tells who keeps s from committing; nil: nobody.
func (e *Editors) locked(s *Session) error {
	for _, one := range e.others(s) {
		if one.Exclusive {
			return fmt.Errorf("%s: nobody else can commit until then", one.line(s.now()))
		}
	}
	return nil
}

// line is an editor in words.
func (e Editor) line(now time.Time) string {
	text := shown(e.Author) + " is in configure mode"
	if e.Exclusive {
		text += " exclusively"
	}
	text += " for " + show.Age(e.Since, now)
	if e.Changed {
		text += ", with changes that are not committed"
	}
	return text
}

// around tells who else is at work.
func (s *Session) around() string {
	var b strings.Builder
	for _, e := range s.Editors.others(s) {
		fmt.Fprintf(&b, "note: %s\n", e.line(s.now()))
	}
	return b.String()
}

// Close ends the session: its candidate is forgotten.
func (s *Session) Close() {
	s.candidate, s.editing = nil, nil
	s.Editors.leave(s)
}
