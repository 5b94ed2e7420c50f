package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
	"ballast/test/golden"

	"github.com/google/go-cmp/cmp"
)

// conf is a strict fake of the configuration service: it keeps generations,
// and knows no verb but those that the console uses.
type conf struct {
	*box
	gens    []string // texts; generation n is gens[n-1]
	refuse  error
	commits []status.Candidate
	pending *status.Pending
}

// hasSecrets is a configuration with a secret of every kind.
const hasSecrets = `$PASS=topsecret1
global_defs {
    smtp_password topsecret2
}
system {
    host_name lb1
}
snmp {
    community topsecret3
}
heartbeat {
    peer 10.0.9.2
    key topsecret4-0123456789
}
vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 100
    authentication {
        auth_type PASS
        auth_pass topsecret5
    }
    virtual_ipaddress {
        10.0.0.100/24
    }
}
vrrp_instance VI_2 {
    interface eth1
    virtual_router_id 52
    authentication {
        auth_type PASS
        auth_pass $PASS
    }
    virtual_ipaddress {
        10.0.1.100/24
    }
}
virtual_server 10.0.0.100 80 {
    lb_algo rr
    real_server 10.0.0.21 80 {
        weight 1
        TCP_CHECK {
        }
    }
}
`

// configuring is a session of an administrator, and the conf that it talks to.
func configuring(t *testing.T) (*Session, *conf) {
	t.Helper()
	s, b := session(Admin)
	s.Mask = nil
	f := &conf{box: b, gens: []string{"# one\n", "# two\n", hasSecrets}}
	now := func() uint64 { return uint64(len(f.gens)) }
	publish := func() {
		b.states["conf"] = status.Conf{Generation: now(), Source: "commit", Author: "bob@serial", Time: s.now().Add(-time.Hour), Pending: f.pending}
	}
	publish()
	b.states["net"] = status.Net{Links: []status.Link{{Name: "eth0"}, {Name: "eth1"}}}
	b.verbs["conf text"] = func(in any) (any, error) {
		n := in.(status.TextQuery).Generation
		if n == 0 {
			n = now()
		}
		if n > now() {
			return nil, &ipc.Refused{Status: 422, Text: fmt.Sprintf("there is no generation %d", n)}
		}
		return status.Candidate{Text: f.gens[n-1]}, nil
	}
	b.verbs["conf history"] = func(any) (any, error) {
		var list []status.Generation
		for n := now(); n > 0; n-- {
			list = append(list, status.Generation{Generation: n, Source: "commit", Author: "bob@serial", Running: n == now(), Time: s.now().Add(-time.Hour)})
		}
		return list, nil
	}
	b.verbs["conf check"] = func(in any) (any, error) {
		c := in.(status.Candidate)
		return status.CheckReport{Merged: c.Text, Diff: "+x\n"}, nil
	}
	b.verbs["conf commit"] = func(in any) (any, error) {
		c := in.(status.Candidate)
		if f.refuse != nil {
			return nil, f.refuse
		}
		f.commits = append(f.commits, c)
		f.gens = append(f.gens, c.Text)
		publish()
		res := status.CommitResult{Generation: now(), Took: 5 * time.Millisecond}
		if c.Confirm > 0 {
			f.pending = &status.Pending{Generation: now(), Back: now() - 1, Deadline: s.now().Add(c.Confirm)}
			res.Pending = f.pending
			publish()
		}
		return res, nil
	}
	b.verbs["conf confirm"] = func(in any) (any, error) {
		if f.pending == nil {
			return nil, &ipc.Refused{Status: 422, Text: "nothing waits to be confirmed"}
		}
		r := status.Confirmed{Generation: f.pending.Generation}
		f.pending = nil
		publish()
		return r, nil
	}
	return s, f
}

// ok runs a line that must succeed.
func ok(t *testing.T, s *Session, line string) string {
	t.Helper()
	r := s.Run(t.Context(), line)
	if r.Code != OK {
		t.Fatalf("%s: status %d: %s", line, r.Code, r.Err)
	}
	return r.Out
}

// fails runs a line that must not.
func fails(t *testing.T, s *Session, line, why string) {
	t.Helper()
	if r := s.Run(t.Context(), line); r.Code == OK || !strings.Contains(r.Err, why) {
		t.Errorf("%s: status %d %q %q, want %q", line, r.Code, r.Out, r.Err, why)
	}
}

func wantPrompt(t *testing.T, s *Session, want string) {
	t.Helper()
	if above, prompt := s.Prompt("lb1"); above+prompt != want {
		t.Errorf("prompt %q, want %q", above+prompt, want)
	}
}

