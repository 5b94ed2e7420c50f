package firmware

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"ballast/image/bundle"
	"ballast/image/layout"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// errBusy is told to the second of two.
var errBusy = errors.New("another upgrade is under way: \"show firmware\" shows how far it is")

// errGoing is told to who comes too late.
var errGoing = errors.New("this box is about to reboot: try again when it is back")

// errTrial is told to who wants to change what is being tried.
func (s *service) errTrial() error {
	return fmt.Errorf("firmware %s is itself on trial: wait until it is confirmed, or \"confirm firmware\" it", s.running.Version)
}

// errEmpty is told to who wants to start the other slot and cannot.
func (s *service) errEmpty(other status.FirmwareSlot) error {
	return fmt.Errorf("slot %s holds nothing that could be started: %s: \"upgrade\" writes it anew", s.slot.Other(), other.Error)
}

// verbUpgrade takes a bundle from the caller, a URL or a stick, writes it to the
// slot that does not run, and starts it on trial.
func (s *service) verbUpgrade(ctx context.Context, _ ipc.Peer, st *ipc.Stream) error {
	var q status.FirmwareUpgrade
	if err := unmarshal(st.Argument, &q); err != nil {
		return err
	}
	if !s.busy.TryLock() {
		return errBusy
	}
	defer s.busy.Unlock()
	release := s.hold()
	defer release()
	if err := s.able(ctx); err != nil {
		return err
	}
	if s.pairGoes() {
		return errPair
	}
	if s.trialOn() {
		return s.errTrial()
	}
	var to layout.Identity
	err := s.open(ctx, q.Source, st.In, st.Note, func(r io.Reader) (err error) {
		to, err = s.load(ctx, r, q, st.Note, progressTo(st))
		return err
	})
	if err != nil {
		s.log.Warn(fmt.Sprintf("upgrade by %s: %v", cmp.Or(q.By, "nobody known"), err))
		return err
	}
	if err := s.able(ctx); err != nil { // somebody may have committed meanwhile
		return fmt.Errorf("%w\nslot %s holds %s and is not started; \"rollback firmware\" starts it", err, s.slot.Other(), to.Version)
	}
	if err := s.try(ctx, status.FirmwareEvent{Kind: "upgrade", By: q.By, Source: sourceWord(q.Source), To: status.FirmwareIdentity(to)}); err != nil {
		return err
	}
	if q.NoReboot {
		return st.Note("slot %s starts on trial at the next reboot; \"rollback firmware\" before that takes it back\n", s.slot.Other())
	}
	s.reboot()
	return st.Note("%s", s.parting())
}

// parting is what the user reads last.
func (s *service) parting() string {
	return fmt.Sprintf("the box reboots into slot %s. It is on trial for at most %v: it stays when VRRP, IPVS, all services and this console\n"+
		"are as they were before, else slot %s is back by itself. Look with \"show firmware\".\n", s.slot.Other(), s.limit, s.slot)
}

// progressTo tells the user of a verb that streams how far it is.
func progressTo(st *ipc.Stream) func(status.FirmwareProgress) error {
	return func(p status.FirmwareProgress) error {
		b, err := json.Marshal(p)
		if err == nil {
			_, err = st.Write(append(b, '\n'))
		}
		return err
	}
}

// noteFormat tells the user of a firmware that cannot read what this one stores.
func noteFormat(m bundle.Manifest, note func(string, ...any) error) {
	if m.ConfigFormat < layout.ConfigFormat {
		note("it reads configurations of format %d, this firmware stores format %d: it will run the newest one that it can read\n", m.ConfigFormat, layout.ConfigFormat)
	}
}

// notSent adds to the error of what was sent in place of a bundle how one is sent,
// or what to say instead.
func notSent(err error, source, verb, instead string) error {
	if source != "" || errors.Is(err, bundle.ErrUntrusted) || errors.Is(err, bundle.ErrFormat) {
		return err
	}
	return fmt.Errorf("%w (a bundle is expected to be sent: ssh admin@BOX %s < FILE.bundle; else say %s)", err, verb, instead)
}

// sourceWord is a source as it is kept: a URL without a password.
func sourceWord(source string) string {
	if source == "" {
		return "ssh"
	}
	if u, err := url.Parse(source); err == nil && u.User != nil {
		return u.Redacted()
	}
	return source
}

