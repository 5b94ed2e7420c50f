package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"ballast/image/archive"
	"ballast/image/packages"
)

// uroot is the builder of the busybox of commands, a tool of go.mod.
const uroot = "github.com/u-root/u-root"

// Commands builds the u-root commands that go.mod names as tools into one
// busybox and returns it as a newc archive. It takes up to a minute, so the
// result is kept in the cache, under the name of everything that goes into it.
func Commands(ctx context.Context, root string) ([]byte, error) {
	cmds, err := commandPackages(ctx, root)
	if err != nil {
		return nil, err
	}
	key, err := commandsKey(ctx, root, cmds)
	if err != nil {
		return nil, err
	}
	cache, err := packages.CacheDir()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(cache, "commands", key+".cpio")
	b, err := os.ReadFile(file)
	if err == nil {
		return b, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image: %w", err)
	}
	if b, err = buildCommands(ctx, root, cmds); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return b, writeFile(file, b, 0o644)
}

// commandPackages are the u-root commands among go.mod's tools.
func commandPackages(ctx context.Context, root string) ([]string, error) {
	out, err := goTool(ctx, root, "mod", "edit", "-json")
	if err != nil {
		return nil, err
	}
	var mod struct{ Tool []struct{ Path string } }
	if err := json.Unmarshal([]byte(out), &mod); err != nil {
		return nil, fmt.Errorf("image: read go.mod: %w", err)
	}
	var cmds []string
	for _, t := range mod.Tool {
		if strings.HasPrefix(t.Path, uroot+"/cmds/") {
			cmds = append(cmds, t.Path)
		}
	}
	if len(cmds) == 0 {
		return nil, fmt.Errorf("image: go.mod names no command of u-root as a tool: add one with: go get -tool %s/cmds/core/ls", uroot)
	}
	slices.Sort(cmds)
	return cmds, nil
}

// recipe changes when the way in which commands are built changes.
const recipe = "1"

// commandsKey names what goes into a build: the recipe, the compiler, the
// commands, and the version of every module that they are made of.
func commandsKey(ctx context.Context, root string, cmds []string) (string, error) {
	goVersion, err := goTool(ctx, root, "env", "GOVERSION")
	if err != nil {
		return "", err
	}
	const form = "{{with .Module}}{{.Path}}@{{.Version}}{{with .Replace}}=>{{.Path}}@{{.Version}}{{end}}{{end}}"
	deps, err := goTool(ctx, root, append([]string{"list", "-deps", "-f", form, uroot}, cmds...)...)
	if err != nil {
		return "", err
	}
	mods := strings.Fields(deps)
	slices.Sort(mods)
	h := sha256.New()
	fmt.Fprintln(h, recipe, strings.TrimSpace(goVersion), cmds, slices.Compact(mods))
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}

func buildCommands(ctx context.Context, root string, cmds []string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "ballast-commands-")
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "bb.cpio")
	args := append([]string{"tool", uroot, "-o", out, "-initcmd=", "-defaultsh=", "-tmp-dir=" + tmp}, cmds...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = root, goEnv()
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("image: build the u-root commands: %w\n%s", err, tail(string(b), 2000))
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return b, nil
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-n):]
}

// addCommands takes the busybox and the names of its commands out of what
// u-root made, into /bin. The rest of its files are not ours.
func addCommands(a *archive.Archive, bb []byte) error {
	entries, err := archive.Read(bb)
	if err != nil {
		return err
	}
	n := 0
	for _, e := range entries {
		dir, name := path.Split(e.Name)
		if dir != "bbin/" {
			continue
		}
		switch {
		case name == "bb":
			a.File("bin/bb", e.Data, 0o755)
			n++
		case e.Mode&0o170000 == 0o120000:
			a.Symlink("bin/"+name, "bb")
			n++
		}
	}
	if n < 2 {
		return fmt.Errorf("image: u-root's archive holds no commands in bbin")
	}
	return nil
}
