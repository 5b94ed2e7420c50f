package secureboot

import (
	"encoding/binary"
	"time"
	"unicode/utf16"

	"ballast/image/disk/gpt"
)

// Identifiers of the UEFI specification, section 32.
var (
	guidX509   = gpt.MustGUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
	guidPKCS7  = gpt.MustGUID("4aafd29d-68df-49ee-8aa9-347d375665a7")
	GUIDGlobal = gpt.MustGUID("8be4df61-93ca-11d2-aa0d-00e098032b8c") // of PK and KEK
	GUIDImage  = gpt.MustGUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f") // of db and dbx
)

// Attributes of the variables PK, KEK and db: kept, readable while the machine
// boots and runs, written by who signs with a time.
const Attributes = 0x27

// List is the list of certificates (EFI_SIGNATURE_LIST, one for each, because
// they differ in length).
func List(owner gpt.GUID, certs ...[]byte) []byte {
	var out []byte
	le := binary.LittleEndian
	for _, c := range certs {
		const head = 28
		out = append(out, guidX509[:]...)
		out = le.AppendUint32(out, uint32(head+len(owner)+len(c)))
		out = le.AppendUint32(out, 0)
		out = le.AppendUint32(out, uint32(len(owner)+len(c)))
		out = append(out, owner[:]...)
		out = append(out, c...)
	}
	return out
}

// variable is one of the variables that say whom a machine trusts.
type variable struct {
	name string
	guid gpt.GUID
}

var variables = map[string]variable{"PK": {"PK", GUIDGlobal}, "KEK": {"KEK", GUIDGlobal}, "db": {"db", GUIDImage}}

// update is the content of a variable as a machine takes it from who may change
// it: EFI_VARIABLE_AUTHENTICATION_2, and behind it the list.
func (s Signer) update(v variable, list []byte, at time.Time) ([]byte, error) {
	le := binary.LittleEndian
	at = at.UTC()
	stamp := make([]byte, 16) // EFI_TIME; fractions and zone are 0
	le.PutUint16(stamp, uint16(at.Year()))
	copy(stamp[2:], []byte{byte(at.Month()), byte(at.Day()), byte(at.Hour()), byte(at.Minute()), byte(at.Second())})

	var message []byte
	for _, u := range utf16.Encode([]rune(v.name)) {
		message = le.AppendUint16(message, u)
	}
	message = append(message, v.guid[:]...)
	message = le.AppendUint32(message, Attributes)
	message = append(message, stamp...)
	message = append(message, list...)
	signed, err := s.signedData(oidData, nil, nil, message)
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), stamp...)
	out = le.AppendUint32(out, uint32(8+len(guidPKCS7)+len(signed)))
	out = le.AppendUint16(out, 0x0200)
	out = le.AppendUint16(out, 0x0ef1) // WIN_CERT_TYPE_EFI_GUID
	out = append(out, guidPKCS7[:]...)
	out = append(out, signed...)
	return append(out, list...), nil
}
