package cli

import (
	"strings"
	"testing"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// TestCheckReport: the candidate's lines with what becomes of them, and the exit
// status of check; conf is asked for lines only here.
func TestCheckReport(t *testing.T) {
	s, b := session(Admin)
	s.candidate = &candidate{text: "global_defs {\n frob\n}\n", base: 3}
	fault := model.Problem{Severity: model.Error, File: "candidate", Line: 2, Text: `unknown keyword "frob"`}
	whole := model.Problem{Severity: model.Note, Text: "no address"}
	answer := status.CheckReport{Problems: []model.Problem{fault, whole}, Errors: 1, Merged: "auth_pass secret", Lines: []model.Outcome{
		{File: "candidate", Line: 1, Text: "global_defs {", What: model.Works},
		{File: "candidate", Line: 2, Text: "frob", What: model.NotUnderstood, Problems: []model.Problem{fault}},
	}}
	var asked []bool
	b.verbs["conf check"] = func(in any) (any, error) {
		asked = append(asked, in.(status.Candidate).Lines)
		return answer, nil
	}
	r := s.Run(t.Context(), "check report")
	want := "  1  works            global_defs {\n  2  not understood   frob\n                      error: unknown keyword \"frob\"\n\nnote: no address\n1 note\n\n" +
		"2 lines: 1 works, 1 not understood\ncannot run: 1 error, 1 note\n"
	if r.Code != Failed || r.Err != want {
		t.Errorf("code %d, %q\nwant %q", r.Code, r.Err, want)
	}
	if r := s.Run(t.Context(), "check report --json"); !strings.Contains(r.Out, `"what": "not understood"`) || strings.Contains(r.Out, "secret") {
		t.Errorf("%+v", r)
	}
	answer.Problems, answer.Errors, answer.Lines = nil, 0, answer.Lines[:1]
	if r := s.Run(t.Context(), "check report"); r.Code != OK || !strings.HasSuffix(r.Out, "1 line: 1 works\nclean\n") {
		t.Errorf("%+v", r)
	}
	if r := s.Run(t.Context(), "check"); r.Code != OK {
		t.Errorf("%+v", r)
	}
	if len(asked) != 4 || !asked[0] || !asked[1] || !asked[2] || asked[3] {
		t.Errorf("asked for lines: %v", asked)
	}
	if r := s.Run(t.Context(), "check report all"); r.Code != Usage {
		t.Errorf("%+v", r)
	}
}
