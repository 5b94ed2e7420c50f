package cli

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// NoMore tells whether a line asks that what it shows does not wait for a key:
// a filter "| no-more".
func NoMore(line string) bool {
	statements, err := parse(line)
	return err == nil && slices.ContainsFunc(statements, func(st statement) bool {
		return slices.ContainsFunc(st.filters, func(f []string) bool {
			name, err := pick(strings.Join(f, " "), filterNames)
			return err == nil && name == "no-more"
		})
	})
}

// terminalSize makes the commands that set the size of the screen.
func terminalSize(what string) func(context.Context, *call) (string, error) {
	usage := "terminal length ROWS, 0…1000; 0 never waits for a key"
	if what == "width" {
		usage = "terminal width COLUMNS, 20…1000; 0 is what the terminal tells"
	}
	return func(_ context.Context, c *call) (string, error) {
		if len(c.args) != 1 {
			return "", usagef("%s", usage)
		}
		n, err := strconv.Atoi(c.args[0])
		if err != nil || n < 0 || n > 1000 || what == "width" && n > 0 && n < 20 {
			return "", usagef("%q does not fit: %s", shown(c.args[0]), usage)
		}
		if c.s.Terminal == nil {
			return "", errors.New("this session has no terminal: nothing in it waits for a key")
		}
		c.s.Terminal(what, n)
		return "", nil
	}
}
