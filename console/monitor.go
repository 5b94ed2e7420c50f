package console

import (
	"context"
	"errors"
	"strings"

	"ballast/console/cli"
	"ballast/console/monitor"
)

// monitor shows the full-screen view on the session's terminal. kind is the
// TERM that the user names, where the client told none.
func (t *terminal) monitor(ctx context.Context, kind string, mono, ascii bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := kind == ""
	if told {
		kind = t.display.term
	}
	if kind == "" {
		return errors.New("nothing is known of this terminal: name it, for example \"monitor vt100\"; \"monitor --once\" shows one picture, \"show status\" the box on one page")
	}
	noColours, plain := monitor.Look(kind, t.getenv)
	if !told && t.display.term == "" {
		plain = true // a serial line: nobody says that it shows more
	}
	columns, rows, _ := t.display.size()
	sizes := make(chan [2]int)
	go func() {
		for {
			select {
			case <-t.display.resized:
				columns, rows, _ := t.display.size()
				select {
				case sizes <- [2]int{columns, rows}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	keys := monitor.NewKeys(t.keys)
	defer keys.Stop()
	t.idle.Reset(t.console.idleTime()) // keys put it off, as at the prompt
	return t.keyboard(func() error {
		return monitor.Run(ctx, monitor.Screen{In: keys, Out: t.out, Width: columns, Height: rows, Resized: sizes, Term: kind}, monitor.Options{
			Source: &monitor.Box{Services: &current{t, cancel}}, Act: t.act, Host: t.console.hostName(),
			Mono: mono || noColours, ASCII: ascii || plain,
		})
	})
}

// act does one command as if the user had typed it: by the role of now, and
// audited.
func (t *terminal) act(ctx context.Context, words ...string) (string, error) {
	s := t.session()
	s.Ask, s.Data = nil, nil
	if s.Role = t.fixed; s.Role == cli.None {
		s.Role = t.console.role(t.user)
	}
	if s.Role == cli.None {
		return "", errGone
	}
	s.Services = t.console.services[s.Role]
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
	}
	r := s.Run(ctx, strings.Join(quoted, " "))
	if r.Code != cli.OK {
		return "", errors.New(strings.TrimSpace(r.Err))
	}
	return r.Out, nil
}

var errGone = errors.New("this user is no longer in the configuration")

// current are the services as the user may see them now; for one who is gone
// the view ends.
type current struct {
	t   *terminal
	end context.CancelFunc
}

func (c *current) services() (*cli.IPC, error) {
	role := c.t.fixed
	if role == cli.None {
		role = c.t.console.role(c.t.user)
	}
	if role == cli.None {
		c.end()
		return nil, errGone
	}
	return c.t.console.services[role], nil
}

// State implements monitor.Services.
func (c *current) State(ctx context.Context, service string, v any) error {
	s, err := c.services()
	if err != nil {
		return err
	}
	return s.State(ctx, service, v)
}

// Call implements monitor.Services.
func (c *current) Call(ctx context.Context, service, verb string, in, out any) error {
	s, err := c.services()
	if err != nil {
		return err
	}
	return s.Call(ctx, service, verb, in, out)
}
