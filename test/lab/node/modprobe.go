package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loadModule loads one file; a compressed one is decompressed by the kernel.
func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(name, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", path.Base(name), err)
	}
	return nil
}

// moduleDir is where the modules of the running kernel are.
func moduleDir() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:])), nil
}

// loadList loads the modules that a file names, one a line, with what they
// depend on.
func loadList(name string) (int, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	n := 0
	var errs []error
	for _, m := range strings.Fields(string(b)) {
		if err := modprobe([]string{m}); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// modprobe is what the kernel calls, as "modprobe -q -- NAME", for a module
// that it lacks.
func modprobe(args []string) error {
	if len(args) == 0 {
		return errors.New("want the name of a module")
	}
	name := args[len(args)-1]
	dir, err := moduleDir()
	if err != nil {
		return err
	}
	deps, err := readDeps(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return err
	}
	names := []string{canonical(name)}
	if _, ok := deps[names[0]]; !ok {
		if names, err = aliases(filepath.Join(dir, "modules.alias"), name); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("no module %q in this VM", name)
	}
	for _, n := range names {
		files := deps[n]
		for i := len(files) - 1; i >= 0; i-- { // dependencies last in modules.dep
			if err := loadModule(filepath.Join(dir, files[i])); err != nil {
				return err
			}
		}
	}
	return nil
}

func canonical(s string) string { return strings.ReplaceAll(s, "-", "_") }

// readDeps maps a module to its file and the files it depends on.
func readDeps(name string) (map[string][]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string][]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		file, rest, _ := strings.Cut(s.Text(), ":")
		base, _, _ := strings.Cut(path.Base(file), ".ko")
		out[canonical(base)] = append([]string{file}, strings.Fields(rest)...)
	}
	return out, s.Err()
}

// aliases returns the modules whose alias patterns match a name.
func aliases(name, wanted string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		w := strings.Fields(s.Text()) // alias PATTERN MODULE
		if len(w) != 3 {
			continue
		}
		if ok, err := path.Match(w[1], wanted); err == nil && ok {
			out = append(out, canonical(w[2]))
		}
	}
	return out, s.Err()
}
