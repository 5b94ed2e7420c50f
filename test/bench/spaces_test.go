package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ballast/configs"
	"ballast/configs/model"
)

// TestRouters: both daemons get the same virtual routers.
func TestRouters(t *testing.T) {
	for _, c := range []routers{{instances: 1, vips: 1000, advert: 100 * time.Millisecond}, {instances: 250, vips: 1, advert: time.Second}} {
		for box := range 2 {
			m := c.model(box)
			got, problems := configs.Load("bench.conf", []byte(c.text(box)), configs.Options{})
			for _, p := range problems {
				if p.Severity == model.Error {
					t.Fatal(p)
				}
			}
			if len(got.Instances) != len(m.Instances) {
				t.Fatalf("%d instances, want %d", len(got.Instances), len(m.Instances))
			}
			n := 0
			for i, in := range got.Instances {
				want := m.Instances[i]
				if in.VRID != want.VRID || in.Priority != want.Priority || in.AdvertInt != want.AdvertInt || in.VIPs[0].Prefix != want.VIPs[0].Prefix ||
					in.GARPMasterRepeat != want.GARPMasterRepeat || in.GARPMasterDelay != want.GARPMasterDelay {
					t.Errorf("keepalived's text is %+v, ours %+v", in, want)
				}
				n += len(in.VIPs) + len(in.ExcludedVIPs)
			}
			if last := nthVIP(n - 1); n != c.total() || c.instances == 1 && got.Instances[0].ExcludedVIPs[n-2].Prefix.Addr() != last {
				t.Errorf("%d addresses, want %d, the last one %s", n, c.total(), last)
			}
		}
	}
}

// TestSpaces takes a row in network namespaces with the product's process and
// with keepalived.
func TestSpaces(t *testing.T) {
	if testing.Short() {
		t.Skip("measures failovers")
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	bin := filepath.Join(t.TempDir(), "ballast")
	build := exec.Command("go", "build", "-o", bin, "ballast/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, err := Run(t.Context(), Options{Binary: bin, Runs: 1, Only: []string{"addresses"}, Log: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 1 || r.Rows[0].Ratio() == 0 {
		t.Errorf("rows %s", fmt.Sprintf("%+v", r.Rows))
	}
}
