package netboot

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/services/netboot/seed"
)

// box is one that is served. The service's mu guards it.
type box struct {
	model.NetbootBox
	by    string
	until time.Time

	ifname  string
	network netip.Prefix // own address there; invalid: it cannot be served
	addr    netip.Addr   // of the box while it boots; invalid: only another server has one
	keys    seed.Keys
	pinned  bool // the peer block here has its key
	fault   string

	asked      uint64 // generation for which conf was asked
	askedAt    time.Time
	configured []status.NetbootAddress
	refused    error

	word     string    // of this boot, in its URLs
	wordAt   time.Time // when it was made
	given    uint64
	givenAt  time.Time
	transfer *status.NetbootTransfer
	events   []status.NetbootEvent
}

// Bounds.
const (
	maxEvents = 30
	// wordAge is how long one boot may take until the box fetches its
	// configuration; after that, or when it has it, its word is worth nothing.
	wordAge = 15 * time.Minute
	// onceIn is for events that repeat: boot ROMs ask many times.
	onceIn = 20 * time.Second
)

// event notes something, but not the same again and again. Called with mu held.
func (b *box) event(format string, a ...any) (news bool) {
	text := fmt.Sprintf(format, a...)
	now := time.Now()
	for _, e := range slices.Backward(b.events) {
		if now.Sub(e.Time) > onceIn {
			break
		}
		if e.Text == text {
			return false
		}
	}
	if len(b.events) == maxEvents {
		b.events = slices.Delete(b.events, 0, 1)
	}
	// A copy: states that were published share the old one.
	b.events = append(slices.Clip(b.events), status.NetbootEvent{Time: now, Text: text})
	return true
}

// boot is the word of the boot that is under way; a new one when there is
// none. Called with mu held.
func (b *box) boot() string {
	if b.word == "" || time.Since(b.wordAt) > wordAge {
		b.word, b.wordAt = rand.Text(), time.Now()
	}
	return b.word
}

// proxied reports whether another server gives the box its address, and
// whether that is known yet. Called with mu held.
func (b *box) proxied(g *segment) (proxy, known bool) {
	switch {
	case b.DHCP == model.DHCPProxy, !b.addr.IsValid():
		return true, true
	case b.DHCP == model.DHCPServer:
		return false, true
	}
	return g.other.IsValid(), !g.probed.IsZero()
}

// unsure reports whether it has to be found out, for the first time or again, who
// gives the box its address. Called with mu held.
func (b *box) unsure(g *segment, now time.Time) bool {
	return b.DHCP == model.DHCPAuto && b.addr.IsValid() && now.Sub(g.probed) > probeAge
}

// errNoData is of a box that would forget identities.
var errNoData = errors.New("this box has no data folder to keep the identity of other boxes in: serve from one that has a data disk")

// identities are the boxes that this one has ever served; one file for each.
type identities struct {
	Name string
	Keys seed.Keys
}

// forget has a new identity made for a box at the next time.
func (s *service) forget(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var r status.NetbootStop
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("netboot forget: argument: %w", err)
	}
	if !seed.ValidName(r.Box) {
		return nil, fmt.Errorf("%.80q is no name of a box: \"show netboot\" lists them", r.Box)
	}
	if s.env.Data == "" {
		return nil, errNoData
	}
	err := os.Remove(s.identityFile(r.Box))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no identity of %s is kept here: give the NAME that it was served as", r.Box)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	for _, b := range s.boxes {
		if short(b.Name) == short(r.Box) {
			b.keys, b.word = seed.Keys{}, ""
		}
	}
	s.mu.Unlock()
	s.env.Log.Warn(fmt.Sprintf("the identity of %s is forgotten: its next boot gets another one", r.Box))
	s.look(ctx)
	return nil, nil
}

func (s *service) identityFile(name string) string {
	return filepath.Join(s.env.Data, "box-"+short(name)+".json")
}

// identity reads the identity of a box, or makes it. It must outlive this
// process: its public half is written into configurations.
func (s *service) identity(name string) (seed.Keys, error) {
	if s.env.Data == "" {
		return seed.Keys{}, errNoData
	}
	path := s.identityFile(name)
	b, err := os.ReadFile(path)
	if err == nil {
		var i identities
		if err := json.Unmarshal(b, &i); err == nil && short(i.Name) == short(name) {
			if _, err := seed.Public(i.Keys.SSH); err == nil {
				if _, err := seed.Public(i.Keys.Peer); err == nil {
					return i.Keys, nil
				}
			}
		}
		s.env.Log.Error(fmt.Sprintf("the identity of %s that is kept here is damaged: a new one is made; put its key into the peer block again (\"show netboot\")", name))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return seed.Keys{}, fmt.Errorf("identity of %s: %w", name, err)
	}
	keys, err := seed.MakeKeys()
	if err != nil {
		return keys, err
	}
	if b, err = json.Marshal(identities{name, keys}); err != nil {
		return seed.Keys{}, err
	}
	if err := ipc.WriteDurable(path, b); err != nil {
		return seed.Keys{}, fmt.Errorf("identity of %s: %w", name, err)
	}
	s.env.Log.Info("made the identity of " + name)
	return keys, nil
}
