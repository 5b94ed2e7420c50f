package soak

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/configs"
	"ballast/test/lab"
)

// TestWanted: what the soak expects in the kernel is what the lab's default
// configuration says.
func TestWanted(t *testing.T) {
	c, problems := configs.Load("default.conf", lab.DefaultConfig, configs.Options{})
	if len(c.VirtualServers) != len(wanted) {
		t.Fatalf("%d virtual servers: %v", len(c.VirtualServers), problems)
	}
	var have []string
	for _, v := range c.VirtualServers {
		s := v.Services[0]
		line := fmt.Sprintf("%s:%d %s:", s.Addr, s.Port, v.Scheduler)
		for _, r := range v.Real {
			line += fmt.Sprintf(" %s:%d=%d", r.Addr, r.Port, r.Weight)
		}
		have = append(have, line)
	}
	if !slices.Equal(have, wanted) {
		t.Errorf("have\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(wanted, "\n"))
	}
	for _, in := range c.Instances {
		if !slices.Contains(vrids, uint8(in.VRID)) {
			t.Errorf("VRID %d is not looked at", in.VRID)
		}
	}
}

// TestKillConfig: the interval, and nothing else, is another one.
func TestKillConfig(t *testing.T) {
	want, _ := configs.Load("default.conf", lab.DefaultConfig, configs.Options{})
	have, _ := configs.Load("kill.conf", killConfig(), configs.Options{})
	if len(have.Instances) != len(want.Instances) || len(have.VirtualServers) != len(want.VirtualServers) {
		t.Fatalf("%d instances and %d virtual servers", len(have.Instances), len(have.VirtualServers))
	}
	for _, in := range have.Instances {
		if in.AdvertInt != time.Second {
			t.Errorf("%s: interval %v", in.Name, in.AdvertInt)
		}
	}
}
