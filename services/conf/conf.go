// Package conf owns the running configuration of a director. It loads it at
// boot (falling back to the last good one, the seed of the image, and at last
// to DHCP on every NIC, so that the box stays reachable), publishes it to every
// service, and is the only way to change it: check, ask every service, store,
// publish, and wait until all have applied it, or put the previous one back.
package conf

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// What init tells the process in its environment.
const (
	EnvSeed     = "BALLAST_SEED"     // folder of the seed; not set: the image brought none
	EnvFirmware = "BALLAST_FIRMWARE" // the firmware that runs: "VERSION BUILD"
)

// Language is what conf needs of the configuration language.
type Language struct {
	Load  func(name, text string, opts configs.Options) (model.Config, []model.Problem)
	Merge func(running, candidate string) string
	Diff  func(a, b string) string
}

// Options change where conf works and whom it asks. The zero value is what
// runs on a director.
type Options struct {
	Language Language
	// Root is put before the paths of script files; default "/".
	Root string
	// Seed is the folder with the configuration that the image or the netboot
	// server brought: "config" and "files/…". Default: that of EnvSeed, else
	// "seed" in the data folder.
	Seed string
	// Firmware is the one that runs. Default: EnvFirmware.
	Firmware store.Firmware
	// Services are asked to prepare and awaited at commit, in this order.
	Services []string
	// PrepareBound and ApplyBound are how long one service may take; default 10 s and 20 s.
	PrepareBound, ApplyBound time.Duration
	// SettleBound is how long a service may complain about a configuration that
	// it has applied before that counts; default 5 s.
	SettleBound time.Duration
	// NICs lists the physical network interfaces; default: those of the kernel.
	NICs func() []string
	// Clock tells the boot that runs and its age; default: the kernel's.
	Clock func() (boot string, since time.Duration)
	// Host is what the box is called; default: as the kernel says.
	Host func() string
	// Pair paces what is said to the other box of a pair.
	Pair PairTimes
	// Step is told of each step of a commit of the pair that was done here: for
	// tests that cut it off there.
	Step func(string)
}