// open finds the bundle that a user means: what he sends, or what is on a stick
// or behind a URL.
func (s *service) open(ctx context.Context, source string, sent io.Reader, note func(string, ...any) error, take func(io.Reader) error) error {
	switch source {
	case "":
		return take(sent)
	case "usb":
		return s.others.stick(ctx, take)
	}
	r, err := s.client(ctx, source)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	defer r.Close()
	if strings.HasPrefix(source, "https:") {
		note("the server's certificate is not looked at: what counts is the signature of the bundle\n")
	}
	return take(r)
}

func (s *service) trialOn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trial != nil || s.envErr == nil && s.onTrial && s.env.Try == s.slot
}

// load checks a bundle and writes it into the slot that does not run. From its
// first byte on that slot is one that nothing starts, and it is again one that
// can be started only when all of it was read back. Called with busy held.
func (s *service) load(ctx context.Context, r io.Reader, q status.FirmwareUpgrade, note func(string, ...any) error, progress func(status.FirmwareProgress) error) (layout.Identity, error) {
	b, err := bundle.Open(r, s.keys)
	if err != nil {
		return layout.Identity{}, fmt.Errorf("%w\nnothing was written", notSent(err, q.Source, "upgrade", "\"usb\" or a URL"))
	}
	to := b.Manifest.Identity
	if err := bundle.Policy(s.running, b.Manifest, bundle.Words{Older: q.Older, Again: q.Again}); err != nil {
		return to, fmt.Errorf("%w\nnothing was written", err)
	}
	if _, signed := b.Manifest.Part(bundle.SecureLoader); s.secure && !signed {
		return to, errors.New("this machine starts only what its owner signed (Secure Boot), and this firmware is not: make it with SIGN=, as docs/security.md says\nnothing was written")
	}
	idle := s.slot.Other()
	note("%s, signed by %s\nthis box runs %s from slot %s, which stays as it is; writing slot %s\n",
		status.FirmwareIdentity(to), b.SignedBy[0], status.FirmwareIdentity(s.running), s.slot, idle)
	noteFormat(b.Manifest, note)
	// What runs is what starts, whatever becomes of the other slot.
	s.mu.Lock()
	env := s.env
	s.mu.Unlock()
	if err := s.machine.SetEnv(env.Confirm(s.slot)); err != nil {
		return to, fmt.Errorf("%w\nnothing was written", err)
	}
	s.mu.Lock()
	waits := s.last()
	s.mu.Unlock()
	if waits != nil && waits.Verdict == "" {
		s.finish(status.VerdictRejected, "another one was loaded before it was started")
	}
	defer func() {
		s.mu.Lock()
		s.upgrade = nil
		s.look()
		s.mu.Unlock()
		s.publish()
	}()
	var lost error
	err = s.machine.Write(idle, b, inRow(b.Manifest, q.By, func(p status.FirmwareProgress) {
		s.mu.Lock()
		s.upgrade = &p
		s.mu.Unlock()
		s.publish()
		if lost == nil {
			lost = progress(p)
		}
	}))
	if err != nil {
		return to, fmt.Errorf("%w\nslot %s holds nothing now that could be started; slot %s runs on, and starts next", err, idle, s.slot)
	}
	if ctx.Err() != nil {
		return to, fmt.Errorf("the upgrade was given up: slot %s holds %s and is not started", idle, to.Version)
	}
	return to, nil
}

// try has the boot loader start the other slot on trial. Called with busy held.
func (s *service) try(ctx context.Context, e status.FirmwareEvent) error {
	if err := s.records.write(baselineFile, baselineOf(s.others.see(ctx), time.Now())); err != nil {
		s.log.Warn(err.Error())
	}
	e.Time, e.Slot, e.From, e.Boot = time.Now(), string(s.slot.Other()), status.FirmwareIdentity(s.running), s.boot
	s.record(e, true)
	s.mu.Lock()
	env := s.env
	s.mu.Unlock()
	err := s.machine.SetEnv(env.Confirm(s.slot).Trial(s.slot.Other()))
	s.mu.Lock()
	s.look()
	s.mu.Unlock()
	if err != nil {
		e.Verdict, e.Reason, e.Decided = status.VerdictFailed, err.Error(), time.Now()
		s.record(e, false)
		s.publish()
		return err
	}
	s.publish()
	s.log.Info(fmt.Sprintf("%s by %s: slot %s with %s starts on trial", e.Kind, cmp.Or(e.By, "nobody known"), e.Slot, e.To))
	return nil
}

