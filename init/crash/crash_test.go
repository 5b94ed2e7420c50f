package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc/status"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// The variables of an EFI firmware hold a text in pieces, the last one first; an
// oops and the panic after it are one crash, what came an hour later is another.
func TestCollect(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "pstore")
	write(t, p+"/dmesg-efi_pstore-1", "Oops#1 Part1\n<4>[    9.2] second half\n", noon)
	write(t, p+"/dmesg-efi_pstore-2", "Oops#1 Part2\n<1>[    9.1] BUG: unable to handle page fault\n", noon.Add(time.Second))
	write(t, p+"/dmesg-efi_pstore-3", "Panic#2 Part1\n<0>[    9.3] Kernel panic - not syncing: Fatal exception\n", noon.Add(2*time.Second))
	write(t, p+"/dmesg-efi_pstore-9", "Panic#1 Part1\n<0>[ 3599.9][    T1] Kernel panic - not syncing: sysrq triggered crash\x1b[2J\n", noon.Add(time.Hour))
	write(t, p+"/dmesg-ramoops-0.enc.z", "\x00\x01", noon.Add(2*time.Hour))
	s, err := Open(filepath.Join(dir, "crash"))
	if err != nil {
		t.Fatal(err)
	}
	added, err := s.Collect(p, func(r *status.CrashReport) { r.Version = "1.0" })
	if err != nil || len(added) != 3 {
		t.Fatalf("%d, %v", len(added), err)
	}
	want := []status.Crash{
		{Number: 3, Time: noon.Add(2 * time.Hour), Kind: "panic", Summary: "no line of it tells why", Version: "1.0"},
		{Number: 2, Time: noon.Add(time.Hour), Kind: "panic", Summary: "sysrq triggered crash?[2J", Version: "1.0"},
		{Number: 1, Time: noon, Kind: "panic", Summary: "Fatal exception", Version: "1.0"},
	}
	got := s.List()
	for i := range got {
		if got[i].Bytes == 0 {
			t.Errorf("%+v has no text", got[i])
		}
		got[i].Bytes, got[i].Time = 0, got[i].Time.UTC()
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r, err := s.Get(1)
	if err != nil {
		t.Fatal(err)
	}
	parts := []status.CrashPart{
		{Name: "kernel, oops 1", Text: "<1>[    9.1] BUG: unable to handle page fault\n<4>[    9.2] second half\n"},
		{Name: "kernel, panic 2", Text: "<0>[    9.3] Kernel panic - not syncing: Fatal exception\n"},
	}
	if d := cmp.Diff(parts, r.Parts); d != "" {
		t.Error(d)
	}
	if left, _ := os.ReadDir(p); len(left) > 0 {
		t.Errorf("left in pstore: %v", left)
	}
	if added, err := s.Collect(p, nil); err != nil || len(added) > 0 {
		t.Errorf("a second time: %v, %v", added, err)
	}
}

// What cannot be kept stays in pstore.
func TestCollectFullDisk(t *testing.T) {
	p := t.TempDir()
	write(t, p+"/dmesg-ramoops-0", "Panic#1 Part1\ntext\n", noon)
	s := &Store{dir: filepath.Join(p, "none")}
	if added, err := s.Collect(p, func(*status.CrashReport) {}); err == nil || len(added) > 0 {
		t.Errorf("%v, %v", added, err)
	}
	if _, err := os.Stat(p + "/dmesg-ramoops-0"); err != nil {
		t.Error(err)
	}
}

// A firmware that never forgets fills its variables; they are taken a part at a time.
func TestManyDumps(t *testing.T) {
	p := t.TempDir()
	for n := range maxDumps + 1 {
		write(t, filepath.Join(p, fmt.Sprintf("dmesg-efi_pstore-%d", n)), "Oops#1 Part1\ntext\n", noon)
	}
	if dumps, err := readDumps(p); err != nil || len(dumps) != maxDumps {
		t.Errorf("%d, %v", len(dumps), err)
	}
}

