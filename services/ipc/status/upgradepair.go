package status

import "time"

// FirmwarePair is how far an upgrade of both boxes of a pair is, as a box knows it.
type FirmwarePair struct {
	ID    string              `json:"id"`
	By    string              `json:"by"`
	Began time.Time           `json:"began"`
	To    FirmwareIdentity    `json:"to"`
	Boxes [2]string           `json:"boxes"` // in the order in which they reboot; the second one drives
	From  [2]FirmwareIdentity `json:"from"`
	// Drives is set on the second box.
	Drives  bool                 `json:"drives,omitempty"`
	Phase   string               `json:"phase"`
	Doing   string               `json:"doing"`           // it, in words
	Times   map[string]time.Time `json:"times,omitempty"` // when each phase began
	Goes    bool                 `json:"goes,omitempty"`
	Done    bool                 `json:"done,omitempty"`
	Waiting string               `json:"waiting,omitempty"` // for what, now
	Silent  string               `json:"silent,omitempty"`  // the box that drives is not heard
	Stopped string               `json:"stopped,omitempty"` // why nothing more reboots
	Sequel  string               `json:"sequel,omitempty"`  // what a user may do then
}

// FirmwarePairProgress is a row of the answer of "upgrade-pair": how far a box has
// written the bundle, or something to tell.
type FirmwarePairProgress struct {
	Box   string `json:"box,omitempty"`
	Step  string `json:"step,omitempty"`
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Text  string `json:"text,omitempty"`
}

// FirmwarePairAsk is the argument of "upgrade-pair-ask".
type FirmwarePairAsk struct {
	Ask string `json:"ask"` // a word below
	By  string `json:"by,omitempty"`
}

// Words of FirmwarePairAsk.
const (
	PairContinue = "continue"
	PairAbort    = "abort"
)
