package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// goEnv is the environment of every Go build of an image: nothing of the
// machine that builds shows in the result.
func goEnv() []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=-mod=readonly", "GOWORK=off", "GO111MODULE=on")
}

// Binary builds the one static binary from the sources at root.
func Binary(ctx context.Context, root, out, version string) error {
	if strings.ContainsAny(version, " \t\n'\"") || version == "" {
		return fmt.Errorf("image: version %q: want one word", version)
	}
	abs, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(abs), 0o755); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	_, err = goTool(ctx, root, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid= -X main.version="+version, "-o", abs, "./init")
	return err
}

// goTool runs the go command in a folder and returns what it prints.
func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, goEnv()
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("image: go %s: %w\n%s", args[0], err, strings.TrimSpace(words.String()))
	}
	return string(out), nil
}

// Version is what the sources at root call themselves: the VERSION variable of
// the environment, or the state of the git repository, or "dev".
func Version(ctx context.Context, root string) string {
	if v := os.Getenv("VERSION"); v != "" {
		return v
	}
	if v, err := git(ctx, root, "describe", "--always", "--dirty", "--abbrev=12"); err == nil && v != "" {
		return v
	}
	return "dev"
}

// git runs git in a folder and returns what it prints.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}
