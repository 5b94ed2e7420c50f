package checks

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipvs/ipvsnl"
	"ballast/test/bench/program/figure"
)

// fallen is how many real servers die at once: their checks have different
// phases, so one death is as many values.
const fallen = 20

// reactionText is a configuration whose real servers all die with the acceptor.
func reactionText() string {
	var b strings.Builder
	b.WriteString("global_defs {\n    router_id BENCH\n}\nvirtual_server 10.100.0.1 80 {\n    delay_loop 1\n    lb_algo rr\n    lb_kind NAT\n    protocol TCP\n")
	for i := range fallen {
		fmt.Fprintf(&b, "    real_server 127.1.0.%d 80 {\n        TCP_CHECK {\n            connect_timeout 3\n            retry 1\n            delay_before_retry 1\n        }\n    }\n", 1+i)
	}
	b.WriteString("}\n")
	return b.String()
}

// reactions take the time from the death of real servers until each is gone
// from the kernel's table.
func reactions(t *testing.T) {
	for _, who := range []string{"ballast", "keepalived"} {
		servers := acceptor(t)
		kill := func() { servers.Process.Kill(); servers.Wait() }
		if who == "ballast" {
			ours(t, "reaction", reactionText(), func(int, ipc.Dir) { reaction(t, who, kill) })
		} else {
			theirs(t, reactionText(), func(int) { reaction(t, who, kill) })
		}
	}
}

// look is how often the table is looked at.
const look = 10 * time.Millisecond

func reaction(t *testing.T, who string, kill func()) {
	t.Helper()
	defer kill()
	c, err := ipvsnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id := ipvsnl.Canonical(model.ServiceID{Addr: netip.MustParseAddr("10.100.0.1"), Port: 80, Protocol: model.TCP})
	serving := func() int {
		list, err := c.Dests(id)
		if err != nil {
			return -1 // the service is not there
		}
		n := 0
		for _, d := range list {
			if d.Weight > 0 {
				n++
			}
		}
		return n
	}
	for n := 0; serving() != fallen; n++ {
		if n > int(20*time.Second/look) {
			t.Errorf("%s: %d of %d real servers in the kernel", who, serving(), fallen)
			return
		}
		time.Sleep(look)
	}
	time.Sleep(5 * time.Second) // each was probed, and the phases are what they stay
	start := time.Now()
	kill()
	for left := fallen; left > 0; time.Sleep(look) {
		n := max(serving(), 0) // keepalived takes the service away with its last server
		for ; left > n; left-- {
			print(figure.Figure{Name: who + " reaction", Seconds: time.Since(start).Seconds()})
		}
		if time.Since(start) > 20*time.Second {
			t.Errorf("%s: %d dead real servers still get connections after 20 s", who, left)
			return
		}
	}
}
