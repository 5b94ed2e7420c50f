package health

import (
	"slices"
	"testing"

	"ballast/services/ipc/status"
)

func TestOneVirtualServer(t *testing.T) {
	w := newWorld()
	if w.one("[10.0.0.2]:tcp:80") != nil {
		t.Error("a virtual server of no configuration")
	}
	applyTo(w, configOf(tcpCheck(1, false), tcpCheck(2, false)), t0)
	w.state(status.Applied{})
	for range 2 {
		probe(w, 2, false)
	}
	v := w.one("[10.0.0.2]:tcp:80")
	if v == nil || len(v.Real) != 2 || !v.Real[0].Alive || v.Real[1].Alive || v.Real[1].Checks[0].Detail != "connection refused" {
		t.Fatalf("got %+v", v)
	}
	// What was looked at is published all the same.
	h := w.state(status.Applied{})
	if i := slices.IndexFunc(h.Servers[0].Real, func(r status.RealServerHealth) bool { return !r.Alive }); i != 1 {
		t.Errorf("published %+v", h.Servers[0])
	}
	if w.one("web") != nil {
		t.Error("a virtual server that is not there")
	}
}