func TestConfigureMode(t *testing.T) {
	s, f := configuring(t)
	wantPrompt(t, s, "lb1> ")
	ok(t, s, "conf")
	wantPrompt(t, s, "[edit]\nlb1# ")
	if s.Dirty() {
		t.Error("dirty before anything changed")
	}
	if out := ok(t, s, "commit"); out != "nothing to commit: the candidate is what runs\n" || len(f.commits) > 0 {
		t.Errorf("%q", out)
	}
	fails(t, s, "set", "set PATH [VALUE]")
	ok(t, s, "set vrrp_instance VI_1 priority 150")
	if !s.Dirty() || !s.Edited() {
		t.Error("not dirty")
	}
	if out, want := ok(t, s, "compare"), "--- running\n+++ candidate\n@@ -16,7 +16,7 @@\n     state MASTER\n     interface eth0\n     virtual_router_id 51\n-    priority 100\n+    priority 150\n     authentication {\n         auth_type PASS\n         auth_pass ********\n"; out != want {
		t.Errorf("compare %q, want %q", out, want)
	}
	if out := ok(t, s, "show | compare"); !strings.Contains(out, "+    priority 150") {
		t.Errorf("show | compare: %q", out)
	}
	ok(t, s, "edit vrrp_instance VI_1")
	wantPrompt(t, s, "[edit vrrp_instance VI_1]\nlb1# ")
	ok(t, s, "edit authentication")
	wantPrompt(t, s, "[edit vrrp_instance VI_1 authentication]\nlb1# ")
	ok(t, s, "exit")
	wantPrompt(t, s, "[edit vrrp_instance VI_1]\nlb1# ")
	ok(t, s, "set nopreempt; up; set vrrp_instance VI_2 priority 90")
	wantPrompt(t, s, "[edit]\nlb1# ")
	ok(t, s, "delete vrrp_instance VI_1 nopreempt")
	if out := ok(t, s, "commit comment \"second pool\" and-quit"); out != "committed: generation 4 runs, applied in 5ms\n" {
		t.Errorf("%q", out)
	}
	wantPrompt(t, s, "lb1> ")
	c := f.commits[0]
	want := strings.Replace(hasSecrets, "priority 100", "priority 150", 1)
	if !strings.Contains(c.Text, "priority 90") || c.Comment != "second pool" || !c.Override || c.Base != 3 {
		t.Errorf("%+v", c)
	}
	for _, l := range strings.Split(want, "\n") {
		if !strings.Contains(c.Text, l+"\n") {
			t.Errorf("no %q in\n%s", l, c.Text)
		}
	}
	if s.Dirty() {
		t.Error("still dirty")
	}
}

func TestWrongMode(t *testing.T) {
	s, _ := configuring(t)
	fails(t, s, "set vrrp_instance VI_1 priority 5", `"configure" enters the mode that has it`)
	fails(t, s, "annotate", `"configure" enters`)
	ok(t, s, "configure")
	fails(t, s, "drain 10.0.0.21", `write "run" before it`)
	if r := s.Run(t.Context(), "nonsense"); strings.Contains(r.Err, "configure mode") {
		t.Errorf("%+v", r)
	}
	s.Role = View
	if r := s.Run(t.Context(), "set x"); strings.Contains(r.Err, "enters") {
		t.Errorf("%+v", r)
	}
}

func TestLeavingConfigureMode(t *testing.T) {
	s, f := configuring(t)
	ok(t, s, "configure; exit")
	wantPrompt(t, s, "lb1> ")
	ok(t, s, "configure; set vrrp_instance VI_1 priority 150")
	asked := ""
	answer := false
	s.Ask = func(_ context.Context, q string) bool { asked = q; return answer }
	fails(t, s, "exit", "still in configure mode")
	if asked == "" {
		t.Error("nothing was asked")
	}
	wantPrompt(t, s, "[edit]\nlb1# ")
	answer = true
	ok(t, s, "exit")
	wantPrompt(t, s, "lb1 candidate> ")
	if out := ok(t, s, "configure"); out != "what was loaded is the candidate\n" {
		t.Errorf("%q", out)
	}
	ok(t, s, "exit discard")
	wantPrompt(t, s, "lb1> ")
	fails(t, s, "commit", "nothing is loaded")
	ok(t, s, "edit vrrp_instance VI_1")
	wantPrompt(t, s, "[edit vrrp_instance VI_1]\nlb1# ")
	ok(t, s, "set priority 7; edit authentication; exit configuration-mode")
	wantPrompt(t, s, "lb1 candidate> ")
	ok(t, s, "commit")
	if len(f.commits) != 1 || !strings.Contains(f.commits[0].Text, "priority 7\n") {
		t.Errorf("%+v", f.commits)
	}
	fails(t, s, "edit nonsense of no kind", "nonsense")
	wantPrompt(t, s, "lb1> ")
}

