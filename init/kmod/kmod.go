// Package kmod loads kernel modules: by name, or by the alias that a device or
// the kernel asks for, with everything they depend on, with the parameters that
// the kernel's command line gives them (module.parameter=value). It reads the
// tables that depmod writes. The kernel decompresses the files itself.
package kmod

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Loader loads the modules of one kernel. Its methods may be called from any
// goroutine.
type Loader struct {
	dir     string              // lib/modules/RELEASE
	paths   map[string]string   // name -> path below dir; "" is built in
	deps    map[string][]string // path -> paths, what must be there first last
	exact   map[string][]string // alias without wildcards -> names
	globs   map[string][]alias  // by the part before the first ':', "": it holds a wildcard
	soft    map[string]soft     // by name
	params  map[string]string   // by name
	denied  map[string]bool     // not by alias
	insert  func(file, params string) error
	mu      sync.Mutex
	done    map[string]bool // by path: loaded, or about to be
	counter int

	// Trace, when set before the first load, is told of each module and how long
	// the kernel took for it.
	Trace func(name string, took time.Duration)
}

type alias struct{ pattern, prefix, name string }

type soft struct{ pre, post []string }

// Name is the kernel's spelling of a module name.
func Name(s string) string { return strings.ReplaceAll(s, "-", "_") }

// stem is the module's name of a path.
func stem(p string) string {
	n, _, _ := strings.Cut(path.Base(p), ".ko")
	return Name(n)
}

// Open reads the tables below lib/modules/RELEASE of the running kernel.
// cmdline is the kernel's command line.
func Open(cmdline string) (*Loader, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("kmod: uname: %w", err)
	}
	return open(filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:])), cmdline, finit)
}

func open(dir, cmdline string, insert func(file, params string) error) (*Loader, error) {
	l := &Loader{
		dir: dir, insert: insert,
		paths: map[string]string{}, deps: map[string][]string{}, exact: map[string][]string{}, globs: map[string][]alias{},
		soft: map[string]soft{}, params: map[string]string{}, denied: map[string]bool{}, done: map[string]bool{},
	}
	l.readCmdLine(cmdline)
	for _, t := range []struct {
		file     string
		needed   bool
		readLine func(string)
	}{
		{"modules.builtin", false, func(s string) { l.paths[stem(s)] = "" }},
		{"modules.dep", true, l.readDep},
		{"modules.alias", true, l.readAlias},
		{"modules.builtin.alias", false, l.readAlias},
		{"modules.softdep", false, l.readSoftdep},
	} {
		b, err := os.ReadFile(filepath.Join(dir, t.file))
		if err != nil {
			if !t.needed && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return nil, fmt.Errorf("kmod: %w", err)
		}
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			t.readLine(s.Text())
		}
	}
	return l, nil
}

func (l *Loader) readCmdLine(s string) {
	for _, w := range strings.Fields(s) {
		k, v, has := strings.Cut(w, "=")
		m, p, ok := strings.Cut(k, ".")
		switch {
		case k == "modprobe.blacklist":
			for _, n := range strings.Split(v, ",") {
				l.denied[Name(n)] = true
			}
		case ok && p != "" && m != "":
			if has {
				p += "=" + v
			}
			l.params[Name(m)] = strings.TrimSpace(l.params[Name(m)] + " " + p)
		}
	}
}

func (l *Loader) readDep(s string) {
	p, deps, ok := strings.Cut(s, ":")
	if ok {
		l.paths[stem(p)] = p
		l.deps[p] = strings.Fields(deps)
	}
}

func (l *Loader) readAlias(s string) {
	w := strings.Fields(s)
	if len(w) != 3 || w[0] != "alias" {
		return
	}
	pattern, name := w[1], Name(w[2])
	i := strings.IndexAny(pattern, "*?[")
	if i < 0 {
		// Hyphens and underscores are one in what the kernel asks for by name.
		l.exact[Name(pattern)] = append(l.exact[Name(pattern)], name)
		return
	}
	bus, _, _ := strings.Cut(pattern[:i], ":")
	if !strings.Contains(pattern[:i], ":") {
		bus = ""
	}
	l.globs[bus] = append(l.globs[bus], alias{pattern, pattern[:i], name})
}

