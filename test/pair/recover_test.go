package pair

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ballast/services/conf"
	"ballast/services/ipc/status"
)

// lose takes everything from a box but what init keeps in a second place, and
// starts it again as init does.
func (b *box) lose() {
	b.t.Helper()
	var s status.Spare
	if err := b.call("spare", nil, &s); err != nil {
		b.t.Fatal(err)
	}
	if !s.Peer || !strings.Contains(s.Text, "host_name lb2") || strings.Contains(s.Text, "router_id") {
		b.t.Errorf("the second place has: %+v", s)
	}
	b.kill()
	data := filepath.Join(b.dir, "data")
	err := os.RemoveAll(data)
	if err == nil {
		err = os.Mkdir(data, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(data, conf.RecoverFile), nil, 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "seed", "config"), []byte(s.Text), 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.start()
}

func (b *box) recovering() bool {
	_, err := os.Stat(filepath.Join(b.dir, "data", conf.RecoverFile))
	return err == nil
}

// A box whose data disk is lost gets its configuration from its peer, as soon as
// that answers; until then it says what it waits for.
func TestLostData(t *testing.T) {
	boxes := pair(t)
	a, b := boxes[0], boxes[1]
	if _, err := a.commit(text(boxes, "second")); err != nil {
		t.Fatal(err)
	}
	b.runs("second")
	a.unplug()
	b.lose()
	b.until("telling what it waits for", func() error {
		var s status.Conf
		if err := b.state(&s); err != nil {
			return err
		}
		if !strings.Contains(s.Pair, "the data disk was lost: the configuration comes from") || s.Source != "seed" {
			return fmt.Errorf("%q, %s", s.Pair, s.Source)
		}
		return nil
	})
	// It stops in between, and goes on when it is there again.
	b.kill()
	b.start()
	if !b.recovering() {
		t.Error("it has forgotten that it lacks its configuration")
	}
	a.plug()
	b.runs("second")
	b.until("done", func() error {
		if b.recovering() {
			return errors.New("it still fetches")
		}
		return nil
	})
	var s status.Conf
	if err := b.state(&s); err != nil || s.Source != "pull" || s.Author != "ballast" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, x := range boxes {
		x.await("in step", func(st status.PairState) bool { return st.Reachable && !st.Drift })
	}
}

// Somebody who commits on the box that waits knows better.
func TestLostDataCommitted(t *testing.T) {
	boxes := pair(t)
	a, b := boxes[0], boxes[1]
	a.unplug()
	b.lose()
	if _, err := b.commit(text(boxes, "byhand"), local); err != nil {
		t.Fatal(err)
	}
	b.until("done", func() error {
		if b.recovering() {
			return errors.New("it still fetches")
		}
		return nil
	})
	a.plug()
	b.await("apart", func(st status.PairState) bool { return st.Reachable && st.Drift })
	var s status.Conf
	if err := b.state(&s); err != nil || s.Source != "commit" {
		t.Errorf("%+v, %v", s, err)
	}
}
