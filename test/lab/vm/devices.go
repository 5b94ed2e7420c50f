package vm

import (
	"fmt"
	"strings"
)

// NIC is one network card.
type NIC struct {
	Netdev string // backend without its id: "user,restrict=on", "socket,udp=…"
	MAC    string
	Model  string // QEMU's name of the device; "" is virtio-net-pci
	// ROM gives it QEMU's boot ROM, iPXE, from the package ipxe-qemu. UEFI firmware
	// has drivers of its own and works better without.
	ROM       bool
	BootIndex int // place among what the machine boots from, from 1; 0: it does not
}

func (n NIC) args(i int) []string {
	netdev := strings.TrimSuffix(strings.Replace(n.Netdev+",", ",", fmt.Sprintf(",id=net%d,", i), 1), ",")
	model := n.Model
	if model == "" {
		model = "virtio-net-pci"
	}
	dev := fmt.Sprintf("%s,id=nic%d,netdev=net%d,mac=%s", model, i, i, n.MAC)
	if !n.ROM {
		// Without romfile= QEMU would look for a boot ROM that is a package of its own.
		dev += ",romfile="
	}
	return []string{"-netdev", netdev, "-device", dev + bootIndex(n.BootIndex)}
}

func bootIndex(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(",bootindex=%d", n)
}

// Bus is what a disk is attached to.
type Bus string

// Buses of disks.
const (
	Virtio Bus = "" // virtio-blk
	AHCI   Bus = "ahci"
	NVMe   Bus = "nvme"
	USB    Bus = "usb"
)

// Disk is one disk.
type Disk struct {
	File      string // raw
	Serial    string // at most 20 characters
	Bus       Bus
	BootIndex int    // place among what the machine boots from, from 1; 0: it does not
	Cache     string // QEMU's word; "" is its default
}

func (d Disk) args(i int) []string {
	drive := fmt.Sprintf("if=none,id=disk%d,format=raw,file=%s", i, d.File)
	if d.Cache != "" {
		drive += ",cache=" + d.Cache
	}
	a := []string{"-drive", drive, "-device"}
	end := fmt.Sprintf("drive=disk%d,serial=%s%s", i, d.Serial, bootIndex(d.BootIndex))
	switch d.Bus {
	case AHCI: // the machine q35 has a controller
		return append(a, fmt.Sprintf("ide-hd,bus=ide.%d,", i)+end)
	case NVMe:
		return append(a, "nvme,"+end)
	case USB:
		return append(a, fmt.Sprintf("qemu-xhci,id=usb%d", i), "-device", fmt.Sprintf("usb-storage,bus=usb%d.0,", i)+end)
	}
	return append(a, "virtio-blk-pci,"+end)
}

// UEFI is the firmware OVMF, of the package ovmf.
type UEFI struct {
	Code string // "" is OVMFCode
	Vars string // file with its variables, which it writes: a copy of OVMFVars
	// Secure is for a firmware that was built for Secure Boot (OVMF_CODE_4M.secboot.fd):
	// nothing but it can write the variables.
	Secure bool
}

// Files of the package ovmf.
const (
	OVMFCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	OVMFVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	// OVMFSecureCode can do Secure Boot, and does when its variables have a PK.
	OVMFSecureCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
)

func (u *UEFI) args() []string {
	if u == nil {
		return nil
	}
	code := u.Code
	if code == "" {
		code = OVMFCode
	}
	a := []string{
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + code,
		"-drive", "if=pflash,unit=1,format=raw,file=" + u.Vars,
	}
	if u.Secure {
		a = append(a, "-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	return a
}
