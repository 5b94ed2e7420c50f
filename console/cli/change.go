package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ballast/configs"
	"ballast/configs/edit"
	"ballast/configs/report"
	"ballast/console/show"
	"ballast/services/ipc/status"
)

var errNoData = errors.New("nothing can be sent to this session; use SSH, for example: ssh admin@BOX commit < keepalived.conf")

// sent takes a configuration from the user.
func (c *call) sent(ctx context.Context) (string, error) {
	if c.s.Data == nil {
		return "", errNoData
	}
	text, err := c.s.Data(ctx, "configuration")
	if err != nil {
		return "", fmt.Errorf("the configuration was not read, nothing changes: %w", err)
	}
	if strings.TrimSpace(text) == "" {
		return "", usagef("nothing was sent; the configuration is expected on standard input, for example: ssh admin@BOX commit < keepalived.conf")
	}
	return text, nil
}

// read takes a configuration from the user and makes it the candidate.
func (c *call) read(ctx context.Context, override bool) error {
	if c.s.Data == nil {
		return errNoData
	}
	running, err := c.running(ctx)
	if err != nil {
		return err
	}
	text, err := c.sent(ctx)
	if err != nil {
		return err
	}
	c.s.candidate = &candidate{text: text, override: override, base: running.Generation}
	return nil
}

// readInto takes a configuration, or set commands, from the user into the
// candidate that is there, or into what runs.
func (c *call) readInto(ctx context.Context, how string) error {
	if c.s.Data == nil {
		return errNoData
	}
	was := c.s.candidate
	if err := c.full(ctx); err != nil {
		return err
	}
	k := c.s.candidate
	err := func() error {
		text, err := c.sent(ctx)
		if err == nil {
			err = unmasked(text)
		}
		if err != nil {
			return err
		}
		switch how {
		case "override":
			k.put(text)
		case "replace":
			k.put(configs.Merge(k.text, text))
		case "merge", "set":
			d := edit.New(k.text)
			if how == "merge" {
				err = d.Merge(text)
			} else {
				var at edit.Path
				if e := c.s.editing; e != nil {
					at = e.at
				}
				err = c.replay(d, at, text)
			}
			if err != nil {
				return &unloggedError{fmt.Errorf("nothing is loaded: %w", err)}
			}
			k.put(d.Text())
		}
		return nil
	}()
	if err != nil {
		if c.s.editing == nil {
			c.s.candidate = was
		}
		return err
	}
	k.told = false
	c.s.settle()
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
	return status.Candidate{Text: k.text, Name: "candidate", Author: c.s.author(), Override: k.override, Session: c.s.path()}
}

// path is how the session reaches this box.
func (s *Session) path() *status.Session {
	remote, err := netip.ParseAddr(s.Address)
	if err != nil { // the serial line: nothing cuts it off
		return nil
	}
	return &status.Session{User: s.User, Local: s.Local, Remote: remote, Terminal: s.Ask != nil}
}

func (c *call) report(ctx context.Context) (r status.CheckReport, err error) {
	err = c.change(ctx, "check", c.wire(), &r) // a large one takes longer than a look
	return r, err
}

// loadWays are how load can put a text into what is there.
var loadWays = []string{"merge", "override", "replace", "set"}

// mostReported is the size of a text, in lines, whose lines load counts by what
// becomes of them.
const mostReported = 20_000

func load(ctx context.Context, c *call) (string, error) {
	how := ""
	for _, a := range c.args {
		word, err := pick(a, append(slices.Clone(loadWays), "terminal"))
		switch {
		case err != nil:
			return "", usagef("load %s %w", shown(a), err)
		case word == "terminal": // where it comes from anyway
		case how != "":
			return "", usagef("load takes one of: %s", strings.Join(loadWays, ", "))
		default:
			how = word
		}
	}
	var err error
	switch {
	case c.s.editing != nil && how == "":
		err = c.readInto(ctx, "replace")
	case c.s.editing != nil, how == "merge", how == "set":
		err = c.readInto(ctx, how)
	default:
		err = c.read(ctx, how == "override")
	}
	if err != nil {
		return "", err
	}
	in := c.wire()
	in.Lines = strings.Count(in.Text, "\n") <= mostReported
	var r status.CheckReport
	if err := c.change(ctx, "check", in, &r); err != nil {
		return "", err
	}
	out := show.Problems(r.Problems) + cuts(r)
	if len(r.Lines) > 0 {
		counts, _, _ := strings.Cut(report.Total(r.Lines, r.Problems), "\n")
		out += counts + "; \"check report\" tells of each\n"
	}
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
	return show.Problems(r.Problems) + cuts(r), nil
}

