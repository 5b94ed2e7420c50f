package conf_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc/status"
)

const both = `system {
    @lb1 host_name lb1
    @lb2 host_name lb2.example
    login admin {
        role admin
        key "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz3ZrdKhNfvRyJ3yDUk4PVvHBdwqHLXJhQ3JZ admin"
    }
}
interface eth0 {
    @lb1 address 10.0.0.11/24
    @lb2 address 10.0.0.12/24
}
`

// netboot gets the configuration of boxes that the configuration or an
// administrator names, as those boxes read it, and of no other.
func TestNetbootSeed(t *testing.T) {
	b := realBox(t)
	b.opts.Host = func() string { return "lb1" }
	b.start()
	b.mustCommit(both + plain)
	if err := b.call("file-put", status.File{Path: "/etc/keepalived/x.sh", Content: []byte("#!/bin/sh\n")}, nil); err != nil {
		t.Fatal(err)
	}
	seed := func(name string, whole bool) (c status.NetbootContent, err error) {
		err = b.call("netboot-seed", status.NetbootQuery{Name: name, Whole: whole}, &c)
		return c, err
	}
	_, err := seed("lb2", true)
	wantError(t, err, "netboot of lb2 is neither")

	wantError(t, b.call("netboot-may", status.NetbootAllow{Name: "lb1", For: time.Minute}, nil), "lb1 is this box")
	wantError(t, b.call("netboot-may", status.NetbootAllow{Name: "lb3", For: time.Minute}, nil), `no host_name for lb3: write "@lb3 host_name lb3"`)
	wantError(t, b.call("netboot-may", status.NetbootAllow{Name: "lb2", For: 25 * time.Hour}, nil), "at most")
	if err := b.call("netboot-may", status.NetbootAllow{Name: "lb2", For: time.Minute}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := seed("lb2.example", false)
	if err != nil || got.Text != "" || got.Files != nil || fmt.Sprint(got.Addresses) != "[{eth0 10.0.0.12/24}]" || got.Server != "lb1" {
		t.Errorf("%v: %+v", err, got)
	}
	got, err = seed("lb2", true)
	if err != nil || !strings.Contains(got.Text, "auth_pass hidden42") || len(got.Files) != 1 || string(got.Files[0].Content) != "#!/bin/sh\n" || got.Generation != b.state().Generation {
		t.Errorf("%v: %+v", err, got)
	}
	if err := b.call("netboot-may", status.NetbootAllow{Name: "lb2"}, nil); err != nil { // it is over
		t.Fatal(err)
	}
	_, err = seed("lb2", true)
	wantError(t, err, "netboot of lb2 is neither")

	b.mustCommit(both + plain + "netboot {\n    box 52:54:00:00:00:02 {\n        name lb2\n    }\n}\n")
	if _, err := seed("lb2", true); err != nil {
		t.Error(err)
	}
	_, err = seed("lb3", true)
	wantError(t, err, "netboot of lb3 is neither")
}

// A box that boots from that runs the very text, so that both are in step.
func TestNetbootSeedIsTheText(t *testing.T) {
	text := both + plain + "netboot {\n    box 52:54:00:00:00:02 {\n        name lb2\n    }\n}\n"
	b := realBox(t)
	b.opts.Host = func() string { return "lb2" }
	b.opts.Seed = t.TempDir()
	if err := os.WriteFile(filepath.Join(b.opts.Seed, "config"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	var got status.Candidate
	if err := b.call("text", status.TextQuery{}, &got); err != nil || got.Text != text {
		t.Errorf("%v, it runs\n%s", err, got.Text)
	}
	if s := b.state(); s.Config.System.HostName != "lb2.example" || fmt.Sprint(s.Config.Interfaces[0].Addresses) != "[10.0.0.12/24]" {
		t.Errorf("%+v", s.Config)
	}
}
