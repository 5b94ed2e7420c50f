// Package report tells line by line what becomes of a configuration text: what
// works, what is read in another way and how, what has no effect and why, and
// what is not understood. The command "ballast check" and the console show the
// same report.
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"ballast/configs"
	"ballast/configs/bind"
	"ballast/configs/model"
	"ballast/configs/printable"
	"ballast/configs/syntax"
)

// place is a line of a file.
type place struct {
	file string
	line int
}

// names of dispositions, from the best to the worst.
var names = []struct {
	what bind.Disposition
	name string
}{
	{bind.Works, model.Works},
	{bind.Mapped, model.Mapped},
	{bind.NoEffect, model.NoEffect},
	{bind.Planned, model.NotImplemented},
	{bind.Unknown, model.NotUnderstood},
}

// rank of an outcome, the worst has the highest.
func rank(what string) int {
	for i := range names {
		if names[i].name == what {
			return i
		}
	}
	return -1 // what says least: Skipped
}

// Lines are the outcomes of all lines that say something, in the order of the
// files. Lines that hold a comment, a brace or nothing are left out.
func Lines(r configs.Report) []model.Outcome {
	at := map[place]*model.Outcome{}
	get := func(p model.Pos) *model.Outcome {
		key := place{p.File, p.Line}
		if at[key] == nil {
			at[key] = &model.Outcome{File: p.File, Line: p.Line, What: model.Skipped}
		}
		return at[key]
	}
	for _, u := range r.Uses {
		o := get(u.Pos)
		o.Times++
		if what := name(u.What); rank(what) > rank(o.What) {
			o.What, o.Reason = what, u.Reason
		}
	}
	for _, u := range r.Inside {
		o := get(u.Pos)
		if o.Times > 0 {
			continue // a line of its own says more
		}
		if what := name(u.What); u.What != bind.Unknown && rank(what) > rank(o.What) {
			o.What, o.Reason = what, u.Reason
		}
	}
	for _, p := range r.Problems {
		if o := at[place{p.File, p.Line}]; o != nil {
			o.Problems = append(o.Problems, p)
			if p.Severity == model.Error {
				o.What = model.NotUnderstood
			}
		}
	}
	var out []model.Outcome
	for i, f := range r.Files {
		if slices.Contains(r.Files[:i], f) || i >= len(r.Texts) {
			continue
		}
		out = append(out, file(f, r.Texts[i], at, r.Problems)...)
	}
	return out
}

func name(d bind.Disposition) string {
	for _, n := range names {
		if n.what == d {
			return n.name
		}
	}
	return model.NotUnderstood
}

