package conf_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// How a service process dies of the configuration that serves "two".
const (
	dieInPrepare  = "prepare"
	dieInApply    = "apply"      // each time
	dieOnce       = "apply once" // and gets on with it when it is started again
	dieSettled    = "settled"    // once, after it has told that it applied it
	processEnv    = "BALLAST_TEST_SERVICE"
	processPrompt = "serves\n"
)

// TestServiceProcess is no test: it is a service as a process of its own, which
// the tests below start.
func TestServiceProcess(t *testing.T) {
	name, rest, ok := strings.Cut(os.Getenv(processEnv), "|")
	if !ok {
		return
	}
	dir, phase, _ := strings.Cut(rest, "|")
	die := func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) }
	first := func() bool { // of the starts that get there
		mark := dir + "/died-" + name
		_, err := os.Stat(mark)
		os.WriteFile(mark, nil, 0o600)
		return err != nil
	}
	bad := func(c model.Config) bool { return len(c.VirtualServers) > 0 && c.VirtualServers[0].Name == "two" }
	os.Remove(ipc.Dir(dir).Path(name)) // of the one that was killed
	s := startService(t, context.Background(), ipc.Dir(dir), name)
	s.set(func() {
		s.judge = func(c model.Config) {
			if bad(c) && phase == dieInPrepare {
				die()
			}
		}
		s.failing = func(c model.Config) string {
			switch {
			case !bad(c):
			case phase == dieInApply:
				die()
			case phase == dieOnce:
				if first() {
					die()
				}
			case phase == dieSettled:
				if first() {
					time.AfterFunc(50*time.Millisecond, die)
				}
			}
			return ""
		}
	})
	fmt.Print(processPrompt)
	select {}
}

// process starts a service process, and again whenever it dies, as init does.
// It returns how often it was started.
func (b *box) process(name, phase string) (starts func() int) {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	n := 0
	up := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, exe, "-test.run=^TestServiceProcess$")
			cmd.Env = append(os.Environ(), processEnv+"="+name+"|"+string(b.dir)+"|"+phase)
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				b.t.Error(err)
				return
			}
			mu.Lock()
			n++
			mu.Unlock()
			line := make([]byte, len(processPrompt))
			if k, _ := out.Read(line); string(line[:k]) == processPrompt {
				select {
				case up <- struct{}{}:
				default:
				}
			}
			cmd.Wait()
		}
	}()
	b.t.Cleanup(func() { cancel(); <-done })
	select {
	case <-up:
	case <-time.After(time.Minute):
		b.t.Fatalf("%s does not start", name)
	}
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

var five = []string{"net", "vrrp", "ipvs", "health", "notify"}

// Each service is killed in each phase of a commit. It takes effect on all or on
// none, the reason is told, and the next commit works.
func TestKilledInEachPhase(t *testing.T) {
	victims := five
	if testing.Short() {
		victims = five[1:2]
	}
	for _, victim := range victims {
		for _, phase := range []string{dieInPrepare, dieInApply, dieOnce, dieSettled} {
			t.Run(victim+" "+phase, func(t *testing.T) {
				var others []string
				for _, s := range five {
					if s != victim {
						others = append(others, s)
					}
				}
				b := newBox(t, others...)
				b.opts.Services, b.opts.ApplyBound = five, 30*time.Second
				starts := b.process(victim, phase)
				b.start()
				one := b.mustCommit("vs one\n")
				_, err := b.commit("vs two\n")
				want := "one"
				switch phase {
				case dieInPrepare:
					wantError(t, err, "nothing changed", victim+" does not run", "commit force")
					if s := b.state(); s.Generation != one {
						t.Errorf("generation %d runs, want %d", s.Generation, one)
					}
				case dieInApply:
					wantError(t, err, "generation 3 was rolled back", victim+" fell over 3 times while it applied it", "runs with what ran before")
					if starts() < maxFallsSeen {
						t.Errorf("%s was started %d times", victim, starts())
					}
				default:
					want = "two"
					if err != nil {
						t.Error(err)
					}
				}
				s := b.state()
				serves(t, s, want)
				for name, svc := range b.svcs {
					if name == victim {
						continue
					}
					serves(t, svc.last(), want)
				}
				for end := time.Now().Add(time.Minute); starts() < 2; time.Sleep(5 * time.Millisecond) { // what is asked next is not the one that dies
					if time.Now().After(end) {
						t.Fatalf("%s was not started again", victim)
					}
				}
				b.applied(victim, s.Generation)
				n := b.mustCommit("vs three\n")
				b.applied(victim, n)
			})
		}
	}
}

const maxFallsSeen = 3

// applied waits until a service has applied a generation.
func (b *box) applied(name string, n uint64) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ok := false
	ipc.WatchBrief(ctx, b.dir.Client(name), func(_ uint64, a status.Applied) {
		if a.Config == n {
			ok = true
			cancel()
		}
	})
	if !ok {
		b.t.Errorf("%s does not get to generation %d", name, n)
	}
}
