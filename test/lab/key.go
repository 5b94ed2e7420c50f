package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// key is the lab's throw-away SSH key.
type key struct {
	file   string
	public string // as in authorized_keys
	signer ssh.Signer
}

func newKey(file string) (*key, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("lab: key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "lab")
	if err != nil {
		return nil, fmt.Errorf("lab: key: %w", err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, fmt.Errorf("lab: key: %w", err)
	}
	s, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		return nil, fmt.Errorf("lab: key: %w", err)
	}
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey()))) + " lab"
	return &key{file, public, s}, nil
}
