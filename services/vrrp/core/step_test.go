package core

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	low  = netip.MustParseAddr("10.0.0.1")
	own  = netip.MustParseAddr("10.0.0.2")
	high = netip.MustParseAddr("10.0.0.3")
)

const sec = time.Second

func base(version int, priority uint8) *Config {
	return &Config{
		Version: version, Addr: own, Priority: priority, AdvertInt: sec, DownAdverts: 3,
		GARPDelay: 5 * sec, GARPRepeat: 5, GARPLowerPrioDelay: 5 * sec, GARPLowerPrioRepeat: 5, GARPRefreshRepeat: 1,
	}
}

func with(c *Config, edit func(*Config)) *Config { edit(c); return c }

// run does events one after the other and returns the last step.
func run(evs ...Event) (s State, out []Effect, why Reason) {
	for _, ev := range evs {
		s, out, why = Step(s, ev, nil)
	}
	return s, out, why
}

func start(c *Config) Event { return Event{Kind: Start, Cfg: c, Priority: c.Priority} }

func advert(at time.Duration, from netip.Addr, priority uint8) Event {
	return Event{Kind: Advert, At: at, RxAt: at, From: from, Priority: priority, AdvertInt: sec}
}

func expired(t Timer, due, at time.Duration) Event {
	return Event{Kind: Expired, Timer: t, Due: due, At: at}
}

func send(p uint8) Effect                  { return Effect{Do: SendAdvert, Priority: p} }
func set(t Timer, at time.Duration) Effect { return Effect{Do: SetTimer, Timer: t, At: at} }
func stop(t Timer) Effect                  { return Effect{Do: StopTimer, Timer: t} }

func stopAll() (list []Effect) {
	for t := range Timer(Timers) {
		list = append(list, stop(t))
	}
	return list
}

// masterNow are the effects of becoming master, in keepalived's order.
func masterNow(p uint8, at time.Duration) []Effect {
	return []Effect{stop(TimerDown), send(p), set(TimerAdvert, at+sec), {Do: AddVIPs}, {Do: Announce, N: 5}, set(TimerGARP, at+5*sec)}
}

func list(a ...any) (out []Effect) {
	for _, v := range a {
		switch v := v.(type) {
		case Effect:
			out = append(out, v)
		case []Effect:
			out = append(out, v...)
		}
	}
	return out
}

const skew100 = 609375 * time.Microsecond // (256-100)/256 s

