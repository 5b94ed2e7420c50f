// Package support makes the bundle that a user sends to whoever looks into a
// fault: one archive of what the box is, was told, did and sees. It holds no
// secret: the configuration is masked, and what the secrets are is taken out of
// everything else too.
package support

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"ballast/configs"
	"ballast/configs/printable"
	"ballast/services/ipc/status"
	"ballast/services/ipc/support"
)

// Services is how the box is asked.
type Services interface {
	State(ctx context.Context, service string, v any) error
	Call(ctx context.Context, service, verb string, in, out any) error
	Stream(ctx context.Context, service, verb string, arg any, in io.Reader, out io.Writer, note func(string)) error
}

// Page is a command whose output is in the bundle as people see it.
type Page struct {
	Name string
	Text func(context.Context) (string, error)
}

// Options are what a bundle is made of and how far it may go.
type Options struct {
	Services Services
	Host     string
	By       string
	Pages    []Page
	Now      func() time.Time
	// Patience is how long one question may take; 0: 20 s.
	Patience time.Duration
}

// Bounds of a bundle. What one service tells is in memory while it is written.
const (
	maxFile  = 16 << 20
	maxTotal = 128 << 20
	patience = 20 * time.Second
	logLines = 2000
	journal  = 5000
	olderOf  = 5 // generations that ran before the one that runs
)

// owners tell of the tables that they own (package services/ipc/support).
var owners = []string{"net", "ipvs"}

type bundle struct {
	Options
	ctx     context.Context
	tar     *tar.Writer
	dir     string
	time    time.Time
	total   int
	missing []string
	hide    *strings.Replacer
	err     error // nobody takes the bundle any more
}

// Write writes a bundle as tar.gz to w. What cannot be had is named in it and
// returned, and does not keep the rest from coming.
func Write(ctx context.Context, w io.Writer, o Options) (missing []string, err error) {
	if o.Patience == 0 {
		o.Patience = patience
	}
	z := gzip.NewWriter(w)
	b := &bundle{Options: o, ctx: ctx, tar: tar.NewWriter(z), time: o.Now()}
	b.dir = "support-" + name(o.Host) + "-" + b.time.UTC().Format("20060102-150405")
	b.secrets()
	b.add("README.txt", b.readme())
	b.collect()
	if len(b.missing) > 0 {
		b.add("missing.txt", strings.Join(b.missing, "\n")+"\n")
	}
	if ctx.Err() != nil {
		return b.missing, ctx.Err()
	}
	if err := errors.Join(b.err, b.tar.Close(), z.Close()); err != nil {
		return b.missing, fmt.Errorf("support bundle: %w", err)
	}
	return b.missing, nil
}

// name makes a host name or a path fit for a path.
func name(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '_'
	}, s)
	if strings.Trim(s, ".") == "" {
		return "box"
	}
	return s
}

// add writes one file.
func (b *bundle) add(file, text string) {
	if b.err != nil || b.ctx.Err() != nil {
		return
	}
	text = b.hide.Replace(text)
	if len(text) > maxFile {
		text = text[:maxFile] + fmt.Sprintf("\n… cut: %d of %d bytes\n", maxFile, len(text))
	}
	if b.total += len(text); b.total > maxTotal {
		b.miss(file, fmt.Errorf("left out: the bundle has %d MiB", maxTotal>>20))
		b.total -= len(text)
		return
	}
	b.put(file, text)
}

// put writes one file as it is.
func (b *bundle) put(file, text string) {
	h := &tar.Header{Name: path.Join(b.dir, file), Mode: 0o600, Size: int64(len(text)), ModTime: b.time, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if b.err = b.tar.WriteHeader(h); b.err == nil {
		_, b.err = io.WriteString(b.tar, text)
	}
}

func (b *bundle) json(file string, v any) {
	raw, is := v.(json.RawMessage)
	if !is {
		out, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			b.miss(file, err)
			return
		}
		raw = out
	}
	b.add(file, string(raw)+"\n")
}

