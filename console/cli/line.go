package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxLine bounds one command line, in bytes.
const MaxLine = 4096

// statement is one command with its filters: "show log vrrp | match master".
type statement struct {
	words   []string
	filters [][]string
}

var errQuote = errors.New("a quote is not closed")

// parse splits a line into statements at ";", each into words and filters at
// "|". Quotes "…" keep blanks, ";" and "|" together; a backslash inside them
// takes the next character as it is. "#" or "!" at the start makes a comment.
func parse(line string) ([]statement, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("the command has %d characters; at most %d are possible", len(line), MaxLine)
	}
	if t := strings.TrimSpace(line); strings.HasPrefix(t, "#") || strings.HasPrefix(t, "!") {
		return nil, nil
	}
	var out []statement
	segments := [][]string{nil}
	var word strings.Builder
	inWord, quoted := false, false
	endWord := func() {
		if inWord {
			last := len(segments) - 1
			segments[last] = append(segments[last], word.String())
		}
		word.Reset()
		inWord = false
	}
	endStatement := func() {
		endWord()
		if len(segments) > 1 || len(segments[0]) > 0 {
			out = append(out, statement{segments[0], segments[1:]})
		}
		segments = [][]string{nil}
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted && c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == '"':
			quoted, inWord = !quoted, true
		case quoted:
			word.WriteByte(c)
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			endWord()
		case c == ';':
			endStatement()
		case c == '|':
			endWord()
			segments = append(segments, nil)
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quoted {
		return nil, errQuote
	}
	endStatement()
	return out, nil
}

// filterNames are the filters that may follow "|".
var filterNames = []string{"count", "except", "json", "last", "match"}

// apply runs one filter over text.
func apply(filter []string, text string) (string, error) {
	if len(filter) == 0 {
		return "", usagef("after | comes one of: %s", strings.Join(filterNames, ", "))
	}
	name, err := pick(filter[0], filterNames)
	if err != nil {
		return "", usagef("| %s: %v", printable(filter[0]), err)
	}
	lines := strings.SplitAfter(text, "\n")
	if n := len(lines); n > 0 && lines[n-1] == "" {
		lines = lines[:n-1]
	}
	arg := strings.Join(filter[1:], " ")
	switch name {
	case "count":
		return strconv.Itoa(len(lines)) + "\n", nil
	case "match", "except":
		if arg == "" {
			return "", usagef("| %s wants a text, for example: | %s eth0", name, name)
		}
		arg = strings.ToLower(arg)
		var b strings.Builder
		for _, l := range lines {
			if strings.Contains(strings.ToLower(l), arg) == (name == "match") {
				b.WriteString(l)
			}
		}
		return b.String(), nil
	case "last":
		n, err := strconv.Atoi(arg)
		if err != nil || n < 1 {
			return "", usagef("| last wants a number of lines, for example: | last 20")
		}
		return strings.Join(lines[max(0, len(lines)-n):], ""), nil
	}
	return text, nil // json: the command saw to it
}

// pick finds the one name that word abbreviates.
func pick(word string, names []string) (string, error) {
	var found []string
	for _, n := range names {
		if n == word {
			return n, nil
		}
		if word != "" && strings.HasPrefix(n, word) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("possible is: %s", strings.Join(names, ", "))
	}
	return "", fmt.Errorf("could be any of: %s", strings.Join(found, ", "))
}

// printable makes what a user typed safe to show and to log.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

// usageError makes a command end with status 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }
