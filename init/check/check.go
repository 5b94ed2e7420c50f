// Package check is the command "ballast check": it validates a configuration
// file on any Linux machine, with the parser and the checks of the appliance.
package check

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"ballast/configs"
	"ballast/configs/bind"
	"ballast/configs/model"
	"ballast/configs/report"
)

// Exit codes.
const (
	Clean  = 0 // nothing to say
	Notes  = 1 // notes or warnings; the configuration can run
	Cannot = 2 // errors, or the file cannot be read
)

// maxText bounds the file, in bytes.
const maxText = 16 << 20

const usage = `usage: ballast check [--report] [--json] [-i ID] FILE

Checks a configuration: keepalived.conf, with or without the appliance's own
blocks. FILE may be - for standard input, or a folder: its *.conf files are read
as one configuration, in the order of their names.

  --report, -v
           print line by line what becomes of it: works, mapped (read in
           another way), no effect here and why, not implemented, not understood
  -i ID    check as the box ID: lines that start with @ID count, those with
           @^ID do not (default: this machine's host name up to the first dot)
  --json   report as JSON

Exit status: 0 nothing to say, 1 notes or warnings, 2 errors.
`

// options of the command line.
type options struct {
	json   bool
	report bool
	id     string
	file   string
}

// Main runs the command with the words behind "check" and gives the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if errors.Is(err, errHelp) {
		io.WriteString(stdout, usage)
		return Clean
	}
	if err != nil {
		fmt.Fprintf(stderr, "ballast check: %v\n%s", err, usage)
		return Cannot
	}
	name, text, err := read(o.file, stdin)
	if err != nil {
		fmt.Fprintf(stderr, "ballast check: %v\n", err)
		return Cannot
	}
	r := configs.Inspect(name, text, configs.Options{ConfigID: o.id, Open: open})
	s := summarise(r)
	if o.report {
		s.Outcomes = report.Lines(r)
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(s)
	} else {
		err = s.print(stdout, o.report)
	}
	if err != nil {
		fmt.Fprintf(stderr, "ballast check: %v\n", err)
		return Cannot
	}
	return s.exit()
}

var errHelp = errors.New("help")

func parse(args []string) (options, error) {
	var o options
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-h" || a == "--help" || a == "-help":
			return o, errHelp
		case a == "--json" || a == "-json":
			o.json = true
		case a == "--report" || a == "-report" || a == "-v":
			o.report = true
		case a == "-i" || a == "--config-id":
			if i++; i == len(args) || args[i] == "" {
				return o, errors.New("-i needs the name of a box")
			}
			o.id = args[i]
		case len(a) > 1 && a[0] == '-':
			return o, fmt.Errorf("unknown option %s", a)
		case o.file != "":
			return o, errors.New("one file at a time")
		default:
			o.file = a
		}
	}
	if o.file == "" {
		return o, errors.New("no file is named")
	}
	if o.id == "" {
		host, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("the host name is not known, use -i: %w", err)
		}
		o.id, _, _ = strings.Cut(host, ".")
	}
	return o, nil
}

