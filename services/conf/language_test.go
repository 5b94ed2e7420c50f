package conf_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/services/conf"
	"ballast/services/ipc/status"
)

const plain = `vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 100
    authentication {
        auth_type PASS
        auth_pass hidden42
    }
    virtual_ipaddress {
        10.0.0.100/24
    }
}
`

const own = `system {
    host_name lb1
    login admin {
        role admin
        key "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz3ZrdKhNfvRyJ3yDUk4PVvHBdwqHLXJhQ3JZ admin"
    }
}
interface eth0 {
    address 10.0.0.11/24
}
`

// realBox is a box with the real language.
func realBox(t *testing.T) *box {
	b := newBox(t, "net", "vrrp")
	b.opts.Language = conf.Language{}
	return b
}

func TestFactoryDefaultInTheRealLanguage(t *testing.T) {
	b := realBox(t).start()
	s := b.state()
	if len(s.Config.Interfaces) != 2 || !s.Config.Interfaces[0].DHCP || s.Config.Interfaces[1].Name != "eth1" {
		t.Fatalf("%+v", s)
	}
	b.mustCommit(plain)
	s = b.state()
	if len(s.Config.Interfaces) != 2 || len(s.Config.Instances) != 1 {
		t.Errorf("a plain keepalived.conf on a box with the factory default: %+v", s.Config)
	}
	if got := s.Config.Instances[0].AuthPass; len(got) == 0 || string(got) == "hidden42" {
		t.Errorf("the open state has the password %q", got)
	}
	if got := b.svcs["vrrp"].last().Config.Instances[0].AuthPass; string(got) != "hidden42" {
		t.Errorf("a service that may have it got the password %q", got)
	}
	if strings.Contains(b.log.String(), "hidden42") {
		t.Error("the log holds a secret")
	}
}

func TestBrokenSeedInTheRealLanguage(t *testing.T) {
	for name, text := range map[string]string{
		"unknown block":     own + plain + "frobnicate {\n  x 1\n}\n",
		"cut in the middle": own + plain[:len(plain)-30],
		"garbage after":     own + "\x00\x01\xff\xfe garbage { { {\n",
		"garbage before":    "}}} \xff\xfe\n" + own + plain,
		"one long line":     own + strings.Repeat("x", 1<<20) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := realBox(t)
			b.seed(text, nil)
			b.start()
			s := b.state()
			c := s.Config
			if len(c.Interfaces) == 0 || len(c.Instances) != 0 {
				t.Errorf("interfaces %+v, instances %+v", c.Interfaces, c.Instances)
			}
			if c.System.HostName != "lb1" || len(c.System.Logins) != 1 || len(c.Interfaces) != 1 || len(c.Interfaces[0].Addresses) != 1 {
				t.Errorf("not reachable as it was: %+v %+v", c.System, c.Interfaces)
			}
			if len(s.Problems) < 2 {
				t.Errorf("problems %v", s.Problems)
			}
			if s.Source != "last good" {
				t.Errorf("source %q", s.Source)
			}
			b.mustCommit(plain)
		})
	}
}

func TestExamplesCommit(t *testing.T) {
	paths, err := filepath.Glob("../../configs/examples/*.conf")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		b := realBox(t).start()
		var r status.CheckReport
		if err := b.call("check", status.Candidate{Text: string(text), Name: filepath.Base(p)}, &r); err != nil {
			t.Fatal(err)
		}
		if r.Errors > 0 {
			t.Errorf("%s: %v", p, r.Problems)
		}
	}
}