// TestStep is RFC 9568 section 6.4 and what keepalived does beyond it, one
// line each: what happens, and all that comes of it.
func TestStep(t *testing.T) {
	c2, c3 := base(2, 100), base(3, 100)
	down := 3*sec + skew100
	asMaster := []Event{start(c2), expired(TimerDown, down, down)}
	owner := base(2, 255)
	nopre := with(base(2, 100), func(c *Config) { c.NoPreempt = true })
	delayed := with(base(2, 100), func(c *Config) { c.PreemptDelay = 10 * sec })
	learns := with(base(2, 100), func(c *Config) { c.Learn = 10 * sec })
	both := with(base(2, 100), func(c *Config) { c.Learn, c.PreemptDelay = 10*sec, 20*sec })
	learnOwner := start(with(owner, func(c *Config) { c.Learn = 10 * sec }))
	learnOwner.Faulty = true
	learnFault := start(learns)
	learnFault.Faulty = true
	quiet := with(base(2, 100), func(c *Config) { c.LowerPrioNoAdvert, c.GARPLowerPrioRepeat = true, 0 })
	tell := with(base(2, 100), func(c *Config) { c.HigherPrioSendAdvert = true })
	uni := with(base(2, 100), func(c *Config) { c.Unicast = true })
	grouped := with(base(2, 100), func(c *Config) { c.Grouped = true })
	slow := advert(4*sec, high, 200)
	slow.AdvertInt = 5 * sec
	adopt := start(c2)
	adopt.Adopt = true
	faulty := start(c2)
	faulty.Faulty = true
	delay := start(c2)
	delay.Delay = 30 * sec
	ownerDelay := start(owner)
	ownerDelay.Delay = 30 * sec
	rogue := func(at time.Duration) Event { return advert(at, low, 255) }
	// Patience ends 2 + 1.2 intervals after the first one, at 4.2 s.
	stepped := []Event{start(owner), rogue(sec), rogue(2 * sec), rogue(3 * sec), rogue(4 * sec), rogue(5 * sec)}
	down254 := 3*sec + 2*sec/256
	held := start(c2)
	held.Held = true
	old := advert(4*sec, high, 200)
	old.RxAt = 2 * sec

	for _, c := range []struct {
		name   string
		events []Event
		phase  Phase
		out    []Effect
		why    Code
	}{
		{"start", []Event{start(c2)}, Backup, list(set(TimerDown, down)), Started},
		{"start as owner", []Event{start(owner)}, Master, masterNow(255, 0), OwnerStarted},
		{"start in fault", []Event{faulty}, Fault, nil, FaultEntered},
		{"start after a crash as master", []Event{adopt}, Master, masterNow(100, 0), Adopted},
		{"start with vrrp_startup_delay", []Event{delay}, Backup, list(set(TimerDown, down+30*sec)), Started},
		{"start as owner with vrrp_startup_delay", []Event{ownerDelay}, Backup, list(set(TimerDown, 30*sec)), Started},
		{"start as owner when vrrp_startup_delay is over", []Event{ownerDelay, expired(TimerDown, 30*sec, 30*sec)}, Master, masterNow(255, 30*sec), NoAdvertEver},
		{"start while resigned", []Event{held}, Backup, list(stop(TimerDown)), Started},

		{"master down", asMaster, Master, masterNow(100, down), NoAdvertEver},
		{"master down, own timer late", []Event{start(c2), expired(TimerDown, down, down+2*sec)}, Backup,
			list(set(TimerDown, down+2*sec+sec+skew100)), LateListens},
		{"late a second time in a row", []Event{start(c2), expired(TimerDown, down, down+2*sec), expired(TimerDown, 8*sec, 18*sec)}, Master,
			masterNow(100, 18*sec), NoAdvertEver},

		{"backup hears higher", []Event{start(c2), advert(sec, high, 200)}, Backup, list(set(TimerDown, sec+down)), Nothing},
		{"backup hears equal", []Event{start(c2), advert(sec, low, 100)}, Backup, list(set(TimerDown, sec+down)), Nothing},
		{"backup hears lower: discarded", []Event{start(c2), advert(sec, high, 99)}, Backup, nil, Nothing},
		{"backup hears lower under nopreempt", []Event{start(nopre), advert(sec, high, 99)}, Backup, list(set(TimerDown, sec+down)), Nothing},
		{"backup hears lower, preempt_delay starts", []Event{start(delayed), advert(sec, high, 99)}, Backup, list(set(TimerDown, sec+down)), PreemptWait},
		{"preempt_delay runs", []Event{start(delayed), advert(sec, high, 99), advert(10*sec, high, 99)}, Backup, list(set(TimerDown, 10*sec+down)), Nothing},
		{"preempt_delay is over", []Event{start(delayed), advert(sec, high, 99), advert(11*sec, high, 99)}, Backup, nil, Nothing},
		{"preempt_delay stops at a higher one", []Event{start(delayed), advert(sec, high, 99), advert(2*sec, low, 120)}, Backup, list(set(TimerDown, 2*sec+down)), PreemptStop},
		{"backup hears lower before it knows the connections", []Event{start(learns), advert(sec, high, 99)}, Backup, list(set(TimerDown, sec+down)), PreemptLearn},
		{"it still learns", []Event{start(learns), advert(sec, high, 99), advert(9*sec, high, 99)}, Backup, list(set(TimerDown, 9*sec+down)), Nothing},
		{"it knows them", []Event{start(learns), advert(sec, high, 99), advert(10*sec, high, 99)}, Backup, nil, Nothing},
		{"it learns again after a fault", []Event{learnFault, {Kind: SetFault, At: 20 * sec}, advert(29*sec, high, 99)}, Backup, list(set(TimerDown, 29*sec+down)), PreemptLearn},
		{"the address owner waits for nothing", []Event{learnOwner, {Kind: SetFault, At: 20 * sec}, advert(20*sec, high, 99)}, Backup, nil, Nothing},
		{"the worse master dies meanwhile", []Event{start(learns), advert(sec, high, 99), expired(TimerDown, sec+down, sec+down)}, Master, masterNow(100, sec+down), NoAdvert},
		{"preempt_delay is longer than that", []Event{start(both), advert(sec, high, 99)}, Backup, list(set(TimerDown, sec+down)), PreemptWait},
		{"who learns takes over from nobody at once", []Event{start(learns), expired(TimerDown, down, down)}, Master, masterNow(100, down), NoAdvertEver},
		{"and from a master that resigns", []Event{start(learns), advert(sec, high, 99), advert(2*sec, high, 0), expired(TimerDown, 2*sec+skew100, 2*sec+skew100)}, Master,
			masterNow(100, 2*sec+skew100), MasterResigned},
		{"backup hears a resignation", []Event{start(c2), advert(sec, high, 0)}, Backup, list(set(TimerDown, sec+skew100)), Nothing},
		{"backup hears what lay in the socket", []Event{start(c2), old}, Backup, list(set(TimerDown, 2*sec+down)), Nothing},
		{"backup of version 3 takes the master's interval", []Event{start(c3), slow}, Backup,
			list(set(TimerDown, 4*sec+15*sec+5*skew100)), Nothing},
		{"backup is not outrun by a master bound to yield", []Event{start(c3), slow, advert(5*sec, low, 150)}, Backup,
			list(set(TimerDown, 4*sec+15*sec+5*skew100)), Nothing},

		{"master advertises", append(asMaster, expired(TimerAdvert, 5*sec, 5*sec+time.Millisecond)), Master,
			list(send(100), set(TimerAdvert, 6*sec)), Nothing},
		{"master advertises after a pause", append(asMaster, expired(TimerAdvert, 5*sec, 9*sec)), Master,
			list(send(100), set(TimerAdvert, 10*sec)), Nothing},
		{"nopreempt master after a pause listens", []Event{start(nopre), expired(TimerDown, down, down), expired(TimerAdvert, 5*sec, 9*sec)}, Backup,
			list(stopAll(), Effect{Do: RemoveVIPs}, set(TimerDown, 10*sec+skew100)), OwnTimerLate},
		{"second burst", append(asMaster, expired(TimerGARP, 9*sec, 9*sec)), Master, list(Effect{Do: Announce, N: 5}), Nothing},
		{"master hears a resignation", append(asMaster, advert(4*sec, high, 0)), Master, list(send(100)), Nothing},
		{"master hears lower", append(asMaster, advert(4*sec, high, 99)), Master,
			list(send(100), Effect{Do: Announce, N: 5}, set(TimerLowerPrio, 9*sec), Effect{Do: SawLowerPriority}), LowerPriority},
		{"master hears equal from a lower address", append(asMaster, advert(4*sec, low, 100)), Master,
			list(send(100), Effect{Do: Announce, N: 5}, set(TimerLowerPrio, 9*sec), Effect{Do: SawLowerPriority}), LowerPriority},
		{"lower_prio_no_advert", []Event{start(quiet), expired(TimerDown, down, down), advert(4*sec, high, 99)}, Master,
			list(Effect{Do: SawLowerPriority}), LowerPriority},
		{"master hears equal from its own address", append(asMaster, advert(4*sec, own, 100)), Master, nil, SameAddress},
		{"master hears equal from a higher address", append(asMaster, advert(4*sec, high, 100)), Backup,
			list(stopAll(), Effect{Do: RemoveVIPs}, set(TimerDown, 4*sec+down)), HigherAddress},
		{"master hears higher", append(asMaster, advert(4*sec, low, 101)), Backup,
			list(stopAll(), Effect{Do: RemoveVIPs}, set(TimerDown, 4*sec+down)), HigherPriority},
		{"higher_prio_send_advert", []Event{start(tell), expired(TimerDown, down, down), advert(4*sec, low, 101)}, Backup,
			list(send(100), stopAll(), Effect{Do: RemoveVIPs}, set(TimerDown, 4*sec+down)), HigherPriority},

		{"owner hears another owner with a higher address", []Event{start(owner), advert(sec, high, 255)}, Backup,
			list(stopAll(), Effect{Do: RemoveVIPs}, set(TimerDown, sec+3*sec+sec/256)), HigherAddress},
		{"owner hears another owner that must yield", []Event{start(owner), rogue(sec)}, Master, list(send(255)), SecondOwner},
		{"it does not, and patience is not over", []Event{start(owner), rogue(sec), rogue(2 * sec), rogue(4 * sec)}, Master, list(send(255)), SecondOwner},
		{"it does not", stepped, Backup, list(stopAll(), Effect{Do: RemoveVIPs}, set(TimerDown, 5*sec+3*sec+sec/256)), OwnerYields},
		{"it comes back much later", []Event{start(owner), rogue(sec), rogue(60 * sec)}, Master, list(send(255)), SecondOwner},
		{"it goes on", append(stepped, rogue(6*sec)), Backup, list(set(TimerDown, 6*sec+down254)), Nothing},
		{"it falls silent", append(stepped, rogue(6*sec), expired(TimerDown, 10*sec, 10*sec)), Master, masterNow(255, 10*sec), NoAdvert},
		{"it is no owner any more", append(stepped, rogue(6*sec), advert(7*sec, low, 254)), Backup, nil, Nothing},

		{"a backup's priority falls", []Event{start(c2), {Kind: Effective, At: sec, Priority: 50}}, Backup, list(set(TimerDown, 3*sec+206*sec/256)), Nothing},
		{"a backup's priority rises in the last moment", []Event{start(c2), {Kind: Effective, At: down - 1, Priority: 254}}, Backup, list(set(TimerDown, down-1)), Nothing},
		{"a master's priority falls", append(asMaster, Event{Kind: Effective, At: 5 * sec, Priority: 50}), Master, nil, Nothing},

		{"master enters fault", append(asMaster, Event{Kind: SetFault, At: 5 * sec, Faulty: true}), Fault,
			list(send(0), stopAll(), Effect{Do: RemoveVIPs}, stopAll()), FaultEntered},
		{"fault ends", []Event{faulty, {Kind: SetFault, At: 5 * sec}}, Backup, list(set(TimerDown, 5*sec+down)), FaultLeft},
		{"fault ends, unicast", []Event{start(uni), {Kind: SetFault, At: sec, Faulty: true}, {Kind: SetFault, At: 5 * sec}}, Backup,
			list(set(TimerDown, 5*sec+down), Effect{Do: AnnounceSelf}), FaultLeft},
		{"fault of the owner ends", []Event{start(owner), {Kind: SetFault, At: sec, Faulty: true}, {Kind: SetFault, At: 5 * sec}}, Backup,
			list(set(TimerDown, 6*sec+sec/256)), FaultLeft},

		{"master resigns", append(asMaster, Event{Kind: Hold, At: 5 * sec, Held: true}), Backup,
			list(send(0), stopAll(), Effect{Do: RemoveVIPs}), OperatorHold},
		{"resigned hears a resignation", append(asMaster, Event{Kind: Hold, At: 5 * sec, Held: true}, advert(6*sec, high, 0)), Backup,
			list(stop(TimerDown)), Nothing},
		{"resigned resumes", append(asMaster, Event{Kind: Hold, At: 5 * sec, Held: true}, Event{Kind: Hold, At: 7 * sec}), Backup,
			list(set(TimerDown, 7*sec+down)), OperatorResume},
		{"master stops", append(asMaster, Event{Kind: Stop, At: 5 * sec}), Init,
			list(send(0), stopAll(), Effect{Do: RemoveVIPs}, stopAll()), Stopped},
		{"backup stops", []Event{start(c2), {Kind: Stop, At: 5 * sec}}, Init, stopAll(), Stopped},

		{"grouped asks", []Event{start(grouped), expired(TimerDown, down, down)}, Backup,
			list(set(TimerDown, down+sec+sec/256), Effect{Do: AskGroup}), NoAdvertEver},
		{"the group goes master", []Event{start(grouped), {Kind: GroupMaster, At: 4 * sec}}, Master, masterNow(100, 4*sec), GroupWentMaster},
		{"the group goes backup", append(asMaster, Event{Kind: GroupBackup, At: 5 * sec}), Backup,
			list(stopAll(), Effect{Do: RemoveVIPs}, set(TimerDown, 5*sec+down)), GroupWentBackup},

		{"a timer of another phase", append(asMaster, expired(TimerDown, 5*sec, 5*sec)), Master, nil, Nothing},
		{"an advert in fault", []Event{faulty, advert(sec, high, 200)}, Fault, nil, Nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, out, why := run(c.events...)
			if s.Phase != c.phase {
				t.Errorf("phase %v, want %v (%v)", s.Phase, c.phase, why)
			}
			if d := cmp.Diff(c.out, out, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("effects (-want +got):\n%s", d)
			}
			if why.Code != c.why {
				t.Errorf("reason %d %q, want %d", why.Code, why, c.why)
			}
		})
	}
}

