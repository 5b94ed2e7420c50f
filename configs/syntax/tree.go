// Package syntax reads the text of keepalived.conf into a tree.
//
// It knows the language's lines, comments, quotes, braces, parameters,
// conditions, sequences and includes, and nothing of what a keyword means; a
// Grammar may tell it which keywords open blocks, and then a missing brace
// costs one problem and not the rest of the file.
//
// Any input ends in a tree and a list of problems: never a panic, never a
// hang. What can grow (includes, parameters, sequences) has a bound.
package syntax

import (
	"io/fs"

	"ballast/configs/model"
)

// Limits of one text with all it includes. They are far above any real
// configuration and keep hostile ones cheap.
const (
	MaxLine     = 8 << 10  // bytes in one line; keepalived ignores a line above 1023
	MaxDepth    = 64       // nested blocks
	MaxIncludes = 256      // files read by include
	MaxNesting  = 16       // includes inside includes
	MaxExpanded = 50_000   // lines that parameters and sequences may add
	maxReplaced = 64 << 10 // bytes of a line after its parameters
	maxGrown    = 32 << 20 // bytes that parameters may make in all
	maxName     = 256      // bytes between ${ and }
)

// Word is one token of a line.
type Word struct {
	Text   string
	Quoted bool // it stood in "…"
	Col    int  // 1-based, in the line that the node's Pos names
}

// Node is one line of the configuration, with the block that it opens, if it
// opens one.
type Node struct {
	Pos      model.Pos // of the keyword
	Words    []Word    // Words[0] is the keyword
	Raw      string    // the line from the keyword on, without its comment: what commands are read from
	Block    bool      // it opens a block
	Children []*Node
	End      model.Pos // of the closing brace
	// Apart is the text of a block that was not read yet (Options.Apart). Of
	// such a node only Pos, the keyword in Words and Block are there.
	Apart string
	At    int // where Apart begins in its file, without a byte order mark
}

// Name is the keyword.
func (n *Node) Name() string { return n.Words[0].Text }

// Arg is the i-th argument (from 0), empty when there is none.
func (n *Node) Arg(i int) string {
	if i+1 < len(n.Words) {
		return n.Words[i+1].Text
	}
	return ""
}

// Args are the arguments.
func (n *Node) Args() []Word { return n.Words[1:] }

// ArgPos is the place of the i-th argument, or of the keyword when there is none.
func (n *Node) ArgPos(i int) model.Pos {
	p := n.Pos
	if i+1 < len(n.Words) {
		p.Col = n.Words[i+1].Col
	}
	return p
}

// Comment is one comment, with the character that starts it.
type Comment struct {
	Pos  model.Pos
	Text string
}

// Tree is a parsed text.
type Tree struct {
	Nodes    []*Node
	Comments []Comment
	Files    []string // every file read, the text itself first
	Texts    []string // of these files
	Lines    int      // lines read in all files
	Includes bool     // a line includes files, whether there are any or not
}

// Use says what a word is at the start of a line inside a block.
type Use uint8

// Uses.
const (
	Unknown Use = iota // no keyword here
	Line               // a line without a block
	Block              // a line that must open a block
	Either             // both are allowed
)

// Grammar tells the parser what may stand where. block is "" at top level,
// else the child name that Use gave for the line that opened the block.
type Grammar interface {
	Use(block string, words []Word) (child string, use Use)
}

// Options of Parse.
type Options struct {
	// ConfigID is what "@id" lines are compared with, and ${_INSTANCE}.
	ConfigID string
	// Open opens an included file or a folder to search. nil: no includes.
	Open func(path string) (fs.File, error)
	// Grammar may be nil: every line may then open a block.
	Grammar Grammar
	// Apart names a keyword of the top level whose blocks are left as text
	// where that is possible, for ReadApart; empty: none.
	Apart string
}

// Parse reads a text. name is the file name for positions; relative includes
// start at its folder.
func Parse[Text string | []byte](name string, text Text, opts Options) (*Tree, []model.Problem) {
	r := newReader(opts)
	r.file(name, string(text))
	r.finish()
	p := parser{items: r.items, grammar: opts.Grammar, problems: r.problems}
	r.tree.Nodes = p.parse(r.last)
	if opts.Apart != "" && (r.stray || r.depth != 0 || p.apart) {
		// Where a brace is missing, what stands in a block depends on the rest.
		opts.Apart = ""
		return Parse(name, text, opts)
	}
	return r.tree, p.problems
}
