// Package configs is the configuration language of the appliance:
// keepalived.conf, and the appliance's own blocks in the same grammar. Text
// goes in, a model.Config and all that is wrong with the text come out.
package configs

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
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
	Files    []string        // files read
	Lines    int             // lines read
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
	mu    sync.Mutex
	cache bind.Cache
}

// Load is the function Load.
func (l *Loader) Load(name string, text []byte, opts Options) (model.Config, []model.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := inspect(name, text, opts, &l.cache)
	return r.Config, r.Problems
}

// Inspect is Load with the account of each line.
func Inspect(name string, text []byte, opts Options) Report { return inspect(name, text, opts, nil) }

func inspect(name string, text []byte, opts Options, cache *bind.Cache) Report {
	how := syntax.Options{ConfigID: opts.ConfigID, Open: opts.Open, Grammar: schema.Grammar{}}
	if cache != nil {
		how.Apart = bind.Apart
	}
	tree, problems := syntax.Parse(name, text, how)
	bound := bind.BindWith(tree, how, cache)
	problems = append(problems, bound.Problems...)
	problems = append(problems, check.Config(&bound.Config, bound.Place, opts.Facts)...)
	files := map[string]int{}
	for i, f := range tree.Files {
		if _, ok := files[f]; !ok {
			files[f] = i
		}
	}
	slices.SortStableFunc(problems, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(files[a.File], files[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	problems = bounded(slices.Compact(problems), name)
	for i := range problems {
		problems[i].Text, problems[i].Fix = printable.Escaped(problems[i].Text), printable.Escaped(problems[i].Fix)
	}
	return Report{
		Config: bound.Config, Problems: problems,
		Uses: bound.Uses, Files: tree.Files, Lines: tree.Lines,
	}
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
