package bind

import (
	"slices"
	"strings"

	"ballast/configs/model"
	"ballast/configs/syntax"
)

// Changed says which virtual servers came in place of others: Now of them, from
// place At of the list on.
type Changed struct {
	At, Now int
	Was     []model.VirtualServer
}

// elsewhere stands for the digest of positions when lines moved since it was
// taken: it is that of no text.
const elsewhere = "moved"

// Rebind is BindWith, with the cache of the last one, for a text in which
// nothing differs but blocks that are left as text, as e tells. name is the
// text's; it includes no others. ok is false, and nothing has happened, where
// the text must be read as a whole after all.
func Rebind(cache *Cache, e syntax.Edit, name, text string, opts syntax.Options) (r Result, changed Changed, ok bool) {
	b := cache.last
	if b == nil {
		return
	}
	r = cache.result
	p := b.parts
	i, j := len(p.list), len(p.list) // those that the edit replaces
	from := placedPart{server: len(r.Config.VirtualServers)}
	if e.Was > 0 {
		if i, j, ok = p.within(e); !ok {
			return
		}
		from = p.list[i]
	}
	lines := e.Lines - e.WasLines
	said := false // there is something to say about the blocks
	for _, x := range p.list[i:j] {
		said = said || len(x.parsed)+len(x.bound) > 0
	}
	var fresh []placedPart
	server := from.server
	for _, x := range e.Blocks {
		n := &syntax.Node{Pos: model.Pos{File: name, Line: from.at.Line + x.Line, Col: x.Col}, Block: true, Apart: text[x.At : x.At+x.Size],
			Words: []syntax.Word{{Text: Apart, Col: x.Col}}}
		known := cache.parts[from.key][n.Apart]
		if known == nil || len(known.parsed)+len(known.bound) > 0 {
			part, nodes := p.read(n)
			if !alone(nodes) {
				return r, changed, false
			}
			p.finish(b, from.global, part, n, nodes)
			part.servers = slices.Clone(part.servers)
			known = part
		}
		if known.guesses > 0 {
			return r, changed, false // there is a limit to them in a text
		}
		said = said || len(known.parsed)+len(known.bound) > 0
		fresh = append(fresh, placedPart{part: known, at: n.Pos, begin: x.At, end: x.At + x.Size, server: server, key: from.key, global: from.global})
		server += len(known.servers)
	}
	if said && (lines != 0 || p.contexts == elsewhere) {
		return r, changed, false
	}
	if r.Problems, ok = moved(r.Problems, name, from.at.Line, e.WasLines, lines, fresh); !ok {
		return
	}

	// Nothing fails from here on.
	rest := from.server // of the list: what follows the edit
	for _, x := range p.list[i:j] {
		rest += len(x.servers)
		delete(cache.parts[from.key], x.text)
	}
	if len(fresh) > 0 && cache.parts[from.key] == nil {
		cache.parts[from.key] = map[string]*part{}
	}
	was := r.Config.VirtualServers
	changed = Changed{At: from.server, Now: server - from.server, Was: slices.Clone(was[from.server:rest])}
	if e.Was > 0 {
		list := make([]model.VirtualServer, 0, len(was)-rest+server)
		list = append(list, was[:from.server]...)
		for _, x := range fresh {
			list = append(list, x.servers...)
			cache.parts[from.key][x.text] = x.part
		}
		r.Config.VirtualServers = append(list, was[rest:]...)
		if len(r.Config.VirtualServers) == 0 {
			r.Config.VirtualServers = nil
		}
	}
	p.list = slices.Replace(p.list, i, j, fresh...)
	p.move(i+len(fresh), name, lines, e.Until-e.To, server-rest)
	for key, at := range r.Places {
		if at.Line >= from.at.Line+e.WasLines && e.Was > 0 {
			at.Line += lines
		}
		at.File = name
		r.Places[key] = at
	}
	if lines != 0 {
		p.contexts = elsewhere
	}
	r.parts, r.byName = p.list, nil
	cache.result = r
	return r, changed, true
}

// within finds the parts that an edit replaces.
func (p *parts) within(e syntax.Edit) (i, j int, ok bool) {
	i = slices.IndexFunc(p.list, func(x placedPart) bool { return x.end > 0 && x.begin == e.From })
	j = i + e.Was
	if i < 0 || j > len(p.list) {
		return 0, 0, false
	}
	for _, x := range p.list[i:j] {
		// One of a group is not in the list, and then what comes behind is.
		if x.end == 0 || x.end > e.To || x.key != p.list[i].key {
			return 0, 0, false
		}
	}
	return i, j, true
}

// move makes the parts from i on stand elsewhere: so many lines, bytes and
// virtual servers further down.
func (p *parts) move(i int, name string, lines, size, servers int) {
	for k := range p.list {
		if x := &p.list[k]; x.at.File != name {
			x.at.File = name
		}
	}
	if lines == 0 && size == 0 && servers == 0 {
		return
	}
	for k := i; k < len(p.list); k++ {
		x := &p.list[k]
		x.at.Line += lines
		x.server += servers
		if x.end > 0 {
			x.begin += size
			x.end += size
		}
	}
}

// moved is what there is to say when some lines from begin on made place for
// others, more of them by so many, and for fresh. ok is false where the number of
// a line may be in the words.
func moved(problems []model.Problem, name string, begin, was, more int, fresh []placedPart) (out []model.Problem, ok bool) {
	for _, x := range problems {
		switch {
		case x.Line >= begin && x.Line < begin+was:
			continue
		case more != 0 && (strings.Contains(x.Text, "line ") || strings.Contains(x.Fix, "line ")):
			return nil, false
		case x.Line >= begin+was && was > 0:
			x.Line += more
		}
		x.File = name
		out = append(out, x)
	}
	for _, x := range fresh {
		out = append(out, x.parsed...)
	}
	for _, x := range fresh {
		out = append(out, x.bound...)
	}
	return out, true
}
