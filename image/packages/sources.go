package packages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A machine's package sources usually name the component main only. What is in
// another one (firmware of NICs is in non-free-firmware) comes from the same
// archives: ownSources copies the machine's description of them, with that
// component added, into a file of our own, and leaves the machine's alone.

// ownSources returns the options by which apt-get and apt-cache know a component
// of the machine's Debian archives. Everything they need is below dir.
func ownSources(ctx context.Context, dir, component string) ([]string, error) {
	lists, err := ownLists(dir)
	if err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	archives, err := debianArchives(ctx, nil)
	if err == nil && len(archives) == 0 { // its lists were never fetched
		if err = run(ctx, dir, "apt-get", append(lists, "update")...); err == nil {
			archives, err = debianArchives(ctx, lists)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("packages: which archives this machine uses: %w", err)
	}
	if len(archives) == 0 {
		return nil, errors.New("packages: the package sources of this machine name no archive of Debian: add one to /etc/apt/sources.list, or keep copies of the packages in a folder and set " + EnvDebs + " to it")
	}
	files, err := sourceFiles(ctx)
	if err != nil {
		return nil, err
	}
	parts := filepath.Join(dir, "sources")
	if err := os.MkdirAll(parts, 0o755); err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	for i, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("packages: %w", err)
		}
		text, ext := "", filepath.Ext(f)
		if ext == ".sources" {
			text = componentOfStanzas(string(b), archives, component)
		} else {
			text = componentOfLines(string(b), archives, component)
		}
		if err := os.WriteFile(filepath.Join(parts, fmt.Sprintf("%d%s", i, ext)), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("packages: %w", err)
		}
	}
	own := append(lists, "-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts="+parts)
	if err := run(ctx, dir, "apt-get", append(own, "update")...); err != nil {
		return nil, fmt.Errorf("packages: the component %s of this machine's archives: %w", component, err)
	}
	return own, nil
}

// debianArchives are the addresses of the archives whose lists apt has and that
// call themselves Debian, without a slash at the end.
func debianArchives(ctx context.Context, options []string) ([]string, error) {
	out, err := Output(ctx, "apt-get", append(options, "indextargets", "--format", "$(ORIGIN) $(REPO_URI)")...)
	if err != nil {
		return nil, err
	}
	var uris []string
	for line := range strings.Lines(out) {
		if w := strings.Fields(line); len(w) == 2 && w[0] == "Debian" {
			uris = append(uris, strings.TrimRight(w[1], "/"))
		}
	}
	slices.Sort(uris)
	return slices.Compact(uris), nil
}

// sourceFiles are the files in which the machine's sources are described.
func sourceFiles(ctx context.Context) ([]string, error) {
	out, err := Output(ctx, "apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d")
	if err != nil {
		return nil, fmt.Errorf("packages: where this machine's package sources are described: %w", err)
	}
	var files []string
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, "'")
		switch name {
		case "LIST":
			if _, err := os.Stat(value); err == nil {
				files = append(files, value)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("packages: %w", err)
			}
		case "PARTS":
			for _, ext := range []string{"*.list", "*.sources"} {
				more, err := filepath.Glob(filepath.Join(value, ext))
				if err != nil {
					return nil, fmt.Errorf("packages: %w", err)
				}
				files = append(files, more...)
			}
		}
	}
	return files, nil
}

// componentOfLines keeps, of a sources.list(5) in one-line style, the binary
// archives named, and makes component the only one that is asked of them.
func componentOfLines(text string, archives []string, component string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		if len(w) < 4 || w[0] != "deb" {
			continue
		}
		at := 1 // of the address, behind options in brackets, which may hold blanks
		if strings.HasPrefix(w[1], "[") {
			for at < len(w) && !strings.HasSuffix(w[at], "]") {
				at++
			}
			at++
		}
		if at+2 >= len(w) || !slices.Contains(archives, strings.TrimRight(w[at], "/")) {
			continue
		}
		out.WriteString(strings.Join(append(slices.Clone(w[:at+2]), component), " ") + "\n")
	}
	return out.String()
}

// componentOfStanzas is the same for deb822 style, where a key may be inside.
func componentOfStanzas(text string, archives []string, component string) string {
	var out strings.Builder
	var stanza []string
	flush := func() {
		ours, named := false, false
		for _, l := range stanza {
			switch name, value, _ := strings.Cut(l, ":"); {
			case strings.EqualFold(name, "URIs"):
				for _, u := range strings.Fields(value) {
					ours = ours || slices.Contains(archives, strings.TrimRight(u, "/"))
				}
			case strings.EqualFold(name, "Components"):
				named = true
			}
		}
		if ours && named {
			folded := false // lines that go on with the value that is replaced
			for _, l := range stanza {
				goesOn := strings.HasPrefix(l, " ") || strings.HasPrefix(l, "\t")
				name, _, _ := strings.Cut(l, ":")
				switch {
				case strings.EqualFold(name, "Components"):
					out.WriteString("Components: " + component + "\n")
					folded = true
				case !goesOn || !folded:
					out.WriteString(l + "\n")
					folded = false
				}
			}
			out.WriteString("\n")
		}
		stanza = nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		switch {
		case line == "":
			flush()
		case !strings.HasPrefix(line, "#"):
			stanza = append(stanza, line)
		}
	}
	flush()
	return out.String()
}
