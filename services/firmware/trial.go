package firmware

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/image/bootenv"
	"ballast/services/ipc/status"
)

// How a trial is held.
const (
	glance = time.Second      // between two looks at the services
	steady = 10 * time.Second // nothing may be missing for so long
	margin = 30 * time.Second // left to PID 1 for the reboot when a trial is given up
)

// baseline is what the services said before the upgrade: what was broken then is
// not held against the new firmware. An older or a newer firmware may have
// written it: what is absent is not asked for.
type baseline struct {
	Time      time.Time         `json:"time"`
	Source    string            `json:"source"`          // of the configuration that ran
	Instances map[string]string `json:"instances"`       // VRRP instances and their states
	Errors    map[string]string `json:"errors"`          // what a service could not apply
	Live      int               `json:"live,omitempty"`  // real servers
	Links     map[string]string `json:"links,omitempty"` // interfaces with a carrier and an address of their own, and that
}

// baselineOf takes down what counts of a sight.
func baselineOf(s sight, now time.Time) baseline {
	b := baseline{Time: now, Instances: map[string]string{}, Errors: map[string]string{}, Links: map[string]string{}}
	if s.Conf != nil {
		b.Source = s.Conf.Source
	}
	if s.VRRP != nil {
		for _, i := range s.VRRP.Instances {
			b.Instances[i.Name] = i.State
		}
	}
	for _, a := range s.applied() {
		if a.state != nil && a.state.Error != "" {
			b.Errors[a.name] = a.state.Error
		}
	}
	b.Live = s.Real.Live
	if s.Net != nil {
		for i := range s.Net.Links {
			if l := &s.Net.Links[i]; l.Carrier && ownAddress(l) != "" {
				b.Links[l.Name] = ownAddress(l)
			}
		}
	}
	return b
}

// ownAddress is one that is the box's by configuration or DHCP: those that VRRP
// puts on follow the role.
func ownAddress(l *status.Link) string {
	for _, a := range l.Addresses {
		if a.Origin == "static" || a.Origin == "dhcp" {
			return a.Prefix.String()
		}
	}
	return ""
}

type appliedBy struct {
	name  string
	state *status.Applied
}

// applied are the services that apply the configuration.
func (s sight) applied() []appliedBy {
	list := []appliedBy{{"ipvs", s.IPVS}, {"health", s.Health}}
	if s.Net != nil {
		list = append(list, appliedBy{"net", &s.Net.Applied})
	}
	if s.VRRP != nil {
		list = append(list, appliedBy{"vrrp", &s.VRRP.Applied})
	}
	return list
}

// missing is what a director on trial does not do, compared with what it did
// before; base is nil when that is not known. patient: real servers that were
// not checked yet are waited for. Empty: it does its job.
func missing(base *baseline, s sight, patient bool) (list []string) {
	say := func(format string, a ...any) { list = append(list, fmt.Sprintf(format, a...)) }
	for _, why := range s.Silent {
		say("%s", why)
	}
	if s.Init != nil {
		for _, p := range s.Init.Services {
			if p.State == "starting" || p.State == "backoff" {
				text := fmt.Sprintf("service %s is not ready (%s)", p.Name, p.State)
				if p.LastExit != "" {
					text += ": " + p.LastExit
				}
				say("%s", text)
			}
		}
	}
	if s.Conf != nil {
		switch source := s.Conf.Source; {
		case s.Conf.Generation == 0:
			say("conf runs no configuration yet")
		case (source == "last good" || source == "factory") && base != nil && base.Source != source:
			text := "the configuration that ran cannot be loaded"
			for _, p := range s.Conf.Problems {
				if p.Severity == "error" {
					text += ": " + p.Text
					break
				}
			}
			say("%s", text)
		}
	}
	if s.Conf == nil {
		return list
	}
	for _, a := range s.applied() {
		switch {
		case a.state == nil: // it is among the silent ones
		case a.state.Config != s.Conf.Generation:
			say("%s has not applied generation %d", a.name, s.Conf.Generation)
		case a.state.Error != "":
			before := ""
			if base != nil {
				before = base.Errors[a.name]
			}
			if text := newErrors(before, a.state.Error); text != "" {
				say("%s cannot apply the configuration: %s", a.name, text)
			}
		}
	}
	// An older firmware may run an older configuration, with fewer instances,
	// virtual servers and addresses.
	same := base != nil && s.Conf.Source != "last good" && s.Conf.Source != "older firmware" && (s.Conf.Source != "factory" || base.Source == "factory")
	if same {
		list = append(list, missingLinks(base.Links, s.Net)...)
		if n := s.Real; s.Health != nil && base.Live > 0 && n.Live == 0 {
			switch {
			case n.Open == 0:
				say("no real server is live, and %d were before", base.Live)
			case patient:
				say("no real server has passed its checks yet, %d of %d are still to be checked, and %d were live before", n.Open, n.All, base.Live)
			}
		}
	}
	if s.VRRP == nil {
		return list
	}
	for _, i := range s.VRRP.Instances {
		was := ""
		if base != nil {
			was = base.Instances[i.Name]
		}
		switch {
		case i.State == status.VRRPInit:
			say("vrrp instance %s has not begun", i.Name)
		case i.State == status.VRRPFault && base != nil && was != status.VRRPFault:
			say("vrrp instance %s is in FAULT, and was %s before: %s", i.Name, cmp.Or(was, "not there"), i.Reason)
		}
	}
	if same {
		for name := range base.Instances {
			if !slices.ContainsFunc(s.VRRP.Instances, func(i status.VRRPInstance) bool { return i.Name == name }) {
				say("vrrp instance %s is gone", name)
			}
		}
	}
	slices.Sort(list)
	return list
}

