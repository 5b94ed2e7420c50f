package conf

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/ipc/status"
)

// boot finds the configuration to start with and publishes it. In this order:
// the running generation, the newest older one that loads, the seed, what of a
// faulty one keeps the box reachable, DHCP on every NIC. It always publishes
// one.
func (c *conf) boot() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	var problems []model.Problem
	if c.noDisk != "" {
		problems = append(problems, model.Problem{Severity: model.Error, File: "configuration store", Text: c.noDisk,
			Fix: "look for the data disk in \"show log kernel\" and reboot"})
	}
	for _, f := range c.store.Faults() {
		problems = append(problems, model.Problem{Severity: model.Warning, File: "configuration store", Text: f})
	}
	faulty := "" // the first text that would not load, for its reachable part
	if newer := c.store.Newer(); newer != "" {
		problems = append(problems, model.Problem{Severity: model.Warning, File: "configuration store", Text: newer, Fix: "upgrade again; what is committed here runs on this firmware only"})
	}
	r, ok := c.bootStored(&problems, &faulty)
	if ok && c.store.Newer() != "" {
		r.state.Source = sourceOlder
	}
	if !ok {
		r, ok = c.bootSeed(&problems, &faulty)
	}
	if !ok {
		r = c.bootReachable(faulty)
	}
	r.state.Problems = append(problems, r.state.Problems...)
	r.state.Problems = append(r.state.Problems, c.place(r.files)...)
	for _, p := range r.state.Problems {
		if p.Severity == model.Error {
			c.env.Log.Error("configuration: " + p.String())
		} else {
			c.env.Log.Warn("configuration: " + p.String())
		}
	}
	c.publish(r)
	c.env.Log.Info(fmt.Sprintf("running generation %d (%s)", r.state.Generation, r.state.Source))
}

// bootStored picks from the store.
func (c *conf) bootStored(problems *[]model.Problem, faulty *string) (running, bool) {
	want := c.store.Running()
	unfinished := c.store.Unfinished()
	mark, ends, back, why := c.bootMark()
	order := c.olderThan(want)
	switch {
	case back: // nothing between the two was confirmed either
		order = append(c.olderThan(mark.Back), want)
	case mark != nil:
		order = append([]uint64{want}, c.olderThan(mark.Back)...)
	}
	if want == 0 { // what is stored was never applied: no commit was finished so far
		order = nil
	}
	r, g, ok := c.good(order, problems, faulty)
	if ok {
		n := g.Generation
		switch {
		case mark != nil && n != want:
			if !back {
				why = "taken back, it could not be loaded at boot"
			}
			g = c.reverted(g, *mark, why)
			*problems = append(*problems, model.Problem{Severity: model.Warning, File: generationName(want), Text: g.Reverted,
				Fix: "commit it again, and confirm it in time"})
			r = c.again(r, g, nil)
		case n != want && c.store.IsNewer(want, c.Firmware):
			// That firmware may come back, and then it runs again: the pointer to it
			// stays, until somebody commits here.
			r.state.Source = sourceOlder
			*problems = append(*problems, model.Problem{Severity: model.Warning, File: generationName(want),
				Text: fmt.Sprintf("it ran under a newer firmware, and this one (%s) cannot read it: %s runs, the newest one that it can", c.Firmware.Version, generationName(n)),
				Fix:  "upgrade again and it runs again; what is committed here takes its place"})
		case n != want:
			g.Source, g.Comment = "last good", fmt.Sprintf("%s could not be loaded at boot", generationName(want))
			r = c.again(r, g, nil)
		case back: // nothing else loads
			mark = nil
			if err := c.store.Confirm(); err != nil {
				c.env.Log.Error("configuration store: " + err.Error())
			}
		case len(unfinished) > 0:
			// The services may run the unfinished one: a number above it tells
			// them to come back.
			g.Source = "rollback"
			g.Comment = fmt.Sprintf("the box or conf stopped while %s was being applied", generationName(unfinished[0]))
			*problems = append(*problems, model.Problem{Severity: model.Warning, File: generationName(unfinished[0]),
				Text: "the box stopped before every service had applied it", Fix: "commit it again"})
			r = c.again(r, g, mark)
		}
		if mark != nil && n == want {
			if now := c.store.Pending(); now != nil {
				mark = now // with the number that it may have got
			}
			r.state.Pending = c.open(*mark, ends).told()
		}
	}
	if ok || want == 0 {
		for _, u := range unfinished {
			if u == c.pair.part.Generation {
				continue // the other box knows what came of it
			}
			if err := c.store.Drop(u); err != nil {
				c.env.Log.Warn("configuration store: " + err.Error())
			}
		}
	}
	return r, ok
}

