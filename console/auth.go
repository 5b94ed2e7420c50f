package console

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ballast/configs/model"
	"ballast/console/cli"
	"ballast/services/ipc"

	gossh "golang.org/x/crypto/ssh"
)

// user is one login of the running configuration.
type user struct {
	role cli.Role
	keys [][]byte // wire form
}

type users map[string]user

// harmless are options of an authorized_keys line that ask for less than the
// console gives anyway.
var harmless = map[string]bool{"no-agent-forwarding": true, "no-port-forwarding": true, "no-X11-forwarding": true,
	"no-user-rc": true, "restrict": true, "pty": true, "no-pty": true}

// readUsers reads the logins. Keys that cannot be used are left out and told.
func readUsers(logins []model.Login) (users, []string) {
	u := users{}
	var problems []string
	for _, l := range logins {
		one := user{role: ipc.ParseRole(l.Role)}
		if one.role == cli.None {
			problems = append(problems, fmt.Sprintf("login %s: role %q is not known: the user may do nothing", l.Name, l.Role))
		}
		for i, line := range l.Keys {
			key, err := readKey(line)
			if err != nil {
				problems = append(problems, fmt.Sprintf("login %s: key %d is left out: %v", l.Name, i+1, err))
				continue
			}
			one.keys = append(one.keys, key.Marshal())
		}
		u[l.Name] = one
	}
	return u, problems
}

// readKey reads an authorized_keys line.
func readKey(line string) (gossh.PublicKey, error) {
	key, _, options, _, err := gossh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, errors.New("it is not an authorized_keys line")
	}
	for _, o := range options {
		if !harmless[o] {
			// Ignoring from="…" would let in more than was asked for.
			name, _, _ := strings.Cut(o, "=")
			return nil, fmt.Errorf("the option %s is not supported", name)
		}
	}
	switch key.Type() {
	case gossh.KeyAlgoED25519, gossh.KeyAlgoSKED25519, gossh.KeyAlgoECDSA256, gossh.KeyAlgoECDSA384, gossh.KeyAlgoECDSA521, gossh.KeyAlgoSKECDSA256:
		return key, nil
	case gossh.KeyAlgoRSA:
		if ck, ok := key.(gossh.CryptoPublicKey); ok {
			if r, ok := ck.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() >= 2048 {
				return key, nil
			}
		}
		return nil, errors.New("RSA keys need 2048 bits or more")
	}
	return nil, fmt.Errorf("keys of type %s are not accepted", key.Type())
}

// allows reports whether a key belongs to a user.
func (u users) allows(name string, key gossh.PublicKey) bool { return u.has(name, key.Marshal()) }

// has is allows for a key in wire form. It takes as long for a user that does
// not exist as for one without keys.
func (u users) has(name string, wire []byte) bool {
	ok := false
	one := u[name]
	for _, k := range one.keys {
		if subtle.ConstantTimeCompare(k, wire) == 1 {
			ok = true
		}
	}
	return ok && one.role != cli.None
}

// limiter slows down addresses whose logins fail: a failed login costs a token,
// a token comes back every refill. Without tokens connections are dropped
// before any cryptography.
type limiter struct {
	mu      sync.Mutex
	now     func() time.Time
	sources map[netip.Prefix]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
	told   bool // the log has it
}

const (
	limitBurst  = 10.0
	limitRefill = 6 * time.Second
	limitMax    = 4096 // addresses remembered
)

func newLimiter() *limiter {
	return &limiter{now: time.Now, sources: map[netip.Prefix]*bucket{}}
}

// source is what counts as one address: an IPv6 host has a /64 to itself.
func source(a net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

func (l *limiter) bucket(p netip.Prefix) *bucket {
	now := l.now()
	b := l.sources[p]
	if b == nil {
		if len(l.sources) >= limitMax {
			l.sweep(now)
		}
		b = &bucket{tokens: limitBurst, at: now}
		l.sources[p] = b
	}
	b.tokens = min(limitBurst, b.tokens+float64(now.Sub(b.at))/float64(limitRefill))
	b.at = now
	return b
}

// sweep forgets addresses that have all their tokens back, or else any.
func (l *limiter) sweep(now time.Time) {
	for p, b := range l.sources {
		if now.Sub(b.at) > time.Duration(limitBurst)*limitRefill {
			delete(l.sources, p)
		}
	}
	for p := range l.sources {
		if len(l.sources) < limitMax {
			return
		}
		delete(l.sources, p)
	}
}

// allow reports whether an address may connect; tell is set the first time it
// may not.
func (l *limiter) allow(a net.Addr) (ok, tell bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := source(a)
	if _, known := l.sources[p]; !known {
		return true, false
	}
	b := l.bucket(p)
	if b.tokens >= 1 {
		b.told = false
		return true, false
	}
	tell, b.told = !b.told, true
	return false, tell
}

// fail takes cost tokens.
func (l *limiter) fail(a net.Addr, cost float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(source(a))
	b.tokens = max(0, b.tokens-cost)
}

type hostSigner struct{ gossh.Signer }

func (h hostSigner) fingerprint() string { return gossh.FingerprintSHA256(h.PublicKey()) }

const hostKeyFile = "ssh_host_ed25519_key"

// hostKey reads the host key, or makes it at the first start. Without a data
// folder it lasts until the next start.
func hostKey(dir string, log *slog.Logger) (hostSigner, error) {
	path := filepath.Join(dir, hostKeyFile)
	if dir != "" {
		b, err := os.ReadFile(path)
		if err == nil {
			if s, perr := gossh.ParsePrivateKey(b); perr == nil {
				return hostSigner{s}, nil
			}
			// A key that cannot be read must not keep people out of the box.
			log.Error("the SSH host key is damaged: a new one is made, clients will complain")
		} else if !errors.Is(err, fs.ErrNotExist) {
			log.Error("the SSH host key cannot be read, this start uses a new one: " + err.Error())
			dir = ""
		}
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return hostSigner{}, err
	}
	signer, err := gossh.NewSignerFromKey(private)
	if err != nil {
		return hostSigner{}, err
	}
	if dir == "" {
		return hostSigner{signer}, nil
	}
	block, err := gossh.MarshalPrivateKey(private, "ballast")
	if err != nil {
		return hostSigner{}, err
	}
	if err := ipc.WriteDurable(path, pem.EncodeToMemory(block)); err != nil {
		log.Error("the SSH host key cannot be kept, the next start makes another: " + err.Error())
	}
	log.Info("made SSH host key " + gossh.FingerprintSHA256(signer.PublicKey()))
	return hostSigner{signer}, nil
}