func TestBounds(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "crash"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 14 {
		r := status.CrashReport{Crash: status.Crash{Time: noon, Kind: Panic, Summary: fmt.Sprint("number ", n+1)}}
		for range 12 {
			r.Parts = append(r.Parts, status.CrashPart{Name: "x", Text: strings.Repeat("0123456789abcde\n", 20<<10) + "the end\n"})
		}
		if _, err := s.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	list := s.List()
	if len(list) != MaxRecords || list[0].Number != 14 || list[9].Summary != "number 5" || list[0].Bytes > maxParts*(maxPart+100) {
		t.Errorf("%d records, %+v", len(list), list[0])
	}
	r, err := s.Get(14)
	if err != nil || len(r.Parts) != maxParts || !strings.HasSuffix(r.Parts[0].Text, "the end\n") {
		t.Errorf("%d parts, %v", len(r.Parts), err)
	}
	if got := Unseen(list); len(got) != 4 || !strings.Contains(got[0], `crash 14 at 2026-11-21 12:00:00Z: panic: number 14; "show crash 14"`) {
		t.Errorf("%q", got)
	}
	for _, c := range list {
		if err := s.Seen(c.Number); err != nil {
			t.Fatal(err)
		}
	}
	if got := Unseen(s.List()); len(got) > 0 {
		t.Errorf("%q", got)
	}
	if _, err := s.Get(1); err == nil || !strings.Contains(err.Error(), "no such crash") {
		t.Error(err)
	}
}

func TestSummary(t *testing.T) {
	const starved = "<3>[  80.1] ballast: the watchdog is not fed any more and resets the box in 30s: vrrp shows no progress for 6s\n"
	for _, tt := range []struct{ text, kind, line string }{
		{"<0>[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n", Panic, "VFS: Unable to mount root fs"},
		{starved + "<0>[ 104.1] Kernel panic - not syncing: watchdog pretimeout event\n", Watchdog, "vrrp shows no progress for 6s"},
		{"<0>[ 104.1] Kernel panic - not syncing: watchdog pretimeout event\n", Watchdog, "PID 1 did not feed it any more"},
		{"<1>[ 5.0] BUG: kernel NULL pointer dereference, address: 8\n", Oops, "BUG: kernel NULL pointer dereference, address: 8"},
		{"<0>[ 3.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200\n", Init, "Attempted to kill init! exitcode=0x00000200"},
		{"<0>[ 3.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200\npanic: runtime error: index out of range\n", Init, "panic: runtime error: index out of range"},
		{"<0>[ 33.7] Kernel panic - not syncing: watchdog pretimeout event\nfatal error: too slow\n", Init, "fatal error: too slow"},
		{"panic: no more\n\ngoroutine 1 [running]:\n", Init, "panic: no more"},
		{"fatal error: all goroutines are asleep\n", Init, "fatal error: all goroutines are asleep"},
		{"<6>[ 3.0] all is well\n", Panic, "no line of it tells why"},
	} {
		kind, line := Summary([]status.CrashPart{{Name: "kernel", Text: tt.text}})
		if kind != tt.kind || line != tt.line {
			t.Errorf("%q: %s: %q, want %s: %q", tt.text, kind, line, tt.kind, tt.line)
		}
	}
	if kind, _ := Summary(nil); kind != "" {
		t.Errorf("of nothing: %s", kind)
	}
}

func TestJudge(t *testing.T) {
	ran := Mark{Started: noon, Version: "1.0"}
	ended := ran
	ended.Ended = "reboot, asked by ann@192.0.2.7"
	found := func(kind string) []status.CrashReport {
		return []status.CrashReport{{Crash: status.Crash{Number: 4, Kind: kind, Summary: "why"}}}
	}
	for _, tt := range []struct {
		name string
		e    Evidence
		kind string
		why  string
	}{
		{"first", Evidence{Remember: true}, status.StartFirst, "first start"},
		{"no disk", Evidence{}, status.StartUnknown, "without a data disk"},
		{"asked", Evidence{Known: true, Last: ended, Remember: true}, status.StartOrder, "asked by ann@192.0.2.7"},
		{"asked, and the reset took the watchdog", Evidence{Known: true, Last: ended, Reset: true}, status.StartOrder, "asked by"},
		{"power", Evidence{Known: true, Last: ran, Alive: noon.Add(time.Hour)}, status.StartCut, "alive at 13:00 on 21 Nov 2026 UTC"},
		{"watchdog", Evidence{Known: true, Last: ran, Reset: true}, status.StartWatchdog, "the watchdog reset the box"},
		{"panic", Evidence{Known: true, Last: ran, Crashes: found(Panic)}, status.StartPanic, "kernel panic: why"},
		{"hang", Evidence{Known: true, Last: ran, Crashes: found(Watchdog)}, status.StartWatchdog, "ended the run before: why"},
		{"init", Evidence{Crashes: found(Init)}, status.StartPanic, "PID 1 ended: why"},
		{"oops", Evidence{Crashes: found(Oops)}, status.StartPanic, "a fault of the kernel: why"},
	} {
		got := Judge(tt.e)
		if got.Kind != tt.kind || !strings.Contains(got.Why, tt.why) || (len(tt.e.Crashes) > 0) != (got.Crash == 4) {
			t.Errorf("%s: %+v, want %s: %q", tt.name, got, tt.kind, tt.why)
		}
	}
}

func TestMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run")
	if _, _, known, err := ReadMark(path); known || err != nil {
		t.Errorf("of nothing: %v, %v", known, err)
	}
	m := Mark{Boot: "x", Started: noon, Version: "1.0", Slot: "A", Ended: "power off, asked by power button"}
	if err := m.Write(path); err != nil {
		t.Fatal(err)
	}
	Alive(path)
	got, alive, known, err := ReadMark(path)
	if err != nil || !known || time.Since(alive) > time.Minute {
		t.Errorf("%v %v %v", alive, known, err)
	}
	if d := cmp.Diff(m, got); d != "" {
		t.Error(d)
	}
	write(t, path, "torn", noon)
	if _, _, known, err := ReadMark(path); known || err == nil {
		t.Error("a torn mark is taken")
	}
}

