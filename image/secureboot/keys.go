package secureboot

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ballast/image/disk/gpt"
)

// Names of the keys in an owner's folder: PK may change KEK, KEK may change db,
// and what db signed the machine starts.
const (
	PK  = "PK"
	KEK = "KEK"
	DB  = "db"
)

const (
	keyBits = 2048 // longer ones are refused by some firmwares
	years   = 20
)

// MakeKeys makes an owner's keys in a folder that has none, with everything that
// a machine's setup may want of them. For each of PK, KEK and db: NAME.key and
// NAME.crt (PEM), NAME.cer (DER), NAME.esl (list of certificates), NAME.auth
// (the list, signed by who may change it); and noPK.auth, which takes PK out again.
func MakeKeys(dir string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("secureboot: %w", err)
	}
	for _, name := range []string{PK, KEK, DB} {
		if _, err := os.Lstat(filepath.Join(dir, name+".key")); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("secureboot: %s has a %s.key already: machines may trust it; choose another folder, or move it away", dir, name)
		}
	}
	owner := gpt.RandomGUID()
	signers := map[string]Signer{}
	for _, name := range []string{PK, KEK, DB} {
		s, err := makeKey(name, now)
		if err != nil {
			return err
		}
		signers[name] = s
	}
	files := map[string][]byte{"owner.guid": []byte(owner.String() + "\n")}
	for name, by := range map[string]string{PK: PK, KEK: PK, DB: KEK} {
		s := signers[name]
		key, err := x509.MarshalPKCS8PrivateKey(s.Key)
		if err != nil {
			return fmt.Errorf("secureboot: %w", err)
		}
		list := List(owner, s.Cert.Raw)
		update, err := signers[by].update(variables[name], list, now)
		if err != nil {
			return err
		}
		files[name+".key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
		files[name+".crt"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Cert.Raw})
		files[name+".cer"], files[name+".esl"], files[name+".auth"] = s.Cert.Raw, list, update
	}
	none, err := signers[PK].update(variables[PK], nil, now.Add(time.Second)) // later than what it takes out
	if err != nil {
		return err
	}
	files["noPK.auth"] = none
	for name, b := range files {
		mode := fs.FileMode(0o644)
		if filepath.Ext(name) == ".key" {
			mode = 0o600
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, mode); err != nil {
			return fmt.Errorf("secureboot: %w", err)
		}
	}
	return nil
}

func makeKey(name string, now time.Time) (Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return Signer{}, fmt.Errorf("secureboot: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Signer{}, fmt.Errorf("secureboot: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprintf("Ballast %s of %s", name, now.UTC().Format("2006-01-02"))},
		// Firmwares have clocks that nobody has set.
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(years, 0, 0), SignatureAlgorithm: x509.SHA256WithRSA, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return Signer{}, fmt.Errorf("secureboot: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Signer{}, fmt.Errorf("secureboot: %w", err)
	}
	return Signer{key, cert}, nil
}

// Load reads the key that signs firmware, db.key and db.crt, from the owner's
// folder.
func Load(dir string) (Signer, error) {
	block := func(name string, kinds ...string) ([]byte, error) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("secureboot: %w: \"make secureboot-keys KEYS=%s\" makes new ones", err, dir)
		}
		p, _ := pem.Decode(b)
		if p == nil || !slices.Contains(kinds, p.Type) {
			return nil, fmt.Errorf("secureboot: %s: want PEM of the kind %s", filepath.Join(dir, name), kinds[0])
		}
		return p.Bytes, nil
	}
	var s Signer
	der, err := block(DB+".key", "PRIVATE KEY", "RSA PRIVATE KEY")
	if err != nil {
		return s, err
	}
	if key, perr := x509.ParsePKCS8PrivateKey(der); perr == nil {
		s.Key, _ = key.(*rsa.PrivateKey)
	} else if s.Key, err = x509.ParsePKCS1PrivateKey(der); err != nil {
		return s, fmt.Errorf("secureboot: %s.key: %w", DB, perr)
	}
	if s.Key == nil || s.Key.N.BitLen() < keyBits {
		return s, fmt.Errorf("secureboot: %s.key: want an RSA key of %d bits or more: others are not checked by every firmware", DB, keyBits)
	}
	if der, err = block(DB+".crt", "CERTIFICATE"); err != nil {
		return s, err
	}
	if s.Cert, err = x509.ParseCertificate(der); err != nil {
		return s, fmt.Errorf("secureboot: %s.crt: %w", DB, err)
	}
	if !s.Key.PublicKey.Equal(s.Cert.PublicKey) {
		return s, fmt.Errorf("secureboot: %s.crt in %s is not the certificate of %s.key", DB, dir, DB)
	}
	return s, nil
}
