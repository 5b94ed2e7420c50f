package bind

import (
	"encoding/base64"
	"strings"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// pair binds the appliance's peer block: the other box of the pair.
func (b *binder) pair(n *syntax.Node) {
	p := &model.Pair{Port: 1913}
	if b.cfg.Pair != nil {
		b.fail(n.Pos, "write one block, with @HOSTNAME before the lines that are for one box", "there are two peer blocks")
		return
	}
	b.places["peer"] = n.Pos
	address := func(l *syntax.Node) {
		if p.Addr.IsValid() {
			b.fail(l.Pos, "write the address once for each box", "the peer has two addresses")
			return
		}
		p.Addr, _ = schema.Addr(l.Arg(0))
		if p.Addr.IsMulticast() || p.Addr.IsUnspecified() || p.Addr.IsLoopback() || p.Addr.Is6() && p.Addr.IsLinkLocalUnicast() {
			b.fail(l.ArgPos(0), "name an address of the other box", "peer: %s is no address of another box", p.Addr)
		}
	}
	if len(n.Args()) > 0 {
		address(n)
	}
	var from *syntax.Node
	b.each("peer", n.Children, func(k *schema.Keyword, l *syntax.Node) {
		switch k.Name {
		case "address":
			address(l)
		case "key":
			var words []string
			for _, w := range l.Args() {
				words = append(words, strings.Fields(w.Text)...)
			}
			why := publicKey(words)
			if why == "" && !ed25519Key(words) {
				why = "it is no ed25519 key"
			}
			if why != "" {
				b.fail(l.ArgPos(0), "copy the line that \"show peer\" prints on the other box", "peer: key: %s", why)
				return
			}
			p.Key = words[0] + " " + words[1]
		case "port":
			p.Port = uint16(number(l))
		case "from":
			from = l
		}
	}, nil)
	if from != nil {
		a, err := schema.Addr(from.Arg(0))
		if err != nil || p.Addr.IsValid() && a.Is6() != p.Addr.Is6() || a.IsMulticast() || a.IsUnspecified() {
			b.fail(from.ArgPos(0), "write an address of this box, of the family of the peer's", "peer: from %s is no address of the peer's family", quote(from.Arg(0)))
		}
		p.From = a
	}
	if !p.Addr.IsValid() && len(n.Args()) == 0 && !has(n, "address") {
		b.fail(n.Pos, "add address ADDRESS", "the peer has no address")
	}
	if !has(n, "key") {
		b.fail(n.Pos, "add key \"ssh-ed25519 AAAA…\", the line that \"show peer\" prints on the other box", "the peer has no key")
	}
	b.cfg.Pair = p
}

// ed25519Key reports whether an authorized_keys line that is sound holds an
// ed25519 key: 4 bytes of length, the type, 4 bytes of length, 32 of the key.
func ed25519Key(words []string) bool {
	blob, err := base64.StdEncoding.DecodeString(words[1])
	return err == nil && words[0] == "ssh-ed25519" && len(blob) == 4+len("ssh-ed25519")+4+32 &&
		string(blob[15:19]) == "\x00\x00\x00\x20"
}