func (o Options) withDefaults(data string) Options {
	if o.Language.Load == nil {
		o.Language = Language{new(configs.Loader).Load, new(configs.Merger).Merge, func(a, b string) string { return configs.MaskDiff(configs.Diff(a, b), a, b) }}
	}
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Seed == "" {
		o.Seed = os.Getenv(EnvSeed)
	}
	if o.Firmware == (store.Firmware{}) {
		version, build, _ := strings.Cut(os.Getenv(EnvFirmware), " ")
		o.Firmware.Version = version
		o.Firmware.Build, _ = strconv.ParseInt(build, 10, 64) // else it is not known
	}
	if o.Seed == "" && data != "" {
		o.Seed = filepath.Join(data, "seed")
	}
	if o.Services == nil {
		o.Services = []string{"net", "vrrp", "ipvs", "health", "notify"}
	}
	if o.PrepareBound == 0 {
		o.PrepareBound = 10 * time.Second
	}
	if o.ApplyBound == 0 {
		o.ApplyBound = 20 * time.Second
	}
	if o.SettleBound == 0 {
		o.SettleBound = 5 * time.Second
	}
	if o.NICs == nil {
		o.NICs = kernelNICs
	}
	if o.Clock == nil {
		o.Clock = kernelClock
	}
	if o.Host == nil {
		o.Host = hostName
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	o.Pair = o.Pair.withDefaults()
	return o
}

// Run is the service.
func Run(ctx context.Context, env *ipc.Env) error { return RunWith(ctx, env, Options{}) }

// RunWith is Run with options.
func RunWith(ctx context.Context, env *ipc.Env, o Options) error {
	c := &conf{env: env, Options: o.withDefaults(env.Data), server: ipc.NewServer("conf"), book: follow.NewBook(), turn: make(chan struct{}, 1), moved: make(chan struct{}, 1), placed: map[string]string{}, clients: map[string]*ipc.Client{}}
	c.openStore()
	c.recall()
	c.verbs(ctx)
	c.pairVerbs(ctx)
	c.boot()
	env.Ready()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.wg.Go(func() { c.followPeer(ctx) })
	c.wg.Go(func() { c.followNICs(ctx) })
	c.wg.Go(func() { c.recoverFromPeer(ctx) })
	c.wg.Go(func() { c.watchWindow(ctx) })
	err := c.server.Serve(ctx, env.Listener)
	cancel() // a socket that fails ends the service, so that init starts it anew
	c.wg.Wait()
	select { // a commit under way sees ctx end and stops at a safe place
	case c.turn <- struct{}{}:
	case <-time.After(5 * time.Second):
	}
	return err
}

// running is the configuration that is published.
type running struct {
	state status.Conf // Text is set here, and never published
	files []store.FileRef
	draft string // token of its Config in the book, when services were asked about it
}

type conf struct {
	Options
	env    *ipc.Env
	server *ipc.Server
	book   *follow.Book
	store  *store.Store
	noDisk string // why the store is in memory although there is a data folder; empty: it is not
	wg     sync.WaitGroup
	turn   chan struct{} // held by whoever changes anything; holds one

	mu      sync.Mutex // guards now, pending, note and clients
	now     running
	pending *window       // nil: what runs is confirmed; altered with the turn held
	moved   chan struct{} // told when pending changes
	note    string        // what is wrong with the pair, for every session

	pair    partner
	netboot allowances

	clients map[string]*ipc.Client

	placed map[string]string // path of a script file on the box: what was put there; held with turn
}

// openStore opens the store, in memory when there is no disk that works: a box
// without a disk must still forward.
func (c *conf) openStore() {
	var fs store.FS = store.Disk{}
	dir := filepath.Join(c.env.Data, "configuration")
	if c.env.Data == "" {
		fs, dir = store.Memory(), "/"
		c.env.Log.Info("no data folder: the configuration will not outlive a reboot")
	}
	s, err := store.Open(fs, dir)
	if err != nil {
		c.noDisk = "the data folder cannot be used, commits will not outlive a reboot: " + err.Error()
		s, _ = store.Open(store.Memory(), "/") // memory does not fail
	}
	for _, f := range s.Faults() {
		c.env.Log.Error("configuration store: " + f)
	}
	s.SetFirmware(c.Firmware)
	c.store = s
}

// client is the client of a service, made once.
func (c *conf) client(service string) *ipc.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[service] == nil {
		c.clients[service] = c.env.Dir.Client(service)
	}
	return c.clients[service]
}

func (c *conf) current() running {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// publish makes r the running configuration for every service. The text is not
// part of what they read, since it holds the secrets of them all; the console
// asks for it by the verb "text".
func (c *conf) publish(r running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.state.Pair = c.note
	c.now = r
	c.server.Publish(c.book.Publish(r.state, r.draft))
}

func (c *conf) verbs(run context.Context) {
	handle(c, "check", c.check)
	handle(c, "commit", changing(c, run, c.commit))
	handle(c, "rollback", changing(c, run, c.rollback))
	c.server.Handle("text", c.text, ipc.GroupView)
	handle(c, "confirm", changing(c, run, c.confirm))
	handleFor(c, ipc.GroupView, "compare", c.compare)
	handle(c, "file-put", changing(c, run, c.filePut))
	handleFor(c, ipc.GroupView, "file-list", func(context.Context, struct{}) (any, error) { return c.fileList(), nil })
	handle(c, "file-get", c.fileGet)
	handle(c, "file-delete", changing(c, run, c.fileDelete))
	handle(c, "netboot-may", c.netbootAllow)
	c.server.Handle("netboot-seed", func(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var q status.NetbootQuery
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fmt.Errorf("conf netboot-seed: argument: %w", err)
		}
		return c.netbootSeed(ctx, q)
	}, ipc.UIDNetboot)
	handleFor(c, ipc.UIDRoot, "spare", c.spare)
	c.server.Handle("history", func(context.Context, ipc.Peer, json.RawMessage) (any, error) { return c.history(), nil }, ipc.AnyUID)
}

