package conf_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ballast/services/conf"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// readers are the services that a commit waits for, with what each asks for.
var readers = []struct {
	name string
	need follow.Need
}{{"net", follow.Slim}, {"vrrp", follow.Head}, {"ipvs", follow.Whole}, {"health", follow.Whole}, {"notify", follow.Bare}}

// readerOf is set in the environment of a process that is such a service and
// nothing else: "DIR NAME".
const readerOf = "BALLAST_BENCH_READER"

func TestMain(m *testing.M) {
	if arg := os.Getenv(readerOf); arg != "" {
		dir, name, _ := strings.Cut(arg, " ")
		if err := read(ipc.Dir(dir), name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// read takes over every configuration and does nothing with it, until its
// standard input ends.
func read(dir ipc.Dir, name string) error {
	debug.SetGCPercent(50) // as init has it
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	for _, r := range readers {
		if r.name != name {
			continue
		}
		f := follow.New(dir.Client("conf"), r.need).Lean() // as they are
		s := ipc.NewServer(name)
		s.Handle("prepare", f.Prepare(func(context.Context, follow.Update) error { return nil }))
		env, err := ipc.NewEnv(dir, name, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			f.Run(ctx, func(u follow.Update) { s.Publish(status.Applied{Config: u.Conf.Generation}) })
		})
		err = s.Serve(ctx, env.Listener)
		cancel()
		wg.Wait()
		return err
	}
	return fmt.Errorf("there is no reader %s", name)
}

// used is what a process took of processors, on all threads.
func used(b *testing.B, pid int) time.Duration {
	b.Helper()
	if pid == os.Getpid() {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	var sum time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, p := range tasks {
		line, _ := os.ReadFile(p)
		f := strings.Fields(string(line))
		if len(f) == 3 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	if sum == 0 {
		b.Fatalf("nothing is known of process %d", pid)
	}
	return sum
}

// BenchmarkCommit is what a commit takes of processors: in conf, and in five
// readers, each a process of its own, up to the point where they have the
// configuration. first is the load of the whole text, weight one changed
// weight after it.
func BenchmarkCommit(b *testing.B) {
	for _, size := range [][2]int{{100, 2}, {1000, 2}, {1000, 10}, {5000, 2}, {10000, 2}} {
		text := func(weight int) string {
			var t strings.Builder
			t.WriteString("global_defs {\n    router_id BENCH\n}\n")
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
		name := fmt.Sprintf("%dx%d", size[0], size[1])
		b.Run("first/"+name, func(b *testing.B) {
			conf, others := time.Duration(0), time.Duration(0)
			for i := 0; i < b.N; i++ {
				b.StopTimer()
				c := newCommits(b)
				runtime.GC()
				t := text(1)
				b.StartTimer()
				c.commit(t, &conf, &others)
				b.StopTimer()
				c.stop()
			}
			report(b, conf, others)
		})
		b.Run("weight/"+name, func(b *testing.B) {
			c := newCommits(b)
			defer c.stop()
			none := time.Duration(0)
			c.commit(text(1), &none, &none)
			c.commit(text(2), &none, &none)
			texts := []string{text(3), text(4), text(5)}
			runtime.GC()
			var m0, m1 runtime.MemStats
			runtime.ReadMemStats(&m0)
			conf, others := time.Duration(0), time.Duration(0)
			b.ResetTimer()
			for i := 0; i < b.N; i++ {
				c.commit(texts[i%len(texts)], &conf, &others)
			}
			b.StopTimer()
			runtime.ReadMemStats(&m1)
			b.ReportMetric(float64(m1.TotalAlloc-m0.TotalAlloc)/float64(b.N)/(1<<20), "MB/op")
			b.ReportMetric(float64(m1.NumGC-m0.NumGC)/float64(b.N), "GCs/op")
			report(b, conf, others)
		})
	}
}

func report(b *testing.B, conf, others time.Duration) {
	b.ReportMetric(conf.Seconds()*1000/float64(b.N), "conf-cpu-ms")
	b.ReportMetric(others.Seconds()*1000/float64(b.N), "readers-cpu-ms")
}

// commits is a conf in this process, with its readers.
type commits struct {
	*box
	pids []int
	end  []func()
}

func newCommits(b *testing.B) *commits {
	b.Helper()
	c := &commits{box: newBox(b)}
	old := debug.SetGCPercent(50)
	c.end = append(c.end, func() { debug.SetGCPercent(old) })
	for _, r := range readers {
		c.opts.Services = append(c.opts.Services, r.name)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), readerOf+"="+string(c.dir)+" "+r.name)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		c.pids = append(c.pids, cmd.Process.Pid)
		c.end = append(c.end, func() {
			in.Close()
			cmd.Wait()
		})
	}
	c.opts.Language = conf.Language{}
	c.start()
	for _, r := range readers { // all of them hold what conf booted with
		ctx, cancel := context.WithCancel(context.Background())
		ipc.Watch(ctx, c.dir.Client(r.name), func(_ uint64, a *status.Applied) {
			if a != nil && a.Config > 0 {
				cancel()
			}
		})
	}
	return c
}

func (c *commits) commit(text string, conf, others *time.Duration) {
	b := c.t.(*testing.B)
	b.Helper()
	*conf -= used(b, os.Getpid())
	for _, pid := range c.pids {
		*others -= used(b, pid)
	}
	var r status.CommitResult
	if err := c.call("commit", status.Candidate{Text: text}, &r); err != nil {
		b.Fatal(err)
	}
	*conf += used(b, os.Getpid())
	for _, pid := range c.pids {
		*others += used(b, pid)
	}
}

func (c *commits) stop() {
	c.box.stop()
	for _, f := range c.end {
		f()
	}
}
