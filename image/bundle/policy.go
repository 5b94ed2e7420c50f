package bundle

import (
	"fmt"
	"time"

	"ballast/image/layout"
)

// Words are what the user says to have a firmware all the same.
type Words struct {
	Older bool // an older one than the one that runs
	Again bool // the same once more
}

// Refusal is why a box does not take a firmware, and what would help.
type Refusal struct {
	Why, Help string
}

func (r *Refusal) Error() string { return r.Why + ": " + r.Help }

// Policy says whether a box on which running runs takes a firmware: nil, or a
// *Refusal.
func Policy(running layout.Identity, m Manifest, w Words) error {
	refuse := func(help, why string, a ...any) error { return &Refusal{fmt.Sprintf(why, a...), help} }
	switch {
	case m.Format != Format:
		return refuse("upgrade to a firmware between first", "the bundle is of format %d, this firmware knows %d", m.Format, Format)
	case running.Board == "":
		return refuse("flash the disk anew", "this firmware does not know for which board it was made (%s)", layout.IdentityFile)
	case m.Board != running.Board:
		return refuse(fmt.Sprintf("take ballast-%s.bundle", running.Board), "the bundle is for board %s, this box is a %s", m.Board, running.Board)
	case running.Build < m.MinBuild:
		return refuse(fmt.Sprintf("upgrade to a firmware of %s or later first", Date(m.MinBuild)),
			"%s can be reached in one step from a firmware of %s, and this one is of %s", m.Version, Date(m.MinBuild), Date(running.Build))
	case m.Build < running.Build && !w.Older:
		return refuse(`add the word "older" to have it`, "%s of %s is older than %s of %s, which runs", m.Version, Date(m.Build), running.Version, Date(running.Build))
	case m.Build == running.Build && m.Version == running.Version && !w.Again:
		return refuse(`add the word "again" to have it once more`, "%s runs already", m.Version)
	}
	return nil
}

// Date is a build for people: its minute.
func Date(build int64) string {
	return time.Unix(build, 0).UTC().Format("2006-01-02 15:04")
}
