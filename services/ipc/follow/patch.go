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
// that the reader does not have, one after the other, packed (pack.go) or in
// JSON.
type header struct {
	status.ConfNews
	Base string `json:"base,omitempty"` // token of what it is a patch on; empty: on nothing
	Need Need   `json:"need"`
	Form string `json:"form,omitempty"` // in which virtual servers are packed; empty: JSON
	// Rest is the configuration without its virtual servers, in JSON, Packed the
	// size of the same packed, right behind the header. Neither: as in the base.
	// What JSON needs to know of all types of a configuration is some hundred
	// kilobytes in each process that reads one.
	Rest   json.RawMessage `json:"rest,omitempty"`
	Packed int             `json:"packed,omitempty"`
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
	var old []*model.VirtualServer
	var c model.Config
	switch {
	case h.Token == "" || h.Need != need:
		return nil, errors.New("configuration: the answer is none")
	case h.Base != "" && (base == nil || base.token != h.Base):
		return nil, fmt.Errorf("configuration: a patch on %q, which is not here", h.Base)
	case h.Base != "":
		old, c = base.list, base.conf.Config
	case h.Rest == nil && h.Packed == 0:
		return nil, errors.New("configuration: a patch on nothing lacks a part")
	}
	out := &held{token: h.Token, servers: h.Servers}
	rest, body, err := h.rest(body)
	if err != nil {
		return nil, err
	}
	if rest != nil {
		c = *rest
	}
	c.VirtualServers = nil
	if need == Head {
		h.Runs = nil
	}
	read, err := h.reader(body)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, r := range h.Runs {
		if r[1] < 1 || r[0] < -1 || r[0] >= 0 && (r[0] > len(old) || r[1] > len(old)-r[0]) {
			return nil, fmt.Errorf("configuration: no run %v in %d virtual servers", r, len(old))
		}
		if total += r[1]; total > h.Servers {
			return nil, errors.New("configuration: the answer has more virtual servers than it says")
		}
	}
	if need != Head && total != h.Servers {
		return nil, errors.New("configuration: the answer has fewer virtual servers than it says")
	}
	p := patch{old: old, met: make([]bool, len(old))}
	if total > 0 {
		// More than the bytes can hold is not made room for.
		p.list = make([]*model.VirtualServer, 0, min(total, len(p.old)+len(body)))
	}
	for _, r := range h.Runs {
		if r[0] >= 0 {
			p.take(r[0], r[1])
		}
	}
	// What is left over of the base may come again, changed.
	for _, r := range h.Runs {
		if r[0] >= 0 {
			p.copy(r[0], r[1])
			continue
		}
		for n := r[1]; n > 0; {
			// Some at a time: a piece of memory stays as long as one of them does.
			some := make([]model.VirtualServer, min(n, 32))
			for i := range some {
				if err := read(&some[i]); err != nil {
					return nil, err
				}
				p.add(&some[i])
			}
			n -= len(some)
		}
	}
	p.finish()
	out.list = p.list
	out.conf = h.Conf(c)
	if h.Base != "" {
		out.base, out.delta = h.Base, &p.delta
	}
	return out, nil
}

// rest reads the configuration without virtual servers, nil when there is none,
// and returns what of the body is left.
func (h *header) rest(body []byte) (*model.Config, []byte, error) {
	switch {
	case h.Packed != 0:
		if h.Packed < 0 || h.Packed > len(body) || h.Form != form() {
			return nil, nil, errors.New("configuration: the answer is in a form of another release")
		}
		c, err := unpackRest(body[:h.Packed])
		return c, body[h.Packed:], err
	case h.Rest != nil:
		c := &model.Config{}
		if err := json.Unmarshal(h.Rest, c); err != nil {
			return nil, nil, fmt.Errorf("configuration: %w", err)
		}
		return c, body, nil
	}
	return nil, body, nil
}

// reader reads the virtual servers behind the header.
func (h *header) reader(body []byte) (func(*model.VirtualServer) error, error) {
	switch h.Form {
	case form():
		in := &input{b: body}
		return func(v *model.VirtualServer) error { return unpackServer(in, v) }, nil
	case "":
		dec := json.NewDecoder(bytes.NewReader(body))
		return func(v *model.VirtualServer) error {
			if err := dec.Decode(v); err != nil {
				return fmt.Errorf("configuration: virtual server: %w", err)
			}
			return nil
		}, nil
	}
	return nil, errors.New("configuration: the answer is in a form of another release")
}

// patch makes a list of virtual servers out of an older one, and notes what is
// new in it.
type patch struct {
	delta
	old, list []*model.VirtualServer
	met       []bool         // of old: it, or another one under its name, is in list
	left      map[string]int // those of old that are in no run, by name
	last      int            // of old, met last
}

// take marks a run of the old list as used.
func (p *patch) take(at, n int) {
	for i := at; i < at+n; i++ {
		p.met[i] = true
	}
}

// copy takes over a run of the old list.
func (p *patch) copy(at, n int) {
	p.moved = p.moved || at < p.last
	p.last = at + n - 1
	p.list = append(p.list, p.old[at:at+n]...)
}

// add takes in a virtual server that came with the patch. It may look as
// before, where only what this reader does not get has changed.
func (p *patch) add(v *model.VirtualServer) {
	if p.left == nil {
		p.left = map[string]int{}
		for i := range p.old {
			if !p.met[i] {
				p.left[p.old[i].Name] = i
			}
		}
	}
	i, known := p.left[v.Name]
	if known {
		delete(p.left, v.Name)
		p.met[i] = true
		p.moved = p.moved || i < p.last
		p.last = i
		if sameServer(p.old[i], v) {
			p.list = append(p.list, p.old[i])
			return
		}
	}
	p.changed = append(p.changed, v.Name)
	p.list = append(p.list, v)
}

func (p *patch) finish() {
	for i := range p.old {
		if !p.met[i] {
			p.removed = append(p.removed, p.old[i].Name)
		}
	}
}