// open opens an included file. A named pipe must not make us wait.
func open(path string) (fs.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func read(file string, stdin io.Reader) (name string, text []byte, err error) {
	name, in := file, stdin
	if file == "-" {
		name = "<stdin>"
	} else {
		f, err := open(file)
		if err != nil {
			return "", nil, err
		}
		defer f.Close()
		if st, err := f.Stat(); err != nil {
			return "", nil, err
		} else if st.IsDir() {
			// It is read as a text that includes its files would be.
			return filepath.Join(file, "*.conf"), []byte("includea *.conf\n"), nil
		}
		in = f
	}
	text, err = io.ReadAll(io.LimitReader(in, maxText+1))
	if err == nil && len(text) > maxText {
		err = fmt.Errorf("%s is larger than %d MB, too large for a configuration", name, maxText>>20)
	}
	return name, text, err
}

// Line is one kind of line in the import report.
type Line struct {
	Word   string `json:"word"`
	Count  int    `json:"count"`
	First  int    `json:"first_line"`
	What   string `json:"what"`
	Reason string `json:"reason,omitempty"`
}

// Summary is the report as JSON.
type Summary struct {
	File     string          `json:"file"`
	Problems []model.Problem `json:"problems"`
	Errors   int             `json:"errors"`
	Warnings int             `json:"warnings"`
	Notes    int             `json:"notes"`
	Lines    map[string]int  `json:"lines"` // by what became of them
	Import   []Line          `json:"import,omitempty"`
	Outcomes []model.Outcome `json:"report,omitempty"` // of each line, with --report
	Verdict  string          `json:"verdict"`
}

func summarise(r configs.Report) *Summary {
	s := &Summary{File: r.Files[0], Problems: r.Problems, Lines: map[string]int{}}
	if s.Problems == nil {
		s.Problems = []model.Problem{}
	}
	for _, p := range r.Problems {
		switch p.Severity {
		case model.Error:
			s.Errors++
		case model.Warning:
			s.Warnings++
		default:
			s.Notes++
		}
	}
	lines := map[string]*Line{}
	for _, u := range r.Uses {
		s.Lines[u.What.String()]++
		if u.What == bind.Works {
			continue
		}
		key := u.What.String() + "\x00" + u.Word + "\x00" + u.Reason
		if lines[key] == nil {
			lines[key] = &Line{Word: u.Word, What: u.What.String(), Reason: u.Reason, First: u.Pos.Line}
		}
		lines[key].Count++
	}
	for _, l := range slices.SortedFunc(maps.Values(lines), func(a, b *Line) int {
		return cmp.Or(cmp.Compare(a.What, b.What), cmp.Compare(a.First, b.First), cmp.Compare(a.Word, b.Word), cmp.Compare(a.Reason, b.Reason))
	}) {
		s.Import = append(s.Import, *l)
	}
	s.Verdict = report.Verdict(r.Problems)
	return s
}

func (s *Summary) exit() int {
	switch {
	case s.Errors > 0:
		return Cannot
	case len(s.Problems) > 0:
		return Notes
	}
	return Clean
}

// maxImport bounds the report of lines for people; JSON has them all.
const maxImport = 40

func (s *Summary) print(w io.Writer, lines bool) error {
	var b strings.Builder
	problems := s.Problems
	if lines {
		if err := report.Write(&b, s.Outcomes); err != nil {
			return err
		}
		problems = report.Elsewhere(s.Problems, s.Outcomes)
		if len(problems) > 0 && len(s.Outcomes) > 0 {
			b.WriteByte('\n')
		}
	}
	for _, p := range problems {
		b.WriteString(p.String())
		b.WriteByte('\n')
	}
	total := 0
	var parts []string
	for _, d := range []bind.Disposition{bind.Works, bind.Mapped, bind.NoEffect, bind.Planned, bind.Unknown} {
		if n := s.Lines[d.String()]; n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, d))
		}
	}
	if total == 0 {
		parts = []string{"the configuration is empty"}
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s: %s: %s\n", s.File, report.Count(total, "statement"), strings.Join(parts, ", "))
	for i, l := range s.Import {
		if lines {
			break // each is told of above
		}
		if i == maxImport {
			fmt.Fprintf(&b, "  and %d more\n", len(s.Import)-i)
			break
		}
		times := ""
		if l.Count > 1 {
			times = fmt.Sprintf(" (%d times)", l.Count)
		}
		reason := ""
		if l.Reason != "" {
			reason = ": " + l.Reason
		}
		word := l.Word
		if len(word) > 40 {
			word = fmt.Sprintf("%.40q…", word)
		} else if strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r == 0xfffd || r == 0x7f }) {
			word = fmt.Sprintf("%q", word)
		}
		fmt.Fprintf(&b, "  %-16s line %d: %s%s%s\n", l.What, l.First, word, times, reason)
	}
	fmt.Fprintf(&b, "%s: %s\n", s.File, s.Verdict)
	_, err := io.WriteString(w, b.String())
	return err
}
