package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ballast/image/layout"
	"ballast/init/boot"
	"ballast/init/crash"
	"ballast/init/journal"
	"ballast/init/power"
	"ballast/init/spare"
	"ballast/services/conf"
	"ballast/services/ipc"
	"ballast/services/ipc/follow"
	"ballast/services/ipc/status"
)

// identityFiles are the keys that make a box itself, and who owns them.
var identityFiles = []spare.File{
	{Path: "peer/peer_ed25519_key", UID: ipc.UIDPeer},
	{Path: "console/ssh_host_ed25519_key", UID: ipc.UIDConsole},
}

// Files of a factory reset.
const (
	factoryAsked = ownDir + "/factory-reset" // asked for: a status.FactoryReset
	factoryWord  = ownDir + "/factory-word"  // the last boot had the boot menu's word
)

func (m *machine) mountData() (string, error) {
	d, disk := m.board.Data, m.disk
	if m.cmdline.Get("ballast.data") == "none" {
		d.Serial, d.Partition, disk = "", "", nil
	}
	var err error
	m.data, err = boot.MountData(d, disk)
	if m.data.Warning != "" {
		m.journal.Print(journal.Warning, "%s", m.data.Warning)
	}
	return m.data.Note, err
}

// spareDisk opens the second place; nil: this box has none.
func (m *machine) spareDisk() (*boot.Part, error) {
	if m.data.Spare.Device == "" {
		return nil, nil
	}
	return boot.OpenPlace(m.data.Spare, spare.Size)
}

// factoryReset wipes the data when somebody asked for that at the console, or in
// the boot menu: then once, though the kernel's command line may stay as it is.
func (m *machine) factoryReset() (string, error) {
	word := m.cmdline.Get(layout.WordFactory) == "1"
	_, err := os.Stat(factoryWord)
	again := err == nil
	if !word && again {
		os.Remove(factoryWord)
	}
	var r status.FactoryReset
	b, err := os.ReadFile(factoryAsked)
	asked := err == nil
	switch {
	case asked:
		if err := json.Unmarshal(b, &r); err != nil {
			os.Remove(factoryAsked)
			return "", fmt.Errorf("a request that cannot be read is dropped: %w", err)
		}
	case word && again:
		m.journal.Print(journal.Warning, "the kernel's command line asks for a factory reset, as it did at the last boot: that is done once; remove %s=1", layout.WordFactory)
		return "done at an earlier boot", nil
	case word:
		r.By = "the boot menu"
	default:
		return "not asked for", nil
	}
	if m.data.Device == "" {
		return "", errors.New("there is no data disk that could be wiped")
	}
	// The second place first: what a power cut leaves is wiped by the same request
	// at the next boot, and nothing is put back.
	if !r.KeepIdentity {
		if err := m.wipeSpare(); err != nil {
			return "", err
		}
	}
	data, how, err := boot.WipeData(m.data)
	m.data = data
	if err != nil {
		return "", err
	}
	how = fmt.Sprintf("factory reset, asked by %s: %s %s", cmp.Or(r.By, "nobody knows"), data.Device, how)
	m.reset = &r
	errs := []error{os.MkdirAll(ownDir, 0o755)}
	errs = append(errs, crash.Mark{Started: m.started, Version: version, Ended: how}.Write(markFile))
	if word {
		errs = append(errs, ipc.WriteDurable(factoryWord, nil))
	}
	m.journal.Print(journal.Warning, "%s; host name, addresses, users and keys kept: %v", how, r.KeepIdentity)
	return how, errors.Join(errs...)
}

func (m *machine) wipeSpare() error {
	d, err := m.spareDisk()
	if err != nil || d == nil {
		return err
	}
	defer d.Close()
	return spare.Wipe(d)
}

// lostKind is the kind of record that tells of a data disk that was lost.
const lostKind = "data"

// identity puts back who this box is, when its configuration is gone from the
// data disk and the second place tells.
func (m *machine) identity() (string, error) {
	put := "" // what was put back
	defer func() { m.tellOfRepair(put) }()
	if boot.Stored(boot.DataDir) {
		return "on the data disk", nil
	}
	d, err := m.spareDisk()
	if err != nil || d == nil {
		return "new", err
	}
	defer d.Close()
	r, err := spare.Read(d)
	if errors.Is(err, spare.ErrNone) {
		return "new", nil
	}
	if err != nil {
		return "", err
	}
	errs := []error{putBack(boot.DataDir, r)}
	if err := os.MkdirAll(boot.SeedDir, 0o700); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, os.WriteFile(filepath.Join(boot.SeedDir, "config"), []byte(r.Text), 0o600))
	}
	if m.reset != nil {
		return fmt.Sprintf("%s, kept over the factory reset", r.Host), errors.Join(errs...)
	}
	put = fmt.Sprintf("%s is itself again by the second place: name, addresses, users and keys", r.Host)
	if r.Peer {
		errs = append(errs, ownFile(boot.DataDir, spare.File{Path: "conf/" + conf.RecoverFile, UID: ipc.UIDConf}))
		put += "; the configuration comes from its peer"
	} else {
		put += "; the rest of the configuration is gone"
	}
	return put, errors.Join(errs...)
}