func TestLevels(t *testing.T) {
	s, _ := configuring(t)
	ok(t, s, "configure; edit virtual_server 10.0.0.100 80 real_server 10.0.0.21 80; edit TCP_CHECK")
	wantPrompt(t, s, "[edit virtual_server 10.0.0.100 80 real_server 10.0.0.21 80 TCP_CHECK]\nlb1# ")
	ok(t, s, "up 2")
	wantPrompt(t, s, "[edit virtual_server 10.0.0.100 80]\nlb1# ")
	ok(t, s, "top set vrrp_instance VI_1 priority 3")
	wantPrompt(t, s, "[edit virtual_server 10.0.0.100 80]\nlb1# ")
	if out := ok(t, s, "top show vrrp_instance VI_1"); !strings.Contains(out, "priority 3") || strings.Contains(out, "lb_algo") {
		t.Errorf("%q", out)
	}
	ok(t, s, "top edit vrrp_instance VI_1")
	wantPrompt(t, s, "[edit vrrp_instance VI_1]\nlb1# ")
	ok(t, s, "exit")
	wantPrompt(t, s, "[edit]\nlb1# ")
	ok(t, s, "edit virtual_server 10.0.0.100 80; edit real_server 10.0.0.21 80; up; exit")
	wantPrompt(t, s, "[edit]\nlb1# ")
	ok(t, s, "edit virtual_server 10.0.0.100 80; delete")
	wantPrompt(t, s, "[edit]\nlb1# ")
	if out := ok(t, s, "show"); strings.Contains(out, "virtual_server") || !strings.Contains(out, "vrrp_instance VI_2") {
		t.Errorf("%q", out)
	}
	fails(t, s, "up many", "up [LEVELS]")
	fails(t, s, "top nothing", `"nothing" is not a command`)
	fails(t, s, "show vrrp_instance VI_9", "VI_9")
	// A block that another text does not have is left.
	ok(t, s, "edit vrrp_instance VI_1 authentication; rollback 2")
	wantPrompt(t, s, "[edit]\nlb1# ")
}

// What is only looked at is not made.
func TestEditMakesNothing(t *testing.T) {
	s, _ := configuring(t)
	ok(t, s, "configure; edit vrrp_instance VI_3")
	wantPrompt(t, s, "[edit vrrp_instance VI_3]\nlb1# ")
	if s.Dirty() {
		t.Error("edit alone changed the candidate")
	}
	ok(t, s, "set interface eth0; top")
	if out := ok(t, s, "show vrrp_instance VI_3"); !strings.Contains(out, "interface eth0") {
		t.Errorf("%q", out)
	}
}

func TestRenameCopyInsert(t *testing.T) {
	s, _ := configuring(t)
	ok(t, s, "configure; rename vrrp_i VI_2 to VI_7; copy vrrp_instance VI_1 to VI_8")
	if out := ok(t, s, "show | match \"vrrp_instance \""); out != "vrrp_instance VI_1 {\nvrrp_instance VI_8 {\nvrrp_instance VI_7 {\n" {
		t.Errorf("%q", out)
	}
	ok(t, s, "edit vrrp_instance VI_1; set virtual_ipaddress 10.0.0.101/24; insert virtual_ipaddress 10.0.0.101/24 before virtual_ipaddress 10.0.0.100/24")
	if out, want := ok(t, s, "show virtual_ipaddress"), "    virtual_ipaddress {\n        10.0.0.101/24\n        10.0.0.100/24\n    }\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	if out := ok(t, s, "show priority; top show vrrp_instance VI_7 interface"); out != "    priority 100\n    interface eth1\n" {
		t.Errorf("%q", out)
	}
	fails(t, s, "show advert_int", "advert_int")
	ok(t, s, "top rename vrrp_instance VI_1 to VI_5")
	wantPrompt(t, s, "[edit]\nlb1# ")
	for _, line := range []string{"rename x", "copy vrrp_instance VI_5 to", "insert a b"} {
		fails(t, s, line, "for example: "+strings.Fields(line)[0])
	}
	for line, want := range map[string]string{"rename vrrp_instance VI_5 ": "to", "insert vrrp_instance VI_5 ": "before"} {
		if _, list := s.Complete(t.Context(), line); !slices.ContainsFunc(list, func(c Completion) bool { return c.Text == want }) {
			t.Errorf("%s%+v", line, list)
		}
	}
}

