package status

import (
	"fmt"
	"time"
)

// Firmware is the state of firmware: what is in the slots of the disk, and what
// is becoming of the last upgrade.
type Firmware struct {
	Running FirmwareIdentity `json:"running"`
	Slot    string           `json:"slot,omitempty"` // "A" or "B"; empty: this boot came from none
	// Cannot is why this box cannot upgrade itself; empty: it can.
	Cannot string         `json:"cannot,omitempty"`
	Slots  []FirmwareSlot `json:"slots,omitempty"`
	Keys   []string       `json:"keys,omitempty"` // that it takes upgrades of
	// Upgrade is the one that is being written.
	Upgrade *FirmwareProgress `json:"upgrade,omitempty"`
	// Trial is set while what runs has to prove itself.
	Trial *FirmwareTrial `json:"trial,omitempty"`
	// Next is the slot that the boot loader starts next.
	Next string `json:"next,omitempty"`
	// Notice is what whoever comes to the box should know; empty: nothing.
	Notice  string          `json:"notice,omitempty"`
	Pair    *FirmwarePair   `json:"pair,omitempty"`    // the last upgrade of both boxes of the pair
	History []FirmwareEvent `json:"history,omitempty"` // newest last
}

// FirmwareIdentity is what a firmware says of itself (image/layout.Identity).
type FirmwareIdentity struct {
	Version string `json:"version"`
	Build   int64  `json:"build"` // seconds since 1970
	Board   string `json:"board,omitempty"`
	Kernel  string `json:"kernel,omitempty"`
}

// String is version and build.
func (i FirmwareIdentity) String() string {
	if i.Version == "" {
		return "an unknown firmware"
	}
	return fmt.Sprintf("%s (%s)", i.Version, time.Unix(i.Build, 0).UTC().Format("2006-01-02 15:04"))
}

// FirmwareSlot is one of the two.
type FirmwareSlot struct {
	Name     string           `json:"name"`
	Identity FirmwareIdentity `json:"identity"`
	State    string           `json:"state"`           // words below
	Error    string           `json:"error,omitempty"` // why it cannot be started
}

// States of a slot.
const (
	SlotGood  = "good"     // starts unless another one is on trial
	SlotTrial = "on trial" // runs, or starts next, and has to prove itself
	SlotIdle  = "idle"     // holds a firmware that does not start by itself
	SlotEmpty = "empty"    // holds none, or a damaged one
)

// FirmwareProgress is how far an upgrade has got; the answer of the verb
// "upgrade" is a row of them, one JSON object a line.
type FirmwareProgress struct {
	Step  string           `json:"step"` // "fw.efi", "verify"
	Done  int64            `json:"done"`
	Total int64            `json:"total"`
	To    FirmwareIdentity `json:"to,omitzero"`
	By    string           `json:"by,omitempty"`
}

// FirmwareTrial is a trial that is not decided yet.
type FirmwareTrial struct {
	Slot    string    `json:"slot"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`             // then it is rejected
	Steady  bool      `json:"steady,omitempty"`  // nothing is missing, and it is to stay so for a moment
	Missing []string  `json:"missing,omitempty"` // before it can be confirmed
}

// FirmwareEvent is an upgrade or rollback and what came of it.
type FirmwareEvent struct {
	Time    time.Time        `json:"time"`
	Kind    string           `json:"kind"` // "upgrade", "rollback", "start": a trial of which nothing is known
	By      string           `json:"by"`
	Source  string           `json:"source,omitempty"` // "ssh", a URL, "usb", "peer"
	Slot    string           `json:"slot"`
	From    FirmwareIdentity `json:"from"`
	To      FirmwareIdentity `json:"to"`
	Verdict string           `json:"verdict,omitempty"` // words below; empty: not decided
	Reason  string           `json:"reason,omitempty"`
	Decided time.Time        `json:"decided,omitzero"`
	Boot    string           `json:"boot,omitempty"` // the boot in which it was ordered
}

// Verdicts.
const (
	VerdictConfirmed = "confirmed" // it does its job, or a user said so
	VerdictRejected  = "rejected"  // it ran and did not do its job, or a user said so
	VerdictFailed    = "failed"    // it did not come up
)

// FirmwareUpgrade is the argument of the verb "upgrade".
type FirmwareUpgrade struct {
	// Source is a URL, or "usb" for a stick; empty: the caller sends the bundle.
	Source   string `json:"source,omitempty"`
	Older    bool   `json:"older,omitempty"`    // take an older firmware than the one that runs
	Again    bool   `json:"again,omitempty"`    // take the one that runs once more
	NoReboot bool   `json:"noReboot,omitempty"` // leave the reboot to the user
	By       string `json:"by,omitempty"`
}

// FirmwareOrder is the argument of "rollback" and "confirm".
type FirmwareOrder struct {
	By       string `json:"by,omitempty"`
	NoReboot bool   `json:"noReboot,omitempty"`
}

// FirmwareAnswer says what the box does now.
type FirmwareAnswer struct {
	Text   string `json:"text"`
	Reboot bool   `json:"reboot,omitempty"` // it reboots in a moment
}
