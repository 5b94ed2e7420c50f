// Package kmod loads kernel modules: by name, or by the alias that a device or
// the kernel asks for, with everything they depend on, with the parameters that
// the kernel's command line gives them (module.parameter=value). It reads the
// tables that depmod writes. The kernel decompresses the files itself.
package kmod

import (
	"cmp"
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
	globs   []alias             // with wildcards, sorted by what comes before the first one
	fixed   []int               // the lengths of that which there are
	soft    map[string]soft     // by name
	params  map[string]string   // by name
	denied  map[string]bool     // not by alias
	insert  func(file, params string) error
	mu      sync.Mutex
	done    map[string]bool // by path: loaded, or about to be
	counter int
	closed  bool

	// Trace, when set before the first load, is told of each module and how long
	// the kernel took for it.
	Trace func(name string, took time.Duration)
}

// alias is a pattern with wildcards. There are thousands, which stay in memory:
// their strings are parts of the table's text.
type alias struct {
	pattern, name string
	fixed         int32 // so many characters come before the first wildcard
	order         int32 // in the tables
}

func (a alias) prefix() string { return a.pattern[:a.fixed] }

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
		paths: map[string]string{}, deps: map[string][]string{}, exact: map[string][]string{},
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
		for line := range strings.Lines(string(b)) {
			t.readLine(strings.TrimSuffix(line, "\n"))
		}
	}
	slices.SortFunc(l.globs, func(a, b alias) int { return cmp.Or(strings.Compare(a.prefix(), b.prefix()), int(a.order-b.order)) })
	seen := map[int]bool{}
	for _, a := range l.globs {
		if n := int(a.fixed); !seen[n] {
			seen[n] = true
			l.fixed = append(l.fixed, n)
		}
	}
	slices.Sort(l.fixed)
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
	rest, ok := strings.CutPrefix(s, "alias ")
	pattern, name, two := strings.Cut(rest, " ")
	if !ok || !two || pattern == "" || name == "" || strings.Contains(name, " ") {
		return
	}
	name = Name(name)
	i := strings.IndexAny(pattern, "*?[")
	if i < 0 {
		// Hyphens and underscores are one in what the kernel asks for by name.
		l.exact[Name(pattern)] = append(l.exact[Name(pattern)], name)
		return
	}
	l.globs = append(l.globs, alias{pattern, name, int32(i), int32(len(l.globs))})
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

// ErrClosed is the error for a module that is not loaded when no more may be.
var ErrClosed = errors.New("module loading is closed until the next boot; ballast.modules=open on the kernel's command line keeps it open")

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

