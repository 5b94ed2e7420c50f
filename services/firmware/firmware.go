// Package firmware upgrades a box and puts the old firmware back when the new
// one does not do its job.
//
// A bundle (image/bundle) is written into the slot that does not run, read back
// and compared; then the boot loader is told to start that slot on trial. In a
// trial this service watches the director do its job, and confirms it or sends
// the box back. That a firmware whose PID 1 hangs or panics ends in the old slot
// is the work of boot loader and watchdog, and a trial that this service does
// not confirm in time is ended by PID 1.
//
// The process has no capability. init gives it the block devices of both slots and
// of the EFI system partition, and while it installs, that of the disk; it can
// open no other, and the slot that runs for reading only.
package firmware

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/image/bootenv"
	"ballast/image/bundle"
	"ballast/image/layout"
	"ballast/services/firmware/both"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// What init tells the process in its environment.
const (
	EnvDisk   = "BALLAST_DISK"   // folder with links esp, slotA, slotB to the block devices
	EnvSlot   = "BALLAST_SLOT"   // slot that this boot came from
	EnvTrial  = "BALLAST_TRIAL"  // "1": on trial
	EnvLimit  = "BALLAST_LIMIT"  // when init ends a trial: a duration since the kernel started
	EnvWord   = "BALLAST_WORD"   // file in which init leaves a Word
	EnvSecure = "BALLAST_SECURE" // "1": UEFI starts only what is signed
	EnvLent   = "BALLAST_LENT"   // folder in which the disk that init lends to it appears, by its name
	EnvCannot = "BALLAST_CANNOT" // why there is no disk to upgrade
)

// IdleTime is after how long without use the process ends.
const IdleTime = 20 * time.Second

// service is the process.
type service struct {
	log      logger
	server   *ipc.Server
	machine  machine // disk and boot loader
	others   others  // the services of this box
	records  records
	boot     string // of this boot
	cannot   string
	running  layout.Identity
	keys     []bundle.Key
	slot     layout.Slot
	onTrial  bool          // by the kernel's command line
	limit    time.Duration // of a trial, since the kernel started
	uptime   func() time.Duration
	client   fetcher
	hold     func() (release func())
	disks    disks
	rebootIn time.Duration // what is left to an answer before the reboot

	both *both.Both // the part in upgrades of the pair; nil: in a test

	secure bool // Secure Boot is on

	busy sync.Mutex // held by who changes the disk

	mu      sync.Mutex
	env     bootenv.Env
	envErr  error
	slots   map[layout.Slot]status.FirmwareSlot
	history []status.FirmwareEvent
	trial   *status.FirmwareTrial
	upgrade *status.FirmwareProgress
	going   bool               // the box is about to reboot
	over    bool               // a trial was decided
	decided context.CancelFunc // ends the watch over a trial
}

