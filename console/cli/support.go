package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ballast/console/support"
)

// left are the pages that are not in a support bundle: it has the same in full,
// or they are about clients.
var left = []string{"show log", "show audit", "show journal", "show configuration", "show history", "show ipvs connections"}

// supportBundle sends one archive of everything that a question about this box
// may need.
func supportBundle(ctx context.Context, c *call) (string, error) {
	st := c.streams()
	if st.Out == nil {
		return "", fmt.Errorf("a bundle goes to a file on your machine: ssh %s@BOX support bundle > bundle.tar.gz", shown(c.s.User))
	}
	services, ok := c.s.Services.(support.Services)
	if !ok {
		return "", errors.New("verbs that stream cannot be reached from here")
	}
	if len(c.args) > 0 {
		return "", usagef("support bundle takes no words")
	}
	o := support.Options{Services: services, Host: c.s.host(), By: c.s.author(), Now: c.s.now}
	for _, cmd := range commands {
		if cmd.words[0] != "show" || slices.Contains(left, cmd.name()) {
			continue
		}
		o.Pages = append(o.Pages, support.Page{Name: strings.Join(cmd.words[1:], "-"), Text: func(ctx context.Context) (string, error) {
			return cmd.run(ctx, &call{s: c.s})
		}})
	}
	missing, err := support.Write(ctx, st.Out, o)
	if err != nil {
		return "", err
	}
	for _, m := range missing {
		st.Note("not in it: " + m + "\n")
	}
	return "", nil
}
