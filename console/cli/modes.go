package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ballast/configs"
	"ballast/configs/edit"
	"ballast/console/show"
)

// editing is a session in configure mode.
type editing struct {
	at        edit.Path   // the block that commands refer to
	back      []edit.Path // where exit goes, innermost last
	exclusive bool
}

// modeCommands are the commands of operational mode that lead to configure mode.
func modeCommands() []*command {
	return []*command{
		{words: []string{"configure"}, args: "[exclusive]", help: "change the configuration: set, delete, commit", role: Admin, run: configure, values: words("exclusive")},
		{words: []string{"edit"}, args: "[BLOCK]", help: "configure mode, at a block", role: Admin, run: editBlock, next: nextEdit},
		{words: []string{"edit", "full"}, help: "configure mode, on the whole screen", role: Admin, run: editFull},
	}
}

// makeConfigureCommands is the table of configure mode, in the order of help.
func makeConfigureCommands() []*command {
	row := func(words, args, help string, run func(context.Context, *call) (string, error)) *command {
		return &command{words: strings.Fields(words), args: args, help: help, role: Admin, run: run}
	}
	set := row("set", "PATH [VALUE]", "set a line; blocks around it are made", setLine)
	set.next = nextSet
	del := row("delete", "[PATH]", "delete a line or a block, or all of this block", deleteLine)
	del.next = nextPath
	enter := row("edit", "BLOCK", "go into a block; one that is not there is made", editBlock)
	enter.next = nextEdit
	view := row("show", "[PATH] [secrets]", "the candidate, here or below", showCandidate)
	view.next, view.set, view.diff = nextShow, true, true
	move := row("rename", "BLOCK to NAME", "give a block another name", rename((*edit.Doc).Rename))
	move.next = nextTo
	twin := row("copy", "BLOCK to NAME", "make a second block like this one", rename((*edit.Doc).Copy))
	twin.next = nextTo
	order := row("insert", "PATH before|after PATH", "move a line or a block in front of another one, or behind it", insert)
	order.next = nextPlace
	note := row("annotate", "PATH COMMENT", "write a comment above a line; \"\" takes it away", annotate)
	note.next = nextPath
	read := row("load", "[merge|replace|override|set] [terminal]", "read a configuration into the candidate", load)
	read.next = nextLoad
	loadSent := row("load uploaded", "[merge|replace|override|set]", "read what was sent by scp or sftp into the candidate", loadUploaded)
	loadSent.next = nextLoad
	check := row("check", "", "check the candidate", checkCandidate)
	check.json = true
	each := row("check report", "", "what becomes of each line of the candidate", checkReport)
	each.json = true
	diff := row("compare", "[GENERATION [GENERATION]]", "difference from what runs, or of generations", compare)
	diff.next = nextGeneration
	do := row("commit", commitArgs, "make the candidate the running configuration", commit)
	do.json, do.next = true, nextCommit
	keep := row("confirm", "", "keep what \"commit confirmed\" brought", confirm)
	keep.json = true
	back := row("rollback", "[GENERATION]", "make an earlier configuration the candidate; 0: what runs", rollbackCandidate)
	back.next = nextGeneration
	top := row("top", "[COMMAND]", "go out of all blocks, or do one command there", top)
	top.next = nextTop
	run := row("run", "COMMAND", "do a command of operational mode", runOperational)
	run.next, run.json, run.set = nextRun, true, true
	leave := row("exit", "[configuration-mode|discard]", "go back one level; from the top, leave configure mode", exitLevel)
	leave.values = words("configuration-mode", "discard")
	quit := row("quit", leave.args, leave.help, exitLevel)
	quit.values = leave.values
	return []*command{
		set, del, enter,
		row("edit full", "", "edit the candidate on the whole screen", editFull),
		row("up", "[LEVELS]", "go out of this block", up),
		top, view, note, move, twin, order, read, loadSent, check, each, diff, do, keep, back,
		row("discard", "", "make what runs the candidate again", discardChanges),
		row("update", "", "take what others committed into the candidate", update),
		row("save", "", "nothing to do: a commit is kept", save),
		row("status", "", "who else changes the configuration", editors),
		run,
		row("help", "[COMMAND|KEYWORD]", "list the commands, or what a keyword of the configuration means", help),
		leave, quit,
	}
}

