// Package configs is the configuration language of the appliance:
// keepalived.conf, and the appliance's own blocks in the same grammar.
package configs

import (
	"io/fs"

	"ballast/configs/check"
	"ballast/configs/model"
)

// Options say how a text is read.
type Options struct {
	// ConfigID is what the lines "@id …" and ${_INSTANCE} refer to: the host
	// name up to the first dot, unless the operator chose another.
	ConfigID string
	// Open opens files and folders that the text includes. nil: an include is
	// an error.
	Open func(path string) (fs.File, error)
	// Facts about the box; nil: checks that need them are left out.
	Facts *check.Facts
}

// Load parses, binds and checks a configuration. name is used in messages. All
// faults are reported at once, sorted by place; when one of them is an error
// the configuration must not be applied.
func Load(name string, text []byte, opts Options) (model.Config, []model.Problem) {
	return model.Config{}, nil
}

// Merge gives the text that runs when candidate replaces running: candidate,
// plus those blocks of the appliance (system, interface, bond, vlan, route,
// mark) of running whose kind candidate has none of.
func Merge(running, candidate string) string { return candidate }

// Mask replaces the secrets in a text, so that it can be shown and logged.
func Mask(text string) string { return text }

// Diff is the unified difference of two texts, empty when they are equal.
func Diff(a, b string) string { return "" }
