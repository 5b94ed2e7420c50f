package cli

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc/status"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestNetbootServe(t *testing.T) {
	const mac = "52:54:00:00:00:02"
	base := status.NetbootServe{MAC: mac, Name: "lb2", For: 30 * time.Minute, By: "ann@192.0.2.7"}
	with := func(f func(*status.NetbootServe)) *status.NetbootServe { c := base; f(&c); return &c }
	for _, tc := range []struct {
		line string
		want *status.NetbootServe // nil: refused as written wrong
	}{
		{"netboot serve " + mac + " as lb2", &base},
		{"netboot serve " + mac + " as lb2 on eth1 for 5", with(func(s *status.NetbootServe) { s.Interface, s.For = "eth1", 5*time.Minute })},
		{"netboot serve " + mac + " for 2h dhcp proxy address 192.0.2.12 as lb2", with(func(s *status.NetbootServe) {
			s.For, s.DHCP, s.Address = 2*time.Hour, "proxy", netip.MustParseAddr("192.0.2.12")
		})},
		{"netboot serve " + mac + " as lb2 dhcp auto", &base},
		{"netboot serve " + mac, nil},
		{"netboot serve " + mac + " on eth1", nil},
		{"netboot serve " + mac + " as lb2 for 25h", nil},
		{"netboot serve " + mac + " as lb2 for ever", nil},
		{"netboot serve " + mac + " as lb2 dhcp none", nil},
		{"netboot serve " + mac + " as lb2 address lb2", nil},
		{"netboot serve " + mac + " as lb2 on", nil},
		{"netboot serve " + mac + " as lb2 now 1", nil},
	} {
		s, b := session(Admin)
		var got *status.NetbootServe
		b.verbs["netboot serve"] = func(in any) (any, error) {
			v := in.(status.NetbootServe)
			got = &v
			return status.NetbootBox{MAC: v.MAC, Name: v.Name, Interface: "eth1", Until: s.Now().Add(v.For), PublicKey: "ssh-ed25519 AAAA", HostKey: "SHA256:x"}, nil
		}
		r := s.Run(t.Context(), tc.line)
		if tc.want == nil {
			if r.Code != Usage || len(b.calls) > 0 {
				t.Errorf("%s: %+v, calls %v", tc.line, r, b.calls)
			}
			continue
		}
		if d := cmp.Diff(tc.want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" || r.Code != OK {
			t.Errorf("%s: %+v (-want +got):\n%s", tc.line, r, d)
		}
		// conf is told before, or it would not give the configuration.
		if len(b.calls) != 2 || !strings.HasPrefix(b.calls[0], `conf netboot-may {"name":"lb2","for":`) {
			t.Errorf("%s: calls %v", tc.line, b.calls)
		}
		if !strings.Contains(r.Out, `key "ssh-ed25519 AAAA lb2"`) {
			t.Errorf("%s: the key is not told:\n%s", tc.line, r.Out)
		}
	}
}

// streaming is a box whose verbs stream as well.
type streaming struct {
	*box
	arg  any
	sent string
}

func (s *streaming) Stream(_ context.Context, service, verb string, arg any, in io.Reader, out io.Writer, note func(string)) error {
	s.calls = append(s.calls, service+" "+verb)
	s.arg = arg
	if in != nil {
		b, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		s.sent = string(b)
	}
	p, _ := json.Marshal(status.FirmwareProgress{Step: "fw.efi", Done: 10, Total: 10})
	out.Write(append(p, '\n'))
	note("done\n")
	return nil
}

func TestInstall(t *testing.T) {
	disks := []status.InstallTarget{{Disk: "sda", About: "/dev/sda, QEMU HARDDISK, 2.1 GB", Net: "http://192.0.2.1/"}, {Disk: "sdb", Refuse: "sdb is mounted"}}
	by := "ann@192.0.2.7"
	for _, tc := range []struct {
		name   string
		line   string
		in     io.Reader // sent along; nil: a terminal
		answer string
		want   any // nil: nothing is done
		says   string
	}{
		{"sent", "install sda", strings.NewReader("bundle"), "", status.FirmwareInstall{Disk: "sda", By: by}, ""},
		{"by its path", "install /dev/sda net", strings.NewReader(""), "", status.FirmwareInstall{Disk: "sda", Source: "net", By: by}, ""},
		{"URL", "install sda http://192.0.2.9/x.bundle", strings.NewReader(""), "", status.FirmwareInstall{Disk: "sda", Source: "http://192.0.2.9/x.bundle", By: by}, ""},
		{"terminal", "install sda", nil, "sda", status.FirmwareInstall{Disk: "sda", Source: "net", By: by}, ""},
		{"older", "install sda old net", strings.NewReader(""), "", status.FirmwareInstall{Disk: "sda", Source: "net", Older: true, By: by}, ""},
		{"an older one that is sent", "install sda older", strings.NewReader("bundle"), "", status.FirmwareInstall{Disk: "sda", Older: true, By: by}, ""},
		{"a file", "install sda fw.bundle", nil, "sda", nil, "install sda does not take \"fw.bundle\": want install DISK [net|slot|URL] [older]; a file is sent: ssh USER@BOX install sda < FILE.bundle"},
		{"two sources", "install sda net slot", nil, "sda", nil, "takes one source: want install DISK [net|slot|URL] [older]"},
		{"terminal, another name", "install sda", nil, "y", nil, "only at the answer sda"},
		{"no disk named", "install", nil, "", nil, "QEMU HARDDISK"},
		{"no such disk", "install sdc", nil, "", nil, "there is no disk sdc"},
		{"in use", "install sdb", nil, "", nil, "sdb is mounted"},
		{"nonsense", "install sda floppy", nil, "", nil, "does not take"},
	} {
		s, b := session(Admin)
		b.verbs["init disks"] = func(any) (any, error) { return disks, nil }
		x := &streaming{box: b}
		s.Services = x
		notes := ""
		s.Streams = &Streams{In: tc.in, Note: func(text string) { notes += text }}
		if tc.in == nil {
			s.AskWord = func(_ context.Context, question string) (string, error) {
				if !strings.Contains(question, "QEMU HARDDISK") {
					t.Errorf("%s: the question is %q", tc.name, question)
				}
				return tc.answer, nil
			}
		}
		r := s.Run(t.Context(), tc.line)
		if d := cmp.Diff(tc.want, x.arg); d != "" || (tc.want == nil) == (r.Code == OK) || !strings.Contains(r.Err, tc.says) {
			t.Errorf("%s: %+v (-want +got):\n%s", tc.name, r, d)
		}
		if tc.want != nil && !strings.Contains(notes, "done") {
			t.Errorf("%s: the user reads %q", tc.name, notes)
		}
		if tc.name == "sent" && x.sent != "bundle" {
			t.Errorf("what was sent arrived as %q", x.sent)
		}
	}
	s, _ := session(Operate)
	if r := s.Run(t.Context(), "install sda"); r.Code == OK || !strings.Contains(r.Err, "admin") {
		t.Errorf("an operator: %+v", r)
	}
}
