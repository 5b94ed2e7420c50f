package status

import (
	"time"

	"ballast/configs/model"
)

// Summary is what "GET /state?summary" answers for every state that embeds
// Applied: conf waits for it at commit, and need not read ten thousand real
// servers each time one of them changes.
func (a Applied) Summary() any { return a }

// HealthNews is the summary of Health: what happened, without ten thousand
// verdicts that are as they were.
type HealthNews struct {
	Applied
	Transitions []Transition `json:"transitions,omitempty"`
	Verdicts    string       `json:"verdicts,omitempty"` // names those of now (package verdicts)
}

// Summary is a HealthNews.
func (h Health) Summary() any { return HealthNews{Applied: h.Applied, Transitions: h.Transitions} }

// IPVSNews is the summary of IPVS: without ten thousand destinations.
type IPVSNews struct {
	Applied
	Orders      []Order      `json:"orders,omitempty"`
	Transitions []Transition `json:"transitions,omitempty"`
}

// Summary is an IPVSNews.
func (i IPVS) Summary() any { return IPVSNews{i.Applied, i.Orders, i.Transitions} }

// NetNews is the summary of Net: without links and routes.
type NetNews struct {
	Applied
	Missing []Missing `json:"missing,omitempty"`
}

// Summary is a NetNews.
func (n Net) Summary() any { return NetNews{n.Applied, n.Missing} }

// ConfNews is the summary of conf's state: it announces a configuration, which
// readers then ask for by its token (package follow).
type ConfNews struct {
	Token      string    `json:"token,omitempty"`
	Generation uint64    `json:"generation"`
	Source     string    `json:"source,omitempty"`
	Author     string    `json:"author,omitempty"`
	Time       time.Time `json:"time,omitzero"`
	Problems   []Problem `json:"problems,omitempty"`
	Pending    *Pending  `json:"pending,omitempty"`
	Reverted   string    `json:"reverted,omitempty"`
	Pair       string    `json:"pair,omitempty"`
}

// Conf is the state that announces c so.
func (n ConfNews) Conf(c model.Config) Conf {
	return Conf{Generation: n.Generation, Config: c, Source: n.Source, Author: n.Author, Time: n.Time, Problems: n.Problems, Pending: n.Pending, Reverted: n.Reverted, Pair: n.Pair}
}

// Slim is Conf for a service that has no use for real servers: they are nearly
// all of a large configuration, and are left out while it is decoded.
type Slim struct {
	Generation uint64     `json:"generation"`
	Config     slimConfig `json:"config"`
}

type slimConfig struct {
	model.Config
	VirtualServers []slimServer // hides Config's own
}

type slimServer struct {
	model.VirtualServer
	Real skipped // hides VirtualServer's own
}

type skipped struct{}

// UnmarshalJSON drops the value.
func (*skipped) UnmarshalJSON([]byte) error { return nil }

// Conf is the configuration, its virtual servers without real ones.
func (s *Slim) Conf() Conf {
	c := Conf{Generation: s.Generation, Config: s.Config.Config}
	for i := range s.Config.VirtualServers {
		c.Config.VirtualServers = append(c.Config.VirtualServers, s.Config.VirtualServers[i].VirtualServer)
	}
	return c
}

// tail are the transitions after a number, and the number of the newest.
func tail(ring []Transition, after uint64) ([]Transition, uint64) {
	if len(ring) == 0 {
		return nil, 0
	}
	last := ring[len(ring)-1].Seq
	for i := len(ring); i > 0; i-- {
		if ring[i-1].Seq <= after {
			return ring[i:], last
		}
	}
	return ring, last
}

// Brief is ipc.Briefer.
func (n HealthNews) Brief(after uint64) (any, uint64) {
	var last uint64
	n.Transitions, last = tail(n.Transitions, after)
	return n, last
}

// Brief is ipc.Briefer.
func (n IPVSNews) Brief(after uint64) (any, uint64) {
	var last uint64
	n.Transitions, last = tail(n.Transitions, after)
	return n, last
}

// Brief is ipc.Briefer.
func (h Health) Brief(after uint64) (any, uint64) {
	return HealthNews{Applied: h.Applied, Transitions: h.Transitions}.Brief(after)
}

// Brief is ipc.Briefer.
func (i IPVS) Brief(after uint64) (any, uint64) {
	return IPVSNews{i.Applied, i.Orders, i.Transitions}.Brief(after)
}