func TestKeywordHelp(t *testing.T) {
	s, _ := configuring(t)
	s.Role = View
	want := "priority 1…255\n  the highest becomes master\n  in        vrrp_instance\n  default   100; with state MASTER 255\n"
	for _, line := range []string{"help priority", "help vrrp_instance priority"} {
		if out := ok(t, s, line); !strings.HasPrefix(out, want) {
			t.Errorf("%s: %q, want %q", line, out, want)
		}
	}
	if out := ok(t, s, "help virtual_server real_server weight"); !strings.Contains(out, "in        real_server") || strings.Contains(out, "vrrp_script") {
		t.Errorf("%q", out)
	}
	fails(t, s, "help nonsense", `there is no command or keyword "nonsense"`)
	fails(t, s, "help virtual_server priority", "there is no command or keyword")
}

// What load prints ends with what became of the lines.
func TestLoadCountsLines(t *testing.T) {
	s, f := configuring(t)
	f.verbs["conf check"] = func(in any) (any, error) {
		if !in.(status.Candidate).Lines {
			t.Error("load does not ask for lines")
		}
		return status.CheckReport{Diff: "+x\n", Lines: []model.Outcome{{Line: 1, Text: "a", What: model.Works}, {Line: 2, Text: "b", What: model.NoEffect}}}, nil
	}
	want := "no faults found\n2 lines: 1 works, 1 " + model.NoEffect + "; \"check report\" tells of each\nloaded; \"compare\" shows what changes, \"commit\" makes it run\n"
	for _, line := range []string{"load", "configure; load"} {
		if out := ok(t, s, line); !strings.HasSuffix(out, want) {
			t.Errorf("%s: %q, want %q", line, out, want)
		}
	}
}

func TestCommitCheck(t *testing.T) {
	s, f := configuring(t)
	if out := ok(t, s, "configure; set vrrp_instance VI_1 priority 150; commit check"); out != "no faults found\n" || len(f.commits) > 0 {
		t.Errorf("%q", out)
	}
}

func TestShortKeywords(t *testing.T) {
	s, _ := configuring(t)
	ok(t, s, "configure; set vrrp_i VI_1 prio 33; set virtual_server 10.0.0.100 80 real 10.0.0.21 80 wei 5; edit vrrp_inst VI_2; set prio 34")
	out := ok(t, s, "top show | match priority")
	if out != "    priority 33\n    priority 34\n" {
		t.Errorf("%q", out)
	}
	if out := ok(t, s, "top show virtual_server 10.0.0.100 80 | match weight"); !strings.Contains(out, "weight 5") {
		t.Errorf("%q", out)
	}
	fails(t, s, "top; show vrrp", "; of operational mode: run show vrrp")
	fails(t, s, "top; set vrrp_s X", `"vrrp_s" could be any of: vrrp_script, vrrp_sync_group`)
}

func TestSecretsInConfigureMode(t *testing.T) {
	s, _ := configuring(t)
	var log []string
	s.Audit = func(e status.AuditEntry) {
		log = append(log, fmt.Sprintf("%s from %s: %s: %s", e.User, e.Address, e.Command, e.Result))
	}
	ok(t, s, "configure")
	for _, line := range []string{"show", "show vrrp_instance VI_1", "show vrrp_instance VI_1 authentication", "show | display set", "edit vrrp_instance VI_2; show", "top; show heartbeat",
		"set vrrp_instance VI_1 authentication auth_pass topsecret9; compare", "compare 2", "compare 3 2", "run show configuration 2"} {
		if out := ok(t, s, line); strings.Contains(out, "topsecret") {
			t.Errorf("%s shows a secret: %q", line, out)
		}
	}
	if out := ok(t, s, "top show vrrp_instance VI_1 secrets"); !strings.Contains(out, "topsecret9") {
		t.Errorf("%q", out)
	}
	if out := ok(t, s, "top; show secrets | display set"); !strings.Contains(out, "topsecret9") || !strings.Contains(out, "topsecret1") {
		t.Errorf("%q", out)
	}
	// What fails may be a secret in the wrong place.
	s.Run(t.Context(), "set topsecret")
	s.Run(t.Context(), "set vrrp_instance VI_1 priority topsecret")
	s.Run(t.Context(), `set vrrp_instance VI_1 authentication auth_pass "topsecret} x`)
	s.Run(t.Context(), "set snmp community topsecret; edit heartbeat; set key topsecret-0123456789abcdef; top; delete vrrp_instance VI_1 authentication auth_pass topsecret9")
	s.Run(t.Context(), "annotate vrrp_instance VI_1 \"password topsecret\"")
	s.Run(t.Context(), "run topsecret; top topsecret")
	s.Run(t.Context(), "topsecret")
	for _, l := range log {
		if strings.Contains(l, "topsecret") {
			t.Errorf("the log has a secret: %s", l)
		}
	}
	if !slices.Contains(log, "ann from 192.0.2.7: set vrrp_instance VI_1 authentication auth_pass ********: ok") {
		t.Errorf("%q", log)
	}
	fails(t, s, "set vrrp_instance VI_1 authentication auth_pass ********", "the mask where a secret was")
}