// handle adds a verb for administrators, with its argument decoded.
func handle[T any](c *conf, name string, fn func(context.Context, T) (any, error)) {
	handleFor(c, ipc.GroupAdmin, name, fn)
}

// handleFor adds a verb for users of the console with the role of a group, or more.
func handleFor[T any](c *conf, group uint32, name string, fn func(context.Context, T) (any, error)) {
	c.server.Handle(name, func(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		var v T
		if len(body) > 0 {
			if err := ipc.Argument(body, &v); err != nil {
				return nil, fmt.Errorf("conf %s: argument: %w", name, err)
			}
		}
		return fn(ctx, v)
	}, group)
}

// turnBound is how long a change waits for the one before it.
const turnBound = 45 * time.Second

// changing runs fn when no other change is under way. Once begun it no longer
// depends on its caller: a session that is cut off does not leave a commit
// half done. It ends early only with the service itself.
func changing[T any](c *conf, run context.Context, fn func(context.Context, T) (any, error)) func(context.Context, T) (any, error) {
	return func(ctx context.Context, v T) (any, error) {
		select {
		case c.turn <- struct{}{}:
		case <-time.After(turnBound):
			return nil, fmt.Errorf("another commit is still under way after %v; try again", turnBound)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-run.Done():
			return nil, run.Err()
		}
		defer func() { <-c.turn }()
		return fn(run, v)
	}
}

// text is the text of a generation. Who is no administrator gets it without its
// secrets, whatever was asked for.
func (c *conf) text(_ context.Context, peer ipc.Peer, body json.RawMessage) (any, error) {
	var r status.TextQuery
	if len(body) > 0 {
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, fmt.Errorf("conf text: argument: %w", err)
		}
	}
	out, err := c.stored(r.Generation)
	if err != nil {
		return nil, err
	}
	if r.Masked || peer.Role() < ipc.Admin {
		out.Text = configs.Mask(out.Text)
	}
	return out, nil
}

// stored is a generation with its secrets; 0: the running one.
func (c *conf) stored(n uint64) (status.Candidate, error) {
	now := c.current().state
	if n == 0 || n == now.Generation {
		return status.Candidate{Text: now.Text, Name: generationName(now.Generation), Author: now.Author}, nil
	}
	g, err := c.store.Load(n)
	if err != nil {
		return status.Candidate{}, err
	}
	return status.Candidate{Text: g.Text, Name: generationName(g.Generation), Author: g.Author, Comment: g.Comment}, nil
}

// compare is the difference of two generations, without secrets.
func (c *conf) compare(_ context.Context, arg status.Compare) (any, error) {
	a, err := c.stored(arg.A)
	if err != nil {
		return nil, err
	}
	b, err := c.stored(arg.B)
	if err != nil {
		return nil, err
	}
	return c.Language.Diff(a.Text, b.Text), nil
}

func generationName(n uint64) string { return fmt.Sprintf("generation %d", n) }

func (c *conf) history() []status.Generation {
	now := c.current().state
	out := []status.Generation{}
	listed := false
	for _, m := range c.store.List() {
		if c.doubtful(m.Generation) {
			continue // it did not run, or not for good
		}
		g := status.Generation{Generation: m.Generation, Time: m.Time, Source: m.Source, Author: m.Author, Comment: m.Comment, Size: m.Length}
		g.Running = m.Generation == now.Generation
		g.Pending = g.Running && now.Pending != nil
		listed = listed || g.Running
		out = append(out, g)
	}
	if !listed { // factory defaults, or a disk that failed
		first := status.Generation{Generation: now.Generation, Time: now.Time, Source: now.Source, Author: now.Author, Running: true, Size: len(now.Text)}
		out = append([]status.Generation{first}, out...)
	}
	return out
}

func errorsIn(ps []model.Problem) int {
	n := 0
	for _, p := range ps {
		if p.Severity == model.Error {
			n++
		}
	}
	return n
}

func list(ps []model.Problem) string {
	var b strings.Builder
	for _, p := range ps {
		b.WriteString("\n" + p.String())
	}
	return b.String()
}
