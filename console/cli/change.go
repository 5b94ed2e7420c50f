package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/console/show"
	"ballast/services/ipc/status"
)

var errNoData = errors.New("nothing can be sent to this session; use SSH, for example: ssh admin@BOX commit < keepalived.conf")

// read takes a configuration from the user and makes it the candidate.
func (c *call) read(ctx context.Context, override bool) error {
	if c.s.Data == nil {
		return errNoData
	}
	running, err := c.running(ctx)
	if err != nil {
		return err
	}
	text, err := c.s.Data(ctx, "configuration")
	if err != nil {
		return fmt.Errorf("the configuration was not read, nothing changes: %w", err)
	}
	if strings.TrimSpace(text) == "" {
		return usagef("nothing was sent; the configuration is expected on standard input, for example: ssh admin@BOX commit < keepalived.conf")
	}
	c.s.candidate = &candidate{text: text, override: override, base: running.Generation}
	return nil
}

// need makes sure of a candidate; a one-shot reads it from its input.
func (c *call) need(ctx context.Context, override bool) error {
	switch {
	case c.s.candidate != nil:
		c.s.candidate.override = c.s.candidate.override || override
		return nil
	case c.s.OneShot:
		return c.read(ctx, override)
	}
	return errors.New("nothing is loaded: \"load\" reads a configuration")
}

func (c *call) wire() status.Candidate {
	k := c.s.candidate
	return status.Candidate{Text: k.text, Name: "candidate", Author: c.s.author(), Override: k.override}
}

func (c *call) report(ctx context.Context) (r status.CheckReport, err error) {
	err = c.change(ctx, "check", c.wire(), &r) // a large one takes longer than a look
	return r, err
}

func load(ctx context.Context, c *call) (string, error) {
	override := false
	for _, a := range c.args {
		if _, err := pick(a, []string{"override"}); err != nil {
			return "", usagef("load %s %w", shown(a), err)
		}
		override = true
	}
	if err := c.read(ctx, override); err != nil {
		return "", err
	}
	r, err := c.report(ctx)
	if err != nil {
		return "", err
	}
	out := show.Problems(r.Problems)
	c.s.candidate.told = true
	switch {
	case r.Errors > 0 && c.s.OneShot:
		return "", &reportError{out + "the candidate has errors: it cannot be committed", r.Errors}
	case r.Errors > 0:
		return "", &reportError{out + "loaded, but it cannot be committed like this; \"load\" again, or \"discard\"", r.Errors}
	case r.Diff == "":
		out += "loaded; it is what runs already\n"
	default:
		out += "loaded; \"compare\" shows what changes, \"commit\" makes it run\n"
	}
	return out, nil
}

func checkCandidate(ctx context.Context, c *call) (string, error) {
	if err := c.need(ctx, false); err != nil {
		return "", err
	}
	r, err := c.report(ctx)
	if err != nil {
		return "", err
	}
	if c.json {
		r.Merged = "" // the running configuration's secrets, and nothing that a check asks for
		return indented(r)
	}
	if r.Errors > 0 {
		return "", &reportError{strings.TrimSuffix(show.Problems(r.Problems), "\n"), r.Errors}
	}
	return show.Problems(r.Problems), nil
}

func compare(ctx context.Context, c *call) (string, error) {
	if err := c.need(ctx, false); err != nil {
		return "", err
	}
	r, err := c.report(ctx)
	if err != nil {
		return "", err
	}
	if r.Diff == "" {
		return "no difference\n", nil
	}
	return endLine(r.Diff), nil
}

func commit(ctx context.Context, c *call) (string, error) {
	var force, override bool
	comment := ""
	for i := 0; i < len(c.args); i++ {
		word, err := pick(c.args[i], []string{"comment", "force", "override"})
		if err != nil {
			return "", usagef("commit %s %w", shown(c.args[i]), err)
		}
		switch word {
		case "force":
			force = true
		case "override":
			override = true
		case "comment":
			comment = shown(strings.Join(c.args[i+1:], " "))
			if comment == "" {
				return "", usagef("commit comment wants a text, for example: commit comment second pool")
			}
			i = len(c.args)
		}
	}
	if err := c.need(ctx, override); err != nil {
		return "", err
	}
	k := c.s.candidate
	running, err := c.running(ctx)
	if err != nil {
		return "", err
	}
	if running.Generation != k.base {
		old := k.base
		k.base = running.Generation
		return "", fmt.Errorf("not committed: the running configuration moved from generation %d to %d (%s by %s, %s ago) since yours was loaded; "+
			"\"compare\" shows the difference, \"commit\" again goes on", old, running.Generation, running.Source, unknownIfEmpty(running.Author),
			show.Age(running.Time, c.s.now()))
	}
	in := c.wire()
	in.Comment, in.Force, in.Base = comment, force, k.base
	var res status.CommitResult
	if err := c.change(ctx, "commit", in, &res); err != nil {
		return "", err
	}
	c.s.candidate = nil
	if k.told && !c.json {
		res.Problems = nil
	}
	return c.committed(res)
}

func unknownIfEmpty(s string) string {
	if s == "" {
		return "unknown"
	}
	return shown(s)
}

