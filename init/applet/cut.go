package applet

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// span is one range of cut's lists, from 1; to 0 is without end.
type span struct{ from, to int }

func spans(list string) ([]span, bool) {
	var out []span
	for w := range strings.SplitSeq(list, ",") {
		a, b, isRange := strings.Cut(w, "-")
		s := span{1, 0}
		var err error
		if a != "" {
			s.from, err = strconv.Atoi(a)
		}
		switch {
		case err != nil || s.from < 1 || w == "-" || w == "":
			return nil, false
		case !isRange:
			s.to = s.from
		case b != "":
			if s.to, err = strconv.Atoi(b); err != nil || s.to < s.from {
				return nil, false
			}
		}
		out = append(out, s)
	}
	return out, true
}

func picked(list []span, n int) bool {
	return slices.ContainsFunc(list, func(s span) bool { return n >= s.from && (s.to == 0 || n <= s.to) })
}

// cut is "cut -f LIST [-d C] [-s] [FILE…]" and "cut -c LIST [FILE…]", which
// u-root lacks.
func cut(e *env, args []string) int {
	delim, only := "\t", false
	var mode byte
	var list []span
	var files []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if len(a) < 2 || a[0] != '-' {
			files = append(files, a)
			continue
		}
		value := func() string {
			if len(a) > 2 {
				return a[2:]
			}
			if i++; i < len(args) {
				return args[i]
			}
			return ""
		}
		switch a[1] {
		case 'd':
			delim = value()
		case 's':
			only = true
		case 'f', 'c', 'b':
			mode = a[1]
			v := value()
			var ok bool
			if list, ok = spans(v); !ok {
				return e.fail(1, "%q: want a list as 1,3-5,7-", v)
			}
		}
	}
	if mode == 0 || delim == "" {
		return e.fail(1, "want -f or -c with a list")
	}
	w := bufio.NewWriter(e.stdout)
	defer w.Flush()
	do := func(r io.Reader) error {
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			if out, ok := cutLine(s.Text(), mode, delim, only, list); ok {
				w.WriteString(out + "\n")
			}
		}
		return s.Err()
	}
	if len(files) == 0 {
		files = []string{"-"}
	}
	code := 0
	for _, name := range files {
		if name == "-" {
			if err := do(e.stdin); err != nil {
				code = e.fail(1, "%v", err)
			}
			continue
		}
		f, err := os.Open(name)
		if err == nil {
			err = do(f)
			f.Close()
		}
		if err != nil {
			code = e.fail(1, "%v", err)
		}
	}
	return code
}

func cutLine(line string, mode byte, delim string, only bool, list []span) (string, bool) {
	if mode != 'f' {
		var b strings.Builder
		n := 0
		for _, r := range line {
			if n++; picked(list, n) {
				b.WriteRune(r)
			}
		}
		return b.String(), true
	}
	if !strings.Contains(line, delim) {
		return line, !only
	}
	var out []string
	n := 0
	for f := range strings.SplitSeq(line, delim) {
		if n++; picked(list, n) {
			out = append(out, f)
		}
	}
	return strings.Join(out, delim), true
}
