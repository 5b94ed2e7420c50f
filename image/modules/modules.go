// Package modules chooses kernel modules for an image: by name or by path
// pattern, with everything they depend on, which their .modinfo sections tell.
// It writes the text files that depmod would (modules.dep, .alias, .softdep,
// .builtin, .builtin.alias); no depmod is needed, and a distribution's kernel
// package does not ship them.
//
// Modules stay compressed as the package has them: the kernel decompresses
// them itself (finit_module with MODULE_INIT_COMPRESSED_FILE), which takes a
// third of the memory of the unpacked files and a fifth of the time that user
// space would take.
package modules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Module is one module of a kernel.
type Module struct {
	Name string // with underscores, as the kernel shows it
	Path string // below lib/modules/RELEASE: "kernel/net/ipv4/ipip.ko.xz"
	Info
}

// Index knows the modules of one kernel.
type Index struct {
	dir     string // lib/modules/RELEASE
	release string
	byName  map[string]*Module
	builtin map[string]bool
	aliases []string        // "alias PATTERN NAME" of what is built in
	infos   map[string]Info // by Path, read so far
	memo    string          // file that keeps infos for the next build
}

// Name is the kernel's spelling of a module name: underscores for hyphens.
func Name(s string) string { return strings.ReplaceAll(s, "-", "_") }

