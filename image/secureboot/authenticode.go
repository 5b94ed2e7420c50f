// Package secureboot signs what UEFI machines start with the owner's own key, and
// makes such keys: EFI programs by Authenticode, lists of certificates and the
// signed updates of UEFI's variables PK, KEK and db that a machine's setup takes.
//
// The same key and the same file give the same bytes: there is no time stamp in a
// signature.
package secureboot

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Signer is a key with its certificate.
type Signer struct {
	Key  *rsa.PrivateKey // what every UEFI firmware can check
	Cert *x509.Certificate
}

// Places in a PE file's headers.
const (
	lfanew      = 0x3c
	coffSize    = 20
	optCheckSum = 64
	optDirs64   = 112 // data directories of the 64-bit optional header
	dirSecurity = 4

	certHeader = 8 // WIN_CERTIFICATE
	certAlign  = 8
)

// layout is where the parts of an EFI program lie that its signature leaves out.
type layout struct {
	checkSum, directory int  // offsets in the file
	end                 int  // of what is signed: behind it are signatures
	gaps                bool // there are bytes between headers and sections
}

func layoutOf(b []byte) (layout, error) {
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return layout{}, fmt.Errorf("secureboot: no EFI program: %w", err)
	}
	o, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || o.NumberOfRvaAndSizes <= dirSecurity {
		return layout{}, errors.New("secureboot: no 64-bit EFI program with a place for signatures")
	}
	opt := int(binary.LittleEndian.Uint32(b[lfanew:])) + 4 + coffSize
	l := layout{checkSum: opt + optCheckSum, directory: opt + optDirs64 + 8*dirSecurity, end: len(b)}
	if d := o.DataDirectory[dirSecurity]; d.Size != 0 {
		if int64(d.VirtualAddress)+int64(d.Size) > int64(len(b)) {
			return layout{}, errors.New("secureboot: the signatures of the EFI program are cut off")
		}
		l.end = int(d.VirtualAddress)
	}
	at := int(o.SizeOfHeaders)
	if l.directory+8 > at || at > l.end {
		return layout{}, errors.New("secureboot: the headers of the EFI program are cut off")
	}
	slices.SortFunc(f.Sections, func(x, y *pe.Section) int { return int(x.Offset) - int(y.Offset) })
	for _, s := range f.Sections {
		if s.Size == 0 {
			continue
		}
		if int(s.Offset) < at || int64(s.Offset)+int64(s.Size) > int64(l.end) {
			return layout{}, fmt.Errorf("secureboot: section %s lies over another, or over the end of the file", s.Name)
		}
		l.gaps = l.gaps || int(s.Offset) > at
		at = int(s.Offset) + int(s.Size)
	}
	return l, nil
}

// hash is the Authenticode hash of a program without gaps ("Windows Authenticode
// Portable Executable Signature Format", calculating the hash): headers, sections
// and what is behind them follow one another.
func (l layout) hash(b []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(b[:l.checkSum])
	h.Write(b[l.checkSum+4 : l.directory])
	h.Write(b[l.directory+8 : l.end])
	return [sha256.Size]byte(h.Sum(nil))
}

// Sign returns an EFI program with the owner's signature in place of whatever
// signatures it had.
func (s Signer) Sign(program []byte) ([]byte, error) {
	l, err := layoutOf(program)
	if err != nil {
		return nil, err
	}
	if l.gaps {
		// Firmwares disagree about such files.
		return nil, errors.New("secureboot: there are bytes between the sections of the EFI program that no signature covers")
	}
	b := bytes.Clone(program[:l.end])
	b = append(b, make([]byte, -len(b)&(certAlign-1))...) // signed too
	l.end = len(b)
	der, err := s.authenticode(l.hash(b))
	if err != nil {
		return nil, err
	}
	size := certHeader + len(der)
	size += -size & (certAlign - 1)
	le := binary.LittleEndian
	le.PutUint32(b[l.directory:], uint32(len(b)))
	le.PutUint32(b[l.directory+4:], uint32(size))
	cert := make([]byte, size)
	le.PutUint32(cert, uint32(size))
	le.PutUint16(cert[4:], 0x0200) // WIN_CERT_REVISION_2_0
	le.PutUint16(cert[6:], 0x0002) // WIN_CERT_TYPE_PKCS_SIGNED_DATA
	copy(cert[certHeader:], der)
	b = append(b, cert...)
	le.PutUint32(b[l.checkSum:], checkSum(b, l.checkSum))
	return b, nil
}

// Signed says whether a program has a signature.
func Signed(program []byte) bool {
	l, err := layoutOf(program)
	return err == nil && l.end < len(program)
}

// checkSum is that of PE files: the sum of all 16-bit words but its own, and the
// length.
func checkSum(b []byte, own int) uint32 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		if i == own || i == own+2 {
			continue
		}
		w := uint32(b[i])
		if i+1 < len(b) {
			w |= uint32(b[i+1]) << 8
		}
		sum += w
		sum = sum&0xffff + sum>>16
	}
	return sum&0xffff + sum>>16 + uint32(len(b))
}