// commands are those of the mode that the session is in.
func (s *Session) commands() []*command {
	if s.editing != nil {
		return configureCommands
	}
	return commands
}

// hinted adds to what is no command in this mode that it is one in the other.
func (s *Session) hinted(err error, typed []string) error {
	if s.Role < Admin {
		return err
	}
	other, how := configureCommands, "\"configure\" enters the mode that has it"
	if s.editing != nil {
		other, how = commands, "outside configure mode it is a command: write \"run\" before it"
	}
	if c, _, ferr := find(other, typed, s.Role); ferr == nil && c.words[0] == typed[0] {
		return usagef("%w; %s", err, how)
	}
	return err
}

// Prompt is what stands before the command line, and the line above it.
func (s *Session) Prompt(host string) (above, prompt string) {
	switch {
	case s.editing != nil:
		return strings.TrimSuffix("[edit "+shown(strings.Join(s.editing.at, " ")), " ") + "]\n", host + "# "
	case s.Dirty():
		return "", host + " candidate> "
	}
	return "", host + "> "
}

// settle puts the session into the innermost block of where it was that is
// still there.
func (s *Session) settle() {
	e := s.editing
	if e == nil {
		return
	}
	d := s.candidate.tree()
	for len(e.at) > 0 {
		if _, err := d.Show(e.at); err == nil {
			break
		}
		e.at = e.at[:len(e.at)-1]
	}
	e.trim()
}

// trim drops the levels of back that are not around the block.
func (e *editing) trim() {
	for len(e.back) > 0 {
		b := e.back[len(e.back)-1]
		if len(b) < len(e.at) && slices.Equal(b, e.at[:len(b)]) {
			return
		}
		e.back = e.back[:len(e.back)-1]
	}
}

func configure(ctx context.Context, c *call) (string, error) {
	exclusive := false
	for _, a := range c.args {
		if _, err := pick(a, []string{"exclusive"}); err != nil {
			return "", usagef("configure %s %w", shown(a), err)
		}
		exclusive = true
	}
	return c.enter(ctx, exclusive)
}

// enter begins configure mode.
func (c *call) enter(ctx context.Context, exclusive bool) (string, error) {
	s := c.s
	if err := c.full(ctx); err != nil {
		return "", err
	}
	if exclusive {
		if err := s.Editors.lock(s); err != nil {
			return "", err
		}
	}
	s.editing = &editing{exclusive: exclusive}
	out := s.around()
	if s.Dirty() {
		out += "what was loaded is the candidate\n"
	}
	return out, nil
}

func editBlock(ctx context.Context, c *call) (string, error) {
	out := ""
	fresh := c.s.editing == nil
	if fresh {
		var err error
		if out, err = c.enter(ctx, false); err != nil {
			return "", err
		}
	} else if len(c.args) == 0 {
		return "", usagef("edit BLOCK, for example: edit vrrp_instance VI_1")
	}
	if len(c.args) == 0 {
		return out, nil
	}
	e, k := c.s.editing, c.s.candidate
	stay := func(err error) (string, error) {
		if fresh {
			c.s.editing = nil
			if !c.s.Dirty() {
				c.s.candidate = nil
			}
		}
		return "", &unloggedError{err}
	}
	words, err := c.expand(c.args)
	if err != nil {
		return stay(err)
	}
	at, err := k.tree().Enter(e.at, words, false)
	if err != nil {
		// A block that is not there is made by the first line in it: whoever only
		// looks leaves nothing behind.
		var there error
		if at, there = edit.New(k.text).Enter(e.at, words, true); there != nil {
			return stay(there)
		}
		out += "it is not there yet: the first \"set\" makes it\n"
	}
	e.back = append(e.back, e.at)
	e.at = at
	return out, nil
}

