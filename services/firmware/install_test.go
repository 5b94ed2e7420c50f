package firmware

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/image/bundle"
	"ballast/image/disk"
	"ballast/image/disk/gpt"
	"ballast/image/layout"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// fakeDisks is a box with one disk, a file.
type fakeDisks struct {
	file   string
	refuse error
	target status.InstallTarget
	close  error
	log    []string
}

func (d *fakeDisks) take(_ context.Context, name string) (granted, status.InstallTarget, error) {
	if d.refuse != nil {
		return nil, d.target, d.refuse
	}
	d.log = append(d.log, "take "+name)
	f, err := os.OpenFile(d.file, os.O_RDWR, 0)
	return closes{f, d.close}, d.target, err
}

// closes is a disk that may say at its end that it has lost something.
type closes struct {
	*os.File
	err error
}

func (c closes) Close() error { return errors.Join(c.err, c.File.Close()) }

func (d *fakeDisks) give(_ context.Context, name string, carry bool) (string, error) {
	if carry {
		name += " carry"
	}
	d.log = append(d.log, "give "+name)
	return "", nil
}

func newInstall(t *testing.T) (*service, *fakeDisks, *ipc.Client) {
	t.Helper()
	s, _, _ := newService(t)
	s.machine, s.slot, s.cannot = nil, layout.None, "it did not start from a slot"
	d := &fakeDisks{file: filepath.Join(t.TempDir(), "disk"), target: status.InstallTarget{Disk: "sda", About: "a disk of 1.1 GB"}}
	if err := os.WriteFile(d.file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Truncate(d.file, 512<<20)
	s.disks = d
	return s, d, serve(t, s)
}

func whole(t *testing.T, id layout.Identity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := bundle.Write(&b, bundle.Manifest{Identity: id, ConfigFormat: layout.ConfigFormat}, slotParts(t, id, 2), maker); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// installed is what the slots of a disk hold; empty: it is no Ballast disk.
func installed(t *testing.T, file string) (versions []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, 512<<20)
	if err != nil {
		return nil
	}
	for _, n := range []int{layout.NumberSlotA, layout.NumberSlotB} {
		p, _ := table.Find(n)
		s, err := disk.ReadSlot(disk.Section(f, p))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Bundle(); err != nil {
			t.Error(err)
		}
		versions = append(versions, s.Config.Version)
	}
	return versions
}

// What is sent, what the server of the network has, and what a URL has is
// installed: the version that runs, and an older one at a word. The data is
// carried only when all is well.
func TestInstall(t *testing.T) {
	older := oldID
	older.Build, older.Version = 10, "0.9"
	file := whole(t, older)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/W/"+layout.NetBundle {
			http.NotFound(w, r)
			return
		}
		w.Write(file)
	}))
	defer srv.Close()
	for _, tt := range []struct {
		source string
		sent   []byte
		older  bool
		want   string
	}{{"", file, true, "0.9 0.9"}, {"", whole(t, oldID), false, "1.0 1.0"}, {"net", nil, true, "0.9 0.9"}, {srv.URL + "/W/" + layout.NetBundle, nil, true, "0.9 0.9"}} {
		source := tt.source
		_, d, c := newInstall(t)
		d.target.Net = srv.URL + "/W/"
		var notes string
		q := status.FirmwareInstall{Disk: "sda", Source: source, Older: tt.older, By: "ann"}
		if err := c.Stream(t.Context(), "install", q, bytes.NewReader(tt.sent), io.Discard, func(n string) { notes += n }); err != nil {
			t.Fatalf("%q: %v", source, err)
		}
		if got := strings.Join(installed(t, d.file), " "); got != tt.want {
			t.Errorf("%q: the slots hold %q", source, got)
		}
		if got := strings.Join(d.log, ", "); got != "take sda, give sda carry" {
			t.Errorf("%q: %s", source, got)
		}
		if !strings.Contains(notes, "writing sda: a disk of 1.1 GB") || !strings.Contains(notes, "sda has the firmware, the configuration and the identity") {
			t.Errorf("%q: the user reads\n%s", source, notes)
		}
	}
}

