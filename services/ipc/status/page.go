package status

// PageQuery selects a part of the virtual servers: those that fit on somebody's
// screen, of ten thousand.
type PageQuery struct {
	Filter string `json:"filter,omitempty"` // part of a name, or of the address of a real server
	Sort   string `json:"sort,omitempty"`   // one of the words below
	Offset int    `json:"offset,omitempty"` // how many to leave out; one that is too large is the last page
	Limit  int    `json:"limit,omitempty"`  // default 50, at most 500
}

// Words of PageQuery.Sort.
const (
	SortFile        = ""            // as in the configuration
	SortState       = "state"       // quorum lost, then real servers down, then orders
	SortConnections = "connections" // most active ones first
	SortRate        = "rate"        // most new connections a second first
	SortTraffic     = "traffic"     // most bytes a second first
)

// Page is a part of the virtual servers, and the sum over all of them.
type Page struct {
	Sum     Sum       `json:"sum"`
	Matched int       `json:"matched"` // virtual servers that the filter lets through
	Offset  int       `json:"offset"`  // of the first row
	Rows    []PageRow `json:"rows"`
	Daemons []Daemon  `json:"daemons,omitempty"` // of connection synchronisation
}

// Sum is over the virtual servers of the configuration. Of a large table the
// counters are those of the last sweep, some seconds old.
type Sum struct {
	Virtual  int    `json:"virtual"`
	Lost     int    `json:"lost"` // virtual servers without their quorum
	Real     int    `json:"real"` // real servers of all of them, each as often as it is named
	Down     int    `json:"down"`
	Ordered  int    `json:"ordered"` // not as configured, by order
	Active   uint64 `json:"active"`  // connections
	Inactive uint64 `json:"inactive"`
	Stats    Stats  `json:"stats"`
}

// PageRow is one virtual server. Its counters are read from the kernel for the
// page.
type PageRow struct {
	Name      string `json:"name"`
	Scheduler string `json:"scheduler"`
	QuorumUp  bool   `json:"quorumUp"`
	Sorry     bool   `json:"sorry,omitempty"` // its sorry server answers
	Real      int    `json:"real"`
	Down      int    `json:"down"`
	Ordered   int    `json:"ordered"`
	Active    uint64 `json:"active"`
	Inactive  uint64 `json:"inactive"`
	Stats     Stats  `json:"stats"`
}

// Add adds other counters and rates.
func (s *Stats) Add(o Stats) {
	s.Conns += o.Conns
	s.InPackets += o.InPackets
	s.OutPackets += o.OutPackets
	s.InBytes += o.InBytes
	s.OutBytes += o.OutBytes
	s.CPS += o.CPS
	s.InPPS += o.InPPS
	s.OutPPS += o.OutPPS
	s.InBPS += o.InBPS
	s.OutBPS += o.OutBPS
}
