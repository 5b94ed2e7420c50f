package syntax

import (
	"hash/fnv"
	"strconv"
	"strings"

	"ballast/configs/model"
)

func isName(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// definition splits "$NAME=VALUE"; nothing may stand around the "$NAME=".
func definition(s string) (name, value string, ok bool) {
	if len(s) < 3 || s[0] != '$' {
		return "", "", false
	}
	i := 1
	for i < len(s) && isName(s[i]) {
		i++
	}
	if i == 1 || i >= len(s) || s[i] != '=' {
		return "", "", false
	}
	return s[1:i], s[i+1:], true
}

// define keeps a definition, or starts one of several lines.
func (r *reader) define(name, value string, pos model.Pos) {
	if body, more := strings.CutSuffix(value, `\`); more {
		r.def, r.defSkip, r.defPos, r.defLines = name, false, pos, nil
		if body = strings.TrimSpace(body); body != "" {
			r.defLines = append(r.defLines, body)
		}
		return
	}
	r.set(name, param{value: strings.TrimLeft(value, " \t")})
}

func (r *reader) set(name string, p param) {
	if r.params == nil {
		r.params = map[string]param{}
	}
	r.params[name] = p
}

func (r *reader) endDefinition() {
	if !r.defSkip {
		lines := r.defLines
		if lines == nil {
			lines = []string{}
		}
		r.set(r.def, param{lines: lines})
	}
	r.def, r.defLines, r.defSkip = "", nil, false
}

// multi finds a multi-line definition that stands alone on the line.
func (r *reader) multi(s string) (param, bool) {
	name := strings.TrimPrefix(s, "$")
	if strings.HasPrefix(name, "{") && strings.HasSuffix(name, "}") {
		name = name[1 : len(name)-1]
	}
	p, ok := r.params[name]
	return p, ok && p.lines != nil
}

// substitute replaces the parameters of a line once. What the values hold is
// replaced when the caller reads the line again.
func (r *reader) substitute(s string, pos model.Pos) string {
	var b strings.Builder
	last, count := 0, 0
	for i := 0; i+1 < len(s); i++ {
		if s[i] != '$' {
			continue
		}
		var name string
		end := i + 1
		braced := s[end] == '{'
		if braced {
			n := braceEnd(s[end:])
			if n < 0 {
				continue
			}
			name = s[end+1 : end+n]
			end += n + 1
		} else {
			for end < len(s) && isName(s[end]) {
				end++
			}
			name = s[i+1 : end]
		}
		if name == "" {
			continue
		}
		at := pos
		at.Col += i
		value, ok := "", false
		if braced && name[0] == '_' {
			value, ok = r.builtin(name, at, count)
			count++
		} else if p, is := r.params[name]; is {
			value, ok = p.value, true
			if p.lines != nil {
				ok = false
				r.once(model.Error, at, "put $"+name+" alone on its line", "$%s has several lines and cannot stand inside a line", name)
			}
		} else if braced {
			r.once(model.Warning, at, "define it above with $"+name+"=VALUE, or correct the name", "parameter ${%s} is not defined and stays as it is", clipName(name))
		}
		if ok && !braced && end < len(s) && !isBlank(s[end]) && s[end] != ',' && s[end] != ')' {
			ok = false
			r.once(model.Warning, at, "write ${"+name+"}", "$%s is not replaced, since %q follows it", name, s[end])
		}
		if !ok {
			continue
		}
		if b.Len()+len(value) > maxReplaced {
			r.once(model.Error, at, "a definition must not use itself", "the line grows beyond %d bytes by its parameters", maxReplaced)
			return ""
		}
		b.WriteString(s[last:i])
		b.WriteString(value)
		last = end
		i = end - 1
	}
	if last == 0 {
		return s
	}
	b.WriteString(s[last:])
	r.grown += b.Len()
	if b.String() == s {
		r.once(model.Error, pos, "a definition must not use itself", "a parameter on the line stands for itself")
	}
	return b.String()
}

// once reports a problem of a place only the first time that it is seen: lines
// are read again after each replacement.
func (r *reader) once(s model.Severity, pos model.Pos, fix, format string, args ...any) {
	key := pos.File + ":" + strconv.Itoa(pos.Line) + format
	if r.warned[key] {
		return
	}
	if r.warned == nil {
		r.warned = map[string]bool{}
	}
	r.warned[key] = true
	r.problem(s, pos, fix, format, args...)
}

func clipName(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// builtin gives the value of ${_NAME …}.
func (r *reader) builtin(name string, pos model.Pos, nth int) (string, bool) {
	f := strings.Fields(name)
	if len(f) == 0 {
		return "", false
	}
	switch f[0] {
	case "_PWD":
		return r.dir(), true
	case "_INSTANCE":
		return r.opts.ConfigID, true
	case "_HASH":
		return "#", true
	case "_BANG":
		return "!", true
	case "_RANDOM":
		// The same text must mean the same on each commit, so the number comes
		// from the box's name and the place, not from a clock.
		lo, hi := uint64(0), uint64(32767)
		if len(f) > 1 {
			lo, _ = strconv.ParseUint(f[1], 10, 32)
		}
		if len(f) > 2 {
			hi, _ = strconv.ParseUint(f[2], 10, 32)
		}
		if hi < lo {
			r.once(model.Error, pos, "write ${_RANDOM MIN MAX}", "the range of ${_RANDOM} is empty")
			return "", false
		}
		h := fnv.New64a()
		h.Write([]byte(r.opts.ConfigID + "\x00" + strconv.Itoa(pos.Line) + "\x00" + strconv.Itoa(nth)))
		return strconv.FormatUint(lo+h.Sum64()%(hi-lo+1), 10), true
	case "_ENV":
		r.once(model.Warning, pos, "write the value, or define a parameter", "there is no environment here: ${%s} is empty", clipName(name))
		return "", true
	}
	r.once(model.Error, pos, "known are _PWD _INSTANCE _RANDOM _HASH _BANG _ENV", "${%s} is no built-in parameter", clipName(name))
	return "", false
}

// sequence expands "~SEQ(…) rest" and "~LST(…) rest"; false when the line is
// neither.
func (r *reader) sequence(s string, pos model.Pos, depth int) bool {
	list := strings.HasPrefix(s, "~LST(")
	hex := strings.HasPrefix(s, "~SEQx(")
	if !list && !hex && !strings.HasPrefix(s, "~SEQ(") {
		return false
	}
	end := strings.IndexByte(s, ')')
	if end < 0 {
		r.problem(model.Error, pos, "write ~SEQ(NAME, FIRST, LAST) or ~LST(NAME, a, b, …)", "the sequence has no closing parenthesis")
		return true
	}
	if depth >= MaxNesting {
		r.problem(model.Error, pos, "nest fewer of them", "sequences are nested more than %d deep", MaxNesting)
		return true
	}
	inside := s[strings.IndexByte(s, '(')+1 : end]
	if strings.IndexByte(inside, '$') >= 0 {
		inside = r.substitute(inside, pos)
	}
	rest := strings.TrimLeft(s[end+1:], " \t")
	var names []string
	var rows [][]string
	var ok bool
	if list {
		names, rows, ok = lists(inside)
	} else {
		names, rows, ok = numbers(inside, hex, r.budget+1)
	}
	if !ok || rest == "" {
		r.problem(model.Error, pos, "write ~SEQ(NAME, [FIRST, [STEP,]] LAST) TEXT or ~LST(NAME, a, b, …) TEXT", "the sequence %s is not complete", clip(s[:end+1]))
		return true
	}
	saved := map[string]*param{}
	for _, n := range names {
		saved[n] = nil
		if p, is := r.params[n]; is {
			saved[n] = &p
		}
	}
	for _, row := range rows {
		for i, n := range names {
			r.set(n, param{value: row[i]})
		}
		r.line(rest, pos, depth+1)
		if r.over {
			break
		}
	}
	for n, p := range saved {
		if p != nil {
			r.set(n, *p)
		} else {
			delete(r.params, n)
		}
	}
	return true
}

// numbers reads "var, [start, [step,]] end".
func numbers(s string, hex bool, limit int) (names []string, rows [][]string, ok bool) {
	f := strings.Split(s, ",")
	if len(f) < 2 || len(f) > 4 {
		return nil, nil, false
	}
	name := strings.TrimSpace(f[0])
	var n []int64
	for _, w := range f[1:] {
		v, err := strconv.ParseInt(strings.TrimSpace(w), 0, 32)
		if err != nil {
			return nil, nil, false
		}
		n = append(n, v)
	}
	last := n[len(n)-1]
	first, step := int64(1), int64(1)
	if len(n) == 1 && last < 0 {
		first = -1
	}
	if len(n) > 1 {
		first = n[0]
	}
	if last < first {
		step = -1
	}
	if len(n) == 3 {
		step = n[1]
	}
	if name == "" || step == 0 || (last-first)*step < 0 {
		return nil, nil, false
	}
	base := 10
	if hex {
		base = 16
	}
	for v := first; step > 0 && v <= last || step < 0 && v >= last; v += step {
		rows = append(rows, []string{strconv.FormatInt(v, base)})
		if len(rows) > limit {
			break
		}
	}
	return []string{name}, rows, true
}

// lists reads "var, a, b" and "{v1,v2}, {a,b}, {c,d}".
func lists(s string) (names []string, rows [][]string, ok bool) {
	var groups [][]string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] == '{' {
			end := strings.IndexByte(s, '}')
			if end < 0 {
				return nil, nil, false
			}
			var g []string
			for _, w := range strings.Split(s[1:end], ",") {
				g = append(g, strings.TrimSpace(w))
			}
			groups = append(groups, g)
			s = strings.TrimPrefix(strings.TrimSpace(s[end+1:]), ",")
			continue
		}
		w, more, _ := strings.Cut(s, ",")
		groups = append(groups, []string{strings.TrimSpace(w)})
		s = more
	}
	if len(groups) < 2 {
		return nil, nil, false
	}
	for _, g := range groups {
		if len(g) != len(groups[0]) {
			return nil, nil, false
		}
	}
	for _, n := range groups[0] {
		if n == "" {
			return nil, nil, false
		}
	}
	return groups[0], groups[1:], true
}
