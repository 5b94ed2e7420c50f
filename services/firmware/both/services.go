package both

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ballast/services/firmware/pairing"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// box are the services of this director.
type box struct {
	clients map[string]*ipc.Client
}

func newServices(dir ipc.Dir) Services {
	s := &box{clients: map[string]*ipc.Client{}}
	for _, name := range []string{"init", "conf", "net", "vrrp", "ipvs", "health", "peer", "notify"} {
		s.clients[name] = dir.Client(name)
	}
	return s
}

// Look implements Services.
func (s *box) Look(ctx context.Context, r *pairing.Report) error {
	var init status.InitNews
	if err := s.clients["init"].Summary(ctx, &init); err != nil {
		return err
	}
	var pair status.PairState
	if err := s.clients["conf"].Call(ctx, "peer-state", nil, &pair); err != nil {
		return err
	}
	var conf status.ConfNews
	if err := s.clients["conf"].Summary(ctx, &conf); err != nil {
		return err
	}
	// Of vrrp's state what is wanted here; the rest is many times as long.
	var vrrp struct {
		status.Applied
		Resigned   bool   `json:"resigned"`
		ResignedBy string `json:"resignedBy"`
		Instances  []struct {
			Name   string   `json:"name"`
			State  string   `json:"state"`
			Faults []string `json:"faults"`

			Evidence struct {
				PreemptAt  time.Time `json:"preemptAt"`
				PreemptFor string    `json:"preemptFor"`
			} `json:"evidence"`
		} `json:"instances"`
		Heartbeat *struct {
			Up bool `json:"up"`
		} `json:"heartbeat"`
	}
	if _, err := s.clients["vrrp"].State(ctx, &vrrp); err != nil {
		return err
	}
	r.Box, r.Content, r.Pending, r.Going = pair.Own.Box, pair.Own.Content, conf.Pending != nil, init.Stopping
	if pair.Doubt != "" {
		r.Unsound = append(r.Unsound, "a commit of the pair is in doubt: see \"show peer\"")
	}
	r.Heartbeat = vrrp.Heartbeat != nil && vrrp.Heartbeat.Up
	if vrrp.Resigned {
		if r.Resigned = vrrp.ResignedBy; r.Resigned == "" {
			r.Resigned = "somebody"
		}
	}
	for _, i := range vrrp.Instances {
		x := pairing.Instance{Name: i.Name, State: i.State, Learns: i.Evidence.PreemptFor == status.PreemptForSync && i.Evidence.PreemptAt.After(time.Now())}
		if len(i.Faults) > 0 {
			x.Fault = i.Faults[0]
		}
		r.Instances = append(r.Instances, x)
	}
	for _, p := range init.Services {
		switch p.State {
		case "starting", "backoff":
			r.Unsound = append(r.Unsound, fmt.Sprintf("service %s: %s", p.Name, p.State))
		}
	}
	applied := func(name string, a status.Applied) {
		switch {
		case a.Error != "":
			r.Unsound = append(r.Unsound, name+": "+a.Error)
		case a.Config != conf.Generation:
			r.Unsound = append(r.Unsound, fmt.Sprintf("%s has not applied generation %d yet", name, conf.Generation))
		}
	}
	applied("vrrp", vrrp.Applied)
	for _, name := range []string{"net", "ipvs", "health"} {
		var a status.Applied
		if err := s.clients[name].Brief(ctx, &a); err != nil {
			return err
		}
		applied(name, a)
	}
	var page status.Page
	if err := s.clients["ipvs"].Call(ctx, "page", status.PageQuery{Limit: 1}, &page); err != nil {
		return err
	}
	r.Live, r.Conns, r.Packets, r.Sync = page.Sum.Real-page.Sum.Down, page.Sum.Active, page.Sum.Stats.InPackets, len(page.Daemons) > 0
	return nil
}

// Resign implements Services.
func (s *box) Resign(ctx context.Context) error {
	return s.clients["vrrp"].Call(ctx, "resign", status.Resign{By: pairing.By}, nil)
}

// Resume implements Services.
func (s *box) Resume(ctx context.Context) error {
	return s.clients["vrrp"].Call(ctx, "resume", nil, nil)
}

// Note implements Services.
func (s *box) Note(t status.Transition) {
	go func() { // notify may still be on its way up
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.clients["notify"].Call(ctx, "note", t, nil)
	}()
}

// Send implements Services.
func (s *box) Send(ctx context.Context, message []byte) ([]byte, error) {
	head, err := json.Marshal(status.PeerTarget{Channel: status.ChannelFirmware})
	if err != nil {
		return nil, err
	}
	var out status.PeerMessage
	if err := s.clients["peer"].Call(ctx, "send", json.RawMessage(append(append(head, 0), message...)), &out); err != nil {
		var refused *ipc.Refused
		if !errors.As(err, &refused) && ctx.Err() != nil {
			err = errors.New("no answer in time")
		}
		return nil, err
	}
	return out.Body, nil
}
