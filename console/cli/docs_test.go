package cli

import (
	"os"
	"strings"
	"testing"
)

// The manual's table of commands has each one of ours. What shares its first
// words with the one before it is written there without them: "`show ipvs` ·
// `stats`".
func TestManualHasEveryCommand(t *testing.T) {
	b, err := os.ReadFile("../../docs/console.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(b), "\n## Commands\n")
	if !ok {
		t.Fatal("docs/console.md has no table of commands")
	}
	table, _, _ = strings.Cut(table, "\n\nWords may")
	for _, c := range commands {
		if c.name() == "quit" { // another word for exit
			continue
		}
		named := false
		for line := range strings.SplitSeq(table, "\n") {
			cells := strings.Split(line, "|")
			if len(cells) < 3 {
				continue
			}
			first := ""
			for i, one := range strings.Split(cells[1], "`") {
				if i%2 == 0 {
					continue
				}
				w := strings.Fields(one)
				if first == "" {
					first = w[0]
				}
				full := strings.Join(w, " ") + " "
				last := c.words[len(c.words)-1] + " "
				named = named || strings.HasPrefix(full, c.name()+" ") || c.words[0] == first && strings.HasPrefix(full, last)
			}
		}
		if !named {
			t.Errorf("docs/console.md does not name %q", c.name())
		}
	}
}

// So has the section about configure mode, by their first words.
func TestManualHasEveryConfigureCommand(t *testing.T) {
	b, err := os.ReadFile("../../docs/console.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## Configure mode\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, c := range configureCommands {
		if !strings.Contains(section, "`"+c.words[0]+"`") && !strings.Contains(section, "`"+c.words[0]+" ") {
			t.Errorf("docs/console.md does not name %q under Configure mode", c.name())
		}
	}
}