func TestLoadIntoCandidate(t *testing.T) {
	s, f := configuring(t)
	send := func(text string) {
		s.Data = func(context.Context, string) (string, error) { return text, nil }
	}
	ok(t, s, "configure")
	send("vrrp_instance VI_1 {\n    priority 77\n}\n")
	ok(t, s, "load merge terminal")
	if out := ok(t, s, "show vrrp_instance VI_1"); !strings.Contains(out, "priority 77") || !strings.Contains(out, "interface eth0") {
		t.Errorf("merge: %q", out)
	}
	send("set vrrp_instance VI_1 priority 78\ndelete vrrp_instance VI_2\n# comment\nedit virtual_server 10.0.0.100 80\nset lb_algo wrr\n")
	ok(t, s, "load set")
	if out := ok(t, s, "show"); !strings.Contains(out, "priority 78") || strings.Contains(out, "VI_2") || !strings.Contains(out, "lb_algo wrr") {
		t.Errorf("set: %q", out)
	}
	before, _ := s.Candidate()
	send("set vrrp_instance VI_1 priority 79\nset vrrp_instance VI_1 priority much\n")
	fails(t, s, "load set", "line 2: ")
	if after, _ := s.Candidate(); after != before {
		t.Error("half a load is in the candidate")
	}
	send("vrrp_instance VI_9 {\n}\n")
	ok(t, s, "load replace")
	if out := ok(t, s, "show"); !strings.Contains(out, "VI_9") || strings.Contains(out, "VI_1") || !strings.Contains(out, "host_name lb1") {
		t.Errorf("replace: %q", out)
	}
	ok(t, s, "load override")
	if text, _ := s.Candidate(); text != "vrrp_instance VI_9 {\n}\n" {
		t.Errorf("override: %q", text)
	}
	send("snmp {\n    community ********\n}\n")
	fails(t, s, "load override", "line 2 has the mask where a secret was")
	send("# ******** heading ********\nglobal_defs {\n}\n")
	ok(t, s, "load override; discard")
	s.Data = func(context.Context, string) (string, error) { return "", errors.New("cut off") }
	fails(t, s, "load override", "cut off")
	ok(t, s, "rollback 2")
	if text, _ := s.Candidate(); text != "# two\n" {
		t.Errorf("rollback: %q", text)
	}
	ok(t, s, "rollback")
	ok(t, s, "rollback 0")
	if s.Dirty() {
		t.Error("rollback 0 is not what runs")
	}
	fails(t, s, "rollback 99", "there is no generation 99")
	if len(f.commits) > 0 {
		t.Error("something was committed")
	}
	// Outside configure mode, into what runs.
	ok(t, s, "exit")
	send("vrrp_instance VI_1 {\n    priority 77\n}\n")
	ok(t, s, "load merge; commit")
	if len(f.commits) != 1 || !strings.Contains(f.commits[0].Text, "interface eth1") || !strings.Contains(f.commits[0].Text, "priority 77") {
		t.Errorf("%+v", f.commits)
	}
}

func TestCommitConfirmed(t *testing.T) {
	s, f := configuring(t)
	for line, minutes := range map[string]int{"commit confirmed": 5, "commit confirmed 7 comment x": 7, "commit force confirmed comment 3": 5, "commit": 0} {
		f.pending = nil
		ok(t, s, "configure; set vrrp_instance VI_1 priority 150; "+line)
		if got := f.commits[len(f.commits)-1]; got.Confirm != time.Duration(minutes)*time.Minute {
			t.Errorf("%s: %+v", line, got)
		}
		ok(t, s, "rollback 3; commit; exit")
	}
	ok(t, s, "configure; set vrrp_instance VI_1 priority 150; commit confirmed")
	n := len(f.commits)
	if out := ok(t, s, "commit"); out != "confirmed: generation 12 stays\n" || len(f.commits) != n {
		t.Errorf("%q, %d commits", out, len(f.commits)-n)
	}
	fails(t, s, "confirm", "nothing waits to be confirmed")
	ok(t, s, "set vrrp_instance VI_1 priority 151; commit confirmed 1; exit")
	if out := ok(t, s, "commit"); !strings.HasPrefix(out, "confirmed: ") {
		t.Errorf("%q", out)
	}
	for _, line := range []string{"commit confirmed 0", "commit confirmed 61", "commit confirmed 5m", "rollback confirmed 900"} {
		fails(t, s, line, "confirmed wants 1…60 minutes")
	}
	f.verbs["conf rollback"] = func(in any) (any, error) {
		r := in.(status.Rollback)
		if r.Generation != 2 || r.Confirm != 3*time.Minute || !r.Force || r.Session == nil || r.Session.User != "ann" {
			t.Errorf("%+v", r)
		}
		return status.CommitResult{Generation: 99}, nil
	}
	ok(t, s, "rollback 2 confirmed 3 force")
}

