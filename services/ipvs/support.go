package ipvs

import (
	"context"
	"fmt"

	"ballast/services/ipc/support"
	"ballast/services/ipvs/ipvsnl"
)

// supportServices is how many services are told with their real servers: a table
// may have ten thousand, and each is a question to the kernel.
const supportServices = 1000

// supportTables tells IPVS as the kernel has it, over a connection of its own.
func supportTables(ctx context.Context, w *support.Writer) {
	c, err := ipvsnl.Dial()
	if err != nil {
		w.Add("ipvs.json", nil, err)
		return
	}
	defer c.Close()
	type service struct {
		ipvsnl.ServiceState
		Dests []ipvsnl.DestState
		Error string `json:",omitempty"`
	}
	var t struct {
		Info     ipvsnl.Info
		Timeouts ipvsnl.Timeouts
		Daemons  []ipvsnl.Daemon
		Services []service
		Left     string `json:",omitempty"`
		Errors   []string
	}
	note := func(err error) {
		if err != nil {
			t.Errors = append(t.Errors, err.Error())
		}
	}
	t.Info, err = c.Info()
	note(err)
	t.Timeouts, err = c.Timeouts()
	note(err)
	t.Daemons, err = c.Daemons()
	note(err)
	list, err := c.Services()
	note(err)
	for i, s := range list {
		if i == supportServices || ctx.Err() != nil {
			t.Left = fmt.Sprintf("%d services are left out", len(list)-i)
			break
		}
		one := service{ServiceState: s}
		if one.Dests, err = c.Dests(s.ID); err != nil {
			one.Error = err.Error()
		}
		t.Services = append(t.Services, one)
	}
	w.Add("ipvs.json", t, nil)
}
