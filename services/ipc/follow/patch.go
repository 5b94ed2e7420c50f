package follow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// A patch is a header in JSON on one line, and behind it the virtual servers
// that the reader does not have, one after the other.
type header struct {
	status.ConfNews
	Base string `json:"base,omitempty"` // token of what it is a patch on; empty: on nothing
	Need Need   `json:"need"`
	// Rest is the configuration without its virtual servers; nil: as in the base.
	Rest *model.Config `json:"rest,omitempty"`
	// Runs make up the list: so many virtual servers from this place of the
	// base on, or from place -1 so many of those behind the header.
	Runs    [][2]int `json:"runs,omitempty"`
	Servers int      `json:"servers"` // how many there are
}

// patched decodes a patch on base; base may be nil.
func patched(base *held, b []byte, need Need) (*held, error) {
	line, body, ok := bytes.Cut(b, []byte{'\n'})
	var h header
	if !ok {
		return nil, errors.New("configuration: the answer is cut short")
	}
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	var old model.Config
	switch {
	case h.Token == "" || h.Need != need:
		return nil, errors.New("configuration: the answer is none")
	case h.Base != "" && (base == nil || base.token != h.Base):
		return nil, fmt.Errorf("configuration: a patch on %q, which is not here", h.Base)
	case h.Base != "":
		old = base.conf.Config
	case h.Rest == nil:
		return nil, errors.New("configuration: a patch on nothing lacks a part")
	}
	out := &held{token: h.Token, servers: h.Servers}
	c := old
	if h.Rest != nil {
		c = *h.Rest
	}
	c.VirtualServers = nil
	if need == Head {
		h.Runs = nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	total := 0
	for _, r := range h.Runs {
		if r[1] < 1 || r[0] < -1 || r[0] >= 0 && r[0]+r[1] > len(old.VirtualServers) {
			return nil, fmt.Errorf("configuration: no run %v in %d virtual servers", r, len(old.VirtualServers))
		}
		total += r[1]
		if total > h.Servers {
			return nil, errors.New("configuration: the answer has more virtual servers than it says")
		}
	}
	if need != Head && total != h.Servers {
		return nil, errors.New("configuration: the answer has fewer virtual servers than it says")
	}
	if total > 0 {
		// More than the bytes can hold is not made room for.
		c.VirtualServers = make([]model.VirtualServer, 0, min(total, len(old.VirtualServers)+len(body)))
	}
	for _, r := range h.Runs {
		if r[0] >= 0 {
			c.VirtualServers = append(c.VirtualServers, old.VirtualServers[r[0]:r[0]+r[1]]...)
			continue
		}
		for range r[1] {
			var v model.VirtualServer
			if err := dec.Decode(&v); err != nil {
				return nil, fmt.Errorf("configuration: virtual server: %w", err)
			}
			c.VirtualServers = append(c.VirtualServers, v)
		}
	}
	out.conf = h.Conf(c)
	return out, nil
}
