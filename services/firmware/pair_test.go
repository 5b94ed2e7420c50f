package firmware

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ballast/image/bootenv"
	"ballast/image/layout"
	"ballast/services/firmware/both"
	"ballast/services/firmware/pairing"
	"ballast/services/ipc/status"
)

// TestPairBox: what an upgrade of a pair gets of a box: a slot is written and
// nothing started, then it is started on trial; and what the box says of itself.
func TestPairBox(t *testing.T) {
	s, d, b := newService(t)
	s.begin(t.Context())
	box := pairBox{s}
	fill := func() (r pairing.Report) { box.Fill(&r); return r }
	want := pairing.Report{Running: oldID, Slot: layout.A}
	if diff := cmp.Diff(want, fill()); diff != "" {
		t.Error(diff)
	}
	if err := box.Try(t.Context(), "ann"); err == nil || !strings.Contains(err.Error(), "holds nothing") {
		t.Errorf("a trial of nothing: %v", err)
	}
	steps := 0
	write := func(file []byte, arg status.FirmwareUpgrade) error {
		id, err := box.Write(t.Context(), bytes.NewReader(file), arg, func(status.FirmwareProgress) { steps++ })
		if err == nil && id != newID {
			t.Errorf("it holds %+v", id)
		}
		return err
	}
	for name, file := range map[string][]byte{"the signature": []byte("ballast-bundle 1\nforged"), "the policy": bundled(t, oldID, maker)} {
		if err := write(file, status.FirmwareUpgrade{}); err == nil {
			t.Errorf("%s is not looked at", name)
		}
	}
	if err := write(bundled(t, newID, maker), status.FirmwareUpgrade{By: "ann"}); err != nil {
		t.Fatal(err)
	}
	want.Loaded = newID
	if diff := cmp.Diff(want, fill()); diff != "" || steps == 0 {
		t.Errorf("%d steps, %s", steps, diff)
	}
	if d.env != bootenv.Default {
		t.Errorf("it starts next already: %+v", d.env)
	}
	if err := box.Try(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	<-b.rebooted
	if d.env != bootenv.Default.Trial(layout.B) || !fill().Going {
		t.Errorf("%+v, %+v", d.env, fill())
	}
	if h := s.history[len(s.history)-1]; h.Source != "pair" || h.By != "ann" || h.To.Version != "1.1" {
		t.Errorf("history: %+v", h)
	}
	if err := box.Try(t.Context(), "ann"); err != nil {
		t.Errorf("told twice: %v", err)
	}

	s, d, _ = newService(t)
	d.slots[layout.B], d.env, s.onTrial, s.slot, s.running = newID, bootenv.Default.Trial(layout.B), true, layout.B, newID
	s.begin(t.Context())
	s.trial = &status.FirmwareTrial{Missing: []string{"vrrp", "console"}}
	want = pairing.Report{Running: newID, Slot: layout.B, Trial: true, Missing: "vrrp; console", Loaded: oldID}
	got := pairing.Report{}
	pairBox{s}.Fill(&got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := (pairBox{s}).Try(t.Context(), "ann"); err == nil {
		t.Error("a box on trial reboots into another trial")
	}
	s.slot, s.running, s.onTrial, s.trial, s.over = layout.A, oldID, false, nil, false
	s.history = []status.FirmwareEvent{{To: status.FirmwareIdentity(newID), Slot: "B", Verdict: status.VerdictRejected, Reason: "no vrrp"}}
	got = pairing.Report{}
	pairBox{s}.Fill(&got)
	if got.Trial || !strings.Contains(got.Verdict, "rejected: no vrrp") {
		t.Errorf("after a trial that failed: %+v", got)
	}
}

// TestPairGoes: while both boxes are upgraded nobody changes the firmware of one.
func TestPairGoes(t *testing.T) {
	s, _, _ := newService(t)
	dir := t.TempDir()
	r := pairing.Record{ID: "x", Phase: pairing.First, Boxes: [2]string{"lb2", "lb1"}, To: newID}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pair.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s.both = both.New(both.Options{Data: dir, Log: slog.New(slog.DiscardHandler), Box: pairBox{s}})
	s.begin(t.Context())
	c := serve(t, s)
	if _, err := upgrade(t, c, upgradeWords(), bytes.NewReader(bundled(t, newID, maker))); err == nil || err.Error() != errPair.Error() {
		t.Errorf("upgrade: %v", err)
	}
	err = c.Call(t.Context(), "rollback", status.FirmwareOrder{}, nil)
	if err == nil || err.Error() != errPair.Error() {
		t.Errorf("rollback: %v", err)
	}
	err = c.Stream(t.Context(), "install", status.FirmwareInstall{Disk: "sda"}, bytes.NewReader(nil), io.Discard, func(string) {})
	if err == nil || err.Error() != errPair.Error() {
		t.Errorf("install: %v", err)
	}
	if st := published(t, c); st.Pair == nil || !st.Pair.Goes || !strings.Contains(st.Notice, "the pair is being upgraded to 1.1 (lb2 boots the new firmware)") {
		t.Errorf("%+v, %q", st.Pair, st.Notice)
	}
}
