package configs_test

import (
	"strings"
	"testing"

	"ballast/configs"
)

// What was masked must not come back as a configuration.
func TestMasked(t *testing.T) {
	for _, text := range []string{
		"vrrp_instance A {\n    authentication {\n        auth_pass sesame12\n    }\n}\n", "a { auth_pass x }\n", "smtp_password \"a b\"\n",
		"snmp {\n  community public\n}\n", "auth_hmac {\n  key 1 0011aabb\n}\n", "$PASS=geheim\nauth_pass $PASS\n", "  password x # comment",
	} {
		masked := configs.Mask(text)
		want := 0
		for i, l := range strings.Split(masked, "\n") {
			if want == 0 && strings.Contains(l, "********") {
				want = i + 1
			}
		}
		if want == 0 {
			t.Fatalf("%q is not masked", text)
		}
		if got := configs.Masked(masked); got != want {
			t.Errorf("%q: line %d, want %d", masked, got, want)
		}
		if got := configs.Masked(text); got != 0 {
			t.Errorf("%q: line %d is taken for a masked one", text, got)
		}
	}
	for _, text := range []string{"", "# ******** heading ********\n", "! ********\n", "auth_pass x # was ********\n", "notify \"/x ********\"\n"} {
		if got := configs.Masked(text); got != 0 {
			t.Errorf("%q: line %d is taken for a masked one", text, got)
		}
	}
}
