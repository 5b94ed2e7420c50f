package boot

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"ballast/services/netboot/seed"
)

func TestFromNetwork(t *testing.T) {
	stub, disk := t.TempDir(), t.TempDir()
	for _, d := range []string{stub, disk} {
		write(t, filepath.Join(d, "StubInfo"+stubVendor), "x")
	}
	write(t, filepath.Join(disk, stubPart), "x")
	for _, tt := range []struct {
		vars   string
		c      CmdLine
		source string
		is     bool
	}{
		{"", "quiet ballast.source=http://192.0.2.11:1914/W/", "http://192.0.2.11:1914/W/", true},
		{"", "quiet", "", false},
		{stub, "quiet", "", true},
		{stub, "ballast.slot=A", "", false},
		{stub, "ballast.part=x", "", false},
		{disk, "quiet", "", false},
	} {
		if source, is := FromNetwork(tt.vars, tt.c); source != tt.source || is != tt.is {
			t.Errorf("%q: %q, %v", tt.c, source, is)
		}
	}
}

func TestTakeSeed(t *testing.T) {
	keys, err := seed.MakeKeys()
	if err != nil {
		t.Fatal(err)
	}
	s := seed.Seed{Name: "lb2", Server: "lb1", Generation: 4, Config: "text", Keys: keys}
	dir := t.TempDir()
	from, to, data := dir+"/from", dir+"/seed", dir+"/data"
	if err := s.Lay(from, "http://192.0.2.11:1914/W/"); err != nil {
		t.Fatal(err)
	}
	if Configured(data, to) {
		t.Error("an empty box has a configuration")
	}
	write(t, data+"/peer/peer_ed25519_key", "the own one")
	owner := func(string) (int, int) { return 110, 100 }
	origin, source, err := TakeSeed(from, to, data, owner)
	if err != nil || origin != "generation 4 of lb1" || source != "http://192.0.2.11:1914/W/" {
		t.Fatalf("%v %q %q", err, origin, source)
	}
	if !Configured(data, to) {
		t.Error("the seed is not there")
	}
	for name, want := range map[string]string{to + "/config": "text", to + "/hostname": "lb2\n", data + "/console/ssh_host_ed25519_key": string(keys.SSH), data + "/peer/peer_ed25519_key": "the own one"} {
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %v %q", name, err, b)
		}
	}
	st, err := os.Stat(data + "/console/ssh_host_ed25519_key")
	if err != nil {
		t.Fatal(err)
	}
	if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 110 || st.Mode().Perm() != 0o600 {
		t.Errorf("the key: owner %d, mode %v", sys.Uid, st.Mode())
	}
	for _, gone := range []string{"keys", "origin", "source"} {
		if _, err := os.Stat(filepath.Join(to, gone)); err == nil {
			t.Errorf("%s is left in the seed", gone)
		}
	}
	if _, err := os.Stat(to); err != nil {
		t.Fatal(err)
	}
	write(t, data+"/conf/configuration/generations/3", "x")
	if !Configured(data, dir+"/none") {
		t.Error("a box with generations has none")
	}
}
