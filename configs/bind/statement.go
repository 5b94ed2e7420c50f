package bind

import (
	"strings"

	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// watch collects what is wrong with one line by itself.
type watch struct {
	line  int
	block bool // it opens a block
	col   int  // of its keyword
	found []model.Problem
}

// Statement tells what is wrong with one line of a tree by itself: its keyword
// and its arguments, whatever else the text holds or lacks.
func Statement(tree *syntax.Tree, line int) []model.Problem {
	w := &watch{line: line}
	var look func(nodes []*syntax.Node)
	look = func(nodes []*syntax.Node) {
		for _, n := range nodes {
			if n.Pos.Line == line && w.col == 0 {
				w.block, w.col = n.Block, n.Pos.Col
			}
			look(n.Children)
		}
	}
	look(tree.Nodes)
	b := &binder{places: map[string]model.Pos{}, parts: newParts(tree.Nodes, nil, syntax.Options{}), watch: w}
	b.defaults = factory()
	b.root(tree.Nodes)
	return w.found
}

// watched takes the errors that were found while a line was bound. Those of a
// block may come from what is in it, or is missing there: of its first line only
// the arguments are looked at.
func (b *binder) watched(k *schema.Keyword, n *syntax.Node, found []model.Problem) {
	list := n.Block && (k == nil || strings.HasPrefix(k.Opens, "list:"))
	for _, p := range found {
		if p.Severity != model.Error || p.Line != b.watch.line {
			continue
		}
		if list || !n.Block && n.Pos.Line == p.Line || n.Block && b.watch.block && p.Col > b.watch.col {
			b.watch.found = append(b.watch.found, p)
		}
	}
}
