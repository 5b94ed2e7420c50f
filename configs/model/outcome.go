package model

// What becomes of a line of a configuration text.
const (
	Works          = "works"
	Mapped         = "mapped"          // does what was meant, though keepalived would not take it so
	NoEffect       = "no effect here"  // accepted, there is nothing for it to do
	NotImplemented = "not implemented" // accepted, not implemented in this release
	NotUnderstood  = "not understood"
	Skipped        = "skipped"   // stands in a block that is skipped as a whole
	OtherBox       = "other box" // a condition that does not hold on this box
	Parameter      = "parameter" // a definition: counts where it is used
	Include        = "include"
)

// Outcome is what becomes of one line of a configuration text.
type Outcome struct {
	File     string    `json:"file"`
	Line     int       `json:"line"`             // 1-based
	Text     string    `json:"text"`             // the line, without its comment and its secrets
	What     string    `json:"what"`             // one of the constants above, the worst of all that the line says
	Times    int       `json:"times,omitempty"`  // how many statements a sequence or a parameter makes of it, when more than one
	Reason   string    `json:"reason,omitempty"` // why, unless a problem says it
	Problems []Problem `json:"problems,omitempty"`
}
