// Package configs is the configuration language of the appliance:
// keepalived.conf, and the appliance's own blocks in the same grammar. Text
// goes in, a model.Config and all that is wrong with the text come out.
package configs

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"ballast/configs/bind"
	"ballast/configs/check"
	"ballast/configs/model"
	"ballast/configs/printable"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// Options say how a text is read.
type Options struct {
	// ConfigID is what the lines "@id …" and ${_INSTANCE} refer to: the host
	// name up to the first dot, unless the operator chose another.
	ConfigID string
	// Open opens files and folders that the text includes. nil: an include is
	// an error.
	Open func(path string) (fs.File, error)
	// Facts about the box; nil: checks that need them are left out.
	Facts *check.Facts
}

// maxProblems bounds a report: a text that is no configuration at all has one
// problem a line.
const maxProblems = 200

// Report is all that is known about a text.
type Report struct {
	Config   model.Config
	Problems []model.Problem // sorted by place
	Uses     []bind.Use      // what became of each line, sorted by place
	// Inside are the lines of blocks that are accounted for as a whole, each with
	// what became of its block.
	Inside []bind.Use
	Files  []string // files read
	Texts  []string // of these files
	Lines  int      // lines read
}

// Load parses, binds and checks a configuration. name is used in messages. All
// faults are reported at once, sorted by place; when one of them is an error
// the configuration must not be applied.
func Load(name string, text []byte, opts Options) (model.Config, []model.Problem) {
	r := Inspect(name, text, opts)
	return r.Config, r.Problems
}

// Loader does what Load does, to the same result, for texts that differ little
// from one another: what the virtual servers of one text came to is used for
// those that stand in the next one too, and they share their memory. The zero
// value is ready. Its methods may be called from any goroutine.
type Loader struct {
	mu     sync.Mutex
	cache  bind.Cache
	last   *loaded
	memory check.Memory
}

// loaded is the text that a Loader read last.
type loaded struct {
	name, text string
	id         string // Options.ConfigID
}

// Load is the function Load.
func (l *Loader) Load(name, text string, opts Options) (model.Config, []model.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, problems, ok := l.again(name, text, opts); ok {
		return c, problems
	}
	how := opts.syntax()
	how.Apart = bind.Apart
	tree, problems := syntax.Parse(name, text, how)
	bound := bind.BindWith(tree, how, &l.cache)
	problems = append(problems, bound.Problems...)
	l.last = nil
	// Files that are included may change, and a mark at the beginning moves all
	// that is counted in bytes.
	if !tree.Includes && !strings.HasPrefix(text, "\xef\xbb\xbf") && len(problems) == len(bound.Problems) {
		l.last = &loaded{name: name, text: text, id: opts.ConfigID}
	}
	problems = append(problems, l.memory.Config(&bound.Config, bound.Place, opts.Facts)...)
	return bound.Config, finished(problems, tree.Files)
}

// again is Load for a text in which some virtual servers are all that differs
// from the last one.
func (l *Loader) again(name, text string, opts Options) (model.Config, []model.Problem, bool) {
	last := l.last
	if last == nil || last.id != opts.ConfigID {
		return model.Config{}, nil, false
	}
	e, ok := syntax.Edited(last.text, text, bind.Apart)
	if !ok {
		return model.Config{}, nil, false
	}
	how := opts.syntax()
	how.Apart = bind.Apart
	bound, changed, ok := bind.Rebind(&l.cache, e, name, text, how)
	if !ok {
		return model.Config{}, nil, false
	}
	l.last = &loaded{name: name, text: text, id: opts.ConfigID}
	found := l.memory.Again(&bound.Config, bound.Place, opts.Facts, changed.At, changed.Now, changed.Was)
	return bound.Config, finished(slices.Concat(bound.Problems, found), []string{name}), true
}

// Inspect is Load with the account of each line.
func Inspect(name string, text []byte, opts Options) Report {
	how := opts.syntax()
	tree, problems := syntax.Parse(name, text, how)
	bound := bind.BindWith(tree, how, nil)
	problems = append(problems, bound.Problems...)
	problems = append(problems, check.Config(&bound.Config, bound.Place, opts.Facts)...)
	return Report{
		Config: bound.Config, Problems: finished(problems, tree.Files),
		Uses: bound.Uses, Inside: unused(tree, bound.Uses), Files: tree.Files, Texts: tree.Texts, Lines: tree.Lines,
	}
}

// unused finds the lines that no use is of.
func unused(tree *syntax.Tree, uses []bind.Use) (out []bind.Use) {
	type key struct {
		pos  model.Pos
		word string
	}
	known := make(map[key]int, len(uses))
	for i, u := range uses {
		known[key{u.Pos, u.Word}] = i
	}
	var walk func(nodes []*syntax.Node, of bind.Use)
	walk = func(nodes []*syntax.Node, of bind.Use) {
		for _, n := range nodes {
			use := of
			if i, ok := known[key{n.Pos, n.Name()}]; ok {
				use = uses[i]
			} else {
				use.Pos, use.Word = n.Pos, n.Name()
				out = append(out, use)
			}
			walk(n.Children, use)
		}
	}
	walk(tree.Nodes, bind.Use{What: bind.Unknown})
	return out
}

func (o Options) syntax() syntax.Options {
	return syntax.Options{ConfigID: o.ConfigID, Open: o.Open, Grammar: schema.Grammar{}}
}

// finished puts problems into the order of the text and makes them fit to be
// shown. names are the files that were read.
func finished(problems []model.Problem, names []string) []model.Problem {
	files := map[string]int{}
	for i, f := range names {
		if _, ok := files[f]; !ok {
			files[f] = i
		}
	}
	slices.SortStableFunc(problems, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(files[a.File], files[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	problems = bounded(slices.Compact(problems), names[0])
	for i := range problems {
		problems[i].Text, problems[i].Fix = printable.Escaped(problems[i].Text), printable.Escaped(problems[i].Fix)
	}
	return problems
}

// bounded shortens a long list of problems: errors stay first in line, and the
// last entry says how many are left out.
func bounded(problems []model.Problem, name string) []model.Problem {
	if len(problems) <= maxProblems {
		return problems
	}
	errors := 0
	for _, p := range problems {
		if p.Severity == model.Error {
			errors++
		}
	}
	var out []model.Problem
	others := max(maxProblems-errors, 0)
	left := map[model.Severity]int{}
	for _, p := range problems {
		switch {
		case len(out) >= maxProblems, p.Severity != model.Error && others == 0:
			left[p.Severity]++
			continue
		case p.Severity != model.Error:
			others--
		}
		out = append(out, p)
	}
	severity := model.Note
	if errors > 0 {
		severity = model.Error
	} else if left[model.Warning] > 0 {
		severity = model.Warning
	}
	return append(out, model.Problem{Severity: severity, File: name,
		Text: fmt.Sprintf("and %d more errors, %d warnings, %d notes", left[model.Error], left[model.Warning], left[model.Note])})
}