// Open reads what modules a kernel has. root is the folder that holds
// lib/modules/RELEASE.
func Open(root, release string) (*Index, error) {
	x := &Index{
		dir: filepath.Join(root, "lib/modules", release), release: release,
		byName: map[string]*Module{}, builtin: map[string]bool{}, infos: map[string]Info{},
		memo: filepath.Join(root, memoName),
	}
	x.recall()
	err := filepath.WalkDir(filepath.Join(x.dir, "kernel"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		base, _, ok := strings.Cut(d.Name(), ".ko")
		if !ok {
			return nil
		}
		rel, err := filepath.Rel(x.dir, p)
		if err != nil {
			return err
		}
		x.byName[Name(base)] = &Module{Name: Name(base), Path: rel}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(x.dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	for _, p := range strings.Fields(string(b)) {
		x.builtin[Name(strings.TrimSuffix(path.Base(p), ".ko"))] = true
	}
	// Strings "module.key=value" of what is built in.
	b, err = os.ReadFile(filepath.Join(x.dir, "modules.builtin.modinfo"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("modules: %w", err)
	}
	for _, kv := range strings.Split(string(b), "\x00") {
		k, v, _ := strings.Cut(kv, "=")
		if name, ok := strings.CutSuffix(k, ".alias"); ok && v != "" && !strings.ContainsAny(v, " \n") {
			x.aliases = append(x.aliases, "alias "+v+" "+Name(name))
		}
	}
	sort.Strings(x.aliases)
	x.aliases = slices.Compact(x.aliases)
	return x, nil
}

// Select returns the modules that the patterns name, with what they depend on,
// sorted by path. A pattern is a module's name ("ip_vs"), or a path below
// lib/modules/RELEASE without ".ko", with the wildcards of path.Match
// ("kernel/net/netfilter/ipvs/*"). What is built into the kernel counts as
// found. A pattern that finds nothing is an error: it would be a driver that
// the image silently lacks.
func (x *Index) Select(patterns ...string) ([]Module, error) {
	want := map[string]bool{}
	var errs []error
	for _, p := range patterns {
		found := x.match(p)
		if len(found) == 0 && !x.builtin[Name(p)] {
			errs = append(errs, fmt.Errorf("modules: kernel %s has no %q", x.release, p))
		}
		for _, n := range found {
			want[n] = true
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	done := map[string]bool{}
	for len(done) < len(want) {
		var todo []*Module
		for n := range want {
			if !done[n] {
				done[n] = true
				todo = append(todo, x.byName[n])
			}
		}
		if err := x.read(todo); err != nil {
			return nil, err
		}
		for _, m := range todo {
			for _, d := range m.Depends {
				if x.byName[d] == nil && !x.builtin[d] {
					return nil, fmt.Errorf("modules: %s depends on %s, which kernel %s does not have", m.Name, d, x.release)
				}
			}
			for _, d := range slices.Concat(m.Depends, m.SoftPre, m.SoftPost) {
				if x.byName[Name(d)] != nil { // a soft one may be missing
					want[Name(d)] = true
				}
			}
		}
	}
	var out []Module
	for n := range want {
		out = append(out, *x.byName[n])
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out, nil
}

func (x *Index) match(pattern string) []string {
	if !strings.Contains(pattern, "/") {
		if x.byName[Name(pattern)] != nil {
			return []string{Name(pattern)}
		}
		return nil
	}
	var out []string
	for n, m := range x.byName {
		stem, _, _ := strings.Cut(m.Path, ".ko")
		if ok, err := path.Match(pattern, stem); ok && err == nil {
			out = append(out, n)
		}
	}
	return out
}

// read fills in the Info of modules.
func (x *Index) read(ms []*Module) error {
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for _, m := range ms {
		if i, ok := x.infos[m.Path]; ok {
			m.Info = i
			continue
		}
		g.Go(func() error {
			i, err := readInfo(filepath.Join(x.dir, m.Path))
			m.Info = i
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fresh := 0
	for _, m := range ms {
		if _, ok := x.infos[m.Path]; !ok {
			fresh++
		}
		x.infos[m.Path] = m.Info
	}
	if fresh > 0 {
		x.remember()
	}
	return nil
}

// memoName is the file beside a kernel's tree that keeps what was read of its
// modules: decompressing hundreds of them takes half a minute. The number
// changes with Info.
const memoName = "modinfo-1.json"

// recall and remember are an optimisation only: no fault of theirs counts.
func (x *Index) recall() {
	if b, err := os.ReadFile(x.memo); err == nil {
		if json.Unmarshal(b, &x.infos) != nil {
			x.infos = map[string]Info{}
		}
	}
}

func (x *Index) remember() {
	b, err := json.Marshal(x.infos)
	if err != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(x.memo), ".modinfo-")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if f.Close() == nil && err == nil {
		os.Rename(f.Name(), x.memo)
	}
}

// File returns the content of a module's file, as compressed as it is.
func (x *Index) File(m Module) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(x.dir, m.Path))
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	return b, nil
}

// Tables returns depmod's text files for the modules of an image, by name.
func (x *Index) Tables(ms []Module) map[string][]byte {
	var dep, alias, soft, builtin bytes.Buffer
	for _, m := range ms {
		dep.WriteString(m.Path + ":")
		for _, p := range x.depPaths(m) {
			dep.WriteString(" " + p)
		}
		dep.WriteByte('\n')
		for _, a := range m.Aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, m.Name)
		}
		if len(m.SoftPre)+len(m.SoftPost) > 0 {
			soft.WriteString("softdep " + m.Name)
			if len(m.SoftPre) > 0 {
				soft.WriteString(" pre: " + strings.Join(m.SoftPre, " "))
			}
			if len(m.SoftPost) > 0 {
				soft.WriteString(" post: " + strings.Join(m.SoftPost, " "))
			}
			soft.WriteByte('\n')
		}
	}
	names := make([]string, 0, len(x.builtin))
	for n := range x.builtin {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		builtin.WriteString(n + ".ko\n")
	}
	return map[string][]byte{
		"modules.dep": dep.Bytes(), "modules.alias": alias.Bytes(), "modules.softdep": soft.Bytes(),
		"modules.builtin":       builtin.Bytes(),
		"modules.builtin.alias": []byte(strings.Join(append(slices.Clone(x.aliases), ""), "\n")),
	}
}

// depPaths is everything m needs, the ones that must be loaded first last, as
// modules.dep has it.
func (x *Index) depPaths(m Module) []string {
	var out []string
	seen := map[string]bool{m.Name: true}
	var walk func(deps []string)
	walk = func(deps []string) {
		for _, d := range deps {
			dm := x.byName[d]
			if dm == nil || seen[d] {
				continue
			}
			seen[d] = true
			walk(dm.Depends)
			out = append(out, dm.Path)
		}
	}
	walk(m.Depends)
	slices.Reverse(out)
	return out
}

// Firmware is the files below /lib/firmware that the modules may ask for,
// sorted.
func Firmware(ms []Module) []string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Firmware...)
	}
	sort.Strings(out)
	return slices.Compact(out)
}
