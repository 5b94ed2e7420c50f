package status

import (
	"time"
)

// Init is the state of init.
type Init struct {
	Version           string    `json:"version"`
	Kernel            string    `json:"kernel"`
	Board             string    `json:"board"`
	Started           time.Time `json:"started"`
	Phases            []Phase   `json:"phases"`
	Services          []Process `json:"services"`
	Watchdog          string    `json:"watchdog"`           // "i6300esb, fed" or why it is not
	Stateless         bool      `json:"stateless"`          // no data disk: nothing outlives a reboot
	Stopping          bool      `json:"stopping,omitempty"` // the box is on its way down
	MemTotal, MemFree uint64    `json:",omitempty"`
	Start             Start     `json:"start"`            // how the box came to start
	Alarms            []string  `json:"alarms,omitempty"` // what whoever comes to the box must know of it: a crash, lost data
}

// Start tells how the box came to start.
type Start struct {
	Kind  string    `json:"kind"`
	Why   string    `json:"why"`             // one line
	Alive time.Time `json:"alive,omitzero"`  // when the run before was seen last
	Crash int       `json:"crash,omitempty"` // the record that tells of it
}

// Kinds of starts.
const (
	StartFirst    = "first"
	StartOrder    = "order"    // asked for
	StartPanic    = "panic"    // the kernel, or PID 1, could not go on
	StartWatchdog = "watchdog" // the box hung
	StartCut      = "cut"      // the power failed, or somebody pressed reset
	StartUnknown  = "unknown"
)

// Crash is a record of a crash without its texts.
type Crash struct {
	Number  int       `json:"number"`
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"` // "panic", "oops", "watchdog", "init"
	Summary string    `json:"summary"`
	Version string    `json:"version,omitempty"` // of the firmware that ran
	Slot    string    `json:"slot,omitempty"`
	Bytes   int       `json:"bytes"`
	Seen    bool      `json:"seen"`
}

// CrashReport is a whole record.
type CrashReport struct {
	Crash
	Parts []CrashPart `json:"parts"`
}

// CrashPart is one text of a record: "kernel, panic 2", "init", "journal".
type CrashPart struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// CrashQuery names a record; 0: the list of all.
type CrashQuery struct {
	Number int `json:"number,omitempty"`
	// Unseen leaves it as it is: nobody has looked at it yet.
	Unseen bool `json:"unseen,omitempty"`
}

// CrashAnswer is the answer of "crash".
type CrashAnswer struct {
	List   []Crash      `json:"list,omitempty"` // newest first
	Report *CrashReport `json:"report,omitempty"`
}

// Power says who wants the box to stop, for the log; empty: as the kernel tells
// who calls.
type Power struct {
	By string `json:"by,omitempty"`
}

// InitNews is the summary of Init: its services without figures, and what is wrong.
type InitNews struct {
	Stopping bool      `json:"stopping,omitempty"`
	Services []Process `json:"services"`
	Alarms   []string  `json:"alarms,omitempty"`
}

// Phase is one phase of the boot.
type Phase struct {
	Name  string        `json:"name"`
	Start time.Duration `json:"start"` // since the kernel started
	Took  time.Duration `json:"took"`
	Error string        `json:"error,omitempty"`
}

// Process is one supervised service.
type Process struct {
	Name         string        `json:"name"`
	PID          int           `json:"pid"`
	State        string        `json:"state"` // "starting", "ready", "backoff", "stopped", "idle": it is started when somebody wants something of it
	Since        time.Time     `json:"since"`
	Restarts     int           `json:"restarts"`
	LastExit     string        `json:"lastExit,omitempty"`
	RSS          uint64        `json:"rss"` // bytes
	PSS          uint64        `json:"pss"`
	CPU          time.Duration `json:"cpu"`
	LastProgress time.Time     `json:"lastProgress"`
}

// LogLine is one line of a service's log (init's verb "log").
type LogLine struct {
	Time     time.Time `json:"time"`
	Service  string    `json:"service"`
	Priority int       `json:"priority"` // RFC 5424 severity
	Text     string    `json:"text"`
}

// FactoryReset wipes the data of the box at the next boot, which follows at once.
type FactoryReset struct {
	By string `json:"by,omitempty"`
	// KeepIdentity leaves host name, interfaces, routes, users, and the keys of SSH and
	// of the peer.
	KeepIdentity bool `json:"keepIdentity,omitempty"`
}