// sourceOlder is the source of a configuration that runs because the firmware is
// older than the one that ran last.
const sourceOlder = "older firmware"

// good is the first of some generations that is intact and loads. What is wrong
// with those before it goes to problems, the text of the first that does not
// load to faulty.
func (c *conf) good(order []uint64, problems *[]model.Problem, faulty *string) (running, store.Generation, bool) {
	for _, n := range order {
		g, err := c.store.Load(n)
		if err != nil {
			*problems = append(*problems, model.Problem{Severity: model.Error, Text: err.Error(),
				Fix: "an older generation runs; commit again what is missing"})
			continue
		}
		files := g.Files
		if n == c.store.Running() {
			files = c.store.Files() // the working set, which may be newer
		}
		name := generationName(n)
		if g.Source == "factory" {
			name, g.Text = "factory", factoryText(c.NICs())
		}
		// No facts: a NIC or a file that is not there yet is no reason to drop
		// a configuration that ran before.
		cfg, found := c.load(name, g.Text, files, nil)
		if errorsIn(found) > 0 {
			*problems = append(*problems, found...)
			if *faulty == "" {
				*faulty = g.Text
			}
			continue
		}
		return running{state: stateOf(g.Meta, cfg, g.Text), files: files}, g, true
	}
	return running{}, store.Generation{}, false
}

// olderThan are generation n and the older ones, newest first.
func (c *conf) olderThan(n uint64) []uint64 {
	order := []uint64{n}
	for _, m := range c.store.List() {
		if m.Generation < n && m.Generation != c.pair.part.Generation {
			order = append(order, m.Generation)
		}
	}
	return order
}

// again stores g under a new number and makes it the running one, with the mark
// that the one before it has, if any. Where the disk fails it runs all the same.
func (c *conf) again(r running, g store.Generation, mark *store.Pending) running {
	g.Time = time.Now()
	g.Files = r.files
	n, err := c.store.Put(g)
	switch {
	case err != nil:
	case mark != nil:
		mark.Generation = n
		err = c.store.SetUnconfirmed(*mark)
	default:
		err = c.store.SetRunning(n)
	}
	if err != nil {
		c.env.Log.Error("configuration store: " + err.Error())
		n = max(n, c.store.Newest())
	}
	g.Generation = n
	return running{state: stateOf(g.Meta, r.state.Config, g.Text), files: r.files}
}

func stateOf(m store.Meta, cfg model.Config, text string) status.Conf {
	return status.Conf{Generation: m.Generation, Config: cfg, Text: text, Source: m.Source, Author: m.Author, Time: m.Time, Reverted: m.Reverted}
}