// verbRollback starts the other slot, on trial as well; in a trial it ends it.
func (s *service) verbRollback(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.FirmwareOrder
	if err := unmarshal(body, &q); err != nil {
		return nil, err
	}
	if s.trialOn() {
		s.mu.Lock()
		decided := s.decided
		s.mu.Unlock()
		if decided != nil {
			decided()
		}
		if err := s.reject("taken back by " + cmp.Or(q.By, "nobody known")); err != nil {
			return nil, err
		}
		return status.FirmwareAnswer{Reboot: true, Text: fmt.Sprintf("the trial is over: the box reboots into slot %s", s.slot.Other())}, nil
	}
	if !s.busy.TryLock() {
		return nil, errBusy
	}
	defer s.busy.Unlock()
	if err := s.able(ctx); err != nil {
		return nil, err
	}
	if s.pairGoes() {
		return nil, errPair
	}
	s.mu.Lock()
	env, last, next := s.env, s.last(), s.slots[s.slot.Other()]
	s.mu.Unlock()
	if env.Try == s.slot.Other() && last != nil && last.Verdict == "" { // it was loaded without a reboot
		if err := s.machine.SetEnv(env.Confirm(s.slot)); err != nil {
			return nil, err
		}
		s.finish(status.VerdictRejected, "taken back by "+cmp.Or(q.By, "nobody known")+" before it was started")
		return status.FirmwareAnswer{Text: fmt.Sprintf("slot %s stays the one that starts", s.slot)}, nil
	}
	if next.Error != "" {
		return nil, s.errEmpty(next)
	}
	if err := s.machine.Check(s.slot.Other(), s.keys); err != nil {
		return nil, fmt.Errorf("slot %s cannot be started: %w: \"upgrade\" writes it anew", s.slot.Other(), err)
	}
	if err := s.try(ctx, status.FirmwareEvent{Kind: "rollback", By: q.By, To: next.Identity}); err != nil {
		return nil, err
	}
	if q.NoReboot {
		return status.FirmwareAnswer{Text: fmt.Sprintf("slot %s with %s starts on trial at the next reboot", s.slot.Other(), next.Identity)}, nil
	}
	s.reboot()
	return status.FirmwareAnswer{Reboot: true, Text: fmt.Sprintf("%s: %s", next.Identity, strings.TrimSuffix(s.parting(), "\n"))}, nil
}

// verbConfirm keeps what runs.
func (s *service) verbConfirm(ctx context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
	var q status.FirmwareOrder
	if err := unmarshal(body, &q); err != nil {
		return nil, err
	}
	s.mu.Lock()
	cannot, going, env, envErr, decided := s.cannot, s.going, s.env, s.envErr, s.decided
	s.mu.Unlock()
	switch {
	case cannot != "":
		return nil, errors.New("this box cannot change its firmware: " + cannot)
	case going:
		return nil, errors.New("it is too late: the box is about to reboot")
	case !s.trialOn() && envErr == nil && env.Good == s.slot:
		return nil, fmt.Errorf("nothing waits to be confirmed: slot %s with %s is the one that starts", s.slot, s.running.Version)
	}
	if decided != nil {
		decided()
	}
	if err := s.confirm("by " + cmp.Or(q.By, "nobody known")); err != nil {
		return nil, err
	}
	return status.FirmwareAnswer{Text: fmt.Sprintf("firmware %s in slot %s stays", s.running.Version, s.slot)}, nil
}

func unmarshal(body json.RawMessage, v any) error {
	if len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("argument: %w", err)
	}
	return nil
}

// inRow makes one way of the parts of a bundle that are written and read back
// one after the other, for who looks on: at most five steps a second.
func inRow(m bundle.Manifest, by string, each func(status.FirmwareProgress)) func(what string, done, size int64) {
	var before int64
	part, total := "", m.Size()
	var last time.Time
	return func(what string, done, size int64) {
		if what != part && part != "" {
			if p, ok := m.Part(part); ok {
				before += p.Size
			}
			last = time.Time{}
		}
		part = what
		p := status.FirmwareProgress{Step: what, Done: before + done, Total: total, To: status.FirmwareIdentity(m.Identity), By: by}
		if _, ok := m.Part(what); !ok { // it reads back
			p.Done, p.Total = done, size
		}
		if time.Since(last) < 200*time.Millisecond && done < size {
			return
		}
		last = time.Now()
		each(p)
	}
}