func (l *Loader) readSoftdep(s string) {
	w := strings.Fields(s)
	if len(w) < 3 || w[0] != "softdep" {
		return
	}
	var d soft
	to := &d.pre
	for _, x := range w[2:] {
		switch x {
		case "pre:":
			to = &d.pre
		case "post:":
			to = &d.post
		default:
			*to = append(*to, x)
		}
	}
	l.soft[Name(w[1])] = d
}

// ErrUnknown is the error for a name that is neither a module nor an alias.
var ErrUnknown = errors.New("no such module or alias")

// Load loads a module by its name or by an alias. Of several modules that
// serve one alias, one that loads is enough. What is loaded or built in
// already is no error.
func (l *Loader) Load(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.load(name, 0)
}

// Match returns the names of the modules that serve a device or an alias.
func (l *Loader) Match(modalias string) []string {
	out := slices.Clone(l.exact[Name(modalias)])
	bus, _, _ := strings.Cut(modalias, ":")
	// Patterns with a wildcard before the first colon fit any bus.
	for _, a := range slices.Concat(l.globs[bus], l.globs[""]) {
		if strings.HasPrefix(modalias, a.prefix) && !slices.Contains(out, a.name) && glob(a.pattern, modalias) {
			out = append(out, a.name)
		}
	}
	return slices.DeleteFunc(out, func(n string) bool { return l.denied[n] })
}

// maxDepth bounds soft dependencies that go round in a circle.
const maxDepth = 16

func (l *Loader) load(name string, depth int) error {
	if p, ok := l.paths[Name(name)]; ok {
		return l.loadPath(p, depth)
	}
	names := l.Match(name)
	if len(names) == 0 {
		return fmt.Errorf("kmod: %s: %w", name, ErrUnknown)
	}
	var errs []error
	for _, n := range names {
		p, ok := l.paths[n]
		if !ok {
			continue
		}
		if err := l.loadPath(p, depth); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(names) {
		return errors.Join(errs...)
	}
	return nil
}

func (l *Loader) loadPath(p string, depth int) error {
	if p == "" || depth > maxDepth || l.done[p] {
		return nil
	}
	l.done[p] = true // a circle of dependencies ends here
	err := l.loadNew(p, depth)
	if err != nil {
		delete(l.done, p) // its device may come later
	}
	return err
}

func (l *Loader) loadNew(p string, depth int) error {
	name := stem(p)
	for _, s := range l.soft[name].pre {
		l.load(s, depth+1) // "soft": it may well be missing
	}
	for _, d := range slices.Backward(l.deps[p]) {
		if err := l.loadPath(d, depth+1); err != nil {
			return fmt.Errorf("kmod: %s needs %s: %w", name, stem(d), err)
		}
	}
	begin := time.Now()
	if err := l.insert(filepath.Join(l.dir, p), l.params[name]); err != nil {
		return fmt.Errorf("kmod: load %s: %w", name, err)
	}
	if l.Trace != nil {
		l.Trace(name, time.Since(begin))
	}
	l.counter++
	for _, s := range l.soft[name].post {
		l.load(s, depth+1)
	}
	return nil
}

// Loaded is how many modules this loader has put into the kernel.
func (l *Loader) Loaded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counter
}

// Coldplug loads the drivers of all devices that sysfs shows (dir is
// "/sys/devices"), and of those that appear through them, until nothing new
// comes. It returns what could not be loaded.
func (l *Loader) Coldplug(dir string) []error {
	var errs []error
	seen := map[string]bool{}
	for range maxDepth {
		fresh := 0
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "modalias" || d.IsDir() {
				return nil
			}
			b, err := os.ReadFile(p)
			m := strings.TrimSpace(string(b))
			if err != nil || m == "" || seen[m] {
				return nil
			}
			seen[m] = true
			fresh++
			if err := l.Device(m); err != nil {
				errs = append(errs, err)
			}
			return nil
		})
		if fresh == 0 {
			break
		}
	}
	return errs
}

// Device loads the drivers of a device by its modalias. No driver is no error.
func (l *Loader) Device(modalias string) error {
	var errs []error
	for _, n := range l.Match(modalias) {
		if err := l.Load(n); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// finit hands a module's file to the kernel.
func finit(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(f.Fd()), params, flags)
	if errors.Is(err, unix.EEXIST) { // another loader was faster, or the kernel has it
		return nil
	}
	return err
}