// miss notes what is not in the bundle.
func (b *bundle) miss(what string, err error) {
	text, _, _ := strings.Cut(err.Error(), "\n")
	b.missing = append(b.missing, b.hide.Replace(printable.Line(what+": "+text)))
}

// ask does f within the time that one question may take, and notes what fails.
func (b *bundle) ask(what string, f func(context.Context) error) bool {
	if b.err != nil || b.ctx.Err() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(b.ctx, b.Patience)
	defer cancel()
	err := f(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", b.Patience)
	}
	if err != nil {
		b.miss(what, err)
	}
	return err == nil
}

func (b *bundle) collect() {
	var box status.Init
	if b.ask("box.json", func(ctx context.Context) error { return b.Services.State(ctx, "init", &box) }) {
		b.json("box.json", box)
	}
	b.configuration()
	b.logs(box)
	for _, p := range box.Services {
		// What is idle has nothing to tell, and need not start for this.
		if p.Name == "init" || p.State == "idle" || p.State == "stopped" || p.Name == "pacer" {
			continue
		}
		var raw json.RawMessage
		if b.ask("state/"+p.Name+".json", func(ctx context.Context) error { return b.Services.State(ctx, p.Name, &raw) }) {
			b.json("state/"+name(p.Name)+".json", raw)
		}
	}
	stopped := map[string]bool{}
	for _, p := range box.Services {
		stopped[p.Name] = p.State == "stopped"
	}
	for _, p := range b.Pages {
		if stopped[p.Name] {
			continue // its socket is there, and nobody who answers
		}
		b.ask("show/"+p.Name, func(ctx context.Context) error {
			text, err := p.Text(ctx)
			if err == nil {
				b.add("show/"+name(p.Name)+".txt", text)
			}
			return err
		})
	}
	b.crashes()
	for _, s := range owners {
		b.ask("kernel tables of "+s, func(ctx context.Context) error { return b.tables(ctx, s) })
	}
}

// secrets finds out what must not be in the bundle: what stands as a secret in
// the configuration that runs, and in those before it.
func (b *bundle) secrets() {
	var words []string
	known := map[string]bool{}
	take := func(text string) {
		for _, s := range configs.Secrets(text) {
			quoted, _ := json.Marshal(s) // as it stands in JSON
			for _, form := range []string{s, strings.Trim(string(quoted), `"`)} {
				if !known[form] {
					known[form] = true
					words = append(words, form)
				}
			}
		}
	}
	b.hide = strings.NewReplacer()
	gens := []uint64{0}
	b.ask("history", func(ctx context.Context) error {
		var list []status.Generation
		err := b.Services.Call(ctx, "conf", "history", nil, &list)
		for _, g := range list {
			gens = append(gens, g.Generation)
		}
		return err
	})
	for i, g := range gens {
		if i > 2*olderOf {
			break
		}
		ctx, cancel := context.WithTimeout(b.ctx, b.Patience)
		var c status.Candidate
		if b.Services.Call(ctx, "conf", "text", status.TextQuery{Generation: g}, &c) == nil {
			take(c.Text)
		}
		cancel()
	}
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, w := range words {
		pairs = append(pairs, w, "********")
	}
	b.hide = strings.NewReplacer(pairs...)
}

func (b *bundle) configuration() {
	text := func(file string, n uint64) {
		b.ask(file, func(ctx context.Context) error {
			var c status.Candidate
			err := b.Services.Call(ctx, "conf", "text", status.TextQuery{Generation: n, Masked: true}, &c)
			if err == nil {
				b.add(file, configs.Mask(c.Text))
			}
			return err
		})
	}
	text("configuration/running.conf", 0)
	var list []status.Generation
	if b.ask("configuration/history.json", func(ctx context.Context) error { return b.Services.Call(ctx, "conf", "history", nil, &list) }) {
		b.json("configuration/history.json", list)
	}
	n := 0
	for _, g := range list {
		if !g.Running && n < olderOf {
			text(fmt.Sprintf("configuration/generation-%d.conf", g.Generation), g.Generation)
			n++
		}
	}
	var files []status.File
	if b.ask("configuration/files.json", func(ctx context.Context) error { return b.Services.Call(ctx, "conf", "file-list", nil, &files) }) {
		for i := range files {
			files[i].Content = nil // may hold secrets of its own
		}
		b.json("configuration/files.json", files)
	}
}

