package cli

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"ballast/services/ipc/status"

	"github.com/google/go-cmp/cmp"
)

func TestPairCommands(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEzKsvP2KUn3aZZQGcvRCF6B1Ewh2tFhGgkYyLzcYyZC"
	from := status.PeerTarget{Addr: netip.MustParseAddr("192.0.2.11"), Port: 1913, Key: key}
	other := from
	other.Port, other.From = 1999, netip.MustParseAddr("192.0.2.12")
	author := "ann@192.0.2.7"
	var got any
	for _, tc := range []struct {
		line string
		verb string
		want any // nil: refused as written wrong
	}{
		{`peer pull from 192.0.2.11 key "` + key + `" as lb2`, "peer-pull", status.PairChange{Author: author, From: from, As: "lb2"}},
		{"peer pull from 192.0.2.11 key " + key + " as lb2", "peer-pull", status.PairChange{Author: author, From: from, As: "lb2"}},
		{`peer pull as lb2 port 1999 source 192.0.2.12 from 192.0.2.11 key "` + key + `"`, "peer-pull", status.PairChange{Author: author, From: other, As: "lb2"}},
		{"peer pull force", "peer-pull", status.PairChange{Author: author, From: status.PeerTarget{Port: 1913}, Force: true}},
		{"peer push", "peer-push", status.PairChange{Author: author}},
		{"peer push force", "peer-push", status.PairChange{Author: author, Force: true}},
		{"rollback 2 local", "rollback", status.Rollback{Generation: 2, Author: author, Local: true}},
		{"peer pull from lb1", "", nil},
		{"peer pull from 192.0.2.11", "", nil},
		{"peer pull as lb2", "", nil},
		{"peer pull from", "", nil},
		{"peer pull port 0", "", nil},
		{"peer push now", "", nil},
	} {
		s, b := session(Admin)
		got = nil
		if tc.verb != "" {
			b.verbs["conf "+tc.verb] = func(in any) (any, error) {
				got = in
				return status.CommitResult{Generation: 7, Peer: "lb2"}, nil
			}
		}
		r := s.Run(t.Context(), tc.line)
		if tc.want == nil {
			if r.Code != Usage || len(b.calls) > 0 {
				t.Errorf("%s: %+v, calls %v", tc.line, r, b.calls)
			}
			continue
		}
		if r.Code != OK || !strings.Contains(r.Out, "committed: generation 7 runs, on lb2 too") {
			t.Errorf("%s: %+v", tc.line, r)
		}
		if r, ok := got.(status.Rollback); ok {
			r.Session = nil
			got = r
		}
		if d := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s:\n%s", tc.line, d)
		}
	}
	s, b := session(Admin)
	s.OneShot = true
	b.verbs["conf commit"] = func(in any) (any, error) { got = in; return status.CommitResult{Generation: 7}, nil }
	if r := s.Run(t.Context(), "commit local comment alone"); r.Code != OK || !got.(status.Candidate).Local {
		t.Errorf("commit local: %+v %+v", r, got)
	}
	// Who sits at a terminal is asked before everything is replaced.
	s, b = session(Admin)
	s.Ask = func(context.Context, string) bool { return false }
	if r := s.Run(t.Context(), "peer pull"); r.Code != Failed || len(b.calls) > 0 {
		t.Errorf("peer pull after no: %+v %v", r, b.calls)
	}
}