func TestOneShotStopsAtAFailure(t *testing.T) {
	s, f := configuring(t)
	s.OneShot = true
	r := s.Run(t.Context(), "configure; set vrrp_instance VI_1 priority 1000; commit")
	if r.Code == OK || len(f.commits) > 0 || !strings.Contains(r.Err, "1000") {
		t.Errorf("%+v", r)
	}
	s.Close()
	r = s.Run(t.Context(), "configure; set vrrp_instance VI_1 priority 200; commit comment one line")
	if r.Code != OK || len(f.commits) != 1 || f.commits[0].Comment != "one line" {
		t.Errorf("%+v", r)
	}
}

func TestTwoEditors(t *testing.T) {
	list := &Editors{}
	ann, f := configuring(t)
	bob := &Session{Services: f.box, User: "bob", Address: "192.0.2.8", Role: Admin, Now: ann.Now, Editors: list}
	ann.Editors = list
	ok(t, ann, "configure; set vrrp_instance VI_1 priority 150")
	if out := ok(t, bob, "configure"); out != "note: ann@192.0.2.7 is in configure mode for 0s, with changes that are not committed\n" {
		t.Errorf("%q", out)
	}
	if out := ok(t, ann, "status"); out != "bob@192.0.2.8 is in configure mode for 0s\n" {
		t.Errorf("%q", out)
	}
	ok(t, bob, "set vrrp_instance VI_2 priority 90; commit")
	fails(t, ann, "commit", `moved from generation 3 to 4 (commit by bob@serial, 1h00m ago) since yours was loaded; "update" takes it into the candidate`)
	ok(t, ann, "update")
	if out := ok(t, ann, "compare"); !strings.Contains(out, "+    priority 150") || strings.Contains(out, "priority 90") {
		t.Errorf("%q", out)
	}
	ok(t, ann, "commit")
	if text := f.gens[4]; !strings.Contains(text, "priority 90") || !strings.Contains(text, "priority 150") {
		t.Error("one of the two changes is lost")
	}
	ok(t, bob, "update; set vrrp_instance VI_1 priority 1; commit")
	ok(t, ann, "set vrrp_instance VI_1 priority 2")
	fails(t, ann, "update", "change the same lines:\nline 19\n  was           priority 150\n  runs          priority 1\n  candidate     priority 2\n")
	ok(t, ann, "discard")
	fails(t, bob, "set vrrp_instance VI_1 priority 5; exit; configure exclusive; exit discard; configure excl x", "excl")
	ok(t, bob, "discard; exit")
	ok(t, ann, "exit")
	ok(t, ann, "configure exclusive")
	ok(t, bob, "configure; set vrrp_instance VI_1 priority 5")
	fails(t, bob, "commit", "not committed: ann@192.0.2.7 is in configure mode exclusively for 0s: nobody else can commit")
	fails(t, bob, "configure exclusive", "not a command")
	ann.Close()
	ok(t, bob, "commit")
}

