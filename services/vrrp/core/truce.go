package core

import "net/netip"

// Two routers that know of one another by another way than advertisements may
// do what RFC 9568 leaves to timers: one takes over the moment that the other
// one is dead, or a place changes hands with both holding the addresses for a
// moment. On the wire it stays the protocol: who goes master advertises, who
// leaves says so.

// takeOver is a backup that learned that the master which it listens to is
// dead, gone or ready to be relieved. Anybody else's place is not touched.
func (m *machine) takeOver(ev Event) Reason {
	if m.Phase != Backup || m.Held || !m.MasterAddr.IsValid() || ev.From != m.MasterAddr || ev.From == m.Cfg.Addr {
		return Reason{}
	}
	why := m.reason(ev.Why, ev)
	why.After = ev.After
	if m.Cfg.Grouped {
		m.Want = true
		m.do(Effect{Do: AskGroup})
		m.truce(ev, false)
		return why
	}
	m.becomeMaster()
	m.truce(ev, false)
	return why
}

// truce keeps a master from fighting a peer with which it changes places.
// Without Until it ends.
func (m *machine) truce(ev Event, quiet bool) {
	if ev.Until == 0 {
		m.TruceWith, m.TruceUntil, m.Quiet = netip.Addr{}, 0, false
		return
	}
	m.TruceWith, m.TruceUntil, m.Quiet = ev.From, ev.Until, quiet
}

// atPeace tells whether the truce holds.
func (m *machine) atPeace() bool { return m.TruceUntil != 0 && m.now < m.TruceUntil }
