package board

// What the drivers of hardware.go load into their hardware.
var (
	nicFirmware = []string{
		"bnx2/*", "bnx2x/*-7.13.21.0.fw", "tigon/*",
		"cxgb4/t[456]fw.bin", "cxgb4/t[456]-config.txt",
		"e100/*", "intel/ice/ddp/ice.pkg", "qed/*-8.59.1.0.bin",
		"rtl_nic/*",
	}
	nicNoFirmware = map[string]string{
		"bnx2x/*-7.13.15.0.fw":   "the driver asks for it only where 7.13.21.0 is missing",
		"rtl_nic/rtl8126a-?.fw":  "newer than Debian 12's package; the controller (5 Gb/s, 2023) works without, with the settings of its ROM",
		"rtl_nic/rtl8125d-1.fw":  "newer than Debian 12's package; the controller (2.5 Gb/s, 2024) works without, with the settings of its ROM",
		"microchip/mscc_vsc85*":  "in no package of Debian; transceivers of switches, which no server has",
		"isci/isci_firmware.bin": "in no package of Debian; only for a board whose BIOS has no parameters of its own",
	}
)
