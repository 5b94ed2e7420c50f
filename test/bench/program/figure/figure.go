// Package figure is what the test inside the guest prints for the bench.
package figure

// Mark comes before each Figure in JSON, Version before that of ipvsadm, which
// only tells it where there is IPVS.
const (
	Mark    = "FIGURE "
	Version = "IPVSADM "
)

// Names of figures. All are times until the kernel holds the last real server,
// but those of Told.
const (
	Apply      = "apply"      // ours, the ipvs process alone
	Told       = "told"       // the same, until its state says so
	Commit     = "commit"     // ours, all processes, from text
	CommitTold = "committed"  // the same, until the commit returns
	Weight     = "weight"     // ours, commit of one changed weight
	WeightTold = "weighted"   // the same, until the commit returns
	IPVSAdm    = "ipvsadm"    // --restore
	Keepalived = "keepalived" // from its start
	Reload     = "reload"     // keepalived, one changed weight
	Order      = "order"      // ours, a weight given by the console's verb
	IPVSEdit   = "ipvsadm -e" // one weight by ipvsadm
)

// Figure is one time taken, or one size.
type Figure struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds,omitempty"`
	MiB     float64 `json:"mib,omitempty"`
}
