package conf_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/ipc/status"
)

// firmware starts the box again with a firmware of that build, which knows the
// keyword "shiny" or not.
func (b *box) firmware(build int64, shiny bool) status.Conf {
	b.t.Helper()
	if b.stop != nil {
		b.stop()
	}
	b.opts.Firmware = store.Firmware{Version: "of the test", Build: build}
	b.opts.Language = toy
	if !shiny {
		load := toy.Load
		b.opts.Language.Load = func(file, text string, o configs.Options) (model.Config, []model.Problem) {
			cfg, ps := load(file, strings.ReplaceAll(text, "vs shiny\n", ""), o)
			if strings.Contains(text, "shiny") {
				ps = append(ps, model.Problem{Severity: model.Error, File: file, Text: "shiny is not a keyword"})
			}
			return cfg, ps
		}
	}
	b.start()
	return b.state()
}

// An older firmware runs the newest generation that it can read, and the newer
// one finds its own again.
func TestOlderFirmware(t *testing.T) {
	b := newBox(t, "net")
	b.firmware(100, false)
	plain := b.mustCommit("vs plain\n")
	b.firmware(200, true)
	shiny := b.mustCommit("vs shiny\n")
	stored := snapshot(t, b)

	for range 3 { // however often it starts
		s := b.firmware(100, false)
		if s.Generation != plain || s.Source != "older firmware" || s.Config.VirtualServers[0].Name != "plain" {
			t.Fatalf("the older one runs %d (%s) %+v", s.Generation, s.Source, s.Config.VirtualServers)
		}
		if !hasProblem(s.Problems, "it ran under a newer firmware") || !hasProblem(s.Problems, "shiny is not a keyword") {
			t.Errorf("it says %v", s.Problems)
		}
	}
	if now := snapshot(t, b); !bytes.Equal(now, stored) {
		t.Errorf("the older one has changed the store:\n%s\nwas\n%s", now, stored)
	}
	if s := b.firmware(200, true); s.Generation != shiny || s.Source != "commit" || len(s.Problems) > 0 {
		t.Errorf("the newer one runs %d (%s) %v", s.Generation, s.Source, s.Problems)
	}

	// What somebody commits on the older one counts on both from then on.
	b.firmware(100, false)
	other := b.mustCommit("vs other\n")
	for _, build := range []int64{100, 200} {
		if s := b.firmware(build, build == 200); s.Generation != other || s.Source != "commit" {
			t.Errorf("firmware %d runs %d (%s), want %d", build, s.Generation, s.Source, other)
		}
	}
	if _, err := os.Stat(generationFile(b, fmt.Sprintf("%08d", shiny))); err != nil {
		t.Errorf("the one that only the newer can read is gone: %v", err)
	}
}

// A generation of the same firmware that no longer loads is another matter: the
// last good one takes its place.
func TestSameFirmwareCannotRead(t *testing.T) {
	b := newBox(t, "net")
	b.firmware(200, true)
	plain := b.mustCommit("vs plain\n")
	b.mustCommit("vs shiny\n")
	if s := b.firmware(200, false); s.Source != "last good" || s.Generation <= plain+1 || s.Config.VirtualServers[0].Name != "plain" {
		t.Errorf("%d (%s) %+v", s.Generation, s.Source, s.Config.VirtualServers)
	}
}

// The store may be of a form that the older firmware does not know at all.
func TestNewerStore(t *testing.T) {
	b := newBox(t, "net")
	b.firmware(100, false)
	plain := b.mustCommit("vs plain\n")
	later := b.mustCommit("vs later\n")
	b.stop()
	for _, name := range []string{"running", fmt.Sprintf("generations/%08d", later)} {
		path := filepath.Join(b.data, "configuration", name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Replace(text, []byte(" 1\n"), []byte(" 2\n"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stored := snapshot(t, b)
	s := b.firmware(100, false)
	if s.Generation != plain || s.Source != "older firmware" || s.Config.VirtualServers[0].Name != "plain" {
		t.Fatalf("it runs %d (%s) %+v", s.Generation, s.Source, s.Config.VirtualServers)
	}
	if !hasProblem(s.Problems, "in a form that this one cannot read (it is of format 2") {
		t.Errorf("it says %v", s.Problems)
	}
	if now := snapshot(t, b); !bytes.Equal(now, stored) {
		t.Errorf("the store was changed:\n%s\nwas\n%s", now, stored)
	}
}

// snapshot is the pointer and the names of the generations.
func snapshot(t *testing.T, b *box) []byte {
	t.Helper()
	dir := filepath.Join(b.data, "configuration")
	out, err := os.ReadFile(filepath.Join(dir, "running"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(filepath.Join(dir, "generations"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		out = append(out, e.Name()+"\n"...)
	}
	return out
}
