package console

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
)

// Over SSH it is an archive, on a terminal the command that makes one.
func TestSupportBundle(t *testing.T) {
	l := newLab(t)
	l.conf.change(func() { l.conf.state.Text = "vrrp_instance VI_1 {\n authentication {\n auth_pass hidden-word\n }\n}\n" })
	l.start()
	o := l.ssh("admin", "", "support bundle")
	// Of this lab notify and ipvs are not there, and net tells no tables.
	for _, part := range []string{"not in it: journal.json: ", "not in it: kernel tables of ipvs: "} {
		if o.code != 0 || !strings.Contains(o.err, part) {
			t.Fatalf("status %d: %s; want %s", o.code, o.err, part)
		}
	}
	z, err := gzip.NewReader(strings.NewReader(o.out))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "hidden-word") {
			t.Errorf("%s has the secret", h.Name)
		}
		dir, name, _ := strings.Cut(h.Name, "/")
		if !strings.HasPrefix(dir, "support-lb1-") {
			t.Errorf("%s", h.Name)
		}
		names = append(names, name)
	}
	for _, want := range []string{"README.txt", "box.json", "configuration/running.conf", "log/vrrp.txt", "state/vrrp.json", "show/vrrp.txt", "show/interfaces.txt", "missing.txt"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s in %q", want, names)
		}
	}
	if slices.ContainsFunc(names, func(n string) bool { return path.Base(n) == "configuration.txt" }) {
		t.Error("the configuration is in it twice")
	}
	l.ssh("operate", "", "support bundle").want(t, 1, "", "permission denied: it needs role admin")
	l.log.await(t, 0, "admin from 127.0.0.1: support bundle: ok")
	s, _ := l.onTerminal("admin")
	s.expect("lb1> ")
	s.send("support bundle\r")
	s.expect("ssh admin@BOX support bundle > bundle.tar.gz", "lb1> ")
}
