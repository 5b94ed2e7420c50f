package lab

import _ "embed"

// DefaultConfig is the first director's file when the user gives none.
//
//go:embed default.conf
var DefaultConfig []byte
