package conf_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"ballast/services/conf"
	"ballast/services/ipc/status"
)

// BenchmarkCommit is what a commit takes of processors, in conf, on the way
// through the sockets, and in five services up to the point where they have
// the configuration: the first load and then one changed weight.
func BenchmarkCommit(b *testing.B) {
	used := func() time.Duration {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	for _, size := range [][2]int{{100, 2}, {1000, 2}, {1000, 10}, {5000, 2}, {10000, 2}} {
		text := func(weight int) string {
			var t strings.Builder
			t.WriteString(plain)
			for i := range size[0] {
				fmt.Fprintf(&t, "virtual_server 10.%d.%d.1 80 {\n    lb_algo rr\n    lb_kind DR\n    protocol TCP\n", i/250, i%250)
				for j := range size[1] {
					w := 1
					if i == size[0]/2 && j == 0 {
						w = weight
					}
					fmt.Fprintf(&t, "    real_server 10.%d.%d.%d 80 {\n        weight %d\n        TCP_CHECK {\n            connect_timeout 3\n        }\n    }\n", 100+i/250, i%250, j+1, w)
				}
				t.WriteString("}\n")
			}
			return t.String()
		}
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) {
			x := newBox(b, "net", "vrrp", "ipvs", "health", "notify")
			x.opts.Language = conf.Language{}
			x.start()
			commit := func(weight int) time.Duration {
				start := used()
				var r status.CommitResult
				if err := x.call("commit", status.Candidate{Text: text(weight)}, &r); err != nil {
					b.Fatal(err)
				}
				return used() - start
			}
			first := commit(1)
			n, total := 1, time.Duration(0)
			for b.Loop() {
				n++
				total += commit(n%200 + 2)
			}
			b.ReportMetric(float64(first)/1e6, "first-cpu-ms")
			b.ReportMetric(float64(total)/1e6/float64(n-1), "weight-cpu-ms")
			x.stop()
		})
	}
}
