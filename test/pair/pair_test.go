package pair

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	protocol "ballast/services/conf/pair"
	"ballast/services/ipc/status"
	"ballast/services/peer"
)

// TestFrames: what conf sends fits on the wire.
func TestFrames(t *testing.T) {
	if peer.MaxFrame != protocol.MaxFrame {
		t.Errorf("conf sends messages of up to %d bytes, the wire takes %d", protocol.MaxFrame, peer.MaxFrame)
	}
}

func settled(st status.PairState) bool { return st.Reachable && !st.Drift && st.Doubt == "" }

// refused fails unless err says all of some things.
func refused(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("it was committed")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
}

// TestCommitIsForBoth: a commit on either box runs on both, with its files, or
// on none, with the box and the reason of every refusal.
func TestCommitIsForBoth(t *testing.T) {
	boxes := pair(t)
	a, b := boxes[0], boxes[1]
	script := []byte("#!/bin/sh\nexit 0\n")
	if err := a.call("file-put", status.File{Path: "/etc/keepalived/check.sh", Mode: 0o755, Content: script}, nil); err != nil {
		t.Fatal(err)
	}
	a.await("drifting: the file is on one box", func(st status.PairState) bool { return st.Drift })
	b.await("drifting: the file is on one box", func(st status.PairState) bool { return st.Drift })
	if _, err := a.commit(text(boxes, "second")); err != nil {
		t.Fatal(err)
	}
	for _, x := range boxes {
		x.runs("second")
		x.await("in step", settled)
	}
	got, err := os.ReadFile(filepath.Join(b.dir, "root/etc/keepalived/check.sh"))
	if err != nil || !bytes.Equal(got, script) {
		t.Errorf("the script on the other box: %q, %v", got, err)
	}
	var history []status.Generation
	if err := b.call("history", nil, &history); err != nil || history[0].Author != "ann@lb1" || !history[0].Running {
		t.Errorf("history of the other box: %+v, %v", history, err)
	}
	if _, err := b.commit(text(boxes, "third")); err != nil {
		t.Fatal(err)
	}
	a.runs("third")
	b.runs("third")

	// The peer block itself may change.
	if _, err := b.commit(strings.Replace(text(boxes, "third"), "peer {\n", "peer {\n    port 1999\n", 1)); err != nil {
		t.Fatal(err)
	}
	a.await("in step", settled)
	b.await("in step", settled)
	if _, err := a.commit(text(boxes, "third")); err != nil {
		t.Fatal(err)
	}
	a.await("in step", settled)
	b.await("in step", settled)

	// Refusals.
	_, err = a.commit(strings.Replace(text(boxes, "x"), "router_id", "@lb2 nonsense 3\n    router_id", 1))
	refused(t, err, "not committed", "lb2: ", "nonsense")
	_, err = a.commit(strings.Replace(text(boxes, "x"), "@lb2 host_name lb2", "@lb2 host_name lb1", 1))
	refused(t, err, "lb2: both boxes would be called lb1")
	_, err = a.commit(strings.Replace(text(boxes, "x"), "@lb1 address 192.0.2.1/", "address 192.0.2.1/", 1))
	refused(t, err, "lb2: both boxes would have the address 192.0.2.1")
	_, err = a.commit(strings.ReplaceAll(text(boxes, "x"), "@lb2 address 10.", "@lb2 port 1913\n#"))
	refused(t, err, "lb2: ", "the peer has no address")
	one, rest, _ := strings.Cut(text(boxes, "x"), "peer {")
	_, rest, _ = strings.Cut(rest, "}\n")
	_, err = a.commit(one + rest)
	refused(t, err, "it takes the peer block away")
	b.svcs["ipvs"].set(func() { b.svcs["ipvs"].refuse = "no memory" })
	_, err = a.commit(text(boxes, "x"))
	refused(t, err, "nothing changed", "lb2: ipvs: no memory")
	b.svcs["ipvs"].set(func() { b.svcs["ipvs"].refuse = "" })
	for _, x := range boxes { // agrees, and does not apply it
		x.svcs["vrrp"].set(func() { x.svcs["vrrp"].failing, x.svcs["vrrp"].failAt = "no such link", "x" })
		_, err = a.commit(text(boxes, "x"))
		refused(t, err, hosts[x.i]+":", "vrrp: no such link")
		a.runs("third")
		b.runs("third")
		x.svcs["vrrp"].set(func() { x.svcs["vrrp"].failing = "" })
		a.await("in step", settled)
		b.await("in step", settled)
	}
	var r status.CommitResult
	if err := b.call("rollback", status.Rollback{Author: "ann"}, &r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.Warnings["lb1"], "differed") {
		t.Errorf("rollback: %v", r.Warnings)
	}
	a.await("in step", settled)
}

