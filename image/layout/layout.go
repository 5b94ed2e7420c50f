// Package layout says what is where on a Ballast disk, and by which names the
// boot loader, PID 1 and the firmware service speak of it. It holds facts and
// no code that touches a disk, so all of them may import it.
//
// A disk is GPT: the core of the boot loader for BIOS machines, an EFI system
// partition with the boot loader for UEFI machines and its state, two slots with
// a firmware each, and the data. Only the data partition is ever mounted by a
// running box; slots and state are written as what they are.
package layout

import "time"

// Names of the GPT partitions, in their order on the disk.
const (
	PartBIOS  = "bios"  // GRUB's core image, raw
	PartESP   = "esp"   // FAT32: EFI/BOOT/BOOTX64.EFI and EnvPath
	PartSlotA = "slotA" // FAT32: FirmwareFile and SlotFile
	PartSlotB = "slotB"
	PartData  = "data" // ext4, made and grown at the first boot
)

// Numbers of the GPT partitions; the boot loader knows them by these.
const (
	NumberBIOS = iota + 1
	NumberESP
	NumberSlotA
	NumberSlotB
	NumberData
)

// Sizes in MiB. The first partition begins at 1 MiB; data takes the rest.
const (
	SizeBIOS = 1
	SizeESP  = 40
	SizeSlot = 96
	SizeData = 64 // of the empty file system: the data partition has this or more
)

// SpareOffset is where, between the partition table and the first partition, in
// bytes from the beginning of the disk, a box keeps who it is for the case that
// its data is lost. Who writes a whole disk leaves zeros there: it is a new box.
const SpareOffset = 64 << 10

// TypeSlot is the GPT type of both slots, which no other system knows.
const TypeSlot = "5A0D1E88-31A7-4E0C-9C5A-0F6D8C0D51A7"

// Files of a slot and of the EFI system partition.
const (
	FirmwareFile = "/fw.efi"          // the unified kernel image
	SlotFile     = "/slot.cfg"        // what the boot loader must know of it: see package disk
	EnvPath      = "/ballast/grubenv" // package bootenv
	LoaderPath   = "/EFI/BOOT/BOOTX64.EFI"
)

// Slot is one of the two firmware slots.
type Slot string

// The slots.
const (
	None Slot = "" // a box that did not boot from a slot: netboot, or a kernel and initramfs given to a hypervisor
	A    Slot = "A"
	B    Slot = "B"
)

// Other is the other slot; None has none.
func (s Slot) Other() Slot {
	switch s {
	case A:
		return B
	case B:
		return A
	}
	return None
}

// Part is the name of the slot's partition, "" for None.
func (s Slot) Part() string {
	if s == None {
		return ""
	}
	return "slot" + string(s)
}

// RunningFile is, beside the links to the partitions of the boot disk, a file
// with the slot that runs: "A" or "B".
const RunningFile = "running"

// Words of the kernel's command line by which the boot loader tells PID 1 how
// this boot came about.
const (
	WordSlot    = "ballast.slot"       // A or B
	WordPart    = "ballast.part"       // GPT GUID of the slot's partition: which disk it was
	WordTrial   = "ballast.trial"      // 1: this firmware is on trial
	WordLimit   = "ballast.triallimit" // of a firmware's own arguments: seconds in place of TrialLimit, if they are less
	WordFactory = "ballast.factory"    // 1: the boot menu was asked for a factory reset
	WordSource  = "ballast.source"     // URL from which a netbooted box came: its server's folder
)

// HeadFile is in a slot: what its bundle begins with (package bundle: all up to
// the first part), and beside it, by their names, are the parts of that bundle.
// Together they are the bundle again, byte for byte, with the maker's signature:
// this is how a box gives its firmware to a blank one. A slot without it works.
const HeadFile = "/head.bin"

// Files in the folder of WordSource, whoever serves it.
const (
	NetScript    = "boot.ipxe"       // what iPXE does
	NetUndionly  = "undionly.kpxe"   // iPXE for BIOS machines whose card brings another PXE
	NetFirmware  = "fw.efi"          // the unified kernel image, for UEFI
	NetKernel    = "vmlinuz"         // its kernel, for iPXE
	NetInitramfs = "initramfs.zst"   // its initramfs
	NetBundle    = "firmware.bundle" // what an installation takes
	NetSeed      = "seed"            // configuration and identity, of a server that knows the box
)

// IPXEWord comes before the kernel's command line where iPXE loads it. iPXE takes
// the first "mem=" anywhere in it, in reserve_mem= too, for the size of the
// memory, and then finds no room for the initramfs. The kernel takes this word
// for a parameter of a module that it does not have.
const IPXEWord = "ipxe.mem=2047M"

// VendorClass is what a box that runs this firmware from the network calls
// itself in DHCP (option 60) when its kernel was told no WordSource. A server
// that answers with the same class has the URL in option 67.
const VendorClass = "ballast-director"

// IdentityFile is in the initramfs: an Identity in JSON.
const IdentityFile = "/etc/ballast/firmware.json"

// KeysFile is in the initramfs: the public keys whose bundles this firmware
// takes, one a line as "ed25519 BASE64 NAME".
const KeysFile = "/etc/ballast/firmware.keys"

// ConfigFormat is the form in which this firmware stores configurations, and the
// newest that it reads: configs/store.Format, which a test compares.
const ConfigFormat = 1

// Identity is what a firmware says of itself.
type Identity struct {
	Version string `json:"version"` // one word for people
	// Build orders firmwares: the time of the newest commit in it, in seconds
	// since 1970. A box takes an older one only when told to.
	Build  int64  `json:"build"`
	Board  string `json:"board"`
	Kernel string `json:"kernel"`
}

// TrialAttempts is how often the boot loader starts a firmware on trial before it
// gives up: a power cut during the first is not the firmware's fault.
const TrialAttempts = 2

// TrialLimit is how long a firmware on trial may take from the kernel's start until
// it is confirmed. PID 1 itself holds it against it.
const TrialLimit = 5 * time.Minute
