package board

import "slices"

// Drivers of real machines, by kind. A board takes the kinds that its hardware
// may have; image adds what they depend on.
var (
	// nicModules are the Ethernet controllers of servers and small machines, on
	// PCI Express, and those that hypervisors give their guests. Not among them are
	// nfp (its firmware has 25 MB) and cards that nobody sells any more.
	nicModules = []string{
		"e100", "e1000", "e1000e", "igb", "igbvf", "igc", "ixgbe", "ixgbevf", "i40e", "iavf", "ice", "idpf", // Intel
		"bnx2", "bnx2x", "bnxt_en", "tg3", // Broadcom, QLogic
		"r8169", "8139cp", "8139too", // Realtek
		"mlx4_core", "mlx4_en", "mlx5_core", // Mellanox, NVIDIA
		"be2net", "sfc", "qede", "cxgb4", "cxgb4vf", "enic", "ionic", "atlantic", "amd-xgbe", "dwmac-intel", "lan743x",
		"alx", "atl1c", "sky2", "forcedeth",
		"virtio_net", "vmxnet3", "hv_netvsc", "pci-hyperv", "ena", "gve", "mana", "xen-netfront", // virtual
	}

	// phyModules are the transceivers behind them, which a controller's driver asks
	// for by their number.
	phyModules = []string{"kernel/drivers/net/phy/*", "kernel/drivers/net/phy/*/*", "kernel/drivers/net/mdio/*", "mii"}

	// usbNICModules are Ethernet adapters on USB, and the port to itself that a
	// server's management controller shows there.
	usbNICModules = []string{"r8152", "ax88179_178a", "asix", "aqc111", "smsc75xx", "smsc95xx", "lan78xx", "cdc_ether", "cdc_ncm", "rndis_host", "usbnet"}

	// diskModules are what a data disk may hang on: SATA, NVMe, SAS and RAID
	// controllers, memory cards, and hypervisors' disks.
	diskModules = []string{
		"sd_mod", "ahci", "ata_piix", "ata_generic", "nvme", "vmd",
		"megaraid_sas", "mpt3sas", "mpi3mr", "smartpqi", "hpsa", "aacraid", "arcmsr", "isci", "mptsas", "mptspi",
		"sdhci-pci", "sdhci-acpi", "mmc_block",
		"virtio_blk", "virtio_scsi", "vmw_pvscsi", "hv_storvsc", "xen-blkfront",
	}

	// usbModules are USB's host controllers, disks and keyboards.
	usbModules = []string{"xhci-pci", "ehci-pci", "ohci-pci", "uhci-hcd", "usb-storage", "uas", "usbhid", "hid-generic", "hid-logitech-dj"}

	// guestModules are what hypervisors have besides NICs and disks.
	guestModules = []string{
		"virtio_console", "virtio_rng", "virtio_balloon", "virtio_input", "qemu_fw_cfg",
		"hv_vmbus", "hv_utils", "hyperv-keyboard", "hid-hyperv",
	}

	// serverModules are a server's own affairs: the bus that its watchdog hangs on,
	// its management controller, serial ports on PCI, power button, fans, clock of
	// the processor.
	serverModules = []string{
		"lpc_ich", "i2c-i801", "intel_pmc_bxt", "i2c-piix4", "ipmi_si", "ipmi_ssif", "ipmi_devintf",
		"8250_exar", "8250_lpss", "button", "fan", "acpi-cpufreq", "evdev",
	}
)

// serverWatchdogs are the watchdogs of servers, best first: the chipset's own,
// then that of the management controller, then the kernel's.
var serverWatchdogs = []string{"iTCO_wdt", "sp5100_tco", "wdat_wdt", "hpwdt", "i6300esb", "ipmi_watchdog", "softdog"}

// bareMetalModules is everything above.
var bareMetalModules = slices.Concat(nicModules, phyModules, usbNICModules, diskModules, usbModules, guestModules, serverModules, serverWatchdogs)