// Match returns the names of the modules that serve a device or an alias, in the
// order of the tables.
func (l *Loader) Match(modalias string) []string {
	var fit []alias
	for _, n := range l.fixed {
		if n > len(modalias) {
			break
		}
		// Those that begin as the device does, up to their first wildcard.
		first, _ := slices.BinarySearchFunc(l.globs, modalias[:n], func(a alias, s string) int { return strings.Compare(a.prefix(), s) })
		for _, a := range l.globs[first:] {
			if a.prefix() != modalias[:n] {
				break
			}
			if glob(a.pattern, modalias) {
				fit = append(fit, a)
			}
		}
	}
	slices.SortFunc(fit, func(a, b alias) int { return int(a.order - b.order) })
	out := slices.Clone(l.exact[Name(modalias)])
	for _, a := range fit {
		if !slices.Contains(out, a.name) {
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
	if l.closed {
		if _, err := os.Stat("/sys/module/" + name); err == nil {
			return nil // somebody else's loader was there
		}
		return fmt.Errorf("kmod: %s: %w", name, ErrClosed)
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

// Named are the modules that patterns mean, sorted: names, or paths without
// ".ko" that may hold wildcards. Those that are not there are left out.
func (l *Loader) Named(patterns []string) []string {
	var out []string
	for name, p := range l.paths {
		whole, _, _ := strings.Cut(p, ".ko")
		if slices.ContainsFunc(patterns, func(x string) bool {
			fits, err := path.Match(x, whole)
			return p != "" && (Name(x) == name || err == nil && fits)
		}) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Settings of the kernel that Close writes.
const (
	modulesDisabled = "/proc/sys/kernel/modules_disabled"
	modprobePath    = "/proc/sys/kernel/modprobe"
)

// Close has the kernel load no more modules, until the next boot.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Nobody is to be started for what cannot be done.
	if err := os.WriteFile(modprobePath, []byte("\n"), 0o644); err != nil {
		return fmt.Errorf("kmod: %w", err)
	}
	if err := os.WriteFile(modulesDisabled, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("kmod: %w", err)
	}
	l.closed = true
	return nil
}

// Loaded is how many modules this loader has put into the kernel.
func (l *Loader) Loaded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counter
}

// Coldplug loads the drivers of all devices that sysfs (at sys) shows, NICs first,
// and of those that appear through them, until nothing new comes. It returns what
// could not be loaded.
func (l *Loader) Coldplug(sys string) []error {
	return l.coldplug(sys, l.Device)
}

// ColdplugOnly is Coldplug for some drivers, by their names: those whose device
// is there are loaded, the others not.
func (l *Loader) ColdplugOnly(sys string, names []string) []error {
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[Name(n)] = true
	}
	return l.coldplug(sys, func(modalias string) error {
		return l.device(modalias, func(n string) bool { return wanted[n] })
	})
}

func (l *Loader) coldplug(sys string, device func(modalias string) error) []error {
	var errs []error
	seen := map[string]bool{}
	for range maxDepth {
		var fresh []string
		for _, d := range devices(sys) {
			b, err := os.ReadFile(filepath.Join(d, "modalias"))
			if m := strings.TrimSpace(string(b)); err == nil && m != "" && !seen[m] {
				seen[m] = true
				fresh = append(fresh, m)
			}
		}
		if len(fresh) == 0 {
			break
		}
		// NICs first, in the order of the bus: what is plugged into USB, and the port
		// that a server's management controller shows there, comes in the background
		// when USB has a driver, and must not take the name of one that is built in.
		slices.SortStableFunc(fresh, func(a, b string) int { return rank(a) - rank(b) })
		for _, m := range fresh {
			if err := device(m); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errs
}

// devices are the folders of all devices that may want a driver, in the order of
// their places: those of every bus, and of the classes that have drivers of their
// own. To walk all of /sys/devices instead would take a second on a large server,
// most of it below its processors.
func devices(sys string) []string {
	lists, _ := filepath.Glob(filepath.Join(sys, "bus/*/devices"))
	for _, class := range []string{"input", "dmi"} {
		lists = append(lists, filepath.Join(sys, "class", class))
	}
	out := []string{filepath.Join(sys, "devices/system/cpu")} // drivers for what the processors can do
	for _, list := range lists {
		entries, _ := os.ReadDir(list)
		for _, e := range entries {
			if to, err := os.Readlink(filepath.Join(list, e.Name())); err == nil {
				out = append(out, filepath.Join(list, to))
			}
		}
	}
	// A folder before its neighbours whose names begin like its own.
	slices.SortFunc(out, byPlace)
	return slices.Compact(out)
}

// byPlace compares paths part by part.
func byPlace(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			if a[i] == '/' || b[i] != '/' && a[i] < b[i] {
				return -1
			}
			return 1
		}
	}
	return len(a) - len(b)
}

// rank is 0 for a NIC and 1 for anything else.
func rank(modalias string) int {
	if strings.HasPrefix(modalias, "virtio:d00000001v") || strings.HasPrefix(modalias, "pci:") && strings.Contains(modalias, "bc02sc") {
		return 0
	}
	return 1
}

// Device loads the drivers of a device by its modalias. No driver is no error.
func (l *Loader) Device(modalias string) error {
	return l.device(modalias, func(string) bool { return true })
}

func (l *Loader) device(modalias string, wanted func(name string) bool) error {
	var errs []error
	for _, n := range l.Match(modalias) {
		if !wanted(n) {
			continue
		}
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
