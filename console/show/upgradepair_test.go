package show

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/services/ipc/status"
)

func TestFirmwarePair(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return now.Add(time.Duration(s-300) * time.Second) }
	st := status.FirmwarePair{
		By: "ann@192.0.2.9", Began: at(0), To: status.FirmwareIdentity{Version: "1.1", Build: now.Add(-time.Hour).Unix()}, Boxes: [2]string{"lb2", "lb1"},
		Phase: "first ready", Doing: "lb2 gets ready to take over", Goes: true, Waiting: "lb2 is told of connections",
		Times: map[string]time.Time{"yield": at(2), "first trial": at(4), "first ready": at(70)},
	}
	want := `Pair       upgrade to 1.1 (2026-11-21 11:00) by ann@192.0.2.9, 5m00s ago: lb2
           first, then lb1
           11:55:02 lb2 gives up what it is master of (2s)
           11:55:04 lb2 boots the new firmware (1m6s)
           11:56:10 lb2 gets ready to take over, for 3m50s
           waits: lb2 is told of connections
`
	if d := cmp.Diff(want, FirmwarePair(st, now)); d != "" {
		t.Error(d)
	}
	same := st
	same.Times = map[string]time.Time{"yield": at(2), "first trial": at(2)}
	if s := FirmwarePair(same, now); !strings.Contains(s, "11:55:02 lb2 gives up what it is master of (0s)\n") || !strings.Contains(s, "11:55:02 lb2 boots the new firmware, for 4m58s\n") {
		t.Errorf("two phases within a second: %s", s)
	}
	st.Goes, st.Waiting, st.Stopped, st.Sequel = false, "", "lb2 does not answer: no\x1b route", "nothing more reboots"
	want = `Pair       upgrade to 1.1 (2026-11-21 11:00) by ann@192.0.2.9, 5m00s ago: lb2
           first, then lb1
           11:55:02 lb2 gives up what it is master of (2s)
           11:55:04 lb2 boots the new firmware (1m6s)
           11:56:10 lb2 gets ready to take over
           STOPPED while lb2 gets ready to take over: lb2 does not answer: no?
           route
           nothing more reboots
`
	if d := cmp.Diff(want, FirmwarePair(st, now)); d != "" {
		t.Error(d)
	}
}

func TestPairBar(t *testing.T) {
	draw := func(width int) string {
		var b strings.Builder
		bar := PairBar{Width: width, Print: func(s string) { b.WriteString(s) }}
		for i := range int64(3) {
			bar.Draw(status.FirmwarePairProgress{Box: "lb1", Step: "fw.efi", Done: i * 15e6, Total: 30e6})
			bar.Draw(status.FirmwarePairProgress{Box: "lb2", Step: "fw.efi", Done: i * 10e6, Total: 30e6})
		}
		bar.Draw(status.FirmwarePairProgress{Box: "lb1", Step: "verify", Done: 1, Total: 30e6})
		bar.Draw(status.FirmwarePairProgress{Box: "lb2", Step: "fw.efi", Done: 30e6, Total: 30e6})
		bar.End()
		bar.End()
		return b.String()
	}
	if d := cmp.Diff("write    10% 20% 30% 40% 50% 60% 70% 80% 90% 100%\n", draw(0)); d != "" {
		t.Error(d)
	}
	wide := draw(80)
	for _, want := range []string{"\rlb1 write [", "##] 100%  lb2 write [", "lb1 verify ["} {
		if !strings.Contains(wide, want) {
			t.Errorf("%q is not in %q", want, wide)
		}
	}
	for l := range strings.SplitSeq(strings.TrimSuffix(wide, "\n"), "\r") {
		if len(l) > 80 {
			t.Errorf("%d columns: %q", len(l), l)
		}
	}
}
