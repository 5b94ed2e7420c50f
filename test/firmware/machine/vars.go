package machine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"unicode/utf16"

	"ballast/image/disk/gpt"
	"ballast/image/secureboot"
	"ballast/test/lab/vm"
)

// authenticatedStore is what a store of variables with time stamps begins with:
// gEfiAuthenticatedVariableGuid of EDK II.
var authenticatedStore = []byte{0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92}

// Sizes of EDK II's headers: VARIABLE_STORE_HEADER and
// AUTHENTICATED_VARIABLE_HEADER.
const (
	storeHeader    = 28
	variableHeader = 60
)

// EnrolledVars writes a file with the variables of a machine into whose setup an
// owner has put the keys of a folder of secureboot.MakeKeys: with PK, Secure Boot is
// on.
func EnrolledVars(name, keys string) error {
	b, err := os.ReadFile(vm.OVMFVars)
	if err != nil {
		return fmt.Errorf("machine: %w: make test-tools installs it", err)
	}
	for _, v := range []struct {
		name string
		guid gpt.GUID
	}{{secureboot.DB, secureboot.GUIDImage}, {secureboot.KEK, secureboot.GUIDGlobal}, {secureboot.PK, secureboot.GUIDGlobal}} {
		list, err := os.ReadFile(filepath.Join(keys, v.name+".esl"))
		if err != nil {
			return fmt.Errorf("machine: %w", err)
		}
		if err := addVariable(b, v.name, v.guid, list); err != nil {
			return err
		}
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	return nil
}

// addVariable appends one to the store, as the firmware writes them.
func addVariable(b []byte, name string, guid gpt.GUID, data []byte) error {
	le := binary.LittleEndian
	at := bytes.Index(b, authenticatedStore)
	if at < 0 {
		return fmt.Errorf("machine: %s holds no store of variables with time stamps", vm.OVMFVars)
	}
	end := at + int(le.Uint32(b[at+16:]))
	at += storeHeader
	for at+variableHeader < end && le.Uint16(b[at:]) == 0x55aa {
		at += variableHeader + int(le.Uint32(b[at+36:])) + int(le.Uint32(b[at+40:]))
		at = (at + 3) &^ 3
	}
	var text []byte
	for _, u := range utf16.Encode([]rune(name + "\x00")) {
		text = le.AppendUint16(text, u)
	}
	h := make([]byte, variableHeader)
	le.PutUint16(h, 0x55aa)
	h[2] = 0x3f // VAR_ADDED
	le.PutUint32(h[4:], secureboot.Attributes)
	le.PutUint16(h[16:], 2020) // its time stamp: what is written later is newer
	h[18], h[19] = 1, 1
	le.PutUint32(h[36:], uint32(len(text)))
	le.PutUint32(h[40:], uint32(len(data)))
	copy(h[44:], guid[:])
	whole := append(append(h, text...), data...)
	if at+len(whole) > end {
		return fmt.Errorf("machine: no room for the variable %s", name)
	}
	copy(b[at:], whole)
	return nil
}