// missingLinks are the interfaces that had a carrier and an address of their own
// and have not now: whoever came that way does not reach the box any more.
func missingLinks(before map[string]string, now *status.Net) (list []string) {
	if now == nil {
		return nil // net is among the silent ones
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		i := slices.IndexFunc(now.Links, func(l status.Link) bool { return l.Name == name })
		switch {
		case i < 0:
			list = append(list, fmt.Sprintf("interface %s is not there, and had %s before", name, before[name]))
		case !now.Links[i].Carrier:
			list = append(list, fmt.Sprintf("interface %s has no carrier, and had one before", name))
		case ownAddress(&now.Links[i]) == "":
			list = append(list, fmt.Sprintf("interface %s has no address by configuration or DHCP, and had %s before", name, before[name]))
		}
	}
	return list
}

// newErrors are those of a service's errors that it did not have before.
func newErrors(before, now string) string {
	old, hidden := errorsOf(before)
	list, more := errorsOf(now)
	was, n := len(old)+hidden, len(list)+more
	shapes := map[string]bool{}
	for _, one := range old {
		shapes[shape(one)] = true
	}
	fresh := slices.DeleteFunc(list, func(one string) bool { return shapes[shape(one)] })
	switch {
	case n > was && len(fresh) == 0: // of a shape that is known, or not told
		return fmt.Sprintf("%d errors, and %d before: %s", n, was, now)
	case n <= was && len(fresh) <= hidden: // they may be those that were not told
		return ""
	}
	return strings.Join(fresh, "; ")
}

// errorsOf are the errors that a service tells, and how many it has beyond: of
// many ipvs tells the first ones, and at the end "and 3 more".
func errorsOf(text string) (list []string, hidden int) {
	if text == "" {
		return nil, 0
	}
	list = strings.Split(strings.ReplaceAll(text, "\n", "; "), "; ")
	last := len(list) - 1
	var more int
	if _, err := fmt.Sscanf(list[last], "and %d more", &more); err == nil {
		return list[:last], more
	}
	return list, 0
}

// shape is an error without what may be another one each time: counts, times,
// numbers of processes. Names and addresses stay: eth1 is not eth2.
func shape(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		bare := strings.Trim(w, `.,:;()"'`)
		if bare != "" && bare[0] >= '0' && bare[0] <= '9' && !isAddress(bare) {
			words[i] = strings.Replace(w, bare, "#", 1)
		}
	}
	return strings.Join(words, " ")
}

func isAddress(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	if _, err := netip.ParsePrefix(text); err == nil {
		return true
	}
	_, err := netip.ParseAddrPort(text)
	return err == nil
}

// restarts is how often services were started again.
func (s sight) restarts() (n int) {
	if s.Init != nil {
		for _, p := range s.Init.Services {
			n += p.Restarts
		}
	}
	return n
}