func TestInstallRefuses(t *testing.T) {
	good := whole(t, newID)
	otherBoard := newID
	otherBoard.Board = "apu2"
	older := oldID
	older.Build, older.Version = 10, "0.9"
	file := whole(t, older)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(file) }))
	defer srv.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<!DOCTYPE html><title>login</title>") }))
	defer page.Close()
	empty := t.TempDir()
	if err := os.WriteFile(filepath.Join(empty, "slotA"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		q       status.FirmwareInstall
		in      []byte
		change  func(*service, *fakeDisks)
		want    string
		written bool
	}{
		{"a disk in use", status.FirmwareInstall{Disk: "sda"}, good, func(_ *service, d *fakeDisks) { d.refuse = errors.New("sda is mounted") }, "sda is mounted", false},
		{"nothing sent", status.FirmwareInstall{Disk: "sda"}, nil, nil, "(a bundle is expected to be sent: ssh admin@BOX install sda < FILE.bundle; else say \"net\", \"slot\" or a URL)", false},
		{"a page in its place", status.FirmwareInstall{Disk: "sda", Source: page.URL}, nil, nil, "give the file ballast-BOARD.bundle\nnothing was written", false},
		{"a server that is not there", status.FirmwareInstall{Disk: "sda", Source: "http://127.0.0.1:1/fw"}, nil, nil, "connection refused: look at the URL", false},
		{"a slot without a bundle", status.FirmwareInstall{Disk: "sda", Source: "slot"}, nil, func(_ *service, d *fakeDisks) {
			d.target.Slot = "A"
			t.Setenv(EnvDisk, empty)
		}, "slotA: slot: ", false},
		{"a slot without a bundle: what helps", status.FirmwareInstall{Disk: "sda", Source: "slot"}, nil, func(_ *service, d *fakeDisks) {
			d.target.Slot = "A"
			t.Setenv(EnvDisk, empty)
		}, ": name a URL, or send the bundle\nnothing was written", false},
		{"no bundle", status.FirmwareInstall{Disk: "sda"}, []byte("hello, this is no bundle at all"), nil, "nothing was written", false},
		{"another maker", status.FirmwareInstall{Disk: "sda"}, good, func(s *service, _ *fakeDisks) { s.keys[0].Public = make([]byte, 32) }, "nothing was written", false},
		{"another board", status.FirmwareInstall{Disk: "sda"}, whole(t, otherBoard), nil, "apu2", false},
		{"older, sent", status.FirmwareInstall{Disk: "sda"}, file, nil, `add the word "older"`, false},
		{"older, from the network", status.FirmwareInstall{Disk: "sda", Source: "net"}, nil, func(_ *service, d *fakeDisks) { d.target.Net = srv.URL + "/" }, `add the word "older"`, false},
		{"just before a reboot", status.FirmwareInstall{Disk: "sda"}, good, func(s *service, _ *fakeDisks) { s.going = true }, "about to reboot", false},
		{"upgrade only", status.FirmwareInstall{Disk: "sda"}, bundled(t, newID, maker), nil, "nothing now that could be started", true},
		{"cut", status.FirmwareInstall{Disk: "sda"}, good[:len(good)-70_000], nil, "nothing now that could be started", true},
		{"lost at the end", status.FirmwareInstall{Disk: "sda"}, good, func(_ *service, d *fakeDisks) { d.close = errors.New("input/output error") }, "input/output error", true},
		{"no server", status.FirmwareInstall{Disk: "sda", Source: "net"}, nil, nil, "was not loaded over the network", false},
		{"no slot", status.FirmwareInstall{Disk: "sda", Source: "slot"}, nil, nil, "did not start from a slot", false},
	} {
		s, d, c := newInstall(t)
		if tt.change != nil {
			tt.change(s, d)
		}
		err := c.Stream(t.Context(), "install", tt.q, bytes.NewReader(tt.in), io.Discard, func(string) {})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if strings.Contains(strings.Join(d.log, " "), "carry") {
			t.Errorf("%s: the data was carried", tt.name)
		}
		if len(d.log) == 1 {
			t.Errorf("%s: the disk was not given back", tt.name)
		}
		b := make([]byte, 3)
		if f, err := os.Open(d.file); err == nil {
			f.Read(b)
			f.Close()
		}
		if (string(b) != "old") != tt.written {
			t.Errorf("%s: the disk begins with %q", tt.name, b)
		}
		if tt.written && d.close == nil && len(installed(t, d.file)) > 0 {
			t.Errorf("%s: the disk can be started", tt.name)
		}
	}
}

// In a trial nothing is installed: confirm and rollback would wait for it, and the
// end of the trial would come in its middle.
func TestInstallOnTrial(t *testing.T) {
	s, _, _ := onTrial(t)
	s.disks = &fakeDisks{refuse: errors.New("the disk was asked for")}
	c := serve(t, s)
	err := c.Stream(t.Context(), "install", status.FirmwareInstall{Disk: "sdb"}, bytes.NewReader(nil), io.Discard, func(string) {})
	if err == nil || err.Error() != s.errTrial().Error() {
		t.Errorf("install: %v", err)
	}
	if err := c.Call(t.Context(), "confirm", status.FirmwareOrder{By: "ann"}, nil); err != nil {
		t.Errorf("confirm: %v", err)
	}
	err = c.Stream(t.Context(), "install", status.FirmwareInstall{Disk: "sdb"}, bytes.NewReader(nil), io.Discard, func(string) {})
	if err == nil || !strings.Contains(err.Error(), "the disk was asked for") {
		t.Errorf("install after the trial: %v", err)
	}
}
