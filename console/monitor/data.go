// Package monitor is the full-screen live view of a director: roles of both
// boxes, virtual and real servers with their state and rates, what happened
// last.
//
// Model is pure: data and keys come in as messages, View is a picture as text.
// It asks its Source for what is on the screen and no more, so that ten thousand
// virtual servers cost what twenty do. Run shows it on a terminal, Once is one
// picture without one.
package monitor

import (
	"context"
	"net/netip"
	"time"

	"ballast/services/ipc/status"
)

// Source is where the data come from.
type Source interface {
	Fetch(ctx context.Context, q Query) Data
}

// Query is what is on the screen.
type Query struct {
	Page     status.PageQuery
	Server   string         // virtual server that is looked into; empty: none is
	Real     netip.AddrPort // real server of it that is explained; zero: none is
	Instance string         // virtual router that is explained; empty: none is
	Events   int            // how many
}

// Data are the states of the services, as far as they are on the screen.
type Data struct {
	At       time.Time
	Problems []string // services that do not answer
	Conf     status.ConfNews
	VRRP     status.VRRP
	Page     status.Page
	Server   *Server // nil: none is looked into, or it is gone
	Explain  string  // of Query.Real or Query.Instance
	Events   []status.Entry
}

// Server is one virtual server.
type Server struct {
	Name     string
	Services []status.Service
	Health   status.VirtualServerHealth
}

// Row is one real server of it: what the configuration, health and the kernel
// know about it together.
type Row struct {
	Addr             netip.AddrPort
	State            string // "up", "DOWN", "drain", "disabled", "weight", "sorry", "draining"
	Since            time.Time
	Weight           int64 // -1: not in the kernel's table
	Active, Inactive uint64
	Stats            status.Stats
	Detail           string // of its checks
	Configured       bool   // orders can be given about it
}

// Rows are the real servers in the order of the configuration, and then what
// else the kernel has.
func (s *Server) Rows() []Row {
	rows := make([]Row, 0, len(s.Health.Real))
	for _, r := range s.Health.Real {
		row := Row{Addr: netip.AddrPortFrom(r.Addr.Unmap(), r.Port), State: "up", Since: r.Since, Weight: -1, Configured: true}
		for _, c := range r.Checks {
			if row.Detail == "" || !c.Up {
				row.Detail = c.Kind + ": " + c.Detail
			}
		}
		switch {
		case r.Disabled:
			row.State = "disabled"
		case !r.Alive:
			row.State = "DOWN"
		}
		rows = append(rows, row)
	}
	configured := len(rows)
	for i := range s.Services {
		for j := range s.Services[i].Dests {
			d := &s.Services[i].Dests[j]
			rows = place(rows, configured, d)
		}
	}
	return rows
}

// place adds what the kernel says of a destination to its row. For DR and TUN
// the port there is the service's own: the address alone decides where it is
// the only one.
func place(rows []Row, configured int, d *status.Dest) []Row {
	at, same := -1, 0
	for i := range rows {
		if rows[i].Addr.Addr() != d.Addr.Unmap() || d.Sorry != (rows[i].State == "sorry") {
			continue
		}
		if rows[i].Addr.Port() == d.Port {
			at, same = i, 1
			break
		}
		if i < configured {
			at = i
			same++
		}
	}
	if same != 1 {
		rows = append(rows, Row{Addr: netip.AddrPortFrom(d.Addr.Unmap(), d.Port), State: "draining", Weight: -1})
		at = len(rows) - 1
		if d.Sorry {
			rows[at].State = "sorry"
		}
	}
	r := &rows[at]
	r.Weight = int64(d.Weight)
	r.Active += uint64(d.Active)
	r.Inactive += uint64(d.Inactive)
	r.Stats.Add(d.Stats)
	switch {
	case r.State == "DOWN" || r.State == "sorry":
	case d.Order != "" && d.Order != status.OrderDisable:
		r.State = d.Order
	case d.Draining:
		r.State = "draining"
	}
	return rows
}
