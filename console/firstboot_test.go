package console

import (
	"strings"
	"testing"

	"ballast/services/ipc/status"
)

func TestFirstBootDialogue(t *testing.T) {
	l := newLab(t)
	n := l.notify()
	m, slave := openPTY(t)
	l.serial = slave
	s := newScreen(t, m)
	l.start()
	s.expect("Press Enter")
	l.conf.change(func() { l.conf.state.Source = "factory"; l.conf.state.Generation++ })
	s.expect("no configuration yet", "Press Enter")
	s.send("\r")
	s.expect("Host name [lb1]: ")
	s.send("-no-\r")
	s.expect("for example lb1", "Host name [lb1]: ")
	s.send("edge1\r")
	s.expect("eth0", "cable", "10.0.0.11/24 (dhcp)", "Management interface [eth0]: ")
	s.send("eth7\r")
	s.expect("there are: eth0", "Management interface [eth0]: ")
	s.send("\r")
	s.expect("[dhcp]: ")
	s.send("192.0.2.11\r")
	s.expect("write 192.0.2.11/24", "[dhcp]: ")
	s.send("192.0.2.11/24\r")
	s.expect("Gateway, empty for none: ")
	s.send("192.0.9.1\r")
	s.expect("is the length /24 right?", "Gateway, empty for none: ")
	s.send("192.0.2.1\r")
	s.expect("[admin]: ")
	s.send("ann\r")
	s.expect("There are no passwords", "Key: ")
	s.send("\r")
	s.expect("paste the one line", "Key: ")
	key := strings.TrimSpace(l.key("ann"))
	s.send(key[:50] + "\r")
	s.expect("Key: ")
	s.send(key + "\r")
	s.expect("host_name edge1", "login ann {", "interface eth0 {", "address 192.0.2.11/24", "route default via 192.0.2.1 dev eth0", "[yes]: ")
	s.send("maybe\r")
	s.expect("yes or no?", "[yes]: ")
	// conf refuses once: the questions come again.
	l.conf.change(func() { l.conf.refuse = "not committed: no" })
	s.send("y\r")
	s.expect("not committed: no", "Host name [lb1]: ")
	l.conf.change(func() { l.conf.refuse = "" })
	s.send("edge1\r\r192.0.2.11/24\r\rann\r" + key + "\r")
	s.expect("Commit this?")
	s.send("\r")
	s.expect("committed: generation 9 runs", "ssh ann@192.0.2.11", "SHA256:", "> ")
	if len(l.conf.got) != 1 {
		t.Fatalf("%+v", l.conf.got)
	}
	got := l.conf.got[0]
	if want := "system {\n    host_name edge1\n    login ann {\n        role admin\n        key \"" + key + "\"\n    }\n}\ninterface eth0 {\n    address 192.0.2.11/24\n}\n"; got.Text != want ||
		got.Author != "serial@serial" || got.Comment != "first boot" || got.Override {
		t.Errorf("%+v\nwant %q", got, want)
	}
	n.await(t, func(e status.AuditEntry) bool { return e.Command == "first boot" && e.Result == "not committed: no" })
	n.await(t, func(e status.AuditEntry) bool {
		return e.Command == "first boot" && e.Result == "ok" && e.User == "serial"
	})
}

// Ctrl-C leaves for the command line, and the next Enter asks again.
func TestFirstBootIsLeft(t *testing.T) {
	l := newLab(t)
	m, slave := openPTY(t)
	l.serial = slave
	s := newScreen(t, m)
	l.conf.change(func() { l.conf.state.Source = "factory"; l.conf.state.Generation++ })
	l.start()
	s.expect("Press Enter")
	s.send("\r")
	s.expect("Host name [lb1]: ")
	s.send("x\r\r")
	s.expect("[dhcp]: ")
	s.send("\x03")
	s.expect("Nothing was changed", "lb1> ")
	s.send("show version\r")
	s.expect("Kernel", "lb1> ")
	s.send("exit\r")
	s.expect("Press Enter")
	s.send("\r")
	s.expect("Host name [lb1]: ")
	if len(l.conf.got) > 0 {
		t.Errorf("%+v", l.conf.got)
	}
}
