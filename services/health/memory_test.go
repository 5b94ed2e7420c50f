package health

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"ballast/configs/model"
)

// TestCrash: the next run of the process knows what this one knew, tells
// nobody again what was told, and takes one more failure or success as news.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	cfg := configOf(tcpCheck(1, false), tcpCheck(2, true), tcpCheck(3, true), tcpCheck(4, false))
	w := newWorld()
	applyTo(w, cfg, t0)
	probe(w, 1, false) // dead
	probe(w, 2, true)  // alpha, has proved itself
	probe(w, 3, false) // alpha, dead; 4 is not probed yet
	m := openMemory(dir, slog.New(slog.DiscardHandler))
	m.save(w, t0)

	again := newWorld()
	again.before = openMemory(dir, slog.New(slog.DiscardHandler)).load()
	seen := w.seq
	applyTo(again, cfg, t0)
	wantLines(t, again, &seen)
	for i, want := range []bool{false, true, false, true} {
		if r := again.servers[0].real[i]; r.alive != want {
			t.Errorf("%s alive %t", r.name(), r.alive)
		}
	}
	probe(again, 2, false)
	probe(again, 1, true)
	wantLines(t, again, &seen,
		"[10.0.1.2]:tcp:80 of [10.0.0.2]:tcp:80: UP -> DOWN: TCP_CHECK: connection refused",
		"[10.0.1.1]:tcp:80 of [10.0.0.2]:tcp:80: DOWN -> UP: TCP_CHECK: connected")
	if again.ring[0].Seq != w.seq+1 {
		t.Errorf("number %d follows %d", again.ring[0].Seq, w.seq)
	}

	// Another boot, a broken file, no file: as at the first start.
	for _, text := range []string{`{"boot":"another","checks":{}}`, "{", ""} {
		if err := os.WriteFile(m.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := m.load(); r != nil {
			t.Errorf("%q gave %+v", text, r)
		}
	}
	if r := openMemory("", nil).load(); r != nil {
		t.Errorf("no folder gave %+v", r)
	}
}

// TestCrashWeights: weights that checks gave are as before too, so that a
// restart of health moves no client.
func TestCrashWeights(t *testing.T) {
	file := testCheck(model.FileCheck, netip.AddrPort{})
	file.Name, file.Weight = "load", 2
	script := testCheck(model.MiscCheck, netip.AddrPort{})
	script.Command.Argv, script.Dynamic = []string{"/bin/x"}, true
	cfg := configOf(file, script)
	w := newWorld()
	applyTo(w, cfg, t0)
	for _, c := range w.checks {
		w.result(c, outcome{ok: true, weight: 7, adds: -30}, t0)
	}
	dir := t.TempDir()
	openMemory(dir, slog.New(slog.DiscardHandler)).save(w, t0)
	again := newWorld()
	again.before = openMemory(dir, slog.New(slog.DiscardHandler)).load()
	applyTo(again, cfg, t0)
	for i, r := range again.servers[0].real {
		if got, want := r.dynamic(), w.servers[0].real[i].dynamic(); got != want || want < 0 {
			t.Errorf("%s: weight %d after a restart, %d before", r.name(), got, want)
		}
	}
}

// TestMemorySize: 20,000 checks are still a small file, written fast.
func TestMemorySize(t *testing.T) {
	w := newWorld()
	for i := range 20000 {
		c := &check{ident: key{byte(i), byte(i >> 8)}, weight: -1}
		c.m.known = true
		w.checks[c.ident] = c
	}
	began := time.Now()
	b, err := json.Marshal(w.remember("x"))
	if err != nil || len(b) > 1<<20 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	t.Logf("%d bytes in %s", len(b), time.Since(began))
}
