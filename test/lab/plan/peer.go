package plan

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"ballast/configs/syntax"
)

// conditions finds keepalived's "@id" conditions at the start of lines.
var conditions = regexp.MustCompile(`(?m)^[ \t]*@([A-Za-z0-9][A-Za-z0-9_.-]*)[ \t]`)

// Hosts returns the two names that the conditions of a text use, when there
// are exactly two: then the one text serves both boxes.
func Hosts(text []byte) (names [2]string, ok bool) {
	var found []string
	for _, m := range conditions.FindAllSubmatch(text, -1) {
		if n := string(m[1]); !slices.Contains(found, n) {
			found = append(found, n)
		}
	}
	if len(found) != 2 {
		return names, false
	}
	return [2]string(found), true
}

// edit replaces one word of a text.
type edit struct {
	line, col int // 1-based
	old, new  string
}

// Peer derives the second box's file from the first one's, as its user would
// write it: the other state, the priority one lower (or one higher when the
// first is the backup), the unicast addresses swapped, mcast_src_ip the second
// box's own. Everything else stays byte for byte.
func Peer(name string, text []byte, p Plan) ([]byte, error) {
	tree, _ := syntax.Parse(name, text, syntax.Options{ConfigID: p.Directors[0].Name})
	var edits []edit
	for _, n := range tree.Nodes {
		if strings.EqualFold(n.Name(), "vrrp_instance") {
			e, err := peerInstance(n, p)
			if err != nil {
				return nil, fmt.Errorf("lab: derive the second director's file: %w", err)
			}
			edits = append(edits, e...)
		}
		edits = append(edits, peerBox(n, p)...)
	}
	return apply(text, edits)
}

// peerBox gives the second box its own name and addresses where the first
// one's file has blocks of the appliance.
func peerBox(n *syntax.Node, p Plan) []edit {
	var edits []edit
	for _, c := range n.Children {
		switch {
		case n.Name() == "system" && c.Name() == "host_name" && len(c.Words) > 1:
			edits = append(edits, edit{c.Pos.Line, c.Words[1].Col, c.Words[1].Text, c.Words[1].Text + "-b"})
		case n.Name() == "interface" && c.Name() == "address":
			for i, s := range p.Segments {
				if s.Interface != n.Arg(0) {
					continue
				}
				for _, w := range c.Args() {
					have, err := netip.ParsePrefix(w.Text)
					if err != nil {
						continue
					}
					for _, a := range p.Directors[1].Addresses[i] {
						if have.Contains(a.Addr()) {
							edits = append(edits, edit{c.Pos.Line, w.Col, w.Text, netip.PrefixFrom(a.Addr(), have.Bits()).String()})
						}
					}
				}
			}
		}
	}
	return edits
}

func peerInstance(n *syntax.Node, p Plan) ([]edit, error) {
	var edits []edit
	change := func(n *syntax.Node, word int, to string) {
		w := n.Words[word]
		edits = append(edits, edit{n.Pos.Line, w.Col, w.Text, to})
	}
	child := func(name string) *syntax.Node {
		for _, c := range n.Children {
			if c.Name() == name && (len(c.Words) > 1 || c.Block) {
				return c
			}
		}
		return nil
	}
	noPreempt := slices.ContainsFunc(n.Children, func(c *syntax.Node) bool { return c.Name() == "nopreempt" })
	priority := 100 // keepalived's default
	prioNode := child("priority")
	if prioNode != nil {
		v, err := strconv.Atoi(prioNode.Arg(0))
		if err != nil {
			return nil, fmt.Errorf("line %d: priority %q is no number", prioNode.Pos.Line, prioNode.Arg(0))
		}
		priority = v
	}
	first := true // the given file is the preferred master's
	if s := child("state"); s != nil {
		first = strings.EqualFold(s.Arg(0), "MASTER") || noPreempt
		switch {
		case strings.EqualFold(s.Arg(0), "MASTER"):
			change(s, 1, "BACKUP")
		case !first:
			change(s, 1, "MASTER")
		}
	}
	if prioNode != nil {
		// 255 owns its address (RFC 9568 5.2.4); two boxes cannot.
		if first {
			priority = min(max(priority-1, 1), 254)
		} else {
			priority = min(priority+1, 254)
		}
		change(prioNode, 1, strconv.Itoa(priority))
	}
	other := func(own netip.Addr, itf string) (netip.Addr, bool) {
		for i, s := range p.Segments {
			if s.Interface != itf {
				continue
			}
			for _, a := range p.Directors[1].Addresses[i] {
				if s.subnet(own) == s.subnet(a.Addr()) {
					return a.Addr(), true
				}
			}
		}
		return netip.Addr{}, false
	}
	itf := ""
	if c := child("interface"); c != nil {
		itf = c.Arg(0)
	}
	if c := child("mcast_src_ip"); c != nil {
		if own, err := netip.ParseAddr(c.Arg(0)); err == nil {
			if a, ok := other(own, itf); ok {
				change(c, 1, a.String())
			}
		}
	}
	src, peers := child("unicast_src_ip"), child("unicast_peer")
	if peers == nil || len(peers.Children) == 0 {
		return edits, nil
	}
	to := peers.Children[0]
	peer, err := netip.ParseAddr(to.Name())
	if err != nil {
		return nil, fmt.Errorf("line %d: unicast_peer %q is no address", to.Pos.Line, to.Name())
	}
	var own netip.Addr
	if src != nil {
		if own, err = netip.ParseAddr(src.Arg(0)); err != nil {
			return nil, fmt.Errorf("line %d: unicast_src_ip %q is no address", src.Pos.Line, src.Arg(0))
		}
		change(src, 1, peer.String())
	} else if own = ownAddress(p, itf, peer); !own.IsValid() {
		return nil, fmt.Errorf("line %d: no address of %s is in the subnet of the unicast peer %s", to.Pos.Line, itf, peer)
	}
	change(to, 0, own.String())
	return edits, nil
}

// ownAddress is the first director's address beside a peer's.
func ownAddress(p Plan, itf string, peer netip.Addr) netip.Addr {
	for i, s := range p.Segments {
		if s.Interface != itf {
			continue
		}
		for _, a := range p.Directors[0].Addresses[i] {
			if a.Contains(peer) {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}

// apply makes the edits, from the last to the first so that columns stay true.
func apply(text []byte, edits []edit) ([]byte, error) {
	sort.Slice(edits, func(i, j int) bool {
		a, b := edits[i], edits[j]
		return a.line > b.line || a.line == b.line && a.col > b.col
	})
	lines := bytes.SplitAfter(text, []byte("\n"))
	for _, e := range edits {
		if e.line < 1 || e.line > len(lines) {
			return nil, fmt.Errorf("lab: derive the second director's file: %q stands in another file", e.old)
		}
		l := lines[e.line-1]
		from := e.col - 1
		if from < 0 || from+len(e.old) > len(l) || string(l[from:from+len(e.old)]) != e.old {
			return nil, fmt.Errorf("lab: derive the second director's file: line %d: %q comes from a parameter: write it out, or give a file for both boxes with @%s and @%s conditions", e.line, e.old, Names[0], Names[1])
		}
		lines[e.line-1] = slices.Concat(l[:from], []byte(e.new), l[from+len(e.old):])
	}
	return bytes.Join(lines, nil), nil
}