func TestReasonsRead(t *testing.T) {
	for want, r := range map[string]Reason{
		"no advertisement from 10.0.0.3 for 3.61s":                                                         {Code: NoAdvert, From: high, After: 3609375 * time.Microsecond},
		"advertisement from 10.0.0.3 with higher priority 200, ours 100":                                   {Code: HigherPriority, From: high, Priority: 200, Ours: 100},
		"10.0.0.3 resigned (priority 0)":                                                                   {Code: MasterResigned, From: high},
		"own timer 4.2s late, listening one interval more before taking over":                              {Code: LateListens, After: 4200 * time.Millisecond},
		"10.0.0.1 has lower priority 99, ours 100; preempting after 10s":                                   {Code: PreemptWait, From: low, Priority: 99, Ours: 100, After: 10 * sec},
		"10.0.0.1 has lower priority 99, ours 100; preempting after 9s, when connections are synchronised": {Code: PreemptLearn, From: low, Priority: 99, Ours: 100, After: 9 * sec},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for c := Nothing + 1; c <= Stopped; c++ {
		if (Reason{Code: c}).String() == "" {
			t.Errorf("reason %d says nothing", c)
		}
	}
}

// Truncated to whole steps, skew would be 0 at fast intervals, and backups of
// different priority would all take over at the same moment.
func TestSkewIsNeverTruncated(t *testing.T) {
	for p := uint8(1); p < 255; p++ {
		a, b := Skew(3, p, 10*time.Millisecond), Skew(3, p+1, 10*time.Millisecond)
		if a <= b || b <= 0 {
			t.Fatalf("priority %d: %s, %d: %s", p, a, p+1, b)
		}
	}
	if got := Skew(2, 100, 5*sec); got != skew100 {
		t.Errorf("version 2: %s, want %s", got, skew100)
	}
}

func TestStepDoesNotAllocate(t *testing.T) {
	backup, _, _ := run(start(base(3, 100)))
	master, _, _ := run(start(base(3, 255)))
	out := make([]Effect, 0, 16)
	if n := testing.AllocsPerRun(100, func() {
		_, out, _ = Step(backup, advert(sec, high, 200), out[:0])
		_, out, _ = Step(master, expired(TimerAdvert, sec, sec), out[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
