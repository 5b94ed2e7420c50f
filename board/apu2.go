package board

import (
	"slices"
	"time"
)

// APU2 is PC Engines' apu2 and apu3 (and apu6, their sister with a fibre port):
// three NICs, no screen, coreboot. The names of the NICs follow the PCI Express
// ports that they are soldered to (function 2 to 4 of device 2): a card in the
// slot mPCIe 2, on function 1, would otherwise come first and shift them all. For
// that the option "Reverse order of PCI addresses" of its BIOS stays as it is
// delivered: off.
var APU2 = register(Board{
	Name:    "pcengines-apu2",
	Summary: "PC Engines apu2, apu3, apu6",
	Modules: slices.Concat(directorModules, []string{
		"igb", "i2c-piix4", "sp5100_tco", "softdog",
		"sd_mod", "ahci", "sdhci-pci", "mmc_block",
		"xhci-pci", "ehci-pci", "usb-storage", "uas",
		"button", "evdev", "acpi-cpufreq",
	}),
	Load:            slices.Concat(loadAlways, []string{"ext4", "evdev", "button"}),
	Later:           loadLater,
	Consoles:        []string{"ttyS0,115200"},
	CmdLine:         directorCmdLine,
	Watchdogs:       []string{"sp5100_tco", "softdog"},
	WatchdogTimeout: 30 * time.Second,
	NICs: []NIC{
		{"0000:00:02.2/*", "eth0"},
		{"0000:00:02.3/*", "eth1"},
		{"0000:00:02.4/*", "eth2"},
	},
	Data: Data{Serial: "ballast-data", Partition: "data", Wait: 3 * time.Second},
})