// TestBothAtOnce: of two commits at the same moment one runs, on both boxes; the
// other one is refused, or comes after it.
func TestBothAtOnce(t *testing.T) {
	boxes := pair(t)
	for round := range 5 {
		errs := make(chan error, 2)
		for _, x := range boxes {
			go func() { _, err := x.commit(text(boxes, "by-"+hosts[x.i])); errs <- err }()
		}
		n := 0
		for range boxes {
			if err := <-errs; err == nil {
				n++
			}
		}
		if n == 0 {
			t.Errorf("round %d: both were refused", round)
		}
		for _, x := range boxes {
			x.await("in step", settled)
		}
	}
}

// TestUnplugged: without the other box a commit is refused, commit local is not;
// both boxes say that they differ until one of them commits for both again.
func TestUnplugged(t *testing.T) {
	boxes := pair(t)
	a, b := boxes[0], boxes[1]
	b.unplug()
	a.await("alone", func(st status.PairState) bool { return !st.Reachable }) // it has heard the end of its connections
	_, err := a.commit(text(boxes, "second"))
	refused(t, err, "nothing changed", "does not answer", "connection refused", "commit local")
	if _, err := a.commit(text(boxes, "second"), local); err != nil {
		t.Fatal(err)
	}
	a.runs("second")
	b.plug()
	for _, x := range boxes {
		x.await("drifting", func(st status.PairState) bool { return st.Reachable && st.Drift })
	}
	var d status.Drift
	if err := b.call("peer-drift", nil, &d); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(d.Diff, "-    router_id second\n+    router_id first\n") || d.State.Peer.Author != "ann@lb1" {
		t.Errorf("drift: %+v", d)
	}
	b.until("told to every session", func() error {
		var s status.Conf
		return firstError(b.call("peer-state", nil, new(status.PairState)), b.state(&s), says(s.Pair, `lb2 and lb1 run different configurations: see "show drift"`))
	})
	// Either way heals it.
	var r status.CommitResult
	if err := b.call("peer-pull", status.PairChange{Author: "ann"}, &r); err != nil {
		t.Fatal(err)
	}
	b.runs("second")
	a.await("in step", settled)
	if _, err := a.commit(text(boxes, "third"), local); err != nil {
		t.Fatal(err)
	}
	a.await("drifting", func(st status.PairState) bool { return st.Drift })
	if err := a.call("peer-push", status.PairChange{Author: "ann"}, &r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Warnings["lb2"], "differed and was replaced") {
		t.Errorf("what was replaced is not told: %v", r.Warnings)
	}
	b.runs("third")
	// What the other box did meanwhile is not run over unseen.
	b.await("in step", settled)
}

