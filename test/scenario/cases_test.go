package scenario

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ballast/services/ipc/status"
	"ballast/test/lab"
	"ballast/test/lab/ether"
	"ballast/test/lab/plan"
)

// TestCaseWeb: direct routing, a sorry server, persistence, and two scripts
// that move the priority. nginx does not run here, as on any director box, so
// its check costs both boxes 2.
func TestCaseWeb(t *testing.T) {
	s := begin(t, lab.Options{Config: readCase(t, "web-dr-sorry.conf")}, 51)
	const site = "10.10.10.2:80"
	s.answers(site, only("rs1", "rs2"))
	g, err := s.Node.Get(s.ctx, site, "/bytes/200000", 10*time.Second)
	if err != nil || g.Differ >= 0 || g.Bytes != 200000 {
		t.Errorf("a body of 200000 bytes: %+v, %v", g, err)
	}
	again, err := s.Node.Get(s.ctx, site, "/", 5*time.Second)
	if err != nil || again.Server != g.Server {
		t.Errorf("persistence: %s, then %s, %v", g.Server, again.Server, err)
	}
	// A file on the box tells it to step back, and its absence to come back.
	for _, d := range s.Directors {
		s.priority(d, map[int]int{a: 98, b: 97}[d.Index])
	}
	s.must(s.Directors[a].PutFile(s.ctx, "/etc/keepalived/down", []byte("\n")))
	s.waitMaster(51, b)
	if _, err := s.Directors[a].Console(s.ctx, "file delete /etc/keepalived/down", nil); err != nil {
		t.Fatal(err)
	}
	s.waitMaster(51, a)
	s.must(s.Node.Server("rs1").Stop(s.ctx))
	s.must(s.Node.Server("rs2").Stop(s.ctx))
	s.answers(site, only("sorry1"))
	s.must(s.Node.Server("rs1").Start(s.ctx))
	s.answers(site, only("rs1"))
}

// priority waits for an effective priority.
func (s scenario) priority(d *lab.Director, want int) {
	s.Helper()
	s.until("effective priority", func() (bool, string) {
		v, err := d.VRRP(s.ctx)
		if err != nil {
			return false, err.Error()
		}
		if len(v.Instances) == 0 {
			return false, d.Name() + " has no instance"
		}
		return v.Instances[0].Effective == want, strings.Join([]string{d.Name(), v.Instances[0].State, v.Instances[0].Reason}, " ")
	})
}

// TestCaseUnicast: no advertisement goes to the multicast group, and the user
// is told that direct routing cannot change a port.
func TestCaseUnicast(t *testing.T) {
	text := readCase(t, "unicast-dr-port.conf")
	s := begin(t, lab.Options{Config: text}, 51)
	// By director. What was on the way when the configuration came does not count:
	// frames of one box keep their order.
	var unicast, multicast [2]atomic.Int64
	defer s.Switches[0].Tap(func(_ time.Time, from *ether.Port, frame []byte) {
		d := slices.Index(plan.Names[:], from.Name)
		if _, ok := ether.ParseAdvert(frame); !ok || d < 0 {
			return
		}
		switch {
		case frame[0]&1 == 0:
			unicast[d].Add(1)
		case unicast[d].Load() > 0:
			multicast[d].Add(1)
		}
	})()
	s.pings("192.168.0.3")
	s.until("the table has the service at port 81 with two real servers", func() (bool, string) {
		table, err := s.Directors[a].IPVS(s.ctx)
		if err != nil {
			return false, err.Error()
		}
		for _, v := range table.Services { // what other tests had may drain beside it
			if v.ID.String() == "[192.168.0.3]:tcp:81" {
				return len(v.Dests) == 2, v.VirtualServer
			}
		}
		return false, "not there"
	})
	out, err := s.Directors[a].Console(s.ctx, "check", s.Text(a, text))
	if err != nil || !strings.Contains(out, "81") {
		t.Errorf("check does not tell of port 81: %v\n%s", err, out)
	}
	advertises := func(d int) {
		s.until("an advertisement by unicast", func() (bool, string) { return unicast[d].Load() > 0, s.Directors[d].Name() })
	}
	advertises(a)
	s.Directors[a].Kill()
	s.waitMaster(51, b)
	s.pings("192.168.0.3")
	advertises(b)
	for i, d := range s.Directors {
		if multicast[i].Load() > 0 {
			t.Errorf("%s: %d advertisements by unicast, %d by multicast", d.Name(), unicast[i].Load(), multicast[i].Load())
		}
	}
	s.must(s.Directors[a].Boot(s.ctx))
	s.waitMaster(51, a)
}

