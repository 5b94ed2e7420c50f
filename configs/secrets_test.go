package configs_test

import (
	"slices"
	"strings"
	"testing"

	"ballast/configs"
)

func TestSecrets(t *testing.T) {
	for text, want := range map[string][]string{
		"auth_pass hidden1\n":                                {"hidden1"},
		"auth_pass abc\n":                                    nil, // too short to be looked for
		"heartbeat {\n key \"hidden two\"\n}\n":              {"hidden two", "hidden"},
		"key 7 hex:00112233\n":                               {"hex:00112233"},
		"$P=hidden1\nauth_pass $P\n":                         {"hidden1"},
		"$P=${Q}\n$Q=hidden2\nauth_pass ${P}\n":              {"hidden2"},
		"login a {\n key ssh-ed25519 AAAAC3Nz x\n}\n":        nil,
		"snmp {\n community public1\r\n}\n":                  {"public1"},
		"smtp_password hidden3 # note\nauth_pass ********\n": {"hidden3"},
		"auth_pass $X ~LST(hidden4,hidden5)\n":               {"hidden4", "hidden5"},
		"router_id open\n":                                   nil,
	} {
		got := configs.Secrets(text)
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%q: %q, want %q", text, got, want)
			}
		}
		if want == nil && got != nil {
			t.Errorf("%q: %q", text, got)
		}
		for i := 1; i < len(got); i++ {
			if len(got[i]) > len(got[i-1]) {
				t.Errorf("%q: not the longest first", got)
			}
		}
		// What is hidden is known.
		masked := configs.Mask(text)
		for _, w := range want {
			if strings.Contains(masked, w) && !strings.Contains(w, "hidden two") {
				t.Errorf("%q is not masked in %q", w, masked)
			}
		}
	}
}
