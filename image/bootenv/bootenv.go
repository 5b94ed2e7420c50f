// Package bootenv reads and writes the state that boot loader and firmware
// share: which slot is good, which is on trial, and how many attempts it has
// left. Its form is GRUB's environment block: 1,024 bytes of lines "name=value",
// filled up with "#". All that counts is in the first 512 bytes, one sector, so
// that a power cut leaves the old or the new state and nothing between.
package bootenv

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"ballast/image/layout"
)

// Size is the length of the block, Sector that of the part that is written.
const (
	Size   = 1024
	Sector = 512
)

const head = "# GRUB Environment Block\n"

// Env is the state. The boot loader writes only Left and Once.
type Env struct {
	Good layout.Slot // what runs unless Try does
	Try  layout.Slot // on trial; None: nothing is
	Left int         // attempts that the trial has left: 0 to layout.TrialAttempts
	// Once is what the boot menu was asked for, where the boot loader cannot tell
	// PID 1 by the kernel's command line. It is gone when the state is written.
	Once Once
}

// Once is a wish for one boot.
type Once string

// Wishes.
const (
	None    Once = ""
	Factory Once = "factory" // layout.WordFactory
	NoData  Once = "nodata"  // ballast.data=none
)

// Default is the state of a fresh disk, and of one whose block cannot be read.
var Default = Env{Good: layout.A}

// Trial is the state that starts a trial of a slot.
func (e Env) Trial(s layout.Slot) Env {
	return Env{Good: e.Good, Try: s, Left: layout.TrialAttempts}
}

// Confirm is the state after a slot has proved itself, or was chosen by hand.
func (e Env) Confirm(s layout.Slot) Env { return Env{Good: s} }

// Reject is the state that ends a trial without success.
func (e Env) Reject() Env { return Env{Good: e.Good} }

// Next is the slot that the boot loader starts next.
func (e Env) Next() layout.Slot {
	if e.Try != layout.None && e.Left > 0 {
		return e.Try
	}
	return e.Good
}

// Bytes is the whole block.
func (e Env) Bytes() []byte {
	b := append(make([]byte, 0, Size), fmt.Sprintf("%sgood=%s\ntry=%s\nleft=%d\n", head, e.Good, e.Try, e.Left)...)
	return append(b, bytes.Repeat([]byte{'#'}, Size-len(b))...)
}

// Parse reads a block, or its first sector. What it does not know it leaves
// alone; what it knows and cannot be is an error.
func Parse(b []byte) (Env, error) {
	if len(b) < Sector {
		return Env{}, fmt.Errorf("boot state: %d bytes: want at least %d", len(b), Sector)
	}
	text, ok := strings.CutPrefix(string(b[:Sector]), head)
	if !ok {
		return Env{}, errors.New("boot state: it does not begin as GRUB's environment block does")
	}
	var e Env
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			continue // the filling
		}
		if seen[name] {
			return Env{}, fmt.Errorf("boot state: %s is there twice", name)
		}
		seen[name] = true
		s := layout.Slot(value)
		switch name {
		case "good":
			if s != layout.A && s != layout.B {
				return Env{}, fmt.Errorf("boot state: good is %q: want A or B", value)
			}
			e.Good = s
		case "try":
			if s != layout.None && s != layout.A && s != layout.B {
				return Env{}, fmt.Errorf("boot state: try is %q: want A, B or nothing", value)
			}
			e.Try = s
		case "once":
			e.Once = Once(value)
		case "left":
			if len(value) != 1 || value[0] < '0' || value[0] > '0'+layout.TrialAttempts {
				return Env{}, fmt.Errorf("boot state: left is %q: want 0 to %d", value, layout.TrialAttempts)
			}
			e.Left = int(value[0] - '0')
		}
	}
	if e.Good == layout.None {
		return Env{}, errors.New("boot state: good is missing")
	}
	return e, nil
}
