package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/configs/first"
	"ballast/console/cli"
	"ballast/console/line"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

// blank reports whether this box has no configuration yet.
func (c *console) blank() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conf.Source == "factory" && !slices.ContainsFunc(c.conf.Problems, func(p status.Problem) bool { return p.Severity == "error" })
}

// firstBootBound is how long checking and committing may take.
const firstBootBound = 3 * time.Minute

// firstBoot asks who stands at a box without a configuration for what it takes
// to reach it by SSH, and commits that. Ctrl-C leaves for the command line;
// nothing has changed then.
func (c *console) firstBoot(ctx context.Context, t *terminal) {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	t.begin(quit)
	defer t.begin(nil)
	t.print("This box has no configuration yet. A few questions make it reachable by SSH;\n" +
		"Enter takes what stands in brackets, Ctrl-C leaves for the command line.\n\n")
	err := c.askFirst(ctx, t)
	switch {
	case err == nil:
	case errors.Is(err, line.ErrInterrupted):
		t.print("Nothing was changed. \"load\" and \"configure\" make a configuration; \"exit\" and Enter ask again.\n")
	case ctx.Err() == nil && !errors.Is(err, io.EOF):
		t.print("Nothing was changed: " + err.Error() + "\n")
	}
}

func (c *console) askFirst(ctx context.Context, t *terminal) error {
	// ask repeats a question until its answer stands.
	ask := func(question, standard string, check func(string) error) (string, error) {
		prompt := question + ": "
		if standard != "" {
			prompt = question + " [" + standard + "]: "
		}
		for {
			answer, err := t.edit.ReadAnswer(ctx, prompt)
			if err != nil {
				return "", err
			}
			if answer = strings.TrimSpace(answer); answer == "" {
				answer = standard
			}
			if err := check(answer); err != nil {
				t.print("  " + err.Error() + "\n")
				continue
			}
			return answer, nil
		}
	}
	for {
		var a first.Answers
		var err error
		if a.Host, err = ask("Host name", c.hostName(), first.Host); err != nil {
			return err
		}
		nics, text, standard := c.cards(ctx)
		t.print(text)
		if a.Interface, err = ask("Management interface", standard, func(s string) error { return first.Interface(s, nics) }); err != nil {
			return err
		}
		if a.Address, err = ask("Its address, as 192.0.2.11/24", first.DHCP, first.Address); err != nil {
			return err
		}
		if a.Address != first.DHCP {
			if a.Gateway, err = ask("Gateway, empty for none", "", func(s string) error { return first.Gateway(s, a.Address) }); err != nil {
				return err
			}
		}
		if a.User, err = ask("First user, an administrator", "admin", first.User); err != nil {
			return err
		}
		t.print("There are no passwords. Paste the public key of " + a.User + ", one line of a .pub file.\n")
		if a.Key, err = ask("Key", "", func(s string) error {
			if err := first.Key(s); err != nil {
				return err
			}
			_, err := readKey(s)
			return err
		}); err != nil {
			return err
		}
		t.print("\n" + a.Text() + "\n")
		answer, err := ask("Commit this? yes, no: ask again", "yes", func(s string) error {
			if s = strings.ToLower(s); !strings.HasPrefix("yes", s) && !strings.HasPrefix("no", s) {
				return errors.New("yes or no?")
			}
			return nil
		})
		if err != nil {
			return err
		}
		if strings.HasPrefix(strings.ToLower(answer), "n") {
			t.print("\n")
			continue
		}
		if c.commitFirst(ctx, t, a) {
			return nil
		}
	}
}

// cards lists the network interfaces for the question, and which of them is
// most likely meant: the first that has a cable.
func (c *console) cards(ctx context.Context) (names []string, text, standard string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var st status.Net
	if err := c.services[cli.Admin].State(ctx, "net", &st); err != nil {
		return nil, "  net does not answer: \"show processes\" tells why\n", ""
	}
	var b strings.Builder
	for _, l := range st.Links {
		if l.Kind != "device" {
			continue
		}
		names = append(names, l.Name)
		carrier := "no cable"
		if l.Carrier {
			carrier = "cable"
			if standard == "" {
				standard = l.Name
			}
		}
		fmt.Fprintf(&b, "  %-8s %s  %s", l.Name, l.MAC, carrier)
		for _, a := range l.Addresses {
			if !a.Prefix.Addr().IsLinkLocalUnicast() {
				fmt.Fprintf(&b, "  %s (%s)", a.Prefix, a.Origin)
			}
		}
		b.WriteByte('\n')
	}
	if standard == "" && len(names) > 0 {
		standard = names[0]
	}
	return names, b.String(), standard
}

// commitFirst commits the answers and tells what came of it.
func (c *console) commitFirst(ctx context.Context, t *terminal, a first.Answers) (done bool) {
	// Like any commit it goes to its end, whatever happens to the line.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), firstBootBound)
	defer cancel()
	who := t.user + "@" + t.address
	var res status.CommitResult
	err := c.services[cli.Admin].Call(ctx, "conf", "commit",
		status.Candidate{Text: a.Text(), Name: "first boot", Author: who, Comment: "first boot"}, &res)
	result := "ok"
	if err != nil {
		result, _, _ = strings.Cut(err.Error(), "\n")
	}
	c.note(status.ConsoleSession{User: t.user, Address: t.address}, "first boot", result)
	if err != nil {
		t.print(err.Error() + "\n\n")
		return false
	}
	if len(res.Problems) > 0 {
		t.print(show.Problems(res.Problems))
	}
	t.print(fmt.Sprintf("committed: generation %d runs\n", res.Generation))
	address := "ADDRESS, which the banner tells when DHCP has given one"
	if p, err := netip.ParsePrefix(a.Address); err == nil {
		address = p.Addr().String()
	}
	t.print(fmt.Sprintf("Log in with: ssh %s@%s\nIts host key is %s\n\n", a.User, address, c.hostKey.fingerprint()))
	return true
}
