package main

import (
	"fmt"
	"os"
	"path/filepath"

	"ballast/image/layout"
	"ballast/init/boot"
	"ballast/init/jail"
	"ballast/services/conf"
	"ballast/services/firmware"
	"ballast/services/ipc"
)

// jails are the services that parse what strangers send, have no business with
// files at all, or hold what the box is made of: outside of their own folders
// they see what this says. All others keep their files, and lose the system calls
// that nobody needs.
var jails = map[string]func(*jail.Policy){
	"conf": func(p *jail.Policy) { // scripts are put where the configuration calls them
		p.NoTCP = true
		p.Read = append(p.Read, os.Getenv(conf.EnvSeed), "/sys/class/net")
		p.Write = append(p.Write, boot.ScriptDirs...)
	},
	"firmware": func(p *jail.Policy) { // of the slots, one to write and one to read
		p.Read = append(p.Read, os.Getenv(firmware.EnvWord))
		p.Write = append(p.Write, os.Getenv(firmware.EnvLent))
		dir, runs := os.Getenv(firmware.EnvDisk), layout.Slot(os.Getenv(firmware.EnvSlot))
		if other := runs.Other(); other != layout.None {
			p.Read = append(p.Read, filepath.Join(dir, runs.Part()))
			p.Write = append(p.Write, filepath.Join(dir, other.Part()), filepath.Join(dir, layout.PartESP))
		}
	},
	"health": func(p *jail.Policy) { // certificates of SSL_GET lie with the scripts
		p.Read = append(p.Read, boot.ScriptDirs...)
	},
	"console": func(*jail.Policy) {},
	"peer":    func(*jail.Policy) {},
	"snmp":    func(p *jail.Policy) { p.NoTCP = true },
	"pacer":   func(p *jail.Policy) { p.NoTCP = true },
	"capture": func(p *jail.Policy) { p.NoTCP = true },
	"netboot": func(p *jail.Policy) { // the firmware that it gives away
		p.Read = append(p.Read, "/proc/cmdline", filepath.Join(diskDir, layout.A.Part()), filepath.Join(diskDir, layout.B.Part()), filepath.Join(diskDir, layout.RunningFile))
	},
}

// frames are the services that see whole frames.
var frames = map[string]bool{"net": true, "vrrp": true, "health": true, "capture": true}

// policy is what a service keeps.
func (s service) policy(env *ipc.Env) jail.Policy {
	p := jail.Policy{Exec: s.name == "notify", Packets: frames[s.name]}
	confine, is := jails[s.name]
	if !is {
		return p
	}
	p.Confine = true
	self := fmt.Sprintf("/proc/%d", os.Getpid())
	p.Read = []string{"/etc", self, "/proc/sys/kernel/random", "/proc/sys/kernel/hostname", "/proc/sys/net", "/sys/kernel/mm/transparent_hugepage", "/run/service/net"}
	p.Write = []string{"/dev/null"}
	for _, own := range []string{env.Data, env.Run} {
		if own != "" {
			p.Write = append(p.Write, own)
		}
	}
	confine(&p)
	return p
}