// cuts tells that a commit would cut the session off.
func cuts(r status.CheckReport) string {
	var b strings.Builder
	for _, why := range r.Cuts {
		b.WriteString("warning: it would cut this session off: " + shown(why) + "\n")
	}
	if len(r.Cuts) > 0 {
		b.WriteString("\"commit confirmed\" goes back by itself when you cannot confirm it\n")
	}
	return b.String()
}

// compare shows the difference of the candidate from what runs, of it from a
// generation, or of two generations.
func compare(ctx context.Context, c *call) (string, error) {
	if len(c.args) > 2 {
		return "", usagef("compare [GENERATION [GENERATION]], for example: compare 12 14")
	}
	var names, texts []string
	for _, a := range c.args {
		n, err := generation([]string{a})
		if err != nil {
			return "", err
		}
		text, err := c.textOf(ctx, n)
		if err != nil {
			return "", err
		}
		names, texts = append(names, fmt.Sprintf("generation %d", n)), append(texts, text)
	}
	k := c.s.candidate
	switch {
	case len(texts) == 2:
		return c.difference(names, texts), nil
	case len(texts) == 0 && (k == nil || !k.full):
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
	running, err := c.textOf(ctx, 0)
	if err != nil {
		return "", err
	}
	switch {
	case len(texts) == 0:
		return c.difference([]string{"running", "candidate"}, []string{running, k.text}), nil
	case k != nil && !k.full:
		return c.difference(append(names, "candidate"), append(texts, configs.Merge(running, k.text))), nil
	case k != nil:
		return c.difference(append(names, "candidate"), append(texts, k.text)), nil
	}
	return c.difference(append(names, "running"), append(texts, running)), nil
}

// difference is that of two texts, without their secrets.
func (c *call) difference(names, texts []string) string {
	diff := configs.Diff(texts[0], texts[1])
	if diff == "" {
		return "no difference\n"
	}
	_, body, _ := strings.Cut(diff, "\n+++ candidate\n")
	body = configs.MaskDiff(body, texts...)
	if c.s.Mask != nil {
		body = c.s.Mask(body)
	}
	return endLine("--- " + names[0] + "\n+++ " + names[1] + "\n" + body)
}

// commitWords are what may follow commit, and commitArgs how.
var commitWords = []string{"and-quit", "check", "comment", "confirmed", "force", "local", "override"}

const commitArgs = "[check] [confirmed [MINUTES]] [force] [local] [override] [and-quit] [comment TEXT]"

// committing is how to commit.
type committing struct {
	force, local, override, quit, check bool
	comment                             string
	confirm                             time.Duration
}

// minutes reads the number that may stand behind "confirmed", and how many
// words it takes.
func minutes(rest []string) (time.Duration, int, error) {
	if len(rest) == 0 || rest[0] == "" || rest[0][0] < '0' || rest[0][0] > '9' {
		return status.DefaultConfirm, 0, nil
	}
	n, err := strconv.Atoi(rest[0])
	if most := int(status.MaxConfirm / time.Minute); err != nil || n < 1 || n > most {
		return 0, 0, usagef("confirmed wants 1…%d minutes, not %q; without a number it is %d", most, shown(rest[0]), status.DefaultConfirm/time.Minute)
	}
	return time.Duration(n) * time.Minute, 1, nil
}

func commitOptions(args []string) (o committing, err error) {
	for i := 0; i < len(args); i++ {
		word, err := pick(args[i], commitWords)
		if err != nil {
			return o, usagef("commit %s %w", shown(args[i]), err)
		}
		rest := args[i+1:]
		switch word {
		case "force":
			o.force = true
		case "local":
			o.local = true
		case "override":
			o.override = true
		case "and-quit":
			o.quit = true
		case "check":
			o.check = true
		case "confirmed":
			n := 0
			if o.confirm, n, err = minutes(rest); err != nil {
				return o, err
			}
			i += n
		case "comment":
			if len(rest) > 1 && strings.Contains(rest[0], " ") { // a quoted one is all of it
				rest = rest[:1]
			}
			o.comment = shown(strings.Join(rest, " "))
			if o.comment == "" {
				return o, usagef("commit comment wants a text, for example: commit comment second pool")
			}
			i += len(rest)
		}
	}
	return o, nil
}

func commit(ctx context.Context, c *call) (string, error) {
	o, err := commitOptions(c.args)
	if err != nil {
		return "", err
	}
	if o.check { // and do not
		return checkCandidate(ctx, c)
	}
	if !c.s.Dirty() && !c.s.OneShot || c.s.editing != nil && !c.s.Dirty() {
		running, err := c.running(ctx)
		if err != nil {
			return "", err
		}
		switch {
		case running.Pending != nil && o.confirm == 0: // as a commit after "commit confirmed" does
			out, err := c.confirmed(ctx)
			if err == nil && o.quit && c.s.editing != nil {
				out += c.leaveMode(false)
			}
			return out, err
		case c.s.editing != nil:
			out := "nothing to commit: the candidate is what runs\n"
			if o.quit {
				out += c.leaveMode(false)
			}
			return out, nil
		}
	}
	if err := c.need(ctx, o.override); err != nil {
		return "", err
	}
	if err := c.s.Editors.locked(c.s); err != nil {
		return "", fmt.Errorf("not committed: %w", err)
	}
	k := c.s.candidate
	running, err := c.running(ctx)
	if err != nil {
		return "", err
	}
	if running.Generation != k.base {
		old := k.base
		k.base = running.Generation
		return "", c.moved(running, old)
	}
	in := c.wire()
	in.Comment, in.Force, in.Local, in.Base, in.Confirm = o.comment, o.force, o.local, k.base, o.confirm
	var res status.CommitResult
	if err := c.change(ctx, "commit", in, &res); err != nil {
		return "", err
	}
	if k.told && !c.json {
		res.Problems = nil
	}
	if c.s.editing == nil {
		c.s.candidate = nil
		return c.committed(res)
	}
	k.clean, k.base, k.told = k.text, res.Generation, false
	out, err := c.committed(res)
	if o.quit {
		out += c.leaveMode(false)
	}
	return out, err
}

// confirm keeps what "commit confirmed" brought.
func confirm(ctx context.Context, c *call) (string, error) { return c.confirmed(ctx) }

func (c *call) confirmed(ctx context.Context) (string, error) {
	var r status.Confirmed
	if err := c.change(ctx, "confirm", status.Confirmation{Author: c.s.author()}, &r); err != nil {
		return "", err
	}
	if c.json {
		return indented(r)
	}
	return fmt.Sprintf("confirmed: generation %d stays\n", r.Generation), nil
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
	both := ""
	if res.Peer != "" {
		both = ", on " + shown(res.Peer) + " too"
	}
	fmt.Fprintf(&b, "committed: generation %d runs%s, applied in %v\n", res.Generation, both, res.Took.Round(time.Millisecond))
	if res.Confirmed != 0 {
		fmt.Fprintf(&b, "generation %d is confirmed by it\n", res.Confirmed)
	}
	if p := res.Pending; p != nil {
		fmt.Fprintf(&b, "generation %d runs again in %s unless \"confirm\" comes\n", p.Back, show.Age(c.s.now(), p.Deadline.Add(time.Second/2)))
	}
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
	in := status.Rollback{Author: c.s.author(), Session: c.s.path()}
	var left []string
	for i := 0; i < len(c.args); i++ {
		word, err := pick(c.args[i], []string{"confirmed", "force", "local"})
		switch {
		case err != nil:
			left = append(left, c.args[i])
		case word == "force":
			in.Force = true
		case word == "local":
			in.Local = true
		default:
			n := 0
			if in.Confirm, n, err = minutes(c.args[i+1:]); err != nil {
				return "", err
			}
			i += n
		}
	}
	var err error
	if in.Generation, err = generation(left); err != nil {
		return "", err
	}
	if err := c.s.Editors.locked(c.s); err != nil {
		return "", fmt.Errorf("not rolled back: %w", err)
	}
	var res status.CommitResult
	if err := c.change(ctx, "rollback", in, &res); err != nil {
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
	if err := c.consent(ctx, question); err != nil {
		return "", err
	}
	if err := c.verb(ctx, "init", verb, status.Power{By: c.s.author()}, nil); err != nil {
		return "", err
	}
	return done, nil
}
