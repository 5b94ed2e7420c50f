package secureboot

import (
	"bytes"
	"crypto/x509"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/image/packages"
	"ballast/image/uki"
)

func owner(t *testing.T) (dir string, s Signer) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "owner")
	if err := MakeKeys(dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, s
}

// stub is a real EFI program without a signature.
func stub(t testing.TB) []byte {
	t.Helper()
	b, err := uki.Stub(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// verify asks sbverify, which is another implementation.
func verify(t *testing.T, cert string, program []byte) (said string, err error) {
	t.Helper()
	exe, err := exec.LookPath("sbverify")
	if err != nil {
		t.Fatal("no sbverify: make test-tools installs it")
	}
	f := filepath.Join(t.TempDir(), "x.efi")
	if err := os.WriteFile(f, program, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(exe, "--cert", cert, f).CombinedOutput()
	return string(out), err
}

func TestSign(t *testing.T) {
	dir, s := owner(t)
	other, _ := owner(t)
	shim, err := Shim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string][]byte{"stub": stub(t), "shim": shim} {
		if Signed(program) {
			t.Errorf("%s is signed before it is", name)
		}
		signed, err := s.Sign(program)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if said, err := verify(t, filepath.Join(dir, "db.crt"), signed); err != nil {
			t.Errorf("%s: %v: %s", name, err, said)
		}
		if _, err := verify(t, filepath.Join(other, "db.crt"), signed); err == nil {
			t.Errorf("%s: the signature is anybody's", name)
		}
		if !Signed(signed) {
			t.Errorf("%s is not signed", name)
		}
		again, err := s.Sign(program)
		if err != nil || !bytes.Equal(signed, again) {
			t.Errorf("%s: signed twice it is two things (%v)", name, err)
		}
		if again, err = s.Sign(signed); err != nil || !bytes.Equal(signed, again) {
			t.Errorf("%s: signed anew it is another one (%v)", name, err)
		}
		broken := bytes.Clone(signed)
		broken[len(program)/2] ^= 1
		if _, err := verify(t, filepath.Join(dir, "db.crt"), broken); err == nil {
			t.Errorf("%s: a changed byte is not noticed", name)
		}
	}
}

// What another tool signs has the same hash: both leave out the same bytes.
func TestHashIsEverybodys(t *testing.T) {
	dir, s := owner(t)
	sbsign, err := exec.LookPath("sbsign")
	if err != nil {
		t.Fatal("no sbsign: make test-tools installs it")
	}
	in, out := filepath.Join(dir, "in.efi"), filepath.Join(dir, "out.efi")
	if err := os.WriteFile(in, stub(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(sbsign, "--key", filepath.Join(dir, "db.key"), "--cert", filepath.Join(dir, "db.crt"), "--output", out, in).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	theirs, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := s.Sign(stub(t))
	if err != nil {
		t.Fatal(err)
	}
	lt, err := layoutOf(theirs)
	if err != nil {
		t.Fatal(err)
	}
	lo, err := layoutOf(ours)
	if err != nil {
		t.Fatal(err)
	}
	if lt.hash(theirs) != lo.hash(ours) {
		t.Error("the hashes differ")
	}
	for name, x := range map[string]struct {
		l layout
		b []byte
	}{"theirs": {lt, theirs}, "ours": {lo, ours}} {
		if got, want := binary.LittleEndian.Uint32(x.b[x.l.checkSum:]), checkSum(x.b, x.l.checkSum); got != want {
			t.Errorf("check sum of %s: %x, want %x", name, got, want)
		}
	}
}

func TestShimTrustsNobody(t *testing.T) {
	dir, err := packages.Tree(t.Context(), "shim-unsigned")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "usr/lib/shim/shimx64.efi"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := Shim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := []byte("Debian Secure Boot CA")
	if !bytes.Contains(before, name) {
		t.Error("Debian's shim has no certificate of Debian: the test looks at the wrong thing")
	}
	f, err := pe.NewFile(bytes.NewReader(after))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := f.Section(".vendor_cert").Data(); err != nil || binary.LittleEndian.Uint32(b) != 0 {
		t.Errorf("shim believes to have a certificate: %v", err)
	}
	if bytes.Contains(after, name) || len(after) != len(before) {
		t.Error("the certificate is still there")
	}
	for _, bad := range [][]byte{nil, before[:4096], after} {
		if _, err := disown(bad); err == nil {
			t.Errorf("a shim of %d bytes that is none, or has no certificate, is taken", len(bad))
		}
	}
}

func TestSignRefuses(t *testing.T) {
	_, s := owner(t)
	b := stub(t)
	for name, bad := range map[string][]byte{"nothing": nil, "text": []byte(strings.Repeat("x", 5000)), "cut": b[:len(b)/2], "headers": b[:200]} {
		if _, err := s.Sign(bad); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
	// A section that begins later than the one before ends, or earlier; signatures
	// that are longer than the file.
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	l, err := layoutOf(b)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	table := int(le.Uint32(b[lfanew:])) + 4 + coffSize + int(f.SizeOfOptionalHeader)
	last := len(f.Sections) - 1
	offset := table + last*40 + 20 // PointerToRawData; SizeOfRawData is before it
	for want, change := range map[string]func(b []byte){
		"bytes between": func(b []byte) {
			le.PutUint32(b[offset:], f.Sections[last].Offset+16)
			le.PutUint32(b[offset-4:], f.Sections[last].Size-16)
		},
		"lies over": func(b []byte) { le.PutUint32(b[offset:], f.Sections[last].Offset-16) },
		"are cut": func(b []byte) {
			le.PutUint32(b[l.directory:], uint32(len(b)-8))
			le.PutUint32(b[l.directory+4:], 16)
		},
	} {
		bad := bytes.Clone(b)
		change(bad)
		if _, err := s.Sign(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The update of a variable is signed by who may change it: openssl says so too.
func TestUpdates(t *testing.T) {
	dir, _ := owner(t)
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, by := range map[string]string{"PK": "PK", "KEK": "PK", "db": "KEK", "noPK": "PK"} {
		auth := read(name + ".auth")
		const head = 16 + 24
		size := int(auth[16]) | int(auth[17])<<8 // of WIN_CERTIFICATE_UEFI_GUID
		der, list := auth[head:16+size], auth[16+size:]
		v := variables[strings.TrimPrefix(name, "no")]
		if name == "noPK" {
			if len(list) != 0 {
				t.Errorf("noPK brings %d bytes", len(list))
			}
		} else if !bytes.Equal(list, read(name+".esl")) || !bytes.Contains(list, read(name+".cer")) {
			t.Errorf("%s.auth does not bring %s.esl", name, name)
		}
		var message []byte
		for _, c := range v.name {
			message = append(message, byte(c), 0)
		}
		message = append(message, v.guid[:]...)
		message = append(message, Attributes, 0, 0, 0)
		message = append(message, auth[:16]...)
		message = append(message, list...)
		// openssl wants the whole ContentInfo.
		oid, _ := hex.DecodeString("06092a864886f70d010702")
		inner := append([]byte{0xa0, 0x82, byte(len(der) >> 8), byte(len(der))}, der...)
		whole := append(oid, inner...)
		whole = append([]byte{0x30, 0x82, byte(len(whole) >> 8), byte(len(whole))}, whole...)
		tmp := t.TempDir()
		for f, b := range map[string][]byte{"m": message, "s": whole} {
			if err := os.WriteFile(filepath.Join(tmp, f), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", filepath.Join(tmp, "s"), "-content", filepath.Join(tmp, "m"),
			"-CAfile", filepath.Join(dir, by+".crt"), "-purpose", "any", "-out", os.DevNull).CombinedOutput()
		if err != nil {
			t.Errorf("%s.auth is not signed by %s: %v: %s", name, by, err, out)
		}
	}
}

func TestKeys(t *testing.T) {
	dir, s := owner(t)
	// A machine takes an update only when it is newer than what it has.
	pk, err := os.ReadFile(filepath.Join(dir, "PK.auth"))
	if err != nil {
		t.Fatal(err)
	}
	if none, err := os.ReadFile(filepath.Join(dir, "noPK.auth")); err != nil || bytes.Equal(none[:16], pk[:16]) {
		t.Errorf("what takes PK out is as old as PK: %v", err)
	}
	if err := MakeKeys(dir, time.Now()); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("keys are overwritten: %v", err)
	}
	for _, name := range []string{PK, KEK, DB} {
		st, err := os.Stat(filepath.Join(dir, name+".key"))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s.key: %v %v", name, st.Mode(), err)
		}
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "make secureboot-keys") {
		t.Errorf("an empty folder: %v", err)
	}
	other, _ := owner(t)
	swap, err := os.ReadFile(filepath.Join(other, "db.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "db.crt"), swap, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is not the certificate of") {
		t.Errorf("a certificate of another key: %v", err)
	}
	if s.Cert.NotAfter.Before(time.Now().AddDate(15, 0, 0)) || s.Cert.CheckSignature(x509.SHA256WithRSA, s.Cert.RawTBSCertificate, s.Cert.Signature) != nil {
		t.Error("the certificate ends soon, or is not its own")
	}
	der, err := x509.MarshalPKCS8PrivateKey(s.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "db.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a key of another kind is taken")
	}
	if got := GUIDImage.String(); got != "d719b2cb-3d3a-4596-a3bc-dad00e67656f" {
		t.Errorf("GUID of db: %s", got)
	}
}

// FuzzSign: whatever is handed to it, it does not fall over, and what it signs it
// knows to be signed.
func FuzzSign(f *testing.F) {
	s, err := makeKey("fuzz", time.Unix(1e9, 0))
	if err != nil {
		f.Fatal(err)
	}
	b := stub(f)
	f.Add(b[:2048])
	f.Add(b[:len(b)-len(b)%4096])
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		signed, err := s.Sign(b)
		if err == nil && !Signed(signed) {
			t.Error("signed, and not")
		}
		Signed(b)
		disown(b)
	})
}
