package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ballast/configs"
	"ballast/configs/edit"
)

// change runs a change of the candidate's text: wholly or not at all. What it
// says may quote the configuration and is not logged.
func (c *call) alter(f func(d *edit.Doc, at edit.Path) error) error {
	s := c.s
	k := s.candidate
	d := k.tree()
	if err := f(d, s.editing.at); err != nil {
		k.doc = nil // it may have got half-way
		return &unloggedError{err}
	}
	k.text, k.told = d.Text(), false
	return nil
}

// logged is what the audit log keeps of a change: the whole path, with secrets
// masked.
func (c *call) logged(word string, args []string) {
	var b strings.Builder
	b.WriteString(word)
	for _, w := range c.s.editing.at {
		b.WriteString(" " + w)
	}
	for _, w := range args {
		b.WriteString(" " + quoted(w))
	}
	text := b.String()
	if k := c.s.candidate; k != nil {
		text = configs.MaskDiff(text, k.text)
	}
	c.what = c.s.mask(text)
}

// quoted writes a word so that a line that holds it means the same.
func quoted(w string) string {
	if w == "" || strings.ContainsAny(w, " \t\"{}#!;|") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
	}
	return w
}

// hiddenSecret is what stands where a secret was masked.
const hiddenSecret = "********"

// unmasked refuses text in which secrets were masked: they would be lost.
func unmasked(text string) error {
	if strings.Contains(text, hiddenSecret) {
		return errors.New("there is " + hiddenSecret + " where a secret was masked: write the secret, or load a text with secrets (\"show configuration secrets\")")
	}
	return nil
}

func setLine(_ context.Context, c *call) (string, error) {
	c.what = "set"
	if len(c.args) == 0 {
		return "", usagef("set PATH [VALUE], for example: set vrrp_instance VI_1 priority 150")
	}
	words, err := c.expand(c.args)
	if err != nil {
		return "", err
	}
	if err := unmasked(strings.Join(words, " ")); err != nil {
		return "", err
	}
	if err := c.alter(func(d *edit.Doc, at edit.Path) error { return d.Set(at, words) }); err != nil {
		return "", err
	}
	c.logged("set", words)
	return "", nil
}

func deleteLine(ctx context.Context, c *call) (string, error) {
	c.what = "delete"
	words, err := c.expand(c.args)
	if err != nil {
		return "", err
	}
	s := c.s
	if len(words) == 0 {
		what := "this block"
		if len(s.editing.at) == 0 {
			what = "the whole configuration"
		}
		if s.Ask != nil && !s.Ask(ctx, "Delete "+what+"?") {
			return "", errors.New("not deleted: it goes on only at the answer y")
		}
	}
	c.logged("delete", words) // before it is gone: masks what was secret
	what := c.what
	c.what = "delete"
	err = c.alter(func(d *edit.Doc, at edit.Path) error {
		switch {
		case len(words) > 0:
			return d.Delete(at, words)
		case len(at) == 0:
			s.candidate.doc = edit.New("")
			return nil
		}
		head, _ := edit.Split(at[len(at)-1])
		return d.Delete(at[:len(at)-1], head)
	})
	if err != nil {
		return "", err
	}
	c.what = what
	s.settle()
	return "", nil
}

func annotate(_ context.Context, c *call) (string, error) {
	c.what = "annotate"
	if len(c.args) < 2 {
		return "", usagef("annotate PATH COMMENT, for example: annotate vrrp_instance VI_1 \"the office's address\"")
	}
	words, err := c.expand(c.args[:len(c.args)-1])
	if err != nil {
		return "", err
	}
	comment := c.args[len(c.args)-1]
	if err := c.alter(func(d *edit.Doc, at edit.Path) error { return d.Annotate(at, words, comment) }); err != nil {
		return "", err
	}
	c.logged("annotate", append(words, comment))
	return "", nil
}

// showCandidate shows the candidate, with secrets only when they are asked for.
func showCandidate(ctx context.Context, c *call) (string, error) {
	s, args := c.s, c.args
	secrets := false
	if n := len(args); n > 0 && args[n-1] == "secrets" {
		secrets, args = true, args[:n-1]
	}
	if c.diff {
		if len(args) > 0 || len(s.editing.at) > 0 {
			return "", usagef("| compare is for the whole candidate: write \"top show | compare\"")
		}
		return compare(ctx, c)
	}
	d := s.candidate.tree()
	if !secrets {
		// All of it is masked, and then the block taken: what is secret in one
		// block may be told by another.
		if masked := s.mask(s.candidate.text); masked != s.candidate.text {
			d = edit.New(masked)
		}
	}
	at := s.editing.at
	words, err := c.expand(args)
	if err != nil {
		return "", err
	}
	if len(words) > 0 {
		if at, err = d.Enter(at, words, false); err != nil {
			return "", &unloggedError{err}
		}
	}
	if c.set {
		var b strings.Builder
		for _, l := range d.Commands(at) {
			b.WriteString(l + "\n")
		}
		return b.String(), nil
	}
	text, err := d.Show(at)
	if err != nil && len(args) > 0 {
		return "", &unloggedError{err}
	}
	return endLine(text), nil
}

// commandsOf is a configuration as set commands.
func commandsOf(text string) string {
	var b strings.Builder
	for _, l := range edit.New(text).Commands(nil) {
		b.WriteString(l + "\n")
	}
	return b.String()
}

// replay does set, delete and annotate commands, one a line, on a text. None
// counts when one fails.
func (c *call) replay(d *edit.Doc, at edit.Path, text string) error {
	start := at
	for i, line := range strings.Split(text, "\n") {
		statements, err := parse(strings.TrimRight(line, "\r"))
		for _, st := range statements {
			if err == nil {
				at, err = c.replayed(d, start, at, st)
			}
		}
		if err != nil {
			return fmt.Errorf("line %d: %w; nothing is loaded", i+1, err)
		}
	}
	return nil
}

var replayWords = []string{"annotate", "delete", "edit", "set", "top", "up"}

func (c *call) replayed(d *edit.Doc, start, at edit.Path, st statement) (edit.Path, error) {
	if len(st.words) == 0 || len(st.filters) > 0 {
		return at, usagef("want a set, delete or annotate command")
	}
	name, err := pick(st.words[0], replayWords)
	if err != nil {
		return at, usagef("%q %w", shown(st.words[0]), err)
	}
	args := st.words[1:]
	if len(args) == 0 && name != "top" && name != "up" {
		return at, usagef("%s wants more words", name)
	}
	switch name {
	case "set":
		return at, d.Set(at, args)
	case "delete":
		return at, d.Delete(at, args)
	case "edit":
		return d.Enter(at, args, true)
	case "top":
		return start, nil
	case "up":
		return at[:max(len(start), len(at)-1)], nil
	}
	if len(args) < 2 {
		return at, usagef("annotate wants a path and a comment")
	}
	return at, d.Annotate(at, args[:len(args)-1], args[len(args)-1])
}