func up(_ context.Context, c *call) (string, error) {
	n := 1
	if len(c.args) > 0 {
		var err error
		if n, err = strconv.Atoi(c.args[0]); err != nil || n < 1 || len(c.args) > 1 {
			return "", usagef("up [LEVELS] wants a number, for example: up 2")
		}
	}
	e := c.s.editing
	e.at = e.at[:max(0, len(e.at)-n)]
	e.trim()
	return "", nil
}

// top goes out of all blocks, or does one command there and comes back.
func top(ctx context.Context, c *call) (string, error) {
	e := c.s.editing
	at, back := e.at, e.back
	e.at, e.back = nil, nil
	if len(c.args) == 0 {
		return "", nil
	}
	cmd, args, err := find(configureCommands, c.args, c.s.Role)
	if err != nil {
		e.at, e.back = at, back
		c.what = "top"
		return "", &unloggedError{err}
	}
	_, fresh := c.s.candidate.tree().Show(at) // an error: it is not there yet
	out, err := c.do(ctx, cmd, args)
	if cmd.name() != "edit" || err != nil {
		if c.s.editing == e {
			e.at, e.back = at, back
			if fresh == nil {
				c.s.settle()
			}
		}
	}
	return out, err
}

// notInside are commands of operational mode that would leave the candidate
// behind, or the mode in the middle.
var notInside = []string{"configure", "edit", "exit", "quit", "rollback"}

func runOperational(ctx context.Context, c *call) (string, error) {
	c.what = "run"
	if len(c.args) == 0 {
		return "", usagef("run COMMAND, for example: run show vrrp")
	}
	cmd, args, err := find(commands, c.args, c.s.Role)
	if err != nil {
		return "", &unloggedError{err}
	}
	if slices.Contains(notInside, cmd.name()) {
		return "", usagef("run %[1]s: not from configure mode, which has its own way; \"exit\" leaves it", cmd.name())
	}
	return c.do(ctx, cmd, args)
}

// exitLevel goes back to where the last edit came from, and from the top out of
// configure mode. A candidate with changes stays the session's.
func exitLevel(ctx context.Context, c *call) (string, error) {
	how := ""
	if len(c.args) > 0 {
		var err error
		if how, err = pick(c.args[0], []string{"configuration-mode", "discard"}); err != nil || len(c.args) > 1 {
			return "", usagef("exit %s: possible: configuration-mode, discard", shown(strings.Join(c.args, " ")))
		}
	}
	e := c.s.editing
	if how == "" && len(e.at) > 0 {
		e.at = nil
		if n := len(e.back); n > 0 {
			e.at, e.back = e.back[n-1], e.back[:n-1]
		}
		return "", nil
	}
	if how != "discard" && c.s.Dirty() && c.s.Ask != nil &&
		!c.s.Ask(ctx, "The changes are not committed. Leave configure mode and keep them for a later commit?") {
		return "", errors.New("still in configure mode: \"commit\" makes the changes run, \"exit discard\" forgets them")
	}
	return c.leaveMode(how == "discard"), nil
}

// leaveMode ends configure mode.
func (c *call) leaveMode(discard bool) string {
	c.s.editing = nil
	if discard || !c.s.Dirty() {
		c.s.candidate = nil
		return ""
	}
	return "the changes are kept as this session's candidate; \"configure\" goes on, \"commit\" makes them run\n"
}

func discardChanges(ctx context.Context, c *call) (string, error) {
	c.s.candidate = nil
	if err := c.full(ctx); err != nil {
		c.s.editing = nil
		return "", fmt.Errorf("%w; configure mode is left", err)
	}
	c.s.settle()
	return "the candidate is what runs\n", nil
}

func save(_ context.Context, c *call) (string, error) {
	if c.s.Dirty() {
		return "", errors.New("not saved: \"commit\" makes the changes run and keeps them")
	}
	return "nothing to save: every commit is kept over a reboot\n", nil
}

