package scenario

import (
	"strings"
	"testing"

	"ballast/test/lab"
)

// A box of a pair loses its data disk: it is itself again, with its addresses and
// keys, gets the configuration from its peer without hands, and tells of it.
func TestLostData(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	da, db := s.Directors[a], s.Directors[b]
	_, login, _ := strings.Cut(s.run(da, "show configuration"), "key \"")
	login, _, _ = strings.Cut(login, "\"")
	keys := [2]string{s.peerKey(da), s.peerKey(db)}
	t.Cleanup(s.part)
	for _, d := range s.Directors {
		if _, err := d.Console(s.ctx, "commit override", s.together(web(), login, keys)); err != nil {
			t.Fatal(err)
		}
	}
	s.contains(da, "show peer", "Reachable    yes")
	s.run(da, "peer push")
	for _, d := range s.Directors {
		s.contains(d, "show peer", "In step      yes")
	}
	s.contains(db, "show log init 400", "spare copy of the identity: that of generation")
	db.Kill()
	s.must(db.LoseData())
	s.must(db.Boot(s.ctx))
	s.must(db.WaitConsole(s.ctx))
	if got := s.peerKey(db); got != keys[b] {
		t.Errorf("it has the key %s, and had %s", got, keys[b])
	}
	s.contains(db, "show history", "pull  ", "ballast")
	s.contains(db, "show configuration", "delay_loop 1", "host_name director-b")
	for _, d := range s.Directors {
		s.contains(d, "show peer", "In step      yes")
	}
	s.contains(db, "show status --json", "the data disk was empty; director-b is itself again", "the configuration comes from its peer")
	s.contains(db, "show crash 1", "Kind      data")
	s.answers(site, anybody)
}
