// Starve is a PID 1 that feeds the watchdog for a while and then has a service
// that hangs: the hardware must reset the machine.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"ballast/init/boot"
	"ballast/init/kmod"
	"ballast/init/watchdog"
)

func main() {
	if os.Getpid() != 1 { // the kernel's call for a module
		os.Exit(1)
	}
	say := func(format string, a ...any) { fmt.Printf("starve: "+format+"\r\n", a...) }
	if err := boot.Mounts(); err != nil {
		say("%v", err)
	}
	l, err := kmod.Open(string(boot.ReadCmdLine()))
	if err != nil {
		say("%v", err)
	} else if err := l.Load("i6300esb"); err != nil {
		say("%v", err)
	}
	d, err := watchdog.Open("/dev/watchdog0", 10*time.Second)
	if err != nil {
		say("%v", err)
		time.Sleep(time.Hour) // PID 1 must not end
	}
	say("%s, timeout %v", d.Identity, d.Timeout)
	begin := time.Now()
	const alive = 14 * time.Second // longer than the timeout: feeding works
	f := watchdog.Feeder{Device: d, Interval: time.Second,
		Health: func(now time.Time) string {
			last := now
			if now.Sub(begin) > alive {
				last = begin.Add(alive)
			}
			return watchdog.Judge(now, []watchdog.Sign{{Name: "vrrp", Ready: true, Progress: last, First: begin}})
		},
		Starved: func(why string) { say("starved: %s", why) },
	}
	f.Run(context.Background())
	os.Exit(1)
}