func (c *call) committed(res status.CommitResult) (string, error) {
	if c.json {
		return indented(res)
	}
	var b strings.Builder
	if len(res.Problems) > 0 {
		b.WriteString(show.Problems(res.Problems))
	}
	for _, name := range sortedKeys(res.Warnings) {
		fmt.Fprintf(&b, "warning: %s: %s\n", name, shown(res.Warnings[name]))
	}
	fmt.Fprintf(&b, "committed: generation %d runs, applied in %v\n", res.Generation, res.Took.Round(time.Millisecond))
	return b.String(), nil
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func discard(_ context.Context, c *call) (string, error) {
	if c.s.candidate == nil {
		return "nothing was loaded\n", nil
	}
	c.s.candidate = nil
	return "candidate forgotten\n", nil
}

func rollback(ctx context.Context, c *call) (string, error) {
	force := false
	args := c.args
	if n := len(args); n > 0 {
		if _, err := pick(args[n-1], []string{"force"}); err == nil {
			force, args = true, args[:n-1]
		}
	}
	n, err := generation(args)
	if err != nil {
		return "", err
	}
	var res status.CommitResult
	if err := c.change(ctx, "rollback", status.Rollback{Generation: n, Author: c.s.author(), Force: force}, &res); err != nil {
		return "", err
	}
	return c.committed(res)
}

func filePut(ctx context.Context, c *call) (string, error) {
	if len(c.args) < 1 || len(c.args) > 2 {
		return "", usagef("file put PATH [MODE], with the content on standard input, for example: ssh admin@BOX file put /etc/keepalived/check.sh < check.sh")
	}
	f := status.File{Path: c.args[0], Mode: 0o755}
	if len(c.args) == 2 {
		m, err := strconv.ParseUint(c.args[1], 8, 32)
		if err != nil || m > 0o777 {
			return "", usagef("%q is not a mode; want octal permission bits, for example 755", shown(c.args[1]))
		}
		f.Mode = uint32(m)
	}
	if c.s.Data == nil {
		return "", errNoData
	}
	text, err := c.s.Data(ctx, "file")
	if err != nil {
		return "", fmt.Errorf("the content of %s was not read, nothing is stored: %w", shown(f.Path), err)
	}
	f.Content = []byte(text)
	if err := c.change(ctx, "file-put", f, nil); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s stored, %d bytes\n", shown(f.Path), len(f.Content)), nil
}

func fileDelete(ctx context.Context, c *call) (string, error) {
	if len(c.args) != 1 {
		return "", usagef("file delete PATH, for example: file delete /etc/keepalived/check.sh; see \"file list\"")
	}
	if err := c.change(ctx, "file-delete", status.File{Path: c.args[0]}, nil); err != nil {
		return "", err
	}
	return shown(c.args[0]) + " deleted\n", nil
}

func resign(ctx context.Context, c *call) (string, error) {
	if len(c.args) > 1 {
		return "", usagef("resign [INSTANCE] takes one name at most, for example: resign VI_1")
	}
	name := strings.Join(c.args, "")
	if err := c.verb(ctx, "vrrp", "resign", status.Resign{By: c.s.author(), Instance: name}, nil); err != nil {
		return "", err
	}
	return "resigned; \"resume\" takes part again\n", nil
}

func resume(ctx context.Context, c *call) (string, error) {
	if err := c.verb(ctx, "vrrp", "resume", nil, nil); err != nil {
		return "", err
	}
	return "resumed\n", nil
}

func maintenance(ctx context.Context, c *call) (string, error) {
	word := ""
	if len(c.args) == 1 {
		var err error
		if word, err = pick(c.args[0], []string{"on", "off"}); err != nil {
			return "", usagef("maintenance %s %w", shown(c.args[0]), err)
		}
	}
	switch word {
	case "on":
		if err := c.verb(ctx, "vrrp", "resign", status.Resign{By: c.s.author(), Keep: true}, nil); err != nil {
			return "", err
		}
		return "this box stays backup, also over a reboot, until \"maintenance off\"\n", nil
	case "off":
		return resume(ctx, c)
	}
	return "", usagef("maintenance on|off: \"on\" keeps this box backup, also over a reboot, until \"off\"")
}

func restart(ctx context.Context, c *call) (string, error) {
	r := status.Restart{}
	switch len(c.args) {
	case 1:
	case 3:
		n, err := strconv.Atoi(c.args[2])
		if _, perr := pick(c.args[1], []string{"signal"}); perr != nil || err != nil || n < 1 || n > 64 {
			return "", usagef("restart SERVICE [signal N] with N from 1 to 64, for example: restart ipvs signal 9")
		}
		r.Signal = n
	default:
		return "", usagef("restart SERVICE [signal N], for example: restart ipvs; see \"show processes\"")
	}
	r.Service = c.args[0]
	if err := c.verb(ctx, "init", "restart", r, nil); err != nil {
		return "", err
	}
	return shown(r.Service) + " told to stop; init starts it again\n", nil
}

func reboot(ctx context.Context, c *call) (string, error) {
	return c.leave(ctx, "reboot", "Reboot this box? Its virtual routers resign first.", "rebooting\n")
}

func poweroff(ctx context.Context, c *call) (string, error) {
	return c.leave(ctx, "poweroff", "Switch this box off? Its virtual routers resign first.", "switching off\n")
}

func (c *call) leave(ctx context.Context, verb, question, done string) (string, error) {
	if c.s.Ask != nil && !c.s.Ask(ctx, question) {
		return "", fmt.Errorf("not done: %s goes on only at the answer y", verb)
	}
	if err := c.verb(ctx, "init", verb, nil, nil); err != nil {
		return "", err
	}
	return done, nil
}
