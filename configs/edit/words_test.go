package edit

import (
	"strings"
	"testing"
)

// TestCompleteWords: of a row that stands for several words, each is explained
// by itself, with its own argument.
func TestCompleteWords(t *testing.T) {
	for _, tt := range []struct{ line, last, text, help string }{
		{"virtual_server 192.0.2.1 80 real_server 192.0.2.2 80", "war", "warmup", "its first probe comes at random within this time"},
		{"virtual_server 192.0.2.1 80 real_server 192.0.2.2 80 retry", "", "1", "virtual server's"},
		{"vrrp_sync_group G", "notify_b", "notify_backup", "run when the group becomes backup"},
		{"virtual_server 192.0.2.1 80", "mh-p", "mh-port", "scheduler mh: the client's port counts as well"},
	} {
		found := false
		list := Complete(New(""), nil, strings.Fields(tt.line), tt.last, nil)
		for _, c := range list {
			found = found || strings.Contains(c.Text, tt.text) && strings.Contains(c.Help, tt.help)
		}
		if !found {
			t.Errorf("%s %s: %q (%s) is not among %+v", tt.line, tt.last, tt.text, tt.help, list)
		}
	}
}
