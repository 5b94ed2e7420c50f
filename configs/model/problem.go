package model

// Severity of a problem.
type Severity string

// Severities. An error blocks a commit.
const (
	Note    Severity = "note"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Pos is a place in a configuration text. The zero value is "nowhere".
type Pos struct {
	File string
	Line int // 1-based
	Col  int // 1-based, in bytes
}

// Problem is one finding in a configuration text.
type Problem struct {
	Severity Severity `json:"severity"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"` // 1-based
	Col      int      `json:"col,omitempty"`  // 1-based, in bytes
	Text     string   `json:"text"`           // what is wrong
	Fix      string   `json:"fix,omitempty"`  // what to write instead
}

// String prints as compilers do: "file:line:col: error: text; fix".
func (p Problem) String() string {
	s := ""
	if p.File != "" {
		s = p.File + ":"
	}
	if p.Line > 0 {
		s += utoa(uint64(p.Line)) + ":"
		if p.Col > 0 {
			s += utoa(uint64(p.Col)) + ":"
		}
	}
	if s != "" {
		s += " "
	}
	s += string(p.Severity) + ": " + p.Text
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	return s
}