func editors(_ context.Context, c *call) (string, error) {
	if text := c.s.around(); text != "" {
		return strings.ReplaceAll(text, "note: ", ""), nil
	}
	return "nobody else is in configure mode or has a candidate\n", nil
}

// rollbackCandidate makes the text of a generation the candidate.
func rollbackCandidate(ctx context.Context, c *call) (string, error) {
	if len(c.args) == 1 && c.args[0] == "0" {
		return discardChanges(ctx, c)
	}
	n, err := generation(c.args)
	if err != nil {
		return "", err
	}
	if n == 0 {
		if n, err = c.previous(ctx); err != nil {
			return "", err
		}
	}
	text, err := c.textOf(ctx, n)
	if err != nil {
		return "", err
	}
	c.s.candidate.put(text)
	c.s.settle()
	if !c.s.Dirty() {
		return fmt.Sprintf("generation %d is loaded; it is what runs already\n", n), nil
	}
	return fmt.Sprintf("generation %d is loaded; \"compare\" shows what changes, \"commit\" makes it run\n", n), nil
}

// previous is the generation before the one that runs.
func (c *call) previous(ctx context.Context) (uint64, error) {
	gens, err := c.history(ctx)
	if err != nil {
		return 0, err
	}
	for i, g := range gens {
		if g.Running && i+1 < len(gens) {
			return gens[i+1].Generation, nil
		}
	}
	return 0, errors.New("there is no earlier generation to go back to")
}

// moved tells that somebody else committed since the candidate was made.
func (c *call) moved(running runningConf, base uint64) error {
	how := "\"compare\" shows the difference, \"commit\" again goes on"
	if c.s.editing != nil {
		how = "\"update\" takes it into the candidate, \"compare\" shows the difference, \"commit\" again goes on without it"
	}
	return fmt.Errorf("not committed: the running configuration moved from generation %d to %d (%s by %s, %s ago) since yours was loaded; %s",
		base, running.Generation, running.Source, unknownIfEmpty(running.Author), show.Age(running.Time, c.s.now()), how)
}

// mostConflicts bounds what is told of them.
const mostConflicts = 10

// update takes what was committed since the candidate was made into it.
func update(ctx context.Context, c *call) (string, error) {
	k := c.s.candidate
	running, err := c.running(ctx)
	if err != nil {
		return "", err
	}
	now, err := c.textOf(ctx, running.Generation)
	if err != nil {
		return "", err
	}
	text, conflicts := configs.Merge3(k.clean, k.text, now)
	if len(conflicts) > 0 {
		return "", &unloggedError{errors.New(c.conflicts(conflicts, k, now))}
	}
	if now == k.clean {
		k.base = running.Generation
		return "the candidate is made from what runs\n", nil
	}
	k.put(text)
	k.clean, k.base = now, running.Generation
	c.s.settle()
	return fmt.Sprintf("what generation %d changed is in the candidate; \"compare\" shows what is left to commit\n", running.Generation), nil
}

// conflicts tells what two people changed in different ways.
func (c *call) conflicts(list []configs.Conflict, k *candidate, now string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "nothing changed: the candidate and what was committed meanwhile change the same lines:\n")
	for i, x := range list {
		if i == mostConflicts {
			fmt.Fprintf(&b, "and %d more places\n", len(list)-i)
			break
		}
		fmt.Fprintf(&b, "line %d\n", x.Line)
		for _, part := range []struct{ sign, text string }{{"was       ", x.Was}, {"runs      ", x.Theirs}, {"candidate ", x.Ours}} {
			for line := range strings.Lines(part.text) {
				b.WriteString("  " + part.sign + strings.TrimRight(line, "\r\n") + "\n")
			}
		}
	}
	b.WriteString("change these lines to what runs, or \"commit\" twice to overwrite it")
	return c.s.mask(configs.MaskDiff(b.String(), k.clean, k.text, now))
}