// TestCaseFTP: control and data connection of one client reach the same real
// server, by a mark. The site's range of marks covers the port of its second
// service too, so that one's requests go where the FTP ones go.
func TestCaseFTP(t *testing.T) {
	s := begin(t, lab.Options{Config: readCase(t, "ftp-mark.conf"), Blocks: `mark 300 {
    tcp 192.168.100.111 9814 8000-10000
}
`}, 100)
	const vip = "192.168.100.111"
	s.answers(vip+":9826", anybody)
	s.until("FTP works", func() (bool, string) {
		_, _, err := s.Node.FTP(s.ctx, vip+":9814")
		if err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	for range 6 {
		control, data, err := s.Node.FTP(s.ctx, vip+":9814")
		if err != nil || control != data {
			t.Errorf("control connection to %q, data connection to %q: %v", control, data, err)
		}
	}
	g, err := s.Node.Get(s.ctx, vip+":9826", "/", 10*time.Second)
	control, _, ferr := s.Node.FTP(s.ctx, vip+":9814")
	if err != nil || ferr != nil || g.Server != control {
		t.Errorf("the second service: %+v, %v; FTP: %s, %v", g, err, control, ferr)
	}
	s.until("packets are counted by mark", func() (bool, string) {
		st, err := lab.Show[status.Net](s.ctx, s.Directors[a], "marks")
		s.must(err)
		var packets uint64
		for _, m := range st.Marks {
			packets += m.Packets
		}
		return packets > 0, fmt.Sprint(st.Marks)
	})
	if _, err := s.Node.Get(s.ctx, vip+":7999", "/", time.Second); err == nil {
		t.Error("a port outside the mark is answered")
	}
}

// okScript and hopeless are what sites run: the second one does what its author
// would do by hand when nginx cannot be brought up.
const (
	okScript = "#!/bin/sh\nexit 0\n"
	hopeless = `#!/bin/bash
count=$(ps -C nginx --no-header | wc -l)
if [ "$count" -eq 0 ]; then
    systemctl start nginx
    sleep 1
    if [ $(ps -C nginx --no-header | wc -l) -eq 0 ]; then
        killall keepalived
    fi
fi
`
)

// TestCaseScript: a script's success is worth 10; one that gives up hands the
// addresses over.
func TestCaseScript(t *testing.T) {
	const script = "/etc/keepalived/check_nginx_alive_or_not.sh"
	s := begin(t, lab.Options{
		Config: readCase(t, "script-weight.conf"), Files: map[string][]byte{script: []byte(okScript)},
	}, 51)
	s.priority(s.Directors[a], 110)
	s.priority(s.Directors[b], 109)
	s.pings("192.168.253.161")
	s.must(s.Directors[a].PutFile(s.ctx, script, []byte(hopeless)))
	s.waitMaster(51, b)
	s.pings("192.168.253.161")
	s.must(s.Directors[a].PutFile(s.ctx, script, []byte(okScript)))
	s.until("director-a takes part again", func() (bool, string) {
		// A run of the old script that is under way may stop it once more.
		_, err := s.Directors[a].Console(s.ctx, "resume", nil)
		return s.Roles.Master(51, 0) == a, fmt.Sprint(err)
	})
}

// TestCaseBackup: the file of a backup box, whose check script is not there.
func TestCaseBackup(t *testing.T) {
	s := begin(t, lab.Options{Config: readCase(t, "backup-mail.conf")})
	s.waitMaster(51, b)
	s.pings("192.168.56.100")
	s.Directors[b].Kill()
	s.waitMaster(51, a)
	s.pings("192.168.56.100")
	s.must(s.Directors[b].Boot(s.ctx))
	s.waitMaster(51, b)
}

// TestManagement: the management interface has its address by DHCP, the real
// ssh reaches the console, and the serial line shows somebody.
func TestManagement(t *testing.T) {
	s := begin(t, lab.Options{Config: web()})
	st, err := lab.Show[status.Net](s.ctx, s.Directors[a], "interfaces")
	s.must(err)
	found := false
	for _, l := range st.Links {
		for _, ad := range l.Addresses {
			found = found || l.Name == s.Plan().Management && ad.Origin == "dhcp" && ad.Prefix == netip.MustParsePrefix("10.0.2.15/24")
		}
	}
	if !found {
		t.Errorf("no address by DHCP: %+v", st.Links)
	}
	out, err := s.OpenSSH(s.ctx, a, "show version")
	if err != nil || !strings.Contains(out, "Ballast") {
		t.Errorf("ssh: %v\n%s", err, out)
	}
	var exit *lab.ExitError
	if _, err := s.Directors[a].Console(s.ctx, "show nothing", nil); !errors.As(err, &exit) {
		t.Errorf("an unknown command: %v, want an exit status", err)
	}
	screen, err := s.Directors[a].Serial(s.ctx, "\r", s.Directors[a].Name())
	if err != nil {
		t.Errorf("serial console: %v\n%s", err, screen)
	}
}
