package cli

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc/status"
)

const captureArgs = "INTERFACE|any [FILTER] [count N] [for SECONDS] [snap BYTES] [promiscuous] [own] [text]"

var captureWords = []string{"any", "count", "for", "own", "promiscuous", "snap", "text"}

// captureEnd is how long a capture that is interrupted may take to tell what
// became of it.
const captureEnd = 3 * time.Second

// capture gives packets to the user: as a file where there is one to write to,
// on a terminal a line each.
func capture(ctx context.Context, c *call) (string, error) {
	st := c.streams()
	r, own, err := captureRequest(c.args)
	if err != nil {
		return "", err
	}
	r.By = c.s.author()
	if !own {
		r.Client, r.Server = c.s.Client, c.s.Server
	}
	out := st.Out
	if out == nil {
		r.Text = true
		out = writerFunc(func(b []byte) (int, error) {
			st.Note(printable.Text(string(b)))
			return len(b), nil
		})
	}
	// An interrupt ends its input, upon which it tells how many packets it was,
	// and a file gets its end.
	over, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	in, end := io.Pipe()
	stop := context.AfterFunc(ctx, func() {
		end.Close()
		time.AfterFunc(captureEnd, cancel)
	})
	defer stop()
	return "", c.stream(over, "capture", "capture", r, in, out, func(text string) { st.Note(printable.Text(text) + "\n") })
}

// captureRequest reads the words of the command. What is no option belongs to
// the filter.
func captureRequest(args []string) (r status.CaptureRequest, own bool, err error) {
	bad := func(word, want string) error {
		return usagef("capture %s wants %s: capture %s", word, want, captureArgs)
	}
	if len(args) == 0 {
		return r, false, usagef("capture wants an interface: capture %s; for example capture eth0 vrrp", captureArgs)
	}
	r.Interface = args[0]
	var words []string
	for args = args[1:]; len(args) > 0; args = args[1:] {
		switch w := args[0]; w {
		case "own":
			own = true
		case "promiscuous":
			r.Promiscuous = true
		case "text":
			r.Text = true
		case "count", "for", "snap":
			if len(args) < 2 {
				return r, false, bad(w, "a number")
			}
			args = args[1:]
			n, perr := strconv.ParseUint(args[0], 10, 31)
			switch {
			case w == "for":
				if r.For, err = time.ParseDuration(args[0]); perr == nil {
					r.For, err = time.Duration(n)*time.Second, nil
				}
				if err != nil || r.For <= 0 {
					return r, false, bad(w, "seconds, or a time such as 5m")
				}
			case perr != nil || n == 0:
				return r, false, bad(w, "a number")
			case w == "count":
				r.Count = n
			default:
				r.Snap = int(n)
			}
		default:
			words = append(words, w)
		}
	}
	// Quotes for a shell that is not there.
	r.Filter = strings.TrimSpace(strings.ReplaceAll(strings.Join(words, " "), "'", ""))
	return r, own, nil
}

// captureNext completes interfaces, then what else there is.
func captureNext(ctx context.Context, c *call, n int) []string {
	if n > 0 {
		return slices.Concat(captureWords[1:], []string{"and", "arp", "host", "icmp", "icmp6", "ip", "ip6", "net", "not", "or", "port", "tcp", "udp", "vlan", "vrrp"})
	}
	names := []string{status.AnyInterface}
	var st status.Net
	if c.state(ctx, "net", &st) == nil {
		for _, l := range st.Links {
			names = append(names, l.Name)
		}
	}
	return names
}
