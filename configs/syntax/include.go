package syntax

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"ballast/configs/model"
)

// maxFile bounds one included file, in bytes.
const maxFile = 16 << 20

// include does "include PATTERN" and its variants, which differ in what is an
// error: r a file that cannot be read, m no match (unless it has wildcards),
// w no match of wildcards, b no match of one of {a,b}, a all of these. False
// when the line is no include.
func (r *reader) include(s string, pos model.Pos) bool {
	f := words(unescape(s), pos.Col)
	variant, is := strings.CutPrefix(f[0].Text, "include")
	if !is || len(variant) > 1 || !strings.Contains("rmwba", variant) {
		return false
	}
	r.tree.Includes = true
	if len(f) < 2 {
		r.problem(model.Error, pos, "write include FILE", "include has no file name")
		return true
	}
	pattern := f[1].Text
	pos.Col = f[1].Col
	if r.opts.Open == nil {
		r.problem(model.Error, pos, "put its lines here", "include %s: a configuration on the box is one text", clip(pattern))
		return true
	}
	if len(r.stack) > MaxNesting {
		r.problem(model.Error, pos, "", "includes are nested more than %d deep", MaxNesting)
		return true
	}
	if !path.IsAbs(pattern) {
		pattern = path.Join(r.dir(), pattern)
	}
	severity := func(when string) model.Severity {
		if variant != "" && strings.Contains(when, variant) {
			return model.Error
		}
		return model.Warning
	}
	alternatives := braces(pattern)
	found := false
	for _, alt := range alternatives {
		files := r.glob(alt)
		if len(files) == 0 && len(alternatives) > 1 && strings.Contains("ba", variant) && variant != "" {
			r.problem(model.Error, pos, "", "include: nothing matches %s", alt)
		}
		for _, name := range files {
			found = true
			r.includeFile(name, pos, severity("ra"))
		}
	}
	if !found && len(alternatives) == 1 {
		when := "ma"
		if strings.ContainsAny(pattern, "*?[") {
			when = "wa"
		}
		// keepalived says nothing of a plain include without a match.
		r.problem(severity(when), pos, "correct the name, or delete the line", "include: nothing matches %s", pattern)
	}
	return true
}

func (r *reader) includeFile(name string, pos model.Pos, unreadable model.Severity) {
	if slices.Contains(r.stack, name) {
		r.problem(model.Error, pos, "delete this include", "%s includes itself", name)
		return
	}
	if r.files++; r.files > MaxIncludes {
		if r.files == MaxIncludes+1 {
			r.problem(model.Error, pos, "", "more than %d files are included", MaxIncludes)
		}
		return
	}
	text, err := r.read(name)
	if err != nil {
		r.problem(unreadable, pos, "", "include: %v", err)
		return
	}
	last := r.last
	r.file(name, string(text))
	r.last = last
}

func (r *reader) read(name string) ([]byte, error) {
	f, err := r.opts.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return text, err
}

// braces expands {a,b} in a pattern, as a shell does, to at most 256 patterns.
func braces(s string) []string {
	open := strings.IndexByte(s, '{')
	if open < 0 {
		return []string{s}
	}
	depth, end := 0, -1
	var cuts []int
	for i := open; i < len(s) && end < 0; i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				end = i
			}
		case ',':
			if depth == 1 {
				cuts = append(cuts, i)
			}
		}
	}
	if end < 0 || len(cuts) == 0 {
		return []string{s}
	}
	var out []string
	from := open + 1
	for _, cut := range append(cuts, end) {
		for _, more := range braces(s[:open] + s[from:cut] + s[end+1:]) {
			if len(out) < 256 {
				out = append(out, more)
			}
		}
		from = cut + 1
	}
	return out
}

// glob finds the files of a pattern, sorted. A name without wildcards is its
// own match when it can be opened.
func (r *reader) glob(pattern string) []string {
	dir := "."
	rest := pattern
	if path.IsAbs(pattern) {
		dir, rest = "/", strings.TrimLeft(pattern, "/")
	}
	found := []string{dir}
	for _, part := range strings.Split(rest, "/") {
		var next []string
		for _, d := range found {
			if !strings.ContainsAny(part, `*?[\`) {
				next = append(next, path.Join(d, part))
				continue
			}
			for _, name := range r.list(d) {
				if strings.HasPrefix(name, ".") && !strings.HasPrefix(part, ".") {
					continue
				}
				if ok, err := path.Match(part, name); ok && err == nil {
					next = append(next, path.Join(d, name))
				}
			}
		}
		if found = next; len(found) > MaxIncludes {
			found = found[:MaxIncludes+1]
		}
	}
	if !strings.ContainsAny(pattern, `*?[\`) {
		f, err := r.opts.Open(found[0])
		if err != nil {
			return nil
		}
		f.Close()
	}
	return found
}

// list names what a folder holds, sorted; nothing when it cannot be read.
func (r *reader) list(dir string) []string {
	f, err := r.opts.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	d, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil
	}
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	slices.Sort(out)
	return out
}
