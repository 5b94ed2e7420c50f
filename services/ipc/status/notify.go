package status

import (
	"time"
)

// Notify is the state of notify: script runs and mail.
type Notify struct {
	Applied
	Scripts       []ScriptResult  `json:"scripts"`
	Runs          uint64          `json:"runs"`
	Dropped       uint64          `json:"dropped,omitempty"` // notify scripts that found no room in their queue
	Missed        uint64          `json:"missed,omitempty"`  // transitions that were gone from their ring before they were read
	Startup       string          `json:"startup,omitempty"` // startup_script: "running", then what came of it
	MailSent      uint64          `json:"mailSent"`
	MailFailed    uint64          `json:"mailFailed"`
	LastMailError string          `json:"lastMailError,omitempty"`
	Files         []FileResult    `json:"files,omitempty"`
	Processes     []ProcessResult `json:"processes,omitempty"`
	FIFOs         []FIFOState     `json:"fifos,omitempty"`
	Transitions   []Transition    `json:"transitions,omitempty"`
}

// FileResult is what a track_file holds. A file that is missing or holds no
// number counts as 0, as keepalived has it.
type FileResult struct {
	Name   string    `json:"name"`
	Value  int       `json:"value"`
	Last   time.Time `json:"last"` // when it changed
	Detail string    `json:"detail,omitempty"`
}

// ProcessResult is the outcome of one vrrp_track_process.
type ProcessResult struct {
	Name  string    `json:"name"`
	OK    bool      `json:"ok"` // between quorum and quorum_max, after the delays
	Count int       `json:"count"`
	Last  time.Time `json:"last"`
	// Since is when the count left OK behind and a delay runs; OK is as before.
	Since  time.Time `json:"since,omitzero"`
	Detail string    `json:"detail,omitempty"`
}

// FIFOState is one notify pipe.
type FIFOState struct {
	Path    string `json:"path"`
	Written uint64 `json:"written"`           // lines
	Dropped uint64 `json:"dropped"`           // lines that found no reader and no room
	Waiting int    `json:"waiting,omitempty"` // lines that wait for the reader
	Error   string `json:"error,omitempty"`   // why there is no such pipe
	Reader  string `json:"reader,omitempty"`  // state of the reader that we started
}

// ScriptResult is the outcome of one vrrp_script. Counting rise and fall is
// done by notify; vrrp only adds weights.
type ScriptResult struct {
	Name    string        `json:"name"`
	Known   bool          `json:"known"` // false: no result yet, instances are held
	OK      bool          `json:"ok"`
	Missing bool          `json:"missing,omitempty"` // the file is not there or cannot run: trackers of it are dropped
	Last    time.Time     `json:"last"`
	Took    time.Duration `json:"took"`
	Exit    int           `json:"exit"`
	Detail  string        `json:"detail"` // "exit 1", "timeout after 2s, killed", and the tail of what it printed
}
