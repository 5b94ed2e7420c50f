// Package crash finds out how the box came to start, and keeps what is left of a
// crash: the kernel's last words, which pstore carries over a reset
// (Documentation/ABI/testing/pstore), the words of PID 1 if it was that which
// ended, and the last lines of the journal. Records are bounded in number and size.
package crash

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/services/ipc/status"
)

// dump is one record of pstore.
type dump struct {
	file   string
	at     time.Time
	reason string // "Panic", "Oops"; or what the file is called: "console"
	count  int    // of the dumps of one run of the kernel
	part   int    // 1 is the last one of a text
	text   string
}

// maxDump bounds what is read of one record, and maxDumps how many there may be.
const (
	maxDump  = 1 << 20
	maxDumps = 512
)

// together is how long one crash may take to write its records: an oops, the
// panic that follows, and each of its parts, which an EFI firmware is slow to take.
const together = 2 * time.Minute

// readDumps reads a mounted pstore.
func readDumps(dir string) (out []dump, err error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("pstore: %w", err)
	}
	var errs []error
	for _, e := range list[:min(len(list), maxDumps)] {
		path := filepath.Join(dir, e.Name())
		st, err := os.Stat(path)
		if err == nil && !st.Mode().IsRegular() {
			continue
		}
		var b []byte
		if err == nil {
			b, err = readTail(path, maxDump)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("pstore: %w", err))
			continue
		}
		d := parseDump(e.Name(), string(b))
		d.file, d.at = path, st.ModTime()
		out = append(out, d)
	}
	return out, errors.Join(errs...)
}

// parseDump reads the name of a record ("dmesg-ramoops-0") and its first line
// ("Panic#2 Part1").
func parseDump(name, text string) dump {
	kind, _, _ := strings.Cut(name, "-")
	d := dump{reason: kind, part: 1, text: text}
	if strings.HasSuffix(name, ".enc.z") {
		d.text = "(the kernel could not decompress this record)\n"
		return d
	}
	head, rest, ok := strings.Cut(text, "\n")
	why, numbers, ok2 := strings.Cut(head, "#")
	n, p, ok3 := strings.Cut(numbers, " Part")
	count, err := strconv.Atoi(n)
	part, err2 := strconv.Atoi(p)
	if ok && ok2 && ok3 && err == nil && err2 == nil && count > 0 && part > 0 && why != "" && len(why) < 20 {
		d.reason, d.count, d.part, d.text = why, count, part, rest
	}
	return d
}

// found is what one crash left in pstore.
type found struct {
	at    time.Time
	files []string
	parts []status.CrashPart
}

// group puts the records of each crash together, oldest crash first.
func group(dumps []dump) (out []found) {
	slices.SortStableFunc(dumps, func(a, b dump) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.count, b.count), cmp.Compare(b.part, a.part))
	})
	type key struct {
		reason      string
		count, part int
	}
	for len(dumps) > 0 {
		n, seen := 0, map[key]bool{}
		for n < len(dumps) && dumps[n].at.Sub(dumps[0].at) < together {
			k := key{dumps[n].reason, dumps[n].count, dumps[n].part}
			if k.count > 0 && seen[k] { // two runs of the kernel, one soon after the other
				break
			}
			seen[k] = true
			n++
		}
		out = append(out, join(dumps[:n]))
		dumps = dumps[n:]
	}
	return out
}

// join puts the parts of each dump of one crash in order.
func join(dumps []dump) found {
	f := found{at: dumps[0].at}
	byName := map[string][]dump{}
	var names []string
	for _, d := range dumps {
		f.files = append(f.files, d.file)
		name := strings.ToLower(d.reason)
		if d.count > 0 {
			name = fmt.Sprintf("%s %d", name, d.count)
		}
		if byName[name] == nil {
			names = append(names, name)
		}
		byName[name] = append(byName[name], d)
	}
	for _, name := range names {
		list := byName[name]
		slices.SortStableFunc(list, func(a, b dump) int { return cmp.Compare(b.part, a.part) })
		var text strings.Builder
		for _, d := range list {
			text.WriteString(d.text)
			if !strings.HasSuffix(d.text, "\n") {
				text.WriteByte('\n')
			}
		}
		f.parts = append(f.parts, status.CrashPart{Name: "kernel, " + name, Text: text.String()})
	}
	return f
}

// Kinds of crashes.
const (
	Panic    = "panic"
	Oops     = "oops"
	Watchdog = "watchdog"
	Init     = "init" // PID 1 ended, and the kernel with it
)

// Summary tells the kind of a crash, and in one line what happened.
func Summary(parts []status.CrashPart) (kind, line string) {
	var fed, program string
	for _, p := range parts {
		for text := range strings.Lines(p.Text) {
			text = message(text)
			if _, why, ok := strings.Cut(text, "ballast: the watchdog is not fed any more"); ok {
				_, fed, _ = strings.Cut(why, ": ")
			}
			if program == "" && (strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ") || strings.HasPrefix(text, "SIG")) {
				program = text
			}
			_, why, ok := strings.Cut(text, "Kernel panic - not syncing: ")
			switch {
			case ok:
				kind, line = Panic, why
			case kind == "" && (strings.HasPrefix(text, "BUG: ") || strings.HasPrefix(text, "Oops: ") || strings.Contains(text, "general protection fault")):
				kind, line = Oops, text
			}
		}
	}
	switch {
	case program != "": // whatever ended it then: it may take long to say all that it says
		return Init, program
	case strings.Contains(line, "watchdog pretimeout"), strings.Contains(line, "Software Watchdog Timer expired"):
		return Watchdog, cmp.Or(fed, "PID 1 did not feed it any more")
	case strings.Contains(line, "Attempted to kill init"):
		return Init, line
	case kind == "" && len(parts) > 0:
		return Panic, "no line of it tells why"
	}
	return kind, line
}

// message is a line of a dump without priority and time: "<4>[   12.345678] text",
// where a caller may stand between.
func message(s string) string {
	s = strings.TrimRight(s, "\r\n")
	if len(s) > 3 && s[0] == '<' {
		if i := strings.IndexByte(s, '>'); i > 0 && i < 5 {
			s = s[i+1:]
		}
	}
	for strings.HasPrefix(s, "[") {
		i := strings.Index(s, "] ")
		if i < 0 || i > 24 {
			break
		}
		s = s[i+2:]
	}
	return s
}

// readTail reads the last max bytes of a file.
func readTail(path string, max int) ([]byte, error) {
	b, err := os.ReadFile(path) // pstore's files have no other way, and end
	if err != nil {
		return nil, err
	}
	return b[len(b)-min(len(b), max):], nil
}
