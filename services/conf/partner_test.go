package conf_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/configs"
	"ballast/configs/model"
	"ballast/configs/store"
	"ballast/services/conf"
	"ballast/services/conf/pair"
	"ballast/services/ipc/status"
)

// pairedBox is a box with a peer, in whose name the test speaks.
func pairedBox(t *testing.T, times conf.PairTimes) *box {
	b := newBox(t)
	load := toy.Load
	b.opts.Language.Load = func(name, text string, o configs.Options) (model.Config, []model.Problem) {
		rest := strings.Replace(text, "pair\n", "", 1)
		c, ps := load(name, rest, o)
		if rest != text {
			c.Pair = &model.Pair{Addr: netip.MustParseAddr("192.0.2.12"), Port: 1913}
		}
		return c, ps
	}
	b.opts.Host = func() string { return "lb1" }
	b.opts.Pair = times
	b.start()
	b.mustCommit("hostname lb1\npair\nvs a\n")
	return b
}

// hears has the box answer a message of its peer.
func (b *box) hears(m pair.Message) pair.Answer {
	b.t.Helper()
	m.Box = "lb2"
	body, err := m.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	var out status.PeerMessage
	if err := b.call("pair", json.RawMessage(body), &out); err != nil {
		b.t.Fatal(err)
	}
	a, err := pair.DecodeAnswer(out.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

// Files of the peer lie where those of the box's own users may, and nowhere else.
func TestPeerWritesNoOtherFiles(t *testing.T) {
	script := []byte("#!/bin/sh\n")
	sum := sha256.Sum256(script)
	file := func(path string) store.FileRef {
		return store.FileRef{Path: path, Mode: 0o755, Size: len(script), Sum: hex.EncodeToString(sum[:])}
	}
	b := pairedBox(t, conf.PairTimes{})
	commit := func(path string) (refused string) {
		m := pair.Message{Kind: pair.Prepare, Source: "commit", Txn: pair.NewTxn(), Sees: b.hears(pair.Message{Kind: pair.Hello}).State.Content,
			Files: []store.FileRef{file(path)}, Payload: []byte("hostname lb1\npair\nvs b\n")}
		a := b.hears(m)
		for _, s := range a.Missing {
			b.hears(pair.Message{Kind: pair.Blob, Sum: s, Payload: script})
		}
		if a.Refused == "" {
			a = b.hears(m)
		}
		if a.Refused == "" {
			a = b.hears(pair.Message{Kind: pair.Apply, Txn: m.Txn})
		}
		b.hears(pair.Message{Kind: pair.Word, Txn: m.Txn, Verdict: pair.Aborted})
		return a.Refused
	}
	for _, path := range []string{"/srv/store", "/etc/keepalived/keepalived.conf", "etc/keepalived/a.sh", "/etc/keepalived/a.ballast-tmp", "../a"} {
		if why := commit(path); why == "" {
			t.Errorf("%s was taken", path)
		}
		if _, err := os.Stat(filepath.Join(b.root, path)); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	if why := commit("/etc/keepalived/a.sh"); why != "" {
		t.Errorf("a script in its place: %s", why)
	}
}

// A peer that begins a commit, and goes on saying that nothing is decided, does
// not keep others from changing this box.
func TestPeerHoldsABoxForAWhileOnly(t *testing.T) {
	b := pairedBox(t, conf.PairTimes{Tick: 10 * time.Millisecond, Ask: 50 * time.Millisecond, Bound: 100 * time.Millisecond})
	m := pair.Message{Kind: pair.Prepare, Source: "commit", Txn: pair.NewTxn(), Sees: b.hears(pair.Message{Kind: pair.Hello}).State.Content, Payload: []byte("hostname lb1\npair\nvs b\n")}
	if a := b.hears(m); a.Refused != "" {
		t.Fatal(a.Refused)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- b.dir.Client("conf").Call(ctx, "commit", status.Candidate{Text: "hostname lb1\npair\nvs c\n", Local: true}, nil)
	}()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			serves(t, b.state(), "c")
			return
		case <-again.C:
			b.hears(pair.Message{Kind: pair.Word, Txn: m.Txn, Verdict: pair.Undecided})
		}
	}
}