// tellOfRepair records that data was lost or had to be put back, for whoever
// comes to the box next.
func (m *machine) tellOfRepair(put string) {
	why := m.data.Warning
	if m.reset != nil || put == "" && (!m.data.Fresh || why == "") {
		return // nothing was lost: a new disk, or none
	}
	line := strings.Join(slices.DeleteFunc([]string{cmp.Or(why, "the data disk was empty"), put}, func(s string) bool { return s == "" }), "; ")
	m.journal.Print(journal.Error, "%s", line)
	m.mu.Lock()
	store := m.crashes
	m.mu.Unlock()
	if store == nil {
		return
	}
	if _, err := store.Add(status.CrashReport{Crash: status.Crash{Time: time.Now(), Kind: lostKind, Summary: line, Version: version, Slot: m.slot()}}); err != nil {
		m.journal.Print(journal.Error, "%v", err)
	}
}

// putBack writes the files of a record, but for what is there, and the host name.
func putBack(data string, r spare.Record) error {
	var errs []error
	for _, f := range r.Files {
		if !slices.ContainsFunc(identityFiles, func(k spare.File) bool { return k.Path == f.Path && k.UID == f.UID }) {
			continue // of another firmware, which kept more
		}
		if _, err := os.Stat(filepath.Join(data, f.Path)); err == nil {
			continue
		}
		errs = append(errs, ownFile(data, f))
	}
	errs = append(errs, boot.KeepHostName(r.Host, data))
	return errors.Join(errs...)
}

// ownFile writes a file into the data folder of a service.
func ownFile(data string, f spare.File) error {
	path := filepath.Join(data, f.Path)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := os.Chown(filepath.Dir(path), f.UID, ipc.GroupBallast)
	if err == nil {
		err = ipc.WriteDurable(path, f.Content)
	}
	if err == nil {
		err = os.Chown(path, f.UID, ipc.GroupBallast)
	}
	if err != nil {
		return fmt.Errorf("put back %s: %w", f.Path, err)
	}
	return nil
}

// keepIdentity keeps the second place current: at the start, and after each commit
// that stays.
func (m *machine) keepIdentity(ctx context.Context) {
	if m.data.Spare.Device == "" {
		return
	}
	said := ""
	for {
		var generation uint64
		select {
		case generation = <-m.committed:
		case <-ctx.Done():
			return
		}
		if err := m.saveIdentity(ctx, generation); err != nil && err.Error() != said {
			said = err.Error()
			m.journal.Print(journal.Warning, "%s", said)
		}
	}
}

func (m *machine) saveIdentity(ctx context.Context, generation uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var s status.Spare
	if err := ipc.DefaultDir.Client("conf").Call(ctx, "spare", struct{}{}, &s); err != nil {
		return fmt.Errorf("spare copy of the identity: %w", err)
	}
	if s.Generation != generation {
		return nil // the one after it is on its way here
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	r := spare.Record{Host: host, Text: s.Text, Peer: s.Peer}
	for _, f := range identityFiles {
		b, err := os.ReadFile(filepath.Join(boot.DataDir, f.Path))
		if err != nil {
			return fmt.Errorf("spare copy of the identity: %w", err)
		}
		r.Files = append(r.Files, spare.File{Path: f.Path, UID: f.UID, Content: b})
	}
	d, err := m.spareDisk()
	if err != nil {
		return fmt.Errorf("spare copy of the identity: %w", err)
	}
	defer d.Close()
	written, err := spare.Write(d, r)
	if written {
		m.journal.Print(journal.Info, "spare copy of the identity: that of generation %d is kept", generation)
	}
	return err
}

// lasting reports whether a configuration is this box's own and here to stay: not
// one that stands in for it, and not one that waits to be confirmed.
func lasting(c status.Conf) bool {
	return c.Generation > 0 && c.Pending == nil && c.Source != "factory" && c.Source != "last good"
}

// noteCommit tells keepIdentity of what runs.
func (m *machine) noteCommit(u follow.Update) {
	if !lasting(u.Conf) {
		return
	}
	select {
	case <-m.committed: // an older one that nobody has looked at
	default:
	}
	m.committed <- u.Conf.Generation // holds one, and this is its only writer
}

// verbFactoryReset has the data wiped at the next boot, and that comes now.
func (m *machine) verbFactoryReset(ctx context.Context, p ipc.Peer, body json.RawMessage) (any, error) {
	var r status.FactoryReset
	if err := unmarshal(body, &r); err != nil {
		return nil, err
	}
	if m.data.Stateless {
		return nil, errors.New("factory-reset: nothing outlives a reboot here: there is no data disk that could be wiped; \"reboot\" does as much")
	}
	if r.By == "" {
		r.By = fmt.Sprintf("user %d", p.UID)
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = ipc.WriteDurable(factoryAsked, b)
	}
	if err != nil {
		return nil, fmt.Errorf("factory-reset: %w", err)
	}
	why, err := json.Marshal(status.Power{By: r.By + ", for a factory reset"})
	if err != nil {
		return nil, err
	}
	return m.verbPower(power.Reboot)(ctx, p, why)
}

// tellOfReset puts the factory reset into the audit log, which it has emptied.
func (m *machine) tellOfReset(ctx context.Context) {
	if m.reset == nil {
		return
	}
	user, address, _ := strings.Cut(m.reset.By, "@")
	e := status.AuditEntry{Time: time.Now(), User: cmp.Or(user, "unknown"), Address: cmp.Or(address, "serial"), Command: "factory-reset", Result: "ok"}
	if err := ipc.DefaultDir.Client("notify").Call(ctx, "audit", []status.AuditEntry{e}, nil); err != nil {
		m.journal.Print(journal.Warning, "audit log: %v", err)
	}
}
