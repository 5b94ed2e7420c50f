package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"ballast/services/ipc/status"
	"ballast/test/lab"
	"ballast/test/lab/plan"
)

// peerKey is what a box's peer is to know it by.
func (s scenario) peerKey(d *lab.Director) string {
	s.Helper()
	var st struct {
		Wire status.Peer `json:"wire"`
	}
	s.until("the key of "+d.Name(), func() (bool, string) { // its peer service may be starting
		out, err := d.Console(s.ctx, "show peer --json", nil)
		if err != nil {
			return false, err.Error()
		}
		s.must(json.Unmarshal([]byte(out), &st))
		return st.Wire.PublicKey != "", out
	})
	return st.Wire.PublicKey
}

// part has each box for itself again.
func (s scenario) part() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, d := range s.Directors {
		if d.Running() {
			d.Console(ctx, "commit override local", s.Text(i, web()))
		}
	}
}

// together is one text for both boxes, which know each other by their keys.
func (s scenario) together(user []byte, login string, keys [2]string) []byte {
	p := s.Plan()
	var w strings.Builder
	each := func(format string, arg func(i int) any) {
		for i, d := range p.Directors {
			fmt.Fprintf(&w, "    @%s "+format+"\n", d.Name, arg(i))
		}
	}
	w.WriteString("system {\n")
	each("host_name %s", func(i int) any { return p.Directors[i].Name })
	fmt.Fprintf(&w, "    login admin {\n        key \"%s\"\n        role admin\n    }\n}\n", login)
	for n, seg := range p.Segments {
		fmt.Fprintf(&w, "interface %s {\n", seg.Interface)
		each("mac %s", func(i int) any { return p.Directors[i].MACs[n] })
		for k := range p.Directors[a].Addresses[n] {
			each("address %s", func(i int) any { return p.Directors[i].Addresses[n][k] })
		}
		w.WriteString("}\n")
	}
	fmt.Fprintf(&w, "interface %s {\n    dhcp\n", p.Management)
	each("mac %s", func(i int) any { return plan.ManagementMAC(i) })
	w.WriteString("}\npeer {\n")
	each("address %s", func(i int) any { return s.at(1 - i) })
	each("key \"%s\"", func(i int) any { return keys[1-i] })
	each("from %s", func(i int) any { return s.at(i) })
	w.WriteString("}\n")
	return append([]byte(w.String()), user...)
}

// at is a box's address on the first segment.
func (s scenario) at(i int) string { return s.Plan().Directors[i].Addresses[0][0].Addr().String() }

// TestTogether: two boxes with one configuration. A commit on one is live on
// both; without the other one it is refused, or for one box only, which both
// tell; a box that lost its disk takes everything over from its peer.
func TestTogether(t *testing.T) {
	s := begin(t, lab.Options{Config: web()}, 51)
	da, db := s.Directors[a], s.Directors[b]
	_, login, _ := strings.Cut(s.run(da, "show configuration"), "key \"")
	login, _, _ = strings.Cut(login, "\"")
	keys := [2]string{s.peerKey(da), s.peerKey(db)}
	text := func(delay int) []byte {
		user := strings.ReplaceAll(string(web()), "delay_loop 1", fmt.Sprintf("delay_loop %d", delay))
		return s.together([]byte(user), login, keys)
	}
	t.Cleanup(s.part)
	for _, d := range s.Directors {
		if _, err := d.Console(s.ctx, "commit override", text(1)); err != nil {
			t.Fatal(err)
		}
	}
	s.contains(da, "show peer", "Reachable    yes")
	// Other scenarios have left script files on one box alone: a difference too.
	s.run(da, "peer push")
	for _, d := range s.Directors {
		s.contains(d, "show peer", "In step      yes")
	}
	out, err := db.Console(s.ctx, "commit", text(2))
	if err != nil || !strings.Contains(out, "on director-a too") {
		t.Fatalf("%v\n%s", err, out)
	}
	s.contains(da, "show configuration", "delay_loop 2")
	s.contains(da, "show history", "admin@")

	s.must(db.Unplug(s.ctx, true))
	if out, err := da.Console(s.ctx, "commit", text(3)); err == nil || !strings.Contains(err.Error(), "commit local") {
		t.Fatalf("without the other box: %v\n%s", err, out)
	}
	if _, err := da.Console(s.ctx, "commit local", text(3)); err != nil {
		t.Fatal(err)
	}
	s.must(db.Unplug(s.ctx, false))
	for _, d := range s.Directors {
		s.contains(d, "show drift", "delay_loop 3", "delay_loop 2", "--- director-")
	}
	s.run(db, "peer pull")
	s.contains(da, "show drift", "none: ")

	s.must(da.PutFile(s.ctx, "/etc/keepalived/notify.sh", []byte("#!/bin/sh\n")))
	db.Kill()
	s.must(db.Wipe())
	s.must(db.Boot(s.ctx))
	s.must(db.WaitConsole(s.ctx))
	// The seed of its image is of whatever scenario came first. What it needs is
	// the address that pull comes from.
	if _, err := db.Console(s.ctx, "commit override", s.Text(b, web())); err != nil {
		t.Fatal(err)
	}
	s.contains(db, "show interfaces", s.at(b))
	keys[b] = s.peerKey(db)
	if _, err := da.Console(s.ctx, "commit local", text(3)); err != nil {
		t.Fatal(err)
	}
	s.contains(da, "show peer", "Listening    "+s.at(a))
	s.until("director-a listens for the new key", func() (bool, string) { // it has committed that a moment ago
		out, err := db.Console(s.ctx, fmt.Sprintf("peer pull from %s source %s key %q as director-b", s.at(a), s.at(b), keys[a]), nil)
		return err == nil, fmt.Sprintf("%v\n%s", err, out)
	})
	for _, d := range s.Directors {
		s.contains(d, "show peer", "In step      yes")
	}
	s.contains(db, "show files", "/etc/keepalived/notify.sh")
	s.contains(db, "show configuration", "delay_loop 3")
}
