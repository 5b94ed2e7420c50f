package core

// Group is a sync group: its members are master together or not at all. It
// only remembers what its members did since it settled last.
type Group struct {
	changes []change
	asked   bool
}

type change struct {
	member int
	to     Phase
	code   Code
}

// Members are the routers of a group, by number.
type Members interface {
	Len() int
	State(i int) *State
	// Step lets member i see GroupMaster or GroupBackup, because of another
	// one; -1: because all of them want to be master.
	Step(i int, k Kind, because int)
	// Reconsider lets member i see whether the group holds it in fault.
	Reconsider(i int)
}

// Changed hears that a member entered a phase. It is acted on in Settle.
func (g *Group) Changed(member int, to Phase, code Code) {
	g.changes = append(g.changes, change{member, to, code})
}

// Asked hears that a member's own timer says master (effect AskGroup).
func (g *Group) Asked() { g.asked = true }

// Settle lets the group act on what its members did. Each round brings them
// closer together; the bound is for what nobody thought of.
func (g *Group) Settle(m Members) {
	for range 4 * m.Len() {
		if len(g.changes) == 0 && !g.asked {
			return
		}
		changes := g.changes
		g.changes = nil
		for _, c := range changes {
			g.follow(m, c)
		}
		if g.asked {
			g.asked = false
			if g.All(m, func(s *State) bool { return s.Want || s.Phase == Master }) {
				for i := range m.Len() {
					m.Step(i, GroupMaster, -1)
				}
			}
		}
	}
	g.changes = nil
}

func (g *Group) follow(m Members, c change) {
	for i := range m.Len() {
		switch {
		case i == c.member:
		case c.to == Master:
			m.Step(i, GroupMaster, c.member)
		case c.to == Fault || c.code == FaultLeft:
			m.Reconsider(i)
		case c.to == Backup && c.code != GroupWentBackup && m.State(i).Phase == Master:
			m.Step(i, GroupBackup, c.member)
		}
	}
}

// All tells whether there are members, and fn holds for each.
func (g *Group) All(m Members, fn func(*State) bool) bool {
	for i := range m.Len() {
		if !fn(m.State(i)) {
			return false
		}
	}
	return m.Len() > 0
}

// Phase is that of the group as a whole: of one in fault, or of all masters.
func (g *Group) Phase(m Members) Phase {
	phase := Master
	for i := range m.Len() {
		switch p := m.State(i).Phase; {
		case p == Fault:
			return Fault
		case p != Master:
			phase = Backup
		}
	}
	if m.Len() == 0 {
		return Backup
	}
	return phase
}
