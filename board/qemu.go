package board

import (
	"slices"
	"time"
)

// QEMU is a virtual machine of QEMU with virtio devices (machine q35 or pc):
// the board of the lab and of everybody who only wants to try.
var QEMU = register(Board{
	Name:    "qemu",
	Summary: "virtual machine under QEMU or KVM, virtio network and disk",
	Modules: slices.Concat(directorModules, []string{
		"virtio_net", "virtio_blk", "virtio_scsi", "virtio_console", "virtio_rng", "virtio_balloon",
		"e1000", "e1000e", "sd_mod", "ahci", "nvme", "xhci-pci", "usb-storage", "i6300esb", "softdog", "button", "evdev", "qemu_fw_cfg",
	}),
	Load:     slices.Concat(loadAlways, []string{"ext4", "evdev", "button"}),
	Later:    loadLater,
	Consoles: []string{"ttyS0,115200"},
	// A kernel that boots counts the ticks of its timer, and panics ("IO-APIC + timer
	// doesn't work") when the host took its processor away meanwhile. Under KVM it
	// leaves that out by itself; emulated it does not know.
	CmdLine:         append(slices.Clone(directorCmdLine), "no_timer_check"),
	Watchdogs:       []string{"i6300esb", "softdog"},
	WatchdogTimeout: 30 * time.Second,
	Data:            Data{Serial: "ballast-data", Partition: "data"},
})
