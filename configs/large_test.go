package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"ballast/configs/format"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// The figures of docs/benchmarks.md for a text of 100,000 lines, and the peer's
// in the same run:
//
//	go test ./configs -run '^$' -bench 100kLines -benchtime 5x

func BenchmarkParse100kLines(b *testing.B) {
	text := large(100_000)
	processor(b, func() { syntax.Parse("large", text, syntax.Options{Grammar: schema.Grammar{}}) })
}

func BenchmarkInspect100kLines(b *testing.B) {
	text := large(100_000)
	processor(b, func() {
		if r := Inspect("large", text, Options{}); len(r.Problems) > 0 {
			b.Fatal(r.Problems)
		}
	})
}

func BenchmarkFormat100kLines(b *testing.B) {
	text := string(large(100_000))
	processor(b, func() { format.Format(text) })
}

// BenchmarkKeepalived100kLines is keepalived -t on the same text.
func BenchmarkKeepalived100kLines(b *testing.B) {
	bin, err := exec.LookPath("keepalived")
	if err != nil {
		b.Skip("keepalived is not installed")
	}
	file := filepath.Join(b.TempDir(), "large.conf")
	if err := os.WriteFile(file, large(100_000), 0o600); err != nil {
		b.Fatal(err)
	}
	var spent time.Duration
	for b.Loop() {
		cmd := exec.Command(bin, "-t", "-f", file)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %.300s", err, out)
		}
		u := cmd.ProcessState.SysUsage().(*syscall.Rusage) // with that of its children
		spent += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ReportMetric(spent.Seconds()*1e3/float64(b.N), "cpu-ms/op")
}