func TestConfigureCompletion(t *testing.T) {
	s, _ := configuring(t)
	ok(t, s, "configure")
	for _, tc := range []struct {
		line  string
		start int
		want  []string
	}{
		{"se", 0, []string{"set"}},
		{"set vrrp_inst", 4, []string{"vrrp_instance"}},
		{"set vrrp_instance VI_1 prio", 23, []string{"priority"}},
		{"set vrrp_i VI_1 prio", 16, []string{"priority"}},
		{"show vrrp_instance V", 19, []string{"VI_1", "VI_2"}},
		{"top edit vrrp_instance V", 23, []string{"VI_1", "VI_2"}},
		{"set vrrp_instance VI_1 interface eth", 33, []string{"eth0", "eth1"}},
		{"run show vrrp ", 14, []string{"VI_1", "VI_2", "<INSTANCE>", "<Enter>"}},
		{"compare ", 8, []string{"3", "2", "1", "<Enter>"}},
		{"delete vrrp_instance VI_2 ", 26, []string{"authentication", "interface", "virtual_ipaddress", "virtual_router_id", "<Enter>"}},
		{"delete vrrp_instance VI_2 virtual_ipaddress ", 44, []string{"10.0.1.100/24", "<Enter>"}},
		{"delete vrrp_instance ", 21, []string{"VI_1", "VI_2", "<Enter>"}},
		{"commit confirmed ", 17, []string{"and-quit", "check", "comment", "force", "local", "override", "<MINUTES>", "<Enter>"}},
		{"commit comment x", 15, []string{"<TEXT>"}},
		{"load merge ", 11, []string{"terminal"}},
		{"run ex", 4, []string{"explain"}},
		{"show | ", 7, filterNames},
		{"show | display ", 15, []string{"json", "set"}},
		{"set vrrp_instance VI_1 priority 5; sho", 35, []string{"show"}},
		{"load m", 5, []string{"merge"}},
		{"frob ", 5, nil},
	} {
		start, list := s.Complete(t.Context(), tc.line)
		var got []string
		for _, c := range list {
			if !c.Placeholder || !strings.HasPrefix(tc.line, "set") && !strings.HasPrefix(tc.line, "show v") && !strings.HasPrefix(tc.line, "top") && !strings.HasPrefix(tc.line, "load") {
				got = append(got, c.Text)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || start != tc.start {
			t.Errorf("%q: start %d, want %d\n%s", tc.line, start, tc.start, diff)
		}
	}
	// The range and the default are told.
	_, list := s.Complete(t.Context(), "set vrrp_instance VI_1 priority ")
	if !slices.ContainsFunc(list, func(c Completion) bool { return c.Placeholder && strings.Contains(c.Text+c.Help, "1..255") }) {
		t.Errorf("%+v", list)
	}
}

// No command shows a secret to who may only look or operate, in any form.
func TestNobodyBelowSeesASecret(t *testing.T) {
	for _, r := range []Role{View, Operate} {
		for _, c := range commands {
			for _, more := range []string{"", " 3", " secrets", " 3 secrets", " --json", " | display set", " VI_1", " 2 3", " 10.0.0.21", " | json"} {
				s, f := configuring(t)
				f.states["ipvs"] = status.IPVS{}
				s.Role = r
				s.Data = func(context.Context, string) (string, error) { return hasSecrets, nil }
				res := s.Run(t.Context(), c.name()+more)
				if strings.Contains(res.Out+res.Err, "topsecret") {
					t.Errorf("%s: %s%s: %s%s", r, c.name(), more, res.Out, res.Err)
				}
				if _, list := s.Complete(t.Context(), c.name()+more+" "); strings.Contains(fmt.Sprint(list), "topsecret") {
					t.Errorf("%s: %s%s completes to %v", r, c.name(), more, list)
				}
			}
		}
	}
}

// A commit of configure mode goes on when its user presses Ctrl-C.
func TestConfigureCommitIsNotCancelled(t *testing.T) {
	s, f := configuring(t)
	ok(t, s, "configure; set vrrp_instance VI_1 priority 150")
	f.verbs["conf commit"] = nil // answers ctx's error when it is cut short
	ctx, cancel := context.WithCancel(t.Context())
	s.Services = &cutting{f.box, cancel}
	if r := s.Run(ctx, "commit"); r.Code != OK {
		t.Errorf("%+v", r)
	}
	if ctx.Err() == nil {
		t.Error("nothing was cancelled")
	}
}

// What was given up is not gone on with: the commands behind it are not done.
func TestInterruptedLine(t *testing.T) {
	s, f := configuring(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.verbs["conf history"] = func(any) (any, error) {
		cancel()
		return []status.Generation{}, nil
	}
	f.verbs["conf rollback"] = func(any) (any, error) { return status.CommitResult{Generation: 4}, nil }
	r := s.Run(ctx, "show history; rollback 2")
	if r.Code != Failed || r.Err != "interrupted: \"rollback 2\" and what follows is not done\n" || slices.ContainsFunc(f.calls, func(c string) bool { return strings.HasPrefix(c, "conf rollback") }) {
		t.Errorf("%+v, calls %q", r, f.calls)
	}
}

// cutting presses Ctrl-C when the commit has been sent.
type cutting struct {
	*box
	cancel context.CancelFunc
}

func (c *cutting) Call(ctx context.Context, service, verb string, in, out any) error {
	if verb == "commit" {
		c.cancel()
	}
	return c.box.Call(ctx, service, verb, in, out)
}

// commitWord is what a line must hold to commit.
var commitWord = regexp.MustCompile(`(?i)com|rol|con`)

// FuzzSession runs whole sessions: nothing panics, nothing is committed without
// the word, and nothing that a terminal would obey is printed as an error.
func FuzzSession(f *testing.F) {
	f.Add("configure\nset vrrp_instance VI_1 priority 5\ncompare\ncommit")
	f.Add("edit vrrp_instance VI_1\nset authentication auth_pass \"a b\"\nshow | display set\ntop\nup 3\nexit")
	f.Add("configure; load set; show; rollback 2; update; discard; exit discard; exit")
	f.Add("conf\nedit virtual_server 10.0.0.100 80 real_server 10.0.0.21 80\ndelete\nannotate x \"y\"\ntop show | compare\nrun show vrrp | count")
	f.Add("configure exclusive\ntop top top set x\nrun run run\nset @lb1 x {\nset \"\" \"\"\ndelete \"}\"")
	f.Fuzz(func(t *testing.T, script string) {
		if len(script) > 2000 {
			return
		}
		s, b := configuring(t)
		s.Editors = &Editors{}
		s.Data = func(context.Context, string) (string, error) { return script, nil }
		s.Audit = func(e status.AuditEntry) {
			if text := e.User + e.Address + e.Command + e.Result; strings.ContainsAny(text, "\n\x1b\x00") {
				t.Errorf("control characters in the log: %q", text)
			}
		}
		committed := 0
		for line := range strings.SplitSeq(script, "\n") {
			s.Complete(t.Context(), line)
			r := s.Run(t.Context(), line)
			if r.Code < OK || r.Code > Usage || (r.Code != OK) != (r.Err != "") {
				t.Errorf("%q: %+v", line, r)
			}
			if strings.ContainsAny(r.Err, "\x1b\x00") {
				t.Errorf("%q: control characters on the terminal: %q", line, r.Err)
			}
			if len(b.commits) > committed && !commitWord.MatchString(line) {
				t.Errorf("%q committed", line)
			}
			committed = len(b.commits)
			s.Prompt("lb1")
			if r.Exit {
				break
			}
		}
	})
}

// A session as the manual shows it.
func TestGoldenSession(t *testing.T) {
	s, _ := configuring(t)
	s.Data = func(context.Context, string) (string, error) { return "set vrrp_instance VI_1 advert_int 2\n", nil }
	var b strings.Builder
	for _, line := range strings.Split(`configure
edit vrrp_instance VI_1
set priority 150
set authentication auth_pass newsecret
show authentication
up
annotate vrrp_instance VI_1 "the office's address"
compare
set vrrp_instance VI_1 priority 1000
set vrrp_instance VI_1 prioritty 10
show vrrp_instance VI_2 | display set
load set
check
commit comment "raise VI_1"
rollback 2
discard
delete vrrp_instance VI_7
run show vrrp
exit`, "\n") {
		above, prompt := s.Prompt("lb1")
		b.WriteString(above + prompt + line + "\n")
		r := s.Run(t.Context(), line)
		b.WriteString(r.Out + r.Err)
	}
	golden.Check(t, "testdata/session.golden", b.String())
}

// The session that the manual shows is a real one: its commands are done again.
func TestManualSession(t *testing.T) {
	manual, err := os.ReadFile("../../docs/console.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(manual), "\n## Configure mode\n")
	_, text, _ = strings.Cut(text, "\n\n    ")
	text, _, ok := strings.Cut("    "+text, "\n\n|")
	if !ok {
		t.Fatal("the manual has no session under Configure mode")
	}
	s, _ := configuring(t)
	var want, got strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		line = strings.TrimPrefix(line, "    ")
		want.WriteString(line + "\n")
		if prompt, command, ok := strings.Cut(line, " "); ok && (prompt == "lb1>" || prompt == "lb1#") {
			above, prompt := s.Prompt("lb1")
			r := s.Run(t.Context(), command)
			got.WriteString(above + prompt + command + "\n" + r.Out + r.Err)
		}
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("docs/console.md (-manual +now):\n%s", diff)
	}
}

// Each word of commit and load has its help.
func TestWordsHaveHelp(t *testing.T) {
	for _, w := range commitWords {
		if commitHelp[w] == "" {
			t.Errorf("commit %s has no help", w)
		}
	}
	for _, w := range append(slices.Clone(loadWays), "terminal") {
		if loadHelp[w] == "" {
			t.Errorf("load %s has no help", w)
		}
	}
	for _, f := range filterNames {
		if filterHelp[f] == "" {
			t.Errorf("| %s has no help", f)
		}
	}
}
