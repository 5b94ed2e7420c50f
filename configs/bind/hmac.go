package bind

import (
	"slices"
	"strings"
	"time"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// authHMAC binds auth_hmac.
func (b *binder) authHMAC(r *raw, n *syntax.Node) {
	if r.AuthHMAC != nil {
		b.fail(n.Pos, "write one block", "%s has two auth_hmac blocks", r.Name)
		return
	}
	h := &model.AuthHMAC{Mode: "enforce"}
	r.AuthHMAC = h
	b.each("auth_hmac", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "key":
			id, err := schema.Arg{Min: 1, Max: 255}.Int(l.Arg(0))
			if err != nil {
				b.fail(l.ArgPos(0), "write key ID KEY", "auth_hmac: the number of a key: %v", err)
				return
			}
			if slices.ContainsFunc(h.Keys, func(o model.HMACKey) bool { return o.ID == uint8(id) }) {
				b.fail(l.ArgPos(0), "give each key a number of its own", "%s: auth_hmac has key %d twice", r.Name, id)
				return
			}
			if strings.HasPrefix(l.Arg(1), "file:") {
				b.fail(l.ArgPos(1), "write the key itself, as hex:…", "%s: a key cannot be in a file here: the configuration is one text", r.Name)
				return
			}
			if key := b.secret(l, 1, r.Name+": auth_hmac key "+itoa(int(id)), 32, 64); key != nil {
				h.Keys = append(h.Keys, model.HMACKey{ID: uint8(id), Key: key})
			}
		case "active_key":
			h.Active = uint8(number(l))
		case "time_window":
			h.TimeWindow = seconds(l)
		case "anti_replay":
			h.Monotonic = l.Arg(0) == "monotonic"
		case "mode":
			h.Mode = l.Arg(0)
		}
	}, nil)
}

// finishHMAC resolves what depends on the rest of the instance.
func (b *binder) finishHMAC(r *raw) {
	h := r.AuthHMAC
	if h == nil {
		return
	}
	n := r.hmac
	if h.TimeWindow == 0 {
		// Three advertisements may be late before the master counts as dead.
		h.TimeWindow = max(3*r.AdvertInt, 5*time.Second)
	}
	switch {
	case r.Strict:
		b.warn(n.Pos, "delete the auth_hmac block, or vrrp_strict", "%s: strict mode has no authentication; the block is ignored", r.Name)
		r.AuthHMAC = nil
	case len(h.Keys) == 0:
		if !has(n, "key") {
			b.fail(n.Pos, "add key ID hex:…", "%s: auth_hmac has no key", r.Name)
		}
	case h.Active == 0 && len(h.Keys) == 1:
		h.Active = h.Keys[0].ID
	case h.Active == 0:
		b.fail(n.Pos, "add active_key ID", "%s: auth_hmac has several keys and does not say which one signs", r.Name)
	case !slices.ContainsFunc(h.Keys, func(k model.HMACKey) bool { return k.ID == h.Active }):
		b.fail(lineOf(n, "active_key"), "name one of the keys", "%s: auth_hmac has no key %d", r.Name, h.Active)
	}
}
