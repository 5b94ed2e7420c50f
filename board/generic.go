package board

import (
	"slices"
	"time"
)

// Generic is any PC or server of the last fifteen years with an x86-64
// processor, and a guest of the common hypervisors: everything that Debian's
// kernel has for their NICs and disks. Login is at the screen and at the first
// two serial ports, because the serial line of a management controller is COM1 with
// one maker and COM2 with another.
var Generic = register(Board{
	Name:            "generic-x86_64",
	Summary:         "PC, server or virtual machine, x86-64, BIOS or UEFI",
	Modules:         slices.Concat(directorModules, bareMetalModules),
	Load:            slices.Concat(loadAlways, []string{"ext4", "evdev", "button"}),
	Later:           loadLater,
	Firmware:        nicFirmware,
	NoFirmware:      nicNoFirmware,
	Consoles:        []string{"ttyS0,115200", "ttyS1,115200", "tty0"},
	CmdLine:         directorCmdLine,
	Watchdogs:       serverWatchdogs,
	WatchdogTimeout: 30 * time.Second,
	Data:            Data{Serial: "ballast-data", Partition: "data", Wait: 3 * time.Second},
})