type logger interface {
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// Run is the service.
func Run(ctx context.Context, env *ipc.Env) error {
	s := &service{
		log: env.Log, server: ipc.NewServer("firmware"),
		cannot: os.Getenv(EnvCannot), slot: layout.Slot(os.Getenv(EnvSlot)), onTrial: os.Getenv(EnvTrial) == "1",
		secure: os.Getenv(EnvSecure) == "1",
		limit:  layout.TrialLimit, uptime: uptime, boot: bootID(), rebootIn: time.Second,
		records: records{dir: env.Data},
	}
	s.others = newBox(env.Dir)
	s.client = newFetcher()
	s.hold = s.server.Hold
	s.disks = initDisks{env.Dir.Client("init"), os.Getenv(EnvLent)}
	if d, err := time.ParseDuration(os.Getenv(EnvLimit)); err == nil && d > 0 {
		s.limit = min(s.limit, d)
	}
	if s.cannot == "" {
		m, err := openDisk(os.Getenv(EnvDisk), s.slot)
		if err != nil {
			s.cannot = err.Error()
			env.Log.Error(s.cannot)
		} else {
			s.machine = m
			defer m.Close()
		}
	}
	if err := s.identify(layout.IdentityFile, layout.KeysFile); err != nil {
		env.Log.Error(err.Error())
		if s.cannot == "" {
			s.cannot = err.Error()
		}
	}
	s.handle()
	s.both = s.newBoth(env)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	if s.begin(ctx) {
		release := s.hold()
		watched, decided := context.WithCancel(ctx)
		s.decided = decided
		tasks.Go(func() {
			defer release()
			s.watchTrial(watched)
		})
	}
	tasks.Go(func() { s.both.Run(ctx) })
	env.Ready()
	return s.server.Serve(ctx, env.Listener)
}

// handle adds the verbs.
func (s *service) handle() {
	s.server.HandleStream("upgrade", s.verbUpgrade, ipc.GroupAdmin)
	s.server.HandleStream("install", s.verbInstall, ipc.GroupAdmin)
	s.server.Handle("rollback", s.verbRollback, ipc.GroupAdmin)
	s.server.Handle("confirm", s.verbConfirm, ipc.GroupAdmin)
}

// identify reads what this firmware is and whom it trusts.
func (s *service) identify(identity, keys string) error {
	b, err := os.ReadFile(identity)
	if err == nil {
		err = json.Unmarshal(b, &s.running)
	}
	if err != nil {
		return fmt.Errorf("firmware: what this firmware is: %w", err)
	}
	if b, err = os.ReadFile(keys); err == nil {
		s.keys, err = bundle.ParseKeys(b)
	}
	if err != nil {
		return fmt.Errorf("firmware: %s: %w: it takes no upgrades; flash the disk anew", keys, err)
	}
	return nil
}

// begin takes over what is on the disk and what became of the last upgrade, and
// reports whether a trial is on.
func (s *service) begin(ctx context.Context) bool {
	var err error
	if s.history, err = s.records.history(); err != nil {
		s.log.Warn(err.Error())
	}
	if s.machine == nil {
		s.publish()
		return false
	}
	s.mu.Lock()
	s.look()
	o := outcome(facts{slot: s.slot, onTrial: s.onTrial, env: s.env, envErr: s.envErr, boot: s.boot, now: time.Now(), running: status.FirmwareIdentity(s.running), last: s.last(), word: readWord(os.Getenv(EnvWord))})
	s.mu.Unlock()
	if o.env != nil {
		if err := s.machine.SetEnv(*o.env); err != nil {
			s.log.Error(err.Error())
		}
	}
	if o.event != nil {
		s.record(*o.event, o.fresh)
		if o.event.Verdict != "" {
			s.tell(ctx, *o.event)
		}
	}
	s.mu.Lock()
	s.look()
	s.mu.Unlock()
	s.publish()
	return o.trial
}

// last is the newest event; nil: there is none. Called with mu held.
func (s *service) last() *status.FirmwareEvent {
	if len(s.history) == 0 {
		return nil
	}
	e := s.history[len(s.history)-1]
	return &e
}

// look reads slots and state from the disk. Called with mu held.
func (s *service) look() {
	s.env, s.envErr = s.machine.Env()
	s.slots = map[layout.Slot]status.FirmwareSlot{}
	for _, n := range []layout.Slot{layout.A, layout.B} {
		v := status.FirmwareSlot{Name: string(n), State: status.SlotIdle}
		id, err := s.machine.Identity(n)
		if v.Identity = status.FirmwareIdentity(id); err != nil {
			v.State, v.Error = status.SlotEmpty, err.Error()
		}
		switch {
		case err != nil && n != s.slot:
		case s.envErr != nil && n == s.slot, s.envErr == nil && n == s.env.Good:
			v.State = status.SlotGood
		case s.envErr == nil && n == s.env.Try && (s.env.Left > 0 || n == s.slot):
			v.State = status.SlotTrial
		}
		if n == s.slot && v.Identity.Version == "" {
			v.Identity = status.FirmwareIdentity(s.running)
		}
		s.slots[n] = v
	}
}

// record keeps an event: a new one, or the newest one with what came of it.
func (s *service) record(e status.FirmwareEvent, fresh bool) {
	s.mu.Lock()
	if fresh || len(s.history) == 0 {
		s.history = append(slices.Clone(s.history), e)
		s.history = s.history[max(0, len(s.history)-maxHistory):]
	} else {
		s.history = slices.Clone(s.history)
		s.history[len(s.history)-1] = e
	}
	list := s.history
	s.mu.Unlock()
	if err := s.records.keep(list); err != nil {
		s.log.Error(err.Error())
	}
}

// tell writes what came of an upgrade into the log and the audit log.
func (s *service) tell(ctx context.Context, e status.FirmwareEvent) {
	text := verdictLine(e)
	if e.Verdict == status.VerdictConfirmed {
		s.log.Info(text)
	} else {
		s.log.Error(text)
	}
	s.others.audit(ctx, status.AuditEntry{Time: time.Now(), User: "firmware", Address: "-", Command: e.Kind + " of " + cmp.Or(e.By, "nobody known"), Result: text})
}

// verdictLine is what came of an upgrade in one line.
func verdictLine(e status.FirmwareEvent) string {
	text := fmt.Sprintf("firmware %s in slot %s: %s", e.To, e.Slot, e.Verdict)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// publish makes the state of what is known.
func (s *service) publish() {
	var pair *status.FirmwarePair
	pairNotice := ""
	if s.both != nil {
		pair, pairNotice = s.both.State(), s.both.Notice()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := status.Firmware{Running: status.FirmwareIdentity(s.running), Slot: string(s.slot), Cannot: s.cannot, Trial: s.trial, Upgrade: s.upgrade, History: s.history, Pair: pair}
	for _, k := range s.keys {
		st.Keys = append(st.Keys, k.String())
	}
	if s.machine != nil {
		st.Slots = []status.FirmwareSlot{s.slots[layout.A], s.slots[layout.B]}
		if s.envErr == nil {
			st.Next = string(s.env.Next())
		}
	}
	st.Notice = notice(st, s.envErr)
	if st.Notice != "" && pairNotice != "" {
		st.Notice += "; "
	}
	st.Notice += pairNotice
	s.server.Publish(st)
}

// notice is what whoever comes to the box should know.
func notice(st status.Firmware, envErr error) string {
	last := status.FirmwareEvent{}
	if len(st.History) > 0 {
		last = st.History[len(st.History)-1]
	}
	switch {
	case st.Trial != nil && len(st.Trial.Missing) > 0:
		return fmt.Sprintf("firmware %s is on trial until %s: %s", st.Running.Version, st.Trial.Until.Format("15:04:05"), strings.Join(st.Trial.Missing, "; "))
	case st.Trial != nil:
		return fmt.Sprintf("firmware %s is on trial and does its job so far", st.Running.Version)
	case last.Verdict == status.VerdictRejected || last.Verdict == status.VerdictFailed:
		return fmt.Sprintf("%s; %s runs", verdictLine(last), st.Running.Version)
	case envErr != nil && st.Cannot == "":
		return "the state of the boot loader cannot be read, it starts slot A: " + envErr.Error()
	case st.Next != "" && st.Next != st.Slot && last.Verdict == "" && last.Slot == st.Next:
		return fmt.Sprintf("firmware %s in slot %s starts on trial at the next reboot", last.To.Version, last.Slot)
	case st.Slot != "" && st.Next != "" && st.Next != st.Slot:
		return fmt.Sprintf("slot %s runs, and the boot loader starts slot %s next: \"confirm firmware\" keeps this one", st.Slot, st.Next)
	}
	return ""
}

// able is nil when this box can change its firmware now.
func (s *service) able(ctx context.Context) error {
	s.mu.Lock()
	cannot, going := s.cannot, s.going
	s.mu.Unlock()
	switch {
	case cannot != "":
		return errors.New("this box cannot change its firmware: " + cannot)
	case going:
		return errGoing
	}
	c, err := s.others.conf(ctx)
	if err != nil {
		return fmt.Errorf("whether a commit waits to be confirmed is not known: %w: try again, \"show processes\" tells how conf is", err)
	}
	if c.Pending != nil {
		return fmt.Errorf("generation %d of the configuration waits to be confirmed: \"confirm\" or \"rollback\" it first", c.Pending.Generation)
	}
	return nil
}

// reboot has init reboot the box when the answer of the caller is on its way.
func (s *service) reboot() {
	s.mu.Lock()
	if s.going {
		s.mu.Unlock()
		return
	}
	s.going = true
	s.mu.Unlock()
	release := s.hold()
	go func() {
		defer release()
		time.Sleep(s.rebootIn)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.others.reboot(ctx); err != nil {
			s.log.Error(fmt.Sprintf("the reboot into the other firmware: %v: \"reboot\" does it", err))
			s.mu.Lock()
			s.going = false
			s.mu.Unlock()
		}
	}()
}

func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
