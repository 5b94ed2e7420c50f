package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ballast/services/ipc"
)

const (
	keyFile = "peer_ed25519_key"
	keyType = "ssh-ed25519"
	keyPEM  = "PRIVATE KEY"
)

// identity reads the key of this box, or makes it at the first start. Without a
// data folder it lasts until the next start.
func identity(dir string, log *slog.Logger) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, keyFile)
	if dir != "" {
		b, err := os.ReadFile(path)
		if err == nil {
			if key, err := parseIdentity(b); err == nil {
				return key, nil
			}
			log.Error("the key of this box for its peer is damaged: a new one is made; put what \"show peer\" prints now into the peer block of the other box")
		} else if !errors.Is(err, fs.ErrNotExist) {
			log.Error("the key of this box for its peer cannot be read, this start uses a new one: " + err.Error())
			dir = ""
		}
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil || dir == "" {
		return key, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := ipc.WriteDurable(path, pem.EncodeToMemory(&pem.Block{Type: keyPEM, Bytes: der})); err != nil {
		log.Error("the key of this box for its peer cannot be kept, the next start makes another: " + err.Error())
	}
	return key, nil
}

func parseIdentity(b []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != keyPEM {
		return nil, errors.New("no key")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an ed25519 key")
	}
	return key, nil
}

// publicLine is a public key as authorized_keys has it (RFC 8709, section 4).
func publicLine(key ed25519.PublicKey) string {
	var b []byte
	for _, part := range [][]byte{[]byte(keyType), key} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return keyType + " " + base64.StdEncoding.EncodeToString(b)
}

// parsePublic reads what publicLine wrote.
func parsePublic(line string) (ed25519.PublicKey, error) {
	words := strings.Fields(line)
	if len(words) >= 2 {
		b, err := base64.StdEncoding.DecodeString(words[1])
		if n := len(b) - ed25519.PublicKeySize; err == nil && n > 0 {
			key := ed25519.PublicKey(b[n:])
			if publicLine(key) == words[0]+" "+words[1] {
				return key, nil
			}
		}
	}
	return nil, errors.New("it is not a line \"ssh-ed25519 AAAA…\"")
}

// certificate wraps the key: TLS wants one. Nothing in it is looked at but the
// key, and nothing in it tells of the box.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

var errPinned = errors.New("its key is not the one of the peer block")

// pinned is the TLS of a connection with the box that has the key want. Names,
// times and issuers of certificates count for nothing, the key for everything.
func pinned(own tls.Certificate, want ed25519.PublicKey) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{own},
		MinVersion:   tls.VersionTLS13,
		// The other side's certificate is its own work: VerifyConnection pins the key.
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errPinned
			}
			have, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if !ok || !bytes.Equal(have, want) {
				return errPinned
			}
			return nil
		},
	}
}

// explain turns an error of a connection into what to look at.
func explain(err error) error {
	if errors.Is(err, errPinned) {
		return fmt.Errorf("%w: compare it with what \"show peer\" prints there", errPinned)
	}
	var alert tls.AlertError
	if errors.As(err, &alert) || strings.Contains(err.Error(), "tls: bad certificate") {
		return errors.New("it does not know the key of this box: put what \"show peer\" prints here into its peer block")
	}
	return err
}
