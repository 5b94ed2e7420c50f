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
	State        string        `json:"state"` // "starting", "ready", "backoff", "stopped"
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
