package show

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/services/ipc/status"
)

func TestFirmware(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	one := status.FirmwareIdentity{Version: "1.0", Build: now.Add(-48 * time.Hour).Unix(), Board: "qemu", Kernel: "6.12.117"}
	two := status.FirmwareIdentity{Version: "1.1", Build: now.Add(-time.Hour).Unix(), Board: "qemu", Kernel: "6.12.117"}
	st := status.Firmware{
		Running: two, Slot: "B", Next: "B", Keys: []string{"SHA256:abc"},
		Slots: []status.FirmwareSlot{{Name: "A", Identity: one, State: status.SlotGood}, {Name: "B", Identity: two, State: status.SlotTrial}},
		Trial: &status.FirmwareTrial{Slot: "B", Since: now, Until: now.Add(3 * time.Minute), Missing: []string{"vrrp instance VI_1 is in FAULT, and was MASTER before: no carrier on eth0"}},
		History: []status.FirmwareEvent{
			{Time: now.Add(-24 * time.Hour), Kind: "upgrade", By: "ann@192.0.2.9", From: status.FirmwareIdentity{Version: "0.9"}, To: one, Slot: "A", Verdict: status.VerdictConfirmed, Reason: "it does its job"},
			{Time: now, Kind: "upgrade", By: "eve\x1b[31m", From: one, To: two, Slot: "B"},
		},
	}
	want := `Running    1.1 (2026-11-21 11:00), board qemu, kernel 6.12.117
Slot A     1.0 (2026-11-19 12:00), good
Slot B     1.1 (2026-11-21 11:00), on trial, runs
Trial      rejected in 3m00s unless it does its job; missing:
           vrrp instance VI_1 is in FAULT, and was MASTER before: no carrier on
           eth0
           "confirm firmware" keeps it, "rollback firmware" takes it back
Keys       SHA256:abc
History
  2026-11-20 12:00  upgrade 0.9 -> 1.0 by ann@192.0.2.9: confirmed: it does its
                    job
  2026-11-21 12:00  upgrade 1.0 -> 1.1 by eve?[31m: not decided
`
	if diff := cmp.Diff(want, Firmware(st, now)); diff != "" {
		t.Error(diff)
	}
	st = status.Firmware{Running: one, Cannot: "this box did not boot from a slot"}
	want = "Running    1.0 (2026-11-19 12:00), board qemu, kernel 6.12.117\nUpgrade    this box cannot: this box did not boot from a slot\n"
	if diff := cmp.Diff(want, Firmware(st, now)); diff != "" {
		t.Error(diff)
	}
}

func TestBar(t *testing.T) {
	now := time.Unix(0, 0)
	draw := func(width int) string {
		var b strings.Builder
		bar := Bar{Width: width, Print: func(s string) { b.WriteString(s) }}
		for i := range int64(3) {
			bar.Draw("fw.efi", i*15e6, 30e6, now.Add(time.Duration(i)*time.Second))
		}
		bar.Draw("verify", 30e6, 30e6, now)
		bar.End()
		bar.End()
		return b.String()
	}
	if diff := cmp.Diff("write    10% 20% 30% 40% 50% 60% 70% 80% 90% 100%\nverify   10% 20% 30% 40% 50% 60% 70% 80% 90% 100%\n", draw(0)); diff != "" {
		t.Error(diff)
	}
	got := draw(80)
	for _, want := range []string{"\rwrite   [" + strings.Repeat(" ", 40) + "]   0% 0 of 30 MB", "\rwrite   [" + strings.Repeat("#", 20) + strings.Repeat(" ", 20) + "]  50% 15 of 30 MB, 15.0 MB/s  \r", "100% 30 of 30 MB, 15.0 MB/s  \n\rverify  ["} {
		if !strings.Contains(got, want) {
			t.Errorf("%q has no %q", got, want)
		}
	}
	for line := range strings.FieldsFuncSeq(got, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if len(line) > 80 {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
}
