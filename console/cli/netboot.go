package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ballast/console/show"
	"ballast/services/ipc/status"
)

func showNetboot(ctx context.Context, c *call) (string, error) {
	var st status.Netboot
	if err := c.state(ctx, "netboot", &st); err != nil {
		return "", err
	}
	if c.json {
		return indented(st)
	}
	return show.Netboot(st, c.s.now()), nil
}

const serveForm = "netboot serve MAC as NAME [on INTERFACE] [address ADDRESS] [dhcp server|proxy] [for 30m]"

func netbootServe(ctx context.Context, c *call) (string, error) {
	if len(c.args) < 3 {
		return "", usagef("%s", serveForm)
	}
	in := status.NetbootServe{MAC: c.args[0], For: 30 * time.Minute, By: c.s.author()}
	for i := 1; i < len(c.args); i += 2 {
		word, err := pick(c.args[i], []string{"address", "as", "dhcp", "for", "on"})
		if err != nil {
			return "", usagef("netboot serve %s %w", shown(c.args[i]), err)
		}
		if i+1 == len(c.args) {
			return "", usagef("%s is missing what belongs behind it: %s", word, serveForm)
		}
		value := c.args[i+1]
		switch word {
		case "as":
			in.Name = value
		case "on":
			in.Interface = value
		case "address":
			if in.Address, err = netip.ParseAddr(value); err != nil {
				return "", usagef("%s is no address: %s", shown(value), serveForm)
			}
		case "dhcp":
			if in.DHCP, err = pick(value, []string{"auto", "proxy", "server"}); err != nil {
				return "", usagef("dhcp %s %w", shown(value), err)
			}
			if in.DHCP == "auto" {
				in.DHCP = ""
			}
		case "for":
			if n, nerr := strconv.Atoi(value); nerr == nil {
				value = fmt.Sprintf("%dm", n)
			}
			if in.For, err = time.ParseDuration(value); err != nil || in.For < time.Minute || in.For > 24*time.Hour {
				return "", usagef("for %s: want a time from 1m to 24h: %s", shown(value), serveForm)
			}
		}
	}
	if in.Name == "" {
		return "", usagef("as NAME is missing: %s", serveForm)
	}
	// conf gives the configuration, with its secrets, for boxes that somebody who
	// may said so of.
	if err := c.verb(ctx, "conf", "netboot-may", status.NetbootAllow{Name: in.Name, For: in.For}, nil); err != nil {
		return "", err
	}
	var b status.NetbootBox
	if err := c.verb(ctx, "netboot", "serve", in, &b); err != nil {
		return "", err
	}
	if c.json {
		return indented(b)
	}
	return show.NetbootBox(b, c.s.now()), nil
}

func netbootStop(ctx context.Context, c *call) (string, error) {
	if len(c.args) > 1 {
		return "", usagef("netboot stop [MAC|NAME] takes one box, or none for all that were asked for by hand")
	}
	var out string
	if err := c.verb(ctx, "netboot", "stop", status.NetbootStop{Box: strings.Join(c.args, "")}, &out); err != nil {
		return "", err
	}
	return out + "\n", nil
}

func netbootForget(ctx context.Context, c *call) (string, error) {
	if len(c.args) != 1 {
		return "", usagef("netboot forget NAME takes the name of a box")
	}
	if err := c.consent(ctx, "At its next boot "+shown(c.args[0])+" has other keys: its SSH host key, and the one of the peer block."); err != nil {
		return "", err
	}
	if err := c.verb(ctx, "netboot", "forget", status.NetbootStop{Box: c.args[0]}, nil); err != nil {
		return "", err
	}
	return "forgotten; \"show netboot\" prints the new key for the peer block while the box is served\n", nil
}
