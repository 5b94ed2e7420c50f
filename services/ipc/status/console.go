package status

import "time"

// Console is the state of the console.
type Console struct {
	Fingerprint string           `json:"fingerprint"` // of the SSH host key, "SHA256:…"
	Sessions    []ConsoleSession `json:"sessions"`
}

// ConsoleSession is one session that is open.
type ConsoleSession struct {
	ID      uint64    `json:"id"`
	User    string    `json:"user"`
	Address string    `json:"address"`
	Role    string    `json:"role"`          // that the user has now
	Key     string    `json:"key,omitempty"` // fingerprint of the key that the user proved; empty: the serial line
	Kind    string    `json:"kind"`          // "terminal", "command", "script", "sftp", "serial", "screen"
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"` // when its last command began
}

// Kick names a session that is to end.
type Kick struct {
	ID uint64 `json:"id"`
	By string `json:"by"`
}

// AuditEntry is one command of a user, or a login, and what came of it.
type AuditEntry struct {
	Time    time.Time `json:"time"`
	User    string    `json:"user"`
	Address string    `json:"address"`
	Key     string    `json:"key,omitempty"` // as ConsoleSession.Key
	Command string    `json:"command"`       // without secrets
	Result  string    `json:"result"`        // "ok", or why not
}

// AuditQuery selects entries of the audit log.
type AuditQuery struct {
	User  string    `json:"user,omitempty"`  // empty: all
	Limit int       `json:"limit,omitempty"` // newest n; 0: 200, at most 20,000
	After time.Time `json:"after,omitzero"`
}