// bootSeed loads the seed: what the image or the netboot server brought for a
// box that has no configuration of its own.
func (c *conf) bootSeed(problems *[]model.Problem, faulty *string) (running, bool) {
	if c.Seed == "" {
		return running{}, false
	}
	// What init read from the kernel's command line stands in for the blocks of
	// its kind that the seed does not have.
	parts := map[string]string{}
	for _, name := range []string{"words", "config"} {
		text, err := readSmall(filepath.Join(c.Seed, name), store.MaxText)
		switch {
		case err == nil:
			parts[name] = string(text)
		case !os.IsNotExist(err):
			*problems = append(*problems, model.Problem{Severity: model.Error, File: "seed", Text: err.Error()})
		}
	}
	if len(parts) == 0 {
		return running{}, false
	}
	refs, fileProblems := c.seedFiles()
	*problems = append(*problems, fileProblems...)
	// A plain keepalived.conf says nothing of NICs: then DHCP keeps the box reachable.
	merged := c.Language.Merge(c.Language.Merge(factoryText(c.NICs()), parts["words"]), parts["config"])
	cfg, found := c.load("seed", merged, refs, nil)
	if errorsIn(found) > 0 {
		*problems = append(*problems, found...)
		if *faulty == "" {
			*faulty = c.Language.Merge(parts["words"], parts["config"])
		}
		return running{}, false
	}
	r := running{files: refs}
	r.state.Config = cfg
	return c.again(r, store.Generation{Meta: store.Meta{Source: "seed"}, Text: merged}, nil), true
}

func readSmall(path string, limit int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fmt.Errorf("%s: want a file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// seedFiles stores the script files of the seed.
func (c *conf) seedFiles() (refs []store.FileRef, problems []model.Problem) {
	root := filepath.Join(c.Seed, "files")
	total := 0
	bad := func(path string, err error) {
		problems = append(problems, model.Problem{Severity: model.Warning, File: "seed", Text: "file " + path + ": " + err.Error()})
	}
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			if path != root {
				bad(path, err)
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		dest := strings.TrimPrefix(path, root)
		err = validPath(dest)
		var b []byte
		if err == nil {
			b, err = readSmall(path, store.MaxFile)
		}
		if err == nil && total+len(b) > store.MaxFilesTotal {
			err = fmt.Errorf("left out: all files together have more than %d bytes", store.MaxFilesTotal)
		}
		var ref store.FileRef
		if err == nil {
			ref, err = c.store.AddBlob(dest, 0o755, b) // the mode of the seed tells who may read the seed, no more
		}
		if err != nil {
			bad(dest, err)
			return nil
		}
		total += ref.Size
		refs = append(refs, ref)
		return nil
	})
	slices.SortFunc(refs, func(a, b store.FileRef) int { return strings.Compare(a.Path, b.Path) })
	if len(refs) > store.MaxFiles {
		bad("", fmt.Errorf("%d files are more than %d: the rest is left out", len(refs), store.MaxFiles))
		refs = refs[:store.MaxFiles]
	}
	return refs, problems
}

// bootReachable runs what of a faulty configuration keeps the box reachable
// (host name, users, NICs, routes), or DHCP on every NIC. Virtual servers and
// VIPs of a configuration with errors do not run: half a pair that holds half
// its addresses is worse than a standby.
func (c *conf) bootReachable(faulty string) running {
	n, err := c.store.Reserve()
	if err != nil {
		c.env.Log.Error("configuration store: " + err.Error())
	}
	factory := factoryText(c.NICs())
	r := running{state: status.Conf{Generation: n, Source: "factory", Time: time.Now(), Text: factory}, files: c.store.Files()}
	r.state.Config, _ = c.load("factory", factory, nil, nil)
	if faulty == "" {
		return r
	}
	text := c.Language.Merge(faulty, "")
	cfg, _ := c.load("reachable part", text, r.files, nil)
	reachable := model.Config{System: cfg.System, Interfaces: cfg.Interfaces, Bonds: cfg.Bonds, VLANs: cfg.VLANs,
		StaticAddrs: cfg.StaticAddrs, StaticRoutes: cfg.StaticRoutes}
	text = c.Language.Merge(factory, text) // DHCP where no NIC is configured
	if len(reachable.Interfaces) == 0 {
		reachable.Interfaces = r.state.Config.Interfaces
	}
	r.state.Source, r.state.Config, r.state.Text = "last good", reachable, text
	r.state.Problems = []model.Problem{{Severity: model.Error,
		Text: "nothing that is stored loads without errors: only host name, users, interfaces and routes run, no VIP and no virtual server",
		Fix:  "load and commit a configuration"}}
	return r
}