func (b *bundle) logs(box status.Init) {
	names := []string{"init", "kernel"}
	for _, p := range box.Services {
		if p.Name != "init" {
			names = append(names, p.Name)
		}
	}
	for _, n := range names {
		b.ask("log/"+n+".txt", func(ctx context.Context) error {
			var lines []status.LogLine
			err := b.Services.Call(ctx, "init", "log", status.LogQuery{Service: n, Lines: logLines}, &lines)
			if err != nil && strings.Contains(err.Error(), "nothing of") {
				return nil // it has said nothing yet
			}
			var text strings.Builder
			for _, l := range lines {
				fmt.Fprintf(&text, "%s <%d> %s\n", l.Time.UTC().Format(time.RFC3339Nano), l.Priority, printable.Line(l.Text))
			}
			if err == nil {
				b.add("log/"+name(n)+".txt", text.String())
			}
			return err
		})
	}
	for file, q := range map[string]struct {
		verb string
		arg  any
	}{"journal.json": {"journal", status.JournalQuery{Limit: journal}}, "audit.json": {"audit-log", status.AuditQuery{Limit: journal}}} {
		var raw json.RawMessage
		if b.ask(file, func(ctx context.Context) error { return b.Services.Call(ctx, "notify", q.verb, q.arg, &raw) }) {
			b.json(file, raw)
		}
	}
}

func (b *bundle) crashes() {
	var a status.CrashAnswer
	if !b.ask("crash/list.json", func(ctx context.Context) error { return b.Services.Call(ctx, "init", "crash", status.CrashQuery{}, &a) }) {
		return
	}
	b.json("crash/list.json", a.List)
	for _, c := range a.List {
		var r status.CrashAnswer
		file := fmt.Sprintf("crash/%d.json", c.Number)
		if b.ask(file, func(ctx context.Context) error {
			return b.Services.Call(ctx, "init", "crash", status.CrashQuery{Number: c.Number, Unseen: true}, &r)
		}) {
			b.json(file, r.Report)
		}
	}
}

// tables are the parts that a service tells of what it owns.
func (b *bundle) tables(ctx context.Context, service string) error {
	return support.Parts(ctx, func(ctx context.Context, out io.Writer) error {
		return b.Services.Stream(ctx, service, support.Verb, nil, nil, out, nil)
	}, func(p support.Part) error {
		file := "kernel"
		for part := range strings.SplitSeq(p.Name, "/") {
			file = path.Join(file, name(part))
		}
		if p.Error != "" {
			b.miss(file, errors.New(p.Error))
		}
		if p.Text != "" {
			b.add(file, p.Text)
		}
		return b.err
	})
}

// readme says what is what.
func (b *bundle) readme() string {
	var t strings.Builder
	fmt.Fprintf(&t, "Support bundle of %s, made %s for %s.\n\n", printable.Line(b.Host), b.time.UTC().Format(time.RFC3339), printable.Line(b.By))
	t.WriteString(`box.json             version, board, kernel, boot phases, services with memory and restarts
configuration/       what runs and the generations before it, secrets masked; history; script files without their contents
journal.json         transitions of all services, with reasons
audit.json           what users did
log/                 the log of each service, of init and of the kernel
state/               the state of each service, as programs get it
show/                the same as people see it
crash/               records of crashes of the kernel and of the box
kernel/              links, addresses, routes of all tables, rules, neighbours, nftables, IPVS, sysctls, counters
kernel/proc/         files of /proc under their own names
missing.txt          what could not be had, and why; not there when all of it is
kernel/hardware/     machine, PCI devices, disks, sensors

Times are UTC. Secrets of the configuration (passwords, keys, communities) are replaced by ******** wherever they stood.
Addresses and names of hosts and users are not, nor what users typed (audit.json): look before you hand it on. No connections of clients are in it.
`)
	return t.String()
}