// watchTrial confirms or rejects what runs. It returns when that is decided, by
// it or by a user.
func (s *service) watchTrial(ctx context.Context) {
	var base *baseline
	var b baseline
	if err := s.records.read(baselineFile, &b); err == nil {
		base = &b
	} else {
		s.log.Warn(fmt.Sprintf("what the box did before the upgrade is not known (%v): no fault counts that may have been there", err))
	}
	began := time.Now()
	left := s.limit - margin - s.uptime()
	if s.limit < 2*margin { // a short one, of a test
		left = s.limit*3/4 - s.uptime()
	}
	until := began.Add(left)
	s.log.Info(fmt.Sprintf("firmware %s is on trial: it has %v to show that it does its job", s.running.Version, left.Round(time.Second)))
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	t := time.NewTicker(glance)
	defer t.Stop()
	var since time.Time // that nothing is missing
	restarts := -1
	told := ""
	for {
		now := s.others.see(ctx)
		// With a long delay_loop, or ha_suspend on a backup, some are never checked
		// here: for half of the time that is no answer, then it has to do.
		list := missing(base, now, s.uptime() < s.limit/2)
		if len(list) == 0 && (since.IsZero() || time.Since(since) >= steady) {
			if err := s.others.greet(ctx); err != nil {
				list = append(list, "the console does not answer an SSH handshake: "+err.Error())
			}
		}
		if ctx.Err() != nil {
			break
		}
		switch n := now.restarts(); {
		case len(list) > 0 || restarts >= 0 && n != restarts:
			since, restarts = time.Time{}, n
		case since.IsZero():
			since, restarts = time.Now(), n
		}
		s.mu.Lock()
		if !s.over { // else somebody has decided since the context was looked at
			s.trial = &status.FirmwareTrial{Slot: string(s.slot), Since: began, Until: until, Steady: len(list) == 0, Missing: list}
		}
		s.mu.Unlock()
		s.publish()
		if text := fmt.Sprint(list); text != told {
			told = text
			if len(list) > 0 {
				s.log.Info("trial: missing: " + join(list))
			} else {
				s.log.Info(fmt.Sprintf("trial: nothing is missing; it is confirmed when that stays so for %v", steady))
			}
		}
		if !since.IsZero() && time.Since(since) >= steady {
			err := s.confirm("it does its job")
			if err == nil || errors.Is(err, errDecided) {
				return
			}
			s.log.Error("trial: confirm: " + err.Error())
		}
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	if time.Since(began) < left {
		return // a user has decided, or the process ends
	}
	s.mu.Lock()
	list := []string{"nothing was seen of it"}
	if s.trial != nil {
		list = s.trial.Missing
	}
	s.mu.Unlock()
	if len(list) == 0 {
		list = []string{fmt.Sprintf("it did not do its job for %v without a break", steady)}
	}
	if err := s.reject(fmt.Sprintf("not confirmed within %v of its start: %s", left.Round(time.Second), join(list))); err != nil {
		s.log.Info("trial: " + err.Error())
	}
}

func join(list []string) string {
	const most = 4
	text := ""
	for i, one := range list {
		switch {
		case i == most:
			return text + fmt.Sprintf("; and %d more", len(list)-most)
		case i > 0:
			text += "; "
		}
		text += one
	}
	return text
}

// errDecided is of a trial that somebody else has decided.
var errDecided = errors.New("the trial is over already: see \"show firmware\"")

// decide takes the decision over a trial: the first one counts. Called with busy
// held.
func (s *service) decide() (bootenv.Env, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.going {
		return bootenv.Env{}, errDecided
	}
	s.over = true
	return s.env, nil
}

// undecide takes that back.
func (s *service) undecide() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = false
}

// confirm makes the slot that runs the good one and writes the verdict down.
func (s *service) confirm(reason string) error {
	s.busy.Lock()
	defer s.busy.Unlock()
	env, err := s.decide()
	if err != nil {
		return err
	}
	if err := s.machine.SetEnv(env.Confirm(s.slot)); err != nil {
		s.undecide()
		return err
	}
	s.finish(status.VerdictConfirmed, reason)
	return nil
}

// reject ends a trial: the reason is kept for the other firmware, then the boot
// loader is told, then the box reboots.
func (s *service) reject(reason string) error {
	s.busy.Lock()
	defer s.busy.Unlock()
	env, err := s.decide()
	if err != nil {
		return err
	}
	s.mu.Lock()
	last := s.last()
	s.mu.Unlock()
	if last != nil && last.Verdict == "" {
		last.Reason = reason
		s.record(*last, false)
	}
	if err := s.machine.SetEnv(env.Reject()); err != nil {
		// The boot loader counts: it comes to the same after another start.
		s.log.Error("trial: " + err.Error())
	}
	s.finish(status.VerdictRejected, reason)
	s.reboot()
	return nil
}

// finish writes down what became of the last upgrade.
func (s *service) finish(verdict, reason string) {
	s.mu.Lock()
	s.trial = nil
	s.look()
	last := s.last()
	s.mu.Unlock()
	if last != nil && last.Verdict == "" {
		last.Verdict, last.Reason, last.Decided = verdict, reason, time.Now()
		s.record(*last, false)
		s.tell(context.Background(), *last)
	}
	s.publish()
}
