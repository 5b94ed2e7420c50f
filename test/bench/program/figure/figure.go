// Package figure is what the test inside the guest prints for the bench.
package figure

// Mark comes before each Figure in JSON, Version before that of ipvsadm, which
// only tells it where there is IPVS.
const (
	Mark    = "FIGURE "
	Version = "IPVSADM "
)

// Names of figures.
const (
	Apply      = "apply"      // ours, the ipvs process alone
	Commit     = "commit"     // ours, all processes
	Weight     = "weight"     // ours, commit of one changed weight
	IPVSAdm    = "ipvsadm"    // --restore
	Keepalived = "keepalived" // start to all programmed
	Reload     = "reload"     // keepalived, one changed weight
)

// Figure is one time taken.
type Figure struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}
