package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ballast/services/ipc/status"
	"ballast/test/lab"
)

// settled waits until the pair is well, and then sees that it stays so. What happens
// while a processor of this machine stands still is no fault of the pair's: it has
// to stay well anew.
func (s *soak) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		if err := s.becomesWell(ctx); err != nil {
			return err
		}
		begun := time.Now()
		err := s.staysWell(ctx)
		if err == nil {
			return nil
		}
		// What was under way when the look began counts too.
		still := s.still.worst(begun.Add(-time.Second), time.Now())
		if still == 0 || ctx.Err() != nil {
			return fmt.Errorf("the pair was well, and then %w", err)
		}
		s.Log(fmt.Sprintf("not judged, because a processor of this machine stood still for %v meanwhile: %v", still.Round(time.Millisecond), err))
	}
}

func (s *soak) becomesWell(ctx context.Context) error {
	for {
		err := s.well(ctx)
		if err == nil {
			break
		}
		if perr := pause(ctx, 500*time.Millisecond); perr != nil {
			return fmt.Errorf("not well after %v: %w", bound, err)
		}
	}
	// Requests that began before all was well may still fail.
	return pause(ctx, 1100*time.Millisecond)
}

func (s *soak) staysWell(ctx context.Context) error {
	s.seen()
	begun := time.Now()
	if err := pause(ctx, hold); err != nil {
		return err
	}
	if good, bad := s.seen(); bad > 0 {
		return fmt.Errorf("%d of %d requests failed within %v", bad, good+bad, hold)
	}
	if e := slices.DeleteFunc(s.Roles.Events(), func(c lab.RoleChange) bool { return c.At.Before(begun) }); len(e) > 0 {
		return fmt.Errorf("the master changed: %v", e)
	}
	return s.well(ctx)
}

// well checks everything once.
func (s *soak) well(ctx context.Context) error {
	if err := s.oneMaster(ctx); err != nil {
		return err
	}
	for i := range s.Directors {
		if err := s.table(ctx, i); err != nil {
			return err
		}
		if err := s.crashes(ctx, i); err != nil {
			return err
		}
	}
	for _, t := range targets {
		if _, err := s.Node.Get(ctx, t, "/", s.patience); err != nil {
			return fmt.Errorf("%s does not answer: %w", t, err)
		}
	}
	return nil
}

// oneMaster: of each virtual router one box is master and the other backup; they
// and the wire agree; and since the configuration preempts, it is the first.
func (s *soak) oneMaster(ctx context.Context) error {
	var states [2]status.VRRP
	for i, d := range s.Directors {
		var err error
		if states[i], err = d.VRRP(ctx); err != nil {
			return err
		}
		want := [2]string{status.VRRPMaster, status.VRRPBackup}[i]
		if n := len(states[i].Instances); n != len(vrids) {
			return fmt.Errorf("%s has %d instances", d.Name(), n)
		}
		for _, in := range states[i].Instances {
			if in.State != want {
				return fmt.Errorf("%s: %s is %s (%s), want %s", d.Name(), in.Name, in.State, in.Reason, want)
			}
		}
	}
	for _, v := range vrids {
		if m := s.Roles.Master(v, s.patience); m != 0 {
			return fmt.Errorf("vrid %d: on the wire director %d advertises", v, m)
		}
	}
	return nil
}

// wanted is the table of the default configuration, every real server up.
var wanted = []string{
	"10.10.0.80:80 rr: 10.10.0.11:80=1 10.10.0.12:80=1 10.10.0.13:80=1",
	"10.10.0.80:8080 wrr: 10.20.0.11:80=1 10.20.0.12:80=2",
}

// table: both boxes hold exactly the configuration, no entry more.
func (s *soak) table(ctx context.Context, i int) error {
	t, err := s.Directors[i].IPVS(ctx)
	if err != nil {
		return err
	}
	var have []string
	for _, x := range t.Services {
		line := fmt.Sprintf("%s %s:", netip.AddrPortFrom(x.ID.Addr, x.ID.Port), x.Scheduler)
		slices.SortFunc(x.Dests, func(a, b status.Dest) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port)) })
		for _, d := range x.Dests {
			line += fmt.Sprintf(" %s=%d", netip.AddrPortFrom(d.Addr, d.Port), d.Weight)
			if d.Sorry || d.Draining {
				line += "!"
			}
		}
		have = append(have, line)
	}
	slices.Sort(have)
	if !slices.Equal(have, wanted) {
		return fmt.Errorf("%s: the IPVS table is\n  %s\nwant\n  %s", s.Directors[i].Name(), strings.Join(have, "\n  "), strings.Join(wanted, "\n  "))
	}
	if len(t.Daemons) != 1 {
		return fmt.Errorf("%s: %d sync daemons run", s.Directors[i].Name(), len(t.Daemons))
	}
	return nil
}

// optional are the services that the configuration did not ask for.
var optional = map[string]bool{"snmp": true}

// crashes: no service ended but by our hand, and all of them are ready.
func (s *soak) crashes(ctx context.Context, i int) error {
	st, err := lab.Show[status.Init](ctx, s.Directors[i], "processes")
	if err != nil {
		return err
	}
	var errs []error
	memory := map[string]uint64{}
	for _, p := range st.Services {
		memory[p.Name] = p.PSS
		if p.Restarts > s.kills[i][p.Name] {
			errs = append(errs, fmt.Errorf("%s: %s started anew %d times and was killed %d times: %s", s.Directors[i].Name(), p.Name, p.Restarts, s.kills[i][p.Name], p.LastExit))
		}
		if optional[p.Name] && p.State == "stopped" {
			continue
		}
		if p.State != "ready" && p.State != "idle" && p.Name != "init" {
			errs = append(errs, fmt.Errorf("%s: %s is %s", s.Directors[i].Name(), p.Name, p.State))
		}
	}
	if i == 0 {
		if s.result.FirstMemory == nil {
			s.result.FirstMemory = memory
		}
		s.result.LastMemory = memory
	}
	return errors.Join(errs...)
}
