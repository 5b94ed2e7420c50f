package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ballast/configs"
	"ballast/configs/edit"
	"ballast/configs/syntax"
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

// unmasked refuses text in which secrets were masked: they would be lost.
func unmasked(text string) error {
	if n := configs.Masked(text); n > 0 {
		return fmt.Errorf("line %d has the mask where a secret was: write the secret, or take a text with secrets (\"show configuration secrets\")", n)
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
	if configs.Masked(strings.Join(words, " ")) > 0 {
		return "", errors.New("that is the mask where a secret was: write the secret")
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

// rename makes the commands "rename BLOCK to NAME" and "copy BLOCK to NAME".
func rename(f func(*edit.Doc, edit.Path, []string, []string) error) func(context.Context, *call) (string, error) {
	return func(_ context.Context, c *call) (string, error) {
		name, _, _ := strings.Cut(c.what, " ")
		args := c.args
		c.what = name
		i := slices.Index(args, "to")
		if i < 1 || i == len(args)-1 {
			return "", usagef("%[1]s BLOCK to NAME, for example: %[1]s vrrp_instance VI_1 to VI_2", name)
		}
		return c.two(name, args[:i], args[i:i+1], args[i+1:], f)
	}
}

// insert moves a statement: "insert PATH before PATH".
func insert(_ context.Context, c *call) (string, error) {
	args := c.args
	c.what = "insert"
	i := slices.IndexFunc(args, func(w string) bool { return w == "before" || w == "after" })
	if i < 1 || i == len(args)-1 {
		return "", usagef("insert PATH before|after PATH, for example: insert virtual_ipaddress 10.0.0.2/24 before virtual_ipaddress 10.0.0.1/24")
	}
	return c.two("insert", args[:i], args[i:i+1], args[i+1:], func(d *edit.Doc, at edit.Path, words, other []string) error {
		// The second path may be shortened like the first one.
		other, err := c.expand(other)
		if err != nil {
			return err
		}
		return d.Insert(at, words, args[i] == "before", other)
	})
}

// two runs a change that is about a path and something else.
func (c *call) two(name string, path, between, other []string, f func(*edit.Doc, edit.Path, []string, []string) error) (string, error) {
	words, err := c.expand(path)
	if err != nil {
		return "", err
	}
	if err := c.alter(func(d *edit.Doc, at edit.Path) error { return f(d, at, words, other) }); err != nil {
		return "", err
	}
	c.logged(name, slices.Concat(words, between, other))
	c.s.settle()
	return "", nil
}

// linesOf is what stands in a block under the words of a line: "priority", or
// "virtual_ipaddress" of several of them. ok is false when there is none.
func linesOf(d *edit.Doc, at edit.Path, words []string) (text string, ok bool) {
	for n := len(words) - 1; n >= 0; n-- {
		in, err := d.Enter(at, words[:n], false)
		if err != nil {
			continue
		}
		var b strings.Builder
		for _, one := range statements(d, in) {
			if want := words[n:]; len(one.words) >= len(want) && slices.Equal(one.words[:len(want)], want) {
				b.WriteString(one.text + "\n")
			}
		}
		return b.String(), b.Len() > 0
	}
	return "", false
}

// shownStatement is one statement of a block: its first words and its text.
type shownStatement struct {
	words []string
	text  string
}

// statements are what stands in a block, or in all of the text.
func statements(d *edit.Doc, at edit.Path) (out []shownStatement) {
	block, err := d.Show(at)
	if err != nil {
		return nil
	}
	spans := syntax.Outline(block, 0, len(block))
	if len(at) > 0 {
		var inner []syntax.Span
		for _, b := range spans {
			if b.Kind == syntax.SpanBlock {
				inner = append(inner, syntax.Outline(block, b.Open, b.Close)...)
			}
		}
		spans = inner
	}
	for _, s := range spans {
		if s.Kind != syntax.SpanLine && s.Kind != syntax.SpanBlock {
			continue
		}
		one := shownStatement{}
		for _, w := range syntax.Words(block[s.Head:s.Stop]) {
			one.words = append(one.words, w.Text)
		}
		start := s.Start
		if i := strings.LastIndexByte(block[:start], '\n') + 1; strings.TrimSpace(block[i:start]) == "" {
			start = i
		}
		one.text = block[start:s.End]
		out = append(out, one)
	}
	return out
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
		return "", c.operational(err)
	}
	if len(words) > 0 {
		in, err := d.Enter(at, words, false)
		if err != nil {
			if text, ok := linesOf(d, at, words); ok && !c.set {
				return text, nil
			}
			return "", &unloggedError{c.operational(err)}
		}
		at = in
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

// operational adds to a show that failed that there is one outside configure
// mode.
func (c *call) operational(err error) error {
	if cmd, _, ferr := find(commands, append([]string{"show"}, c.args...), c.s.Role); ferr == nil {
		return usagef("%w; of operational mode: run %s", err, cmd.name())
	}
	return err
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
