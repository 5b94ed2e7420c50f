package status

// FirmwareInstall is the argument of the verb "install" of firmware, which
// streams as "upgrade" does.
type FirmwareInstall struct {
	Disk string `json:"disk"` // "sda"
	// Source is "net" (where this box was loaded from), "slot" (its own), a URL;
	// empty: the caller sends the bundle.
	Source string `json:"source,omitempty"`
	Older  bool   `json:"older,omitempty"` // one that is older than what runs, too
	By     string `json:"by,omitempty"`
}

// InstallDisk is the argument of "disks", "disk-take" and "disk-give" of init.
type InstallDisk struct {
	Disk string `json:"disk"`
	// Carry has the data of this box taken over to the disk when it is given back.
	Carry bool `json:"carry,omitempty"`
}

// InstallTarget is the answer of "disk-take", and one of "disks".
type InstallTarget struct {
	Disk   string `json:"disk"`            // "sda"
	About  string `json:"about,omitempty"` // model, serial number, size
	Refuse string `json:"refuse,omitempty"`
	// Net is the folder that this box was loaded from, Slot the slot; empty: it was not.
	Net  string `json:"net,omitempty"`
	Slot string `json:"slot,omitempty"`
}
