package heartbeat

import "time"

// Verdict is what became of a datagram that carries the right key.
type Verdict uint8

// Verdicts.
const (
	Accepted Verdict = iota
	Replayed         // heard before, or older than what was heard
	Unproven         // of a process that has not yet answered our challenge
	Own              // one of ours, sent back
)

// Path is one way to the peer.
type Path struct {
	Up    bool
	Since time.Duration // of Up
	Last  time.Duration // when the last accepted datagram came
	seq   uint64
}

// Peer is the other box. Whether it is believed rests on no clock: a process
// draws an epoch at its start, and a new epoch counts only with an answer to
// the challenge that was drawn after the last one, so that nothing recorded
// can bring a dead box back to life.
type Peer struct {
	Up    bool
	Since time.Duration
	Lost  bool // it was up, and is silent on all paths since
	Last  time.Duration
	Paths []Path
	Table []Record // what it said of its routers, kept while it is silent

	own        uint64 // our epoch
	draw       func() uint64
	challenge  uint64 // ours
	echo       uint64 // its
	epoch, seq uint64
	table      uint32
	interval   time.Duration // its own
	every      time.Duration // ours
	multiplier int
	lenient    bool          // one detection time more was granted
	counts     time.Duration // silence before that does not count
	started    time.Duration
	index      map[Key]int // of Table
}

// NewPeer is a peer of which nothing is known. draw gives random numbers.
func NewPeer(paths int, every time.Duration, multiplier int, now time.Duration, draw func() uint64) *Peer {
	return &Peer{
		Paths: make([]Path, paths), Since: now, own: draw() | 1, draw: draw, challenge: draw() | 1,
		every: every, multiplier: multiplier, started: now, index: map[Key]int{},
	}
}

// Detect is the silence after which a path is down. The slower of the two
// boxes sets the pace.
func (p *Peer) Detect() time.Duration {
	return time.Duration(p.multiplier) * max(p.every, p.interval)
}

// Stamp fills the part of a message that proves who speaks.
func (p *Peer) Stamp(m *Message, seq uint64) {
	m.Interval, m.Epoch, m.Seq, m.Challenge, m.Echo = p.every, p.own, seq, p.challenge, p.echo
}

// Heard takes a datagram of the right key that the kernel received on a path.
func (p *Peer) Heard(path int, at time.Duration, m *Message) Verdict {
	if m.Epoch == p.own {
		return Own
	}
	if m.Epoch != p.epoch {
		if m.Echo != p.challenge {
			if !p.Up {
				p.echo = m.Challenge // so that it can believe us
			}
			return Unproven
		}
		p.epoch, p.seq, p.table, p.challenge = m.Epoch, 0, m.Table, p.draw()|1
		p.forget()
		for i := range p.Paths {
			p.Paths[i].seq = 0
		}
	}
	w := &p.Paths[path]
	if m.Seq <= w.seq {
		return Replayed
	}
	w.seq, w.Last = m.Seq, max(w.Last, at)
	p.Last = max(p.Last, at)
	if !w.Up {
		w.Up, w.Since = true, at
	}
	if !p.Up {
		p.Up, p.Since, p.Lost = true, at, false
	}
	p.lenient = false
	if m.Seq <= p.seq {
		return Accepted // the same came by a faster path
	}
	p.seq, p.echo, p.interval = m.Seq, m.Challenge, m.Interval
	if m.Table != p.table {
		p.table = m.Table
		p.forget()
	}
	for i := range m.Records {
		p.learn(&m.Records[i], i)
	}
	return Accepted
}

// forget begins a new table.
func (p *Peer) forget() {
	p.Table = p.Table[:0]
	clear(p.index)
}

// learn keeps a record. It usually stands where it stood the last time.
func (p *Peer) learn(r *Record, hint int) {
	if hint < len(p.Table) && p.Table[hint].Key == r.Key {
		p.Table[hint] = *r
		return
	}
	if old := p.Find(r.Key); old != nil {
		*old = *r
		return
	}
	if len(p.Table) < maxTable {
		p.index[r.Key] = len(p.Table)
		p.Table = append(p.Table, *r)
	}
}

// maxTable is more virtual routers than a box has.
const maxTable = 8192

// Find returns what the peer said of a router; nil: nothing.
func (p *Peer) Find(k Key) *Record {
	if i, ok := p.index[k]; ok {
		return &p.Table[i]
	}
	return nil
}

// Suspect tells whether the peer has been silent for so long that its death
// will be declared within ahead.
func (p *Peer) Suspect(now, ahead time.Duration) bool {
	return p.Up && now >= p.silentSince()+p.Detect()-ahead
}

// silentSince is from when on silence counts. What was said before is still
// the last that was heard, and how long ago that is, is what is told.
func (p *Peer) silentSince() time.Duration { return max(p.Last, p.counts) }

// due is when a path counts as down.
func (p *Peer) due(w *Path) time.Duration { return max(w.Last, p.counts) + p.Detect() }

// Deadline is when Expire has to be called next; 0: never.
func (p *Peer) Deadline(ahead time.Duration) (at time.Duration) {
	for i := range p.Paths {
		if w := &p.Paths[i]; w.Up && (at == 0 || p.due(w) < at) {
			at = p.due(w)
		}
	}
	if p.Up && at != 0 {
		at = min(at, p.silentSince()+p.Detect()-ahead)
	}
	return at
}

// Expire takes paths down on which nothing came for the detection time. All
// that the kernel received must have gone through Heard before. late is how
// late the caller is: one that slept itself listens for one detection time
// more before it calls anybody dead. It reports whether the peer was lost
// just now: once for each time that it was up.
func (p *Peer) Expire(now, late time.Duration) (lost bool) {
	if !p.Up {
		return false
	}
	if late > p.Detect()/2 && !p.lenient {
		p.lenient, p.counts = true, now
		return false
	}
	up := false
	for i := range p.Paths {
		w := &p.Paths[i]
		if w.Up && now >= p.due(w) {
			w.Up, w.Since = false, now
		}
		up = up || w.Up
	}
	if up {
		return false
	}
	p.Up, p.Lost, p.Since = false, true, now
	return true
}
