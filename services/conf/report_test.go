package conf_test

import (
	"strings"
	"testing"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// TestCheckLines: a check tells line by line what becomes of a candidate when it
// is asked to, of its own lines only and without secrets.
func TestCheckLines(t *testing.T) {
	b := realBox(t).start()
	text := "system {\n host_name director-a\n}\n@director-a global_defs {\n@director-b global_defs {\n script_user root\n}\n" +
		"vrrp_instance A {\n interface eth0\n virtual_router_id 7\n authentication {\n  auth_type PASS\n  auth_pass verysecret\n }\n virtual_ipaddress {\n  192.0.2.1\n }\n}\n"
	var r status.CheckReport
	if err := b.call("check", status.Candidate{Text: text, Lines: true}, &r); err != nil {
		t.Fatal(err)
	}
	what := map[int]model.Outcome{}
	for _, o := range r.Lines {
		what[o.Line] = o
		if strings.Contains(o.Text, "verysecret") {
			t.Errorf("%+v", o)
		}
	}
	for line, want := range map[int]string{2: model.Works, 4: model.Works, 5: model.OtherBox, 6: model.Mapped, 13: model.Works} {
		if what[line].What != want {
			t.Errorf("line %d: %+v, want %s", line, what[line], want)
		}
	}
	if last := strings.Count(text, "\n"); len(r.Lines) == 0 || r.Lines[len(r.Lines)-1].Line > last || strings.Count(r.Merged, "\n") <= last {
		t.Errorf("lines of the %d: %+v; merged %q", last, r.Lines, r.Merged)
	}
	r = status.CheckReport{}
	if err := b.call("check", status.Candidate{Text: text}, &r); err != nil || len(r.Lines) > 0 {
		t.Errorf("nobody asked: %d lines, %v", len(r.Lines), err)
	}
}