// file goes over the lines of one file.
func file(name, text string, at map[place]*model.Outcome, problems []model.Problem) (out []model.Outcome) {
	where := map[int][]model.Problem{} // those of lines that no statement is on
	for _, p := range problems {
		if p.File == name && at[place{name, p.Line}] == nil {
			where[p.Line] = append(where[p.Line], p)
		}
	}
	number, def := 0, false
	for line := range strings.Lines(configs.Mask(text)) {
		number++
		code := trimmed(line)
		o := at[place{name, number}]
		plain := o == nil
		if plain {
			o = &model.Outcome{File: name, Line: number, Problems: where[number]}
			switch first := strings.TrimLeft(code, "{} \t"); {
			case def, isDefinition(code):
				o.What = model.Parameter
			case strings.HasPrefix(code, "@"):
				o.What = model.OtherBox
			case strings.HasPrefix(code, "include"):
				o.What = model.Include
			case len(o.Problems) > 0:
				o.What = model.NotUnderstood
			case first == "":
				continue
			default:
				o.What = model.Skipped
			}
		}
		def = strings.HasSuffix(code, `\`) && (def || isDefinition(code))
		if plain && code == "" {
			if len(o.Problems) == 0 {
				continue
			}
		}
		o.Text = printable.Escaped(printable.Short(code, 120))
		if o.Times == 1 {
			o.Times = 0
		}
		if len(o.Problems) > 0 {
			o.Reason = ""
		}
		out = append(out, *o)
	}
	return out
}

// trimmed is a line without its comment.
func trimmed(line string) string {
	line = strings.Trim(line, " \t\f\v\r\n")
	end, _ := syntax.CommentAt(line)
	return strings.TrimRight(line[:end], " \t\f\v\r")
}

// isDefinition tells whether a line is $NAME=VALUE, with a condition or without.
func isDefinition(code string) bool {
	if strings.HasPrefix(code, "@") {
		if i := strings.IndexAny(code, " \t"); i > 0 {
			code = strings.TrimLeft(code[i:], " \t")
		}
	}
	name, _, ok := strings.Cut(code, "=")
	return ok && strings.HasPrefix(name, "$") && !strings.ContainsAny(name, " \t{")
}

// Elsewhere are the problems that stand at no line of the report: those of a
// file as a whole, and of lines that cannot be read.
func Elsewhere(problems []model.Problem, lines []model.Outcome) (out []model.Problem) {
	told := map[place]bool{}
	for _, o := range lines {
		told[place{o.File, o.Line}] = true
	}
	for _, p := range problems {
		if !told[place{p.File, p.Line}] {
			out = append(out, p)
		}
	}
	return out
}

// width of the column of outcomes.
const width = 16

// Write prints outcomes for people: a line each, and below it what there is to
// say about it.
func Write(w io.Writer, lines []model.Outcome) error {
	var b strings.Builder
	files := 0
	for i, o := range lines {
		if i == 0 || o.File != lines[i-1].File {
			files++
		}
	}
	digits := 1
	for _, o := range lines {
		digits = max(digits, len(fmt.Sprint(o.Line)))
	}
	for i, o := range lines {
		if files > 1 && (i == 0 || o.File != lines[i-1].File) {
			fmt.Fprintf(&b, "%s:\n", o.File)
		}
		times := ""
		if o.Times > 1 {
			times = fmt.Sprintf("  (%d times)", o.Times)
		}
		fmt.Fprintf(&b, "%*d  %-*s %s%s\n", digits+2, o.Line, width, o.What, o.Text, times)
		said := []string{}
		for _, p := range o.Problems {
			text := string(p.Severity) + ": " + p.Text
			if p.Fix != "" {
				text += "; " + p.Fix
			}
			if !slices.Contains(said, text) {
				said = append(said, text)
			}
		}
		if o.Reason != "" {
			said = append(said, o.Reason)
		}
		for _, text := range said {
			fmt.Fprintf(&b, "%*s  %-*s %s\n", digits+2, "", width, "", text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Total is how many lines came to what, and the verdict.
func Total(lines []model.Outcome, problems []model.Problem) string {
	count := map[string]int{}
	for _, o := range lines {
		count[o.What]++
	}
	var parts []string
	for _, what := range []string{model.Works, model.Mapped, model.NoEffect, model.NotImplemented, model.NotUnderstood,
		model.Skipped, model.OtherBox, model.Parameter, model.Include} {
		if n := count[what]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	if len(parts) == 0 {
		parts = []string{"the configuration is empty"}
	}
	return fmt.Sprintf("%s: %s\n%s\n", Count(len(lines), "line"), strings.Join(parts, ", "), Verdict(problems))
}

// Verdict says whether a configuration can run.
func Verdict(problems []model.Problem) string {
	n := map[model.Severity]int{}
	for _, p := range problems {
		n[p.Severity]++
	}
	var said []string
	for _, s := range []model.Severity{model.Error, model.Warning, model.Note} {
		if n[s] > 0 {
			said = append(said, Count(n[s], string(s)))
		}
	}
	switch {
	case n[model.Error] > 0:
		return "cannot run: " + strings.Join(said, ", ")
	case len(said) > 0:
		return "can run, " + strings.Join(said, ", ")
	}
	return "clean"
}

// Count is a number of things.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