// Object identifiers.
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidIndirectData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImageData   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
)

type builder = cryptobyte.Builder

func sequence(b *builder, f func(*builder)) { b.AddASN1(tag.SEQUENCE, f) }

func explicit(b *builder, n uint8, f func(*builder)) {
	b.AddASN1(tag.Tag(n).Constructed().ContextSpecific(), f)
}

// algorithm is an AlgorithmIdentifier whose parameters are NULL.
func algorithm(b *builder, oid asn1.ObjectIdentifier) {
	sequence(b, func(b *builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
}

// indirectData is what an Authenticode signature signs: SpcIndirectDataContent,
// without its own tag and length.
func indirectData(hash [sha256.Size]byte) ([]byte, error) {
	var b builder
	sequence(&b, func(b *builder) {
		b.AddASN1ObjectIdentifier(oidPEImageData)
		sequence(b, func(b *builder) { // SpcPeImageData: no flags, an empty link
			b.AddASN1(tag.BIT_STRING, func(b *builder) { b.AddUint8(0) })
			explicit(b, 0, func(b *builder) {
				explicit(b, 2, func(b *builder) { b.AddASN1(tag.Tag(0).ContextSpecific(), func(*builder) {}) })
			})
		})
	})
	sequence(&b, func(b *builder) { // DigestInfo
		algorithm(b, oidSHA256)
		b.AddASN1OctetString(hash[:])
	})
	return b.Bytes()
}

// authenticode is the signature of a program's hash: PKCS #7 (RFC 2315) with
// signed attributes.
func (s Signer) authenticode(hash [sha256.Size]byte) ([]byte, error) {
	content, err := indirectData(hash)
	if err != nil {
		return nil, fmt.Errorf("secureboot: %w", err)
	}
	digest := sha256.Sum256(content)
	var attrs builder
	attribute := func(oid asn1.ObjectIdentifier, value func(*builder)) {
		sequence(&attrs, func(b *builder) {
			b.AddASN1ObjectIdentifier(oid)
			b.AddASN1(tag.SET, value)
		})
	}
	attribute(oidContentType, func(b *builder) { b.AddASN1ObjectIdentifier(oidIndirectData) })
	attribute(oidMessageDigest, func(b *builder) { b.AddASN1OctetString(digest[:]) })
	signed, err := attrs.Bytes()
	if err != nil {
		return nil, fmt.Errorf("secureboot: %w", err)
	}
	data, err := s.signedData(oidIndirectData, content, signed, nil)
	if err != nil {
		return nil, err
	}
	var b builder
	sequence(&b, func(b *builder) { // ContentInfo
		b.AddASN1ObjectIdentifier(oidSignedData)
		explicit(b, 0, func(b *builder) { b.AddBytes(data) })
	})
	return b.Bytes()
}

// signedData is SignedData with one signer. Of content the bytes behind tag and
// length are given; nil for a signature that stands apart from its message. attrs
// are the signed attributes; without them message is what is signed.
func (s Signer) signedData(kind asn1.ObjectIdentifier, content, attrs, message []byte) ([]byte, error) {
	if attrs != nil {
		var set builder // it is signed as a SET, and stored with another tag
		set.AddASN1(tag.SET, func(b *builder) { b.AddBytes(attrs) })
		var err error
		if message, err = set.Bytes(); err != nil {
			return nil, fmt.Errorf("secureboot: %w", err)
		}
	}
	digest := sha256.Sum256(message)
	signature, err := rsa.SignPKCS1v15(nil, s.Key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, fmt.Errorf("secureboot: sign: %w", err)
	}
	var b builder
	sequence(&b, func(b *builder) {
		b.AddASN1Int64(1)
		b.AddASN1(tag.SET, func(b *builder) { algorithm(b, oidSHA256) })
		sequence(b, func(b *builder) {
			b.AddASN1ObjectIdentifier(kind)
			if content != nil {
				explicit(b, 0, func(b *builder) { sequence(b, func(b *builder) { b.AddBytes(content) }) })
			}
		})
		explicit(b, 0, func(b *builder) { b.AddBytes(s.Cert.Raw) })
		b.AddASN1(tag.SET, func(b *builder) {
			sequence(b, func(b *builder) { // SignerInfo
				b.AddASN1Int64(1)
				sequence(b, func(b *builder) {
					b.AddBytes(s.Cert.RawIssuer)
					b.AddASN1BigInt(s.Cert.SerialNumber)
				})
				algorithm(b, oidSHA256)
				if attrs != nil {
					explicit(b, 0, func(b *builder) { b.AddBytes(attrs) })
				}
				algorithm(b, oidRSA)
				b.AddASN1OctetString(signature)
			})
		})
	})
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("secureboot: %w", err)
	}
	return out, nil
}
