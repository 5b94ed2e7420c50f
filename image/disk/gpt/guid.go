package gpt

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is an identifier as it lies on a disk: the first three fields are
// little-endian (UEFI specification, appendix A).
type GUID [16]byte

// Types of partitions that Ballast makes, besides the slots'.
var (
	TypeBIOS  = MustGUID("21686148-6449-6E6F-744E-656564454649") // GRUB's core image
	TypeESP   = MustGUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
	TypeLinux = MustGUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
)

// ParseGUID reads the usual form, in capitals or not.
func ParseGUID(s string) (GUID, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return GUID{}, fmt.Errorf("gpt: %q is no GUID: want 8-4-4-4-12 hex digits", s)
	}
	return GUID(b).swap(), nil
}

// MustGUID is ParseGUID for constants.
func MustGUID(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err) // a fault of the program, at its start
	}
	return g
}

// swap changes between the form on disk and the order of the text.
func (g GUID) swap() GUID {
	binary.LittleEndian.PutUint32(g[0:], binary.BigEndian.Uint32(g[0:]))
	binary.LittleEndian.PutUint16(g[4:], binary.BigEndian.Uint16(g[4:]))
	binary.LittleEndian.PutUint16(g[6:], binary.BigEndian.Uint16(g[6:]))
	return g
}

// String is the usual form in small letters, as the kernel's PARTUUID has it.
func (g GUID) String() string {
	t := g.swap()
	return fmt.Sprintf("%x-%x-%x-%x-%x", t[0:4], t[4:6], t[6:8], t[8:10], t[10:])
}

// RandomGUID is one of version 4.
func RandomGUID() GUID {
	var t GUID
	rand.Read(t[:]) // never fails
	return t.version(4)
}

// NamedGUID is made of names, always the same, of version 8.
func NamedGUID(names ...string) GUID {
	sum := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	return GUID(sum[:16]).version(8)
}

func (g GUID) version(v byte) GUID {
	g[6] = g[6]&0x0f | v<<4
	g[8] = g[8]&0x3f | 0x80
	return g.swap()
}
