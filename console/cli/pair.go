package cli

import (
	"context"
	"net/netip"
	"strconv"
	"strings"

	"ballast/console/show"
	"ballast/services/ipc/status"
)

func showPeer(ctx context.Context, c *call) (string, error) {
	var st status.PairState
	if err := c.verb(ctx, "conf", "peer-state", nil, &st); err != nil {
		return "", err
	}
	var wire status.Peer
	if err := c.state(ctx, "peer", &wire); err != nil {
		return "", err
	}
	if c.json {
		return indented(struct {
			status.PairState
			Wire status.Peer `json:"wire"`
		}{st, wire})
	}
	return show.Peer(st, wire, c.s.now()), nil
}

func showDrift(ctx context.Context, c *call) (string, error) {
	var d status.Drift
	if err := c.change(ctx, "peer-drift", nil, &d); err != nil { // a large text takes longer than a look
		return "", err
	}
	if c.json {
		return indented(d)
	}
	return show.Drift(d, c.s.now()), nil
}

func peerPush(ctx context.Context, c *call) (string, error) {
	in := status.PairChange{Author: c.s.author()}
	for _, a := range c.args {
		if _, err := pick(a, []string{"force"}); err != nil {
			return "", usagef("peer push %s %w", shown(a), err)
		}
		in.Force = true
	}
	var res status.CommitResult
	if err := c.change(ctx, "peer-push", in, &res); err != nil {
		return "", err
	}
	return c.committed(res)
}

const pullForm = "peer pull from ADDRESS key \"ssh-ed25519 AAAA…\" [port N] [source ADDRESS] as HOSTNAME"

func peerPull(ctx context.Context, c *call) (string, error) {
	in := status.PairChange{Author: c.s.author()}
	in.From.Port = 1913
	for i := 0; i < len(c.args); i++ {
		word, err := pick(c.args[i], []string{"as", "force", "from", "key", "port", "source"})
		if err != nil {
			return "", usagef("peer pull %s %w", shown(c.args[i]), err)
		}
		if word == "force" {
			in.Force = true
			continue
		}
		if i++; i == len(c.args) {
			return "", usagef("%s is missing what belongs behind it: %s", word, pullForm)
		}
		value := c.args[i]
		switch word {
		case "as":
			in.As = value
		case "key":
			in.From.Key = value
			if !strings.Contains(value, " ") && i+1 < len(c.args) { // pasted without quotes
				i++
				in.From.Key += " " + c.args[i]
			}
		case "from", "source":
			a, err := netip.ParseAddr(value)
			if err != nil {
				return "", usagef("%s is no address: %s", shown(value), pullForm)
			}
			if word == "from" {
				in.From.Addr = a
			} else {
				in.From.From = a
			}
		case "port":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || n == 0 {
				return "", usagef("port %s is outside 1…65535", shown(value))
			}
			in.From.Port = uint16(n)
		}
	}
	switch {
	case !in.From.Addr.IsValid() && (in.From.Key != "" || in.As != ""):
		return "", usagef("from is missing: %s", pullForm)
	case in.From.Addr.IsValid() && (in.From.Key == "" || in.As == ""):
		return "", usagef("key and as are missing: %s", pullForm)
	}
	if err := c.consent(ctx, "what runs on the peer replaces what runs here"); err != nil {
		return "", err
	}
	var res status.CommitResult
	if err := c.change(ctx, "peer-pull", in, &res); err != nil {
		return "", err
	}
	return c.committed(res)
}