// TestReplaced: a fresh box takes over everything from its peer, by the keys of
// both and the name that it is to have.
func TestReplaced(t *testing.T) {
	boxes := pair(t)
	a, b := boxes[0], boxes[1]
	if err := a.call("file-put", status.File{Path: "/etc/keepalived/check.sh", Mode: 0o755, Content: []byte("#!/bin/sh\n")}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.commit(text(boxes, "second")); err != nil {
		t.Fatal(err)
	}
	// lb2 burns down. The new one has a key of its own, and nothing else.
	b.kill()
	b.unplug()
	for _, d := range []string{"data", "root", "seed", "wire"} {
		if err := firstError(os.RemoveAll(filepath.Join(b.dir, d)), os.MkdirAll(filepath.Join(b.dir, d), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	b.plug()
	b.start()
	old := b.key
	b.until("with a new key", func() error {
		var st status.Peer
		err := b.wireState(&st)
		b.key = st.PublicKey
		return err
	})
	if b.key == old {
		t.Fatal("the new box has the old key")
	}
	pull := status.PairChange{Author: "serial", As: "lb2", From: status.PeerTarget{Addr: a.addr, Port: 1913, From: b.addr, Key: a.key}}
	err := b.call("peer-pull", pull, nil)
	refused(t, err, "it does not know the key of this box")
	if _, err := a.commit(text(boxes, "second"), local); err != nil {
		t.Fatal(err)
	}
	a.until("listening for the new key", func() error {
		return b.call("peer-pull", pull, nil)
	})
	b.runs("second")
	for _, x := range boxes {
		x.await("in step", settled)
	}
	if got, err := os.ReadFile(filepath.Join(b.dir, "root/etc/keepalived/check.sh")); err != nil || string(got) != "#!/bin/sh\n" {
		t.Errorf("the script: %q, %v", got, err)
	}
	if _, err := b.commit(text(boxes, "third")); err != nil {
		t.Fatal(err)
	}
	a.runs("third")
}

// TestKilled: conf dies at each step of a commit, on either box. When it is back
// both boxes settle on the same configuration, the old one or the new one; the
// new one when the commit was acknowledged.
func TestKilled(t *testing.T) {
	for _, c := range []struct {
		box  int // whose conf dies
		step string
		want string // what both run then
	}{
		{0, "prepare here", "first"},
		{0, "prepare the peer", "first"},
		{0, "apply on the peer", "first"},
		{0, "apply here", "first"},
		{0, "decide", "second"},
		{0, "tell the peer to keep it", "second"},
		{1, "prepared", "first"},
		{1, "applying", "first"},
		{1, "applied", "first"},
		{1, "kept", "second"},
	} {
		for _, long := range []bool{false, true} {
			if long && testing.Short() {
				continue
			}
			name := hosts[c.box] + " " + c.step
			if long {
				name += ", away for long"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				boxes := pair(t)
				x := boxes[c.box]
				if err := os.WriteFile(filepath.Join(x.dir, killAt), []byte(c.step), 0o600); err != nil {
					t.Fatal(err)
				}
				_, err := boxes[0].commit(text(boxes, "second"))
				if err == nil && c.want != "second" {
					t.Error("a commit that did not happen was acknowledged")
				}
				x.dead()
				if long { // the other box goes back meanwhile
					other := boxes[1-c.box]
					other.await("not in the middle of it", func(st status.PairState) bool { return st.Doubt == "" || st.Doubt == "late" })
				}
				x.start()
				for _, b := range boxes {
					b.runs(c.want)
					b.await("in step", settled)
				}
				if _, err := boxes[1].commit(text(boxes, "third")); err != nil {
					t.Errorf("the next commit: %v", err)
				}
				boxes[0].runs("third")
			})
		}
	}
}

// TestConfirmed: a commit that has to be confirmed is one on both boxes, and so
// are its confirmation and its end.
func TestConfirmed(t *testing.T) {
	boxes := pair(t)
	a, b := boxes[0], boxes[1]
	wait := func(d time.Duration) func(*status.Candidate) { return func(c *status.Candidate) { c.Confirm = d } }
	if _, err := a.commit(text(boxes, "second"), wait(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, x := range boxes {
		var s status.Conf
		if err := x.state(&s); err != nil || s.Pending == nil {
			t.Errorf("%s waits for no confirmation: %v", hosts[x.i], err)
		}
	}
	if err := b.call("confirm", status.Confirmation{Author: "ann"}, nil); err != nil {
		t.Fatal(err)
	}
	for _, x := range boxes {
		var s status.Conf
		if err := x.state(&s); err != nil || s.Pending != nil {
			t.Errorf("%s still waits: %+v, %v", hosts[x.i], s.Pending, err)
		}
	}
	if _, err := b.commit(text(boxes, "third"), wait(6*time.Second)); err != nil {
		t.Fatal(err)
	}
	a.runs("third")
	for _, x := range boxes {
		x.runs("second") // nobody confirmed
		x.await("in step", settled)
	}
}