func TestStarved(t *testing.T) {
	for _, tt := range []struct {
		text, why string
		starved   bool
	}{
		{"", "", false},
		{"x init the watchdog is not fed any more and resets the box in 30s: vrrp shows no progress for 6s\n", "vrrp shows no progress for 6s", true},
		{"the watchdog is not fed any more and resets the box in 30s: x\nthe watchdog is fed again\n", "", false},
	} {
		if why, starved := Starved(tt.text); why != tt.why || starved != tt.starved {
			t.Errorf("%q: %q, %v", tt.text, why, starved)
		}
	}
}

// Lines of weight are on the disk soon, in two files of bounded size.
func TestTail(t *testing.T) {
	dir := t.TempDir()
	tail := NewTail()
	line := func(service string, priority int, text string) {
		tail.Add(status.LogLine{Time: noon, Service: service, Priority: priority, Text: text})
	}
	line("init", 5, "before there is a disk")
	line("vrrp", 5, "a service's notice")
	line("init", 6, "for information")
	if err := tail.Open(dir); err != nil {
		t.Fatal(err)
	}
	line("vrrp", 3, "the last words")
	await(t, dir, "the last words")
	got := Last(dir)
	if !strings.HasPrefix(got, "2026-11-21 12:00:00.000Z init     before there is a disk\n") || strings.Contains(got, "notice") || strings.Contains(got, "information") {
		t.Error(got)
	}
	for n := range 4 {
		for i := range 300 { // no more than it queues
			line("init", 4, fmt.Sprintf("%d of %d %s", i, n, strings.Repeat("x", 100)))
		}
		await(t, dir, fmt.Sprintf("299 of %d", n))
	}
	if got := Last(dir); len(got) > 2*tailSize+4096 || strings.Contains(got, "before there") {
		t.Errorf("%d bytes", len(got))
	}
	for _, name := range []string{tailFile, tailFile + ".1"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() > tailSize+4096 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	line("init", 3, "and the very last")
	began := time.Now()
	tail.Close()
	select {
	case <-tail.done:
	default:
		if took := time.Since(began); took < tailSlow {
			t.Errorf("it waited %v for what is queued", took)
		}
		<-tail.done // a disk that others keep busy
	}
	if got := Last(dir); !strings.HasSuffix(got, "and the very last\n") {
		t.Errorf("the end is missing: %q", got[max(0, len(got)-200):])
	}
	if open, _ := filepath.Glob("/proc/self/fd/*"); len(open) > 0 {
		for _, fd := range open {
			if to, _ := os.Readlink(fd); strings.HasPrefix(to, dir) {
				t.Errorf("%s is still open", to)
			}
		}
	}
	NewTail().Close() // never opened
	if err := NewTail().Open(dir); err != nil || Last(dir) != "" {
		t.Errorf("a new run begins with what was there: %v", err)
	}
}

func await(t *testing.T, dir, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(Last(dir), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q is not on the disk: %s", text, Last(dir))
		}
	}
}

// What lies in memory after a reset may be anything.
func FuzzCollect(f *testing.F) {
	f.Add("dmesg-ramoops-0", "Panic#1 Part1\n<0>[ 1.0] Kernel panic - not syncing: x\n")
	f.Add("console-ramoops-0", "\x00\xff[")
	f.Add("dmesg-x.enc.z", "#")
	f.Fuzz(func(t *testing.T, name, text string) {
		d := parseDump(name, text)
		d.at = noon
		for _, g := range group([]dump{d, parseDump("dmesg-2", text)}) {
			Summary(g.parts)
			for _, p := range g.parts {
				if strings.ContainsAny(showable(p.Text), "\x00\x1b") {
					t.Errorf("%q", p.Text)
				}
			}
		}
	})
}
