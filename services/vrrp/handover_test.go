package vrrp_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc/status"
	"ballast/test/stall"
)

// TestGroupOfAThousandIsHandedOverAsOne: a sync group of two instances with a
// thousand addresses moves together, and not before each address has been
// announced by the new master.
func TestGroupOfAThousandIsHandedOverAsOne(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	var d []*director
	for n, name := range []string{"a", "b"} {
		l.host(name, n+1)
		l.link2(name, n+1)
		k := kind{"", 3, false, false, "", time.Second}
		var list []model.Instance
		for v := range 2 {
			i := k.instance(n+1, uint8(150-50*n))
			i.GARPMasterRepeat = 1
			i.Name, i.VRID, i.VIPs = fmt.Sprintf("VI_%d", v+1), uint8(51+v), i.VIPs[v:v+1]
			for x := range 499 {
				i.ExcludedVIPs = append(i.ExcludedVIPs, model.Address{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(2*v + x/250), byte(1 + x%250)}), 32)})
			}
			list = append(list, i)
		}
		c := beating(n+1, list...)
		c.SyncGroups = []model.SyncGroup{{Name: "G", Instances: []string{"VI_1", "VI_2"}}}
		d = append(d, l.director(name, c))
		d[n].start()
	}
	a, b := d[0], d[1]
	both := func(state string) func(v status.VRRP) bool {
		return func(v status.VRRP) bool {
			return len(v.Instances) == 2 && v.Instances[0].State == state && v.Instances[1].State == state
		}
	}
	l.buffer = 65536 // thousands of frames within milliseconds
	// A box that stands still does not relieve in time.
	judged(t, stall.Watch(t), func() error {
		v := a.await(60*time.Second, "a is master of both", both(status.VRRPMaster))
		left := v.Instances[1].Stats.PriZeroSent
		b.await(60*time.Second, "b is its backup", func(v status.VRRP) bool {
			return both(status.VRRPBackup)(v) && heartbeatUp(v) && v.Instances[1].MasterPriority == 150
		})
		a.await(60*time.Second, "a hears b", heartbeatUp)
		l.capture()
		a.verb("resign", status.Resign{Instance: "VI_2", By: "test"})
		v = a.await(60*time.Second, "a is backup of both", both(status.VRRPBackup))
		var faults []error
		if n := v.Instances[1].Stats.PriZeroSent - left; n != 1 {
			faults = append(faults, fmt.Errorf("%d advertisements of priority 0 for the one that was resigned", n))
		}
		v = b.await(60*time.Second, "b is master of both", both(status.VRRPMaster))
		if !strings.Contains(v.Instances[0].Reason+v.Instances[1].Reason, "asked to be relieved") {
			faults = append(faults, fmt.Errorf("reasons %q and %q", v.Instances[0].Reason, v.Instances[1].Reason))
		}
		l.stopCapture()
		a.verb("resume", status.Resign{Instance: "VI_2"})
		return errors.Join(append(faults, announcedFirst(l.framesOfAll()))...)
	})
}

// announcedFirst finds b's announcement of a thousand addresses before a's
// resignation.
func announcedFirst(frames []string) error {
	announced := map[string]bool{}
	for _, f := range frames {
		x, err := hex.DecodeString(f)
		if err != nil {
			return err
		}
		switch {
		case isARP(x) && f[12:24] == "020000000002":
			announced[f[56:64]] = true
		case resigns(x):
			if len(announced) != 1000 {
				return fmt.Errorf("a left when b had announced %d addresses of 1000", len(announced))
			}
			return nil
		}
	}
	return errors.New("a never said that it left")
}
