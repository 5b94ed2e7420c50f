package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/configs/edit"
	"ballast/configs/schema"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

// Completion is one way to go on with a line.
type Completion struct {
	Text string // the whole word, as it is typed
	Help string // what it is; empty for values
	// Placeholder: Text stands for what can be typed here, and is no word itself.
	Placeholder bool
}

// enter stands for the end of the line.
func enter() Completion {
	return Completion{Text: "<Enter>", Help: "run this command", Placeholder: true}
}

// typed is the end of a command line as far as it was typed.
type typed struct {
	words  []string // of the last command or filter, whole ones
	last   string   // the word that is being typed
	start  int      // where that begins in the line
	open   bool     // it begins with a quote that is not closed
	filter bool     // words are of a filter
}

// tail splits what was typed as parse would.
func tail(line string) typed {
	t := typed{start: len(line)}
	var word strings.Builder
	inWord := false
	end := func(at int) {
		if inWord {
			t.words = append(t.words, word.String())
		}
		word.Reset()
		inWord, t.start = false, at
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		if !inWord {
			t.start = i
		}
		switch {
		case t.open && c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == '"':
			t.open, inWord = !t.open, true
		case t.open:
			word.WriteByte(c)
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			end(i + 1)
		case c == ';' || c == '|':
			end(i + 1)
			t.words, t.filter = nil, c == '|'
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	t.last = word.String()
	return t
}

// Complete lists how the last word of line can go on. start is where that word
// begins in line.
func (s *Session) Complete(ctx context.Context, line string) (start int, list []Completion) {
	t := tail(line)
	if t.filter {
		list = completeFilter(t)
	} else {
		list = s.completeIn(ctx, s.commands(), t.words, t.last)
	}
	list = slices.DeleteFunc(list, func(c Completion) bool { return !c.Placeholder && !strings.HasPrefix(c.Text, t.last) })
	for i := range list {
		if c := &list[i]; !c.Placeholder {
			if c.Text = quoted(c.Text); t.open && c.Text[0] != '"' {
				c.Text = `"` + c.Text + `"`
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Completion) int {
		if a.Placeholder != b.Placeholder {
			if a.Placeholder {
				return 1
			}
			return -1
		}
		if a.Placeholder {
			return 0
		}
		x, errX := strconv.ParseUint(a.Text, 10, 64)
		y, errY := strconv.ParseUint(b.Text, 10, 64)
		if errX == nil && errY == nil { // generations: the newest first
			return cmp.Compare(y, x)
		}
		return strings.Compare(a.Text, b.Text)
	})
	return t.start, slices.Compact(list)
}

var filterHelp = map[string]string{
	"compare": "difference from what runs", "count": "how many lines", "display": "another form: set, json", "except": "lines without a text",
	"json": "the whole state", "last": "the last lines", "match": "lines with a text", "no-more": "all at once",
}

func completeFilter(t typed) (list []Completion) {
	if len(t.words) == 0 {
		for _, n := range filterNames {
			list = append(list, Completion{Text: n, Help: filterHelp[n]})
		}
		return list
	}
	name, _ := filterName(t.words)
	switch {
	case len(t.words) > 1 || t.last == "" && name == "":
	case name == "display":
		for _, f := range displayForms {
			list = append(list, Completion{Text: f})
		}
	case name == "match" || name == "except":
		list = append(list, Completion{Text: "<TEXT>", Help: "in upper or lower case", Placeholder: true})
	case name == "last":
		list = append(list, Completion{Text: "<N>", Help: "lines", Placeholder: true})
	}
	return list
}

// completeIn lists how a command of a table goes on after words.
func (s *Session) completeIn(ctx context.Context, table []*command, words []string, last string) (list []Completion) {
	left := slices.DeleteFunc(slices.Clone(table), func(c *command) bool { return c.role > s.Role })
	words = unaliased(words)
	for i := 0; i <= len(words); i++ {
		if i == len(words) {
			list = fixedCompletions(left, i, last)
			break
		}
		name, err := pick(words[i], wordsAt(left, i))
		if err != nil {
			left = slices.DeleteFunc(left, func(c *command) bool { return len(c.words) > i })
			break
		}
		left = slices.DeleteFunc(left, func(c *command) bool { return len(c.words) <= i || c.words[i] != name })
	}
	for _, c := range left {
		if len(c.words) > len(words) || len(c.words) == 0 {
			continue
		}
		args := words[len(c.words):]
		switch {
		case c.next != nil:
			list = append(list, c.next(ctx, &call{s: s}, args, last)...)
			continue
		case c.values != nil:
			for _, v := range c.values(ctx, &call{s: s}, len(args)) {
				list = append(list, Completion{Text: v})
			}
		}
		list = append(list, placeholders(c, len(args), last)...)
	}
	return list
}

// placeholders tells from the usage of a command what its argument at position
// n is, and whether the command may end before it.
func placeholders(c *command, n int, last string) (list []Completion) {
	groups := argGroups(c.args)
	if n < len(groups) {
		g := strings.TrimPrefix(groups[n], "[")
		if name := strings.TrimRight(g, "] "); name != "" && name[0] >= 'A' && name[0] <= 'Z' {
			list = append(list, Completion{Text: "<" + name + ">", Help: c.usage(), Placeholder: true})
		}
	}
	if last != "" || n > len(groups) {
		return list
	}
	for _, g := range groups[min(n, len(groups)):] {
		if !strings.HasPrefix(g, "[") {
			return list
		}
	}
	return append(list, enter())
}

// argGroups splits "SERVER [of VIRTUAL]" into its arguments, what is in brackets
// as one.
func argGroups(args string) (groups []string) {
	depth, start := 0, 0
	for i := 0; i <= len(args); i++ {
		switch {
		case i == len(args) || depth == 0 && args[i] == ' ':
			if i > start {
				groups = append(groups, args[start:i])
			}
			start = i + 1
		case args[i] == '[':
			depth++
		case args[i] == ']':
			depth--
		}
	}
	return groups
}

func fixedCompletions(left []*command, i int, prefix string) (list []Completion) {
	for _, name := range wordsAt(left, i) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		text, more := "", 0
		for _, c := range left {
			if len(c.words) > i && c.words[i] == name {
				more++
				if text == "" || len(c.words) == i+1 {
					text = c.help
				}
			}
		}
		if more > 1 && i == 0 {
			text = name + " …"
		}
		list = append(list, Completion{Text: name, Help: text})
	}
	return list
}

// What comes next in configure mode.

// inTree lists the words of the configuration that can follow.
func inTree(ctx context.Context, c *call, words []string, last string) (list []Completion) {
	s := c.s
	if s.candidate == nil || !s.candidate.full {
		return nil
	}
	var at edit.Path
	if s.editing != nil {
		at = s.editing.at
	}
	words, err := c.expand(words)
	if err != nil {
		return nil
	}
	for _, e := range edit.Complete(s.candidate.tree(), at, words, last, func(kind string) []string { return c.live(ctx, kind) }) {
		if e.Text == "<ENTER>" {
			e.Text = enter().Text
		}
		list = append(list, Completion{Text: e.Text, Help: e.Help, Placeholder: e.Placeholder})
	}
	return list
}

func nextSet(ctx context.Context, c *call, args []string, last string) []Completion {
	list := inTree(ctx, c, args, last)
	if len(list) == 0 && last == "" && len(args) > 1 {
		list = append(list, enter())
	}
	return list
}

// nextEdit lists blocks only.
func nextEdit(ctx context.Context, c *call, args []string, last string) []Completion {
	list := inTree(ctx, c, args, last)
	_, block, whole, err := c.follow(args)
	if err != nil || !whole {
		return list
	}
	list = slices.DeleteFunc(list, func(one Completion) bool {
		name, _ := numbered(one.Text)
		k := schema.Lookup(block, name)
		return k == nil || k.Opens == ""
	})
	if len(args) > 0 && last == "" {
		list = append(list, enter())
	}
	return list
}

// nextPath lists what is there already.
func nextPath(ctx context.Context, c *call, args []string, last string) []Completion {
	list := inTree(ctx, c, args, last)
	list = slices.DeleteFunc(list, func(one Completion) bool { return one.Placeholder })
	words, _, whole, err := c.follow(args)
	if err != nil {
		return nil
	}
	if whole {
		have := c.there(words)
		list = slices.DeleteFunc(list, func(one Completion) bool {
			name, _ := numbered(one.Text)
			return have != nil && !have[name] && !have[one.Text]
		})
	}
	if last == "" && len(args) > 0 {
		list = append(list, enter())
	}
	return list
}

// there are the first words of what stands in a block; nil: it is not there.
func (c *call) there(words []string) map[string]bool {
	s := c.s
	if s.candidate == nil || s.editing == nil {
		return nil
	}
	d := s.candidate.tree()
	in, err := d.Enter(s.editing.at, words, false)
	if err != nil {
		return nil
	}
	have := map[string]bool{}
	for _, one := range statements(d, in) {
		if len(one.words) > 0 {
			have[one.words[0]] = true
		}
	}
	return have
}

// nextTo is for "BLOCK to NAME".
func nextTo(ctx context.Context, c *call, args []string, last string) []Completion {
	if slices.Contains(args, "to") {
		return []Completion{{Text: "<NAME>", Help: "the new name", Placeholder: true}}
	}
	list := nextPath(ctx, c, args, last)
	if len(args) > 0 {
		list = slices.DeleteFunc(list, func(one Completion) bool { return one == enter() })
		list = append(list, Completion{Text: "to", Help: "the new name follows"})
	}
	return list
}

// nextPlace is for "PATH before PATH".
func nextPlace(ctx context.Context, c *call, args []string, last string) []Completion {
	if i := slices.IndexFunc(args, func(w string) bool { return w == "before" || w == "after" }); i >= 0 {
		return nextPath(ctx, c, args[i+1:], last)
	}
	list := slices.DeleteFunc(nextPath(ctx, c, args, last), func(one Completion) bool { return one == enter() })
	if len(args) > 0 {
		list = append(list, Completion{Text: "before", Help: "in front of what follows"}, Completion{Text: "after", Help: "behind what follows"})
	}
	return list
}

func nextShow(ctx context.Context, c *call, args []string, last string) []Completion {
	list := append(nextPath(ctx, c, args, last), Completion{Text: "secrets", Help: "with passwords and keys"})
	if last == "" && len(args) == 0 {
		list = append(list, enter())
	}
	return list
}

func nextTop(ctx context.Context, c *call, args []string, last string) []Completion {
	s := c.s
	if s.editing == nil {
		return nil
	}
	at := s.editing.at
	s.editing.at = nil
	defer func() { s.editing.at = at }()
	return s.completeIn(ctx, configureCommands, args, last)
}

func nextRun(ctx context.Context, c *call, args []string, last string) []Completion {
	list := slices.DeleteFunc(slices.Clone(commands), func(c *command) bool { return slices.Contains(notInside, c.name()) })
	return c.s.completeIn(ctx, list, args, last)
}

// nextCommit lists the words of commit that are not there yet.
func nextCommit(_ context.Context, _ *call, args []string, last string) (list []Completion) {
	for i, a := range args {
		word, err := pick(a, commitWords)
		behind := i == len(args)-1
		switch {
		case err != nil:
		case word == "comment":
			return []Completion{{Text: "<TEXT>", Help: "for the history", Placeholder: true}}
		case word == "confirmed" && behind:
			list = append(list, Completion{Text: "<MINUTES>", Help: fmt.Sprintf("1…%d; default %d", status.MaxConfirm/time.Minute, status.DefaultConfirm/time.Minute), Placeholder: true})
		}
	}
	for _, w := range commitWords {
		if !slices.Contains(args, w) {
			list = append(list, Completion{Text: w, Help: commitHelp[w]})
		}
	}
	if last == "" {
		list = append(list, enter())
	}
	return list
}

var commitHelp = map[string]string{
	"and-quit": "leave configure mode then", "check": "check only", "comment": "a text for the history",
	"local": "on this box of a pair only", "confirmed": "go back unless \"confirm\" comes in time", "force": "without a service that does not run",
	"override": "replace all of the configuration, the appliance's blocks too",
}

// nextLoad lists the ways of load.
func nextLoad(_ context.Context, _ *call, args []string, last string) (list []Completion) {
	for _, w := range append(slices.Clone(loadWays), "terminal") {
		if w == "terminal" || len(args) == 0 {
			list = append(list, Completion{Text: w, Help: loadHelp[w]})
		}
	}
	if last == "" {
		list = append(list, enter())
	}
	return list
}

var loadHelp = map[string]string{
	"merge": "statement by statement into what is there", "override": "instead of all that is there",
	"replace": "instead of what is there, but for blocks of the appliance that it has none of",
	"set":     "set, delete and annotate commands, one a line", "terminal": "what is typed or sent, as always",
}

// nextGeneration lists the generations with who made them.
func nextGeneration(ctx context.Context, c *call, args []string, last string) (list []Completion) {
	if len(args) > 1 {
		return nil
	}
	gens, err := c.history(ctx)
	if err != nil {
		return nil
	}
	for _, g := range gens[:min(len(gens), 20)] {
		help := fmt.Sprintf("%s ago, %s by %s", show.Age(g.Time, c.s.now()), g.Source, unknownIfEmpty(g.Author))
		if g.Comment != "" {
			help += ": " + shown(g.Comment)
		}
		if g.Running {
			help = "runs, " + help
		}
		list = append(list, Completion{Text: fmt.Sprint(g.Generation), Help: help})
	}
	if last == "" {
		list = append(list, enter())
	}
	return list
}

// live lists names that exist on this box at the moment.
func (c *call) live(ctx context.Context, kind string) []string {
	switch kind {
	case "interface":
		var st status.Net
		if c.state(ctx, "net", &st) != nil {
			return nil
		}
		var names []string
		for _, l := range st.Links {
			names = append(names, l.Name)
		}
		return names
	case "instance":
		return instances(ctx, c, 0)
	case "file":
		return files(ctx, c, 0)
	}
	return nil
}
