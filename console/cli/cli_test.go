package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"

	"github.com/google/go-cmp/cmp"
)

// box answers for the services.
type box struct {
	states map[string]any
	verbs  map[string]func(in any) (any, error) // by "service verb"
	calls  []string
}

func (b *box) State(_ context.Context, service string, v any) error {
	st, ok := b.states[service]
	if !ok {
		return errors.New(service + " does not answer: dial unix: connect: connection refused")
	}
	j, _ := json.Marshal(st)
	return json.Unmarshal(j, v)
}

func (b *box) Call(ctx context.Context, service, verb string, in, out any) error {
	j, _ := json.Marshal(in)
	b.calls = append(b.calls, service+" "+verb+" "+string(j))
	fn := b.verbs[service+" "+verb]
	if fn == nil {
		return ctx.Err()
	}
	v, err := fn(in)
	if err != nil || out == nil {
		return err
	}
	j, _ = json.Marshal(v)
	return json.Unmarshal(j, out)
}

func session(role Role) (*Session, *box) {
	b := &box{states: map[string]any{
		"conf": status.Conf{Generation: 3, Source: "commit", Author: "bob@serial"},
		"vrrp": status.VRRP{Instances: []status.VRRPInstance{{Name: "VI_1", State: "MASTER"}, {Name: "VI_2", State: "BACKUP"}}},
		"health": status.Health{Servers: []status.VirtualServerHealth{
			{Name: "[10.0.0.100]:tcp:80", QuorumUp: true, Real: []status.RealServerHealth{{Addr: netip.MustParseAddr("10.0.0.21"), Port: 80, Alive: true}}},
			{Name: "FWM 3", Real: []status.RealServerHealth{{Addr: netip.MustParseAddr("10.0.0.21"), Port: 80}, {Addr: netip.MustParseAddr("2001:db8::21"), Port: 21}}}}},
		"notify":  status.Notify{Scripts: []status.ScriptResult{{Name: "check_web", Known: true, OK: true}}},
		"console": status.Console{Sessions: []status.ConsoleSession{{ID: 7, User: "ann", Address: "192.0.2.7", Role: "admin", Kind: "terminal"}}},
		"init":    status.Init{Services: []status.Process{{Name: "vrrp"}, {Name: "ipvs"}}},
	}, verbs: map[string]func(any) (any, error){
		"conf check": func(any) (any, error) { return status.CheckReport{Merged: "auth_pass secret"}, nil },
		"conf text": func(any) (any, error) {
			return status.Candidate{Text: "auth_pass secret\n"}, nil
		},
		"ipvs order": func(any) (any, error) {
			return []status.Dest{{Addr: netip.MustParseAddr("10.0.0.21"), Port: 80, Active: 7}}, nil
		},
		"notify journal": func(any) (any, error) {
			return []status.Entry{{Service: "vrrp", Transition: status.Transition{Object: "VI_1", From: "BACKUP", To: "MASTER", Reason: "because"}}}, nil
		},
		"conf commit": func(any) (any, error) {
			return status.CommitResult{Generation: 4, Warnings: map[string]string{"net": "eth9 is not there"}}, nil
		},
	}}
	return &Session{Services: b, User: "ann", Address: "192.0.2.7", Role: role, Now: func() time.Time { return time.Unix(1e9, 0) },
		Mask: func(s string) string { return strings.ReplaceAll(s, "secret", "********") },
		Data: func(context.Context, string) (string, error) { return "text\n", nil }}, b
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		line string
		want []statement
		bad  bool
	}{
		{line: ""}, {line: "  \t "}, {line: "# comment; reboot"}, {line: "! comment"}, {line: ";;"},
		{line: "show vrrp", want: []statement{{words: []string{"show", "vrrp"}}}},
		{line: "a;b ; c", want: []statement{{words: []string{"a"}}, {words: []string{"b"}}, {words: []string{"c"}}}},
		{line: "show log|match a|count", want: []statement{{[]string{"show", "log"}, [][]string{{"match", "a"}, {"count"}}}}},
		{line: `commit comment "a; b | c \" d"`, want: []statement{{words: []string{"commit", "comment", `a; b | c " d`}}}},
		{line: `x ""`, want: []statement{{words: []string{"x", ""}}}},
		{line: `x "open`, bad: true},
		{line: strings.Repeat("x", MaxLine+1), bad: true},
		{line: "|", want: []statement{{nil, [][]string{nil}}}},
	} {
		got, err := parse(tc.line)
		for i := range got {
			if len(got[i].filters) == 0 {
				got[i].filters = nil
			}
		}
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(statement{})); diff != "" || (err != nil) != tc.bad {
			t.Errorf("%q: %v\n%s", tc.line, err, diff)
		}
	}
}

func TestLines(t *testing.T) {
	for _, tc := range []struct {
		role      Role
		line      string
		code      int
		out, errs string
	}{
		{View, "show vrrp", OK, "VI_1", ""},
		{View, "sh vr", OK, "VI_1", ""},
		{View, "sho ver --json", OK, `"services"`, ""},
		{View, "show vrrp | json", OK, `"instances"`, ""},
		{View, "show vrrp VI_2 --json", OK, `"BACKUP"`, ""},
		{View, "show vrrp | match backup | count", OK, "1\n", ""},
		{View, "show vrrp | except VI_ | last 1", OK, "Instance", ""},
		{View, "show vrrp | matc", Usage, "", "| match wants a text"},
		{View, "show vrrp | sort", Usage, "", "is not known here; possible: compare, count, display, except, json, last, match, no-more"},
		{View, "show vrrp | count 5", Usage, "", `| count takes nothing after it, not "5"`},
		{View, `help "open`, Usage, "", "the quote at character 6 is not closed"},
		{View, "show vrrp \u202eIV\x9b", Failed, "", `there is no instance "?IV?"; there are: VI_1, VI_2`},
		{View, "show vrrp |", Usage, "", "after | comes one of"},
		{View, "show", Usage, "", "show is incomplete; possible: audit, bfd, configuration, crash, drift, fifos, files, firewall"},
		{View, "show v", Usage, "", `"v" could be any of: version, vrrp`},
		{View, "show vrrp a b", Usage, "", "one instance name at most"},
		{View, "show ipvs everything", Usage, "", `show ipvs does not take "everything"; possible: connections, rates, stats`},
		{View, "show version now", Usage, "", `show version does not take "now"`},
		{View, "frobnicate", Usage, "", `"frobnicate" is not a command; possible: exit, explain, file, help, monitor, quit, show`},
		{View, "re", Usage, "", `"re" is not a command`},
		{Admin, "re", Usage, "", `"re" could be any of: reboot, resign, restart, resume`},
		{View, "show ipvs", Failed, "", `ipvs does not answer; see "show processes" and "show log ipvs"`},
		{View, "show configuration", OK, "auth_pass ********", ""},
		{Operate, "show configuration", OK, "auth_pass ********", ""},
		{Admin, "show configuration", OK, "auth_pass ********", ""},
		{Admin, "show configuration secrets", OK, "auth_pass secret", ""},
		{Admin, "show configuration 3 secrets --json", OK, "auth_pass secret", ""},
		{Admin, "show configuration secrets 3", Usage, "", "is not the number of a generation"},
		{Admin, "show configuration sec", Usage, "", "is not the number of a generation"},
		{Operate, "show configuration secrets", Failed, "", "permission denied: it needs role admin"},
		{View, "show configuration --json", OK, "auth_pass ********", ""},
		{View, "show configuration zero", Usage, "", `"zero" is not the number of a generation; "show history"`},
		{View, "show log vrrp 5 x", Usage, "", "show log [SERVICE] [LINES]"},
		{View, "commit", Failed, "", "permission denied: it needs role admin, ann has role view"},
		{Operate, "reboot", Failed, "", "permission denied"},
		{None, "show vrrp", Failed, "", "permission denied"},
		{Admin, "commit", Failed, "", "nothing is loaded"},
		{Admin, "load; commit", OK, "warning: net: eth9 is not there\ncommitted: generation 4", ""},
		{Admin, "load override; commit comment x y", OK, "committed", ""},
		{Admin, "load sideways", Usage, "", "is not known here; possible: merge, override, replace, set, terminal"},
		{Admin, "commit sideways", Usage, "", "is not known here; possible: and-quit, check, comment, confirmed, force, local, override"},
		{Admin, "commit comment", Usage, "", "wants a text"},
		{Admin, "load --json", Usage, "", "load has no --json form"},
		{Admin, "rollback x", Usage, "", "number of a generation"},
		{Admin, "file put", Usage, "", "file put PATH"},
		{Admin, "file put /opt/x 999", Usage, "", "octal"},
		{Admin, "file delete", Usage, "", "file delete PATH"},
		{Admin, "restart", Usage, "", "restart SERVICE"},
		{Admin, "restart vrrp signal 900", Usage, "", "restart SERVICE"},
		{Admin, "discard", OK, "nothing was loaded", ""},
		{Operate, "drain 10.0.0.21", OK, "10.0.0.21:80: weight 0, 7 active and 0 inactive connections", ""},
		{Operate, "weight 10.0.0.21:80 5 of [10.0.0.100]:tcp:80", OK, "weight 0", ""},
		{Operate, "weight 10.0.0.21", Usage, "", "weight SERVER N"},
		{Operate, "weight 10.0.0.21 heavy", Usage, "", `"heavy" is not a weight; want 0`},
		{Operate, "drain web1", Usage, "", `"web1" is not a real server; write its address`},
		{Operate, "drain 10.0.0.21 from x", Usage, "", "drain SERVER [of VIRTUAL]"},
		{Operate, "enable", Usage, "", "enable SERVER [of VIRTUAL], for example: enable 10.0.0.5:80"},
		{Operate, "track-file load many", Usage, "", `track-file load: "many" is not a whole number; for example: track-file load 50`},
		{View, "explain vrrp VI_1", OK, "VI_1 is MASTER", ""},
		{View, "explain vrrp VI_9", Failed, "", `there is no instance "VI_9"; there are: VI_1, VI_2`},
		{View, "explain server 10.0.0.99", Failed, "", "ipvs does not answer"},
		{View, "show heartbeat", OK, "no heartbeat is configured", ""},
		{View, "show scripts", OK, "check_web  OK", ""},
		{View, "show fifos", OK, "no notify pipe is configured", ""},
		{View, "show scripts --json", OK, `"check_web"`, ""},
		{View, "show timers", OK, "no timer fired yet", ""},
		{View, "show journal VI_1 5", OK, "VI_1: BACKUP -> MASTER: because", ""},
		{View, "show journal 5 6", Usage, "", "show journal [OBJECT] [LINES]"},
		{Operate, "maintenance on", OK, "also over a reboot", ""},
		{Operate, "maintenance off", OK, "resumed", ""},
		{Operate, "maintenance", Usage, "", "maintenance on|off"},
		{Operate, "maintenance o", Usage, "", "could be any of: on, off"},
		{Admin, "help commit", OK, "make the candidate", ""},
		{View, "help commit", Usage, "", "there is no command"},
		{View, "show vrrp; nonsense; show version", Usage, "VI_1", "not a command"},
		{View, "exit; show vrrp", OK, "", ""},
	} {
		s, _ := session(tc.role)
		r := s.Run(t.Context(), tc.line)
		if r.Code != tc.code || !strings.Contains(r.Out, tc.out) || !strings.Contains(r.Err, tc.errs) || (tc.out == "" && tc.code != OK && r.Out != "") {
			t.Errorf("%s: %s: status %d, want %d\nout %q, want %q\nerr %q, want %q", tc.role, tc.line, r.Code, tc.code, r.Out, tc.out, r.Err, tc.errs)
		}
	}
}

// Each command is allowed from its role on, and to nobody below. What this test
// does not know is for administrators.
func TestRoleMatrix(t *testing.T) {
	operate := []string{"resign", "resume", "restart", "drain", "disable", "enable", "weight", "track-file", "maintenance"}
	view := []string{"file list", "help", "monitor", "exit", "quit"}
	for _, c := range commands {
		role := Admin
		switch {
		case slices.Contains(view, c.name()), c.words[0] == "show", c.words[0] == "explain", c.words[0] == "terminal":
			role = View
		case slices.Contains(operate, c.name()):
			role = Operate
		}
		if c.role != role {
			t.Errorf("%s is for %s, want %s", c.name(), c.role, role)
		}
		for r := None; r < role; r++ {
			s, b := session(r)
			if res := s.Run(t.Context(), c.name()); res.Code != Failed || !strings.Contains(res.Err, "permission denied") || len(b.calls) > 0 {
				t.Errorf("%s as %s: %+v, calls %v", c.name(), r, res, b.calls)
			}
		}
	}
	for _, c := range configureCommands {
		if c.role != Admin {
			t.Errorf("%s in configure mode is for %s", c.name(), c.role)
		}
		// A user who is no administrator any more is out of configure mode.
		for r := None; r < Admin; r++ {
			s, b := session(Admin)
			if res := s.Run(t.Context(), "configure"); res.Code != OK {
				t.Fatal(res)
			}
			b.calls, s.Role = nil, r
			if _, list := s.Complete(t.Context(), c.name()+" "); len(list) > 0 {
				t.Errorf("%s as %s completes to %v", c.name(), r, list)
			}
			s.Run(t.Context(), c.name())
			if len(b.calls) > 0 || s.Dirty() || s.editing != nil {
				t.Errorf("%s as %s: calls %v", c.name(), r, b.calls)
			}
		}
	}
}

func TestAudit(t *testing.T) {
	s, b := session(Admin)
	var log []string
	s.Audit = func(e status.AuditEntry) {
		log = append(log, fmt.Sprintf("%s from %s: %s: %s", e.User, e.Address, e.Command, e.Result))
	}
	b.verbs["conf commit"] = func(any) (any, error) {
		return nil, &ipc.Refused{Status: 422, Text: "not committed: 1 error\nfile:1: auth_pass hidden"}
	}
	for _, line := range []string{"sh vr", "check auth_pass hidden", "auth_pass hidden", "load", "commit comment it \x1b[31mis", "exit"} {
		s.Run(t.Context(), line)
	}
	want := []string{
		"ann from 192.0.2.7: show vrrp: ok",
		"ann from 192.0.2.7: unknown command: not a command",
		`ann from 192.0.2.7: unknown command: not a command`,
		"ann from 192.0.2.7: load: ok",
		"ann from 192.0.2.7: commit comment it ?[31mis: not committed: 1 error",
	}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Error(diff)
	}
}

// The password of a URL is not in the log, whatever becomes of the command.
func TestAuditOfURLs(t *testing.T) {
	const user = "http://ann:hidden@192.0.2.1/fw"
	for _, tc := range []struct {
		role Role
		line string
		want string
	}{
		{Admin, "upgrade older " + user, "upgrade older http://ann:xxxxx@192.0.2.1/fw: verbs that stream"},
		{Admin, "upgrade pair " + user, "upgrade pair http://ann:xxxxx@192.0.2.1/fw: verbs that stream"},
		{Admin, "upgrade nonsense " + user, "upgrade nonsense http://ann:xxxxx@192.0.2.1/fw: upgrade does not take"},
		{Admin, "upgrade usb " + user, "upgrade usb http://ann:xxxxx@192.0.2.1/fw: upgrade takes one source"},
		{Admin, "upgrade http://ann:hidden%@192.0.2.1/fw", `upgrade http://xxxxx: upgrade does not take "http://xxxxx"`},
		{Admin, "upgrade pair http://ann:hidden/@192.0.2.1/fw", `upgrade pair http://xxxxx: upgrade pair does not take "http://xxxxx"`},
		{Operate, "install sda " + user, "install sda http://ann:xxxxx@192.0.2.1/fw: install: permission denied"},
		{View, "upgrade http://192.0.2.1:8080/fw@1", "upgrade http://192.0.2.1:8080/fw@1: upgrade: permission denied"},
	} {
		s, _ := session(tc.role)
		log := ""
		s.Audit = func(e status.AuditEntry) { log += e.Command + ": " + e.Result }
		r := s.Run(t.Context(), tc.line)
		if !strings.HasPrefix(log, tc.want) || strings.Contains(log+r.Err, "hidden") {
			t.Errorf("%s: %q, %+v; want %q", tc.line, log, r, tc.want)
		}
	}
}

func TestRunningMoved(t *testing.T) {
	s, b := session(Admin)
	s.Run(t.Context(), "load")
	b.states["conf"] = status.Conf{Generation: 9, Source: "rollback", Author: "eve@serial", Time: time.Unix(1e9-65, 0)}
	r := s.Run(t.Context(), "commit")
	if r.Code != Failed || !strings.Contains(r.Err, "moved from generation 3 to 9 (rollback by eve@serial, 1m05s ago)") {
		t.Errorf("%+v", r)
	}
	b.calls = nil
	if r := s.Run(t.Context(), "commit"); r.Code != OK || !strings.Contains(b.calls[0], `"base":9`) {
		t.Errorf("a second time: %+v %v", r, b.calls)
	}
	if s.Dirty() {
		t.Error("the candidate is still there")
	}
}

// A commit goes on when its user presses Ctrl-C or is cut off.
func TestCommitIsNotCancelled(t *testing.T) {
	s, b := session(Admin)
	s.Run(t.Context(), "load")
	ctx, cancel := context.WithCancel(t.Context())
	b.verbs["conf commit"] = nil
	cancel()
	if r := s.Run(ctx, "commit"); r.Code != OK { // with a cancelled call the box answers ctx's error
		t.Errorf("%+v", r)
	}
	b.verbs["conf history"] = func(any) (any, error) { return nil, context.Canceled }
	if r := s.Run(ctx, "show history"); r.Err != "interrupted: what conf was asked may be done all the same\n" {
		t.Errorf("%+v", r)
	}
}

func TestAskedBeforeReboot(t *testing.T) {
	s, b := session(Admin)
	s.Ask = func(context.Context, string) bool { return false }
	if r := s.Run(t.Context(), "reboot"); r.Code != Failed || len(b.calls) > 0 {
		t.Errorf("%+v %v", r, b.calls)
	}
	s.Ask = func(context.Context, string) bool { return true }
	if r := s.Run(t.Context(), "reboot"); r.Code != OK || len(b.calls) != 1 {
		t.Errorf("%+v %v", r, b.calls)
	}
}

func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"":                 "0 disable drain enable exit explain file help maintenance monitor quit resign restart resume show terminal track-file weight",
		"sh":               "0 show",
		"show v":           "5 version vrrp",
		"sh vr":            "3 vrrp",
		"show vrrp ":       "10 VI_1 VI_2 <INSTANCE> <Enter>",
		"show vrrp VI_2":   "10 VI_2 <INSTANCE>",
		"show vrrp VI_1 ":  "15 <Enter>",
		"resign V":         "7 VI_1 VI_2 <INSTANCE>",
		"restart i":        "8 ipvs <SERVICE>",
		"show log ":        "9 ipvs vrrp <SERVICE> <Enter>",
		"show ipvs s":      "10 stats",
		"comm":             "0",
		"nonsense ":        "9",
		"file ":            "5 list",
		"show ipvs stats ": "16 <Enter>",
		"drain ":           "6 10.0.0.21:80 [2001:db8::21]:21 <SERVER>",
		"explain s":        "8 server",
	} {
		s, _ := session(Operate)
		start, list := s.Complete(t.Context(), line)
		got := fmt.Sprint(start)
		for _, c := range list {
			got += " " + c.Text
		}
		if got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

// Every command of help resolves to itself, also by its shortest form.
func TestTableIsUnambiguous(t *testing.T) {
	for _, c := range commands {
		got, _, err := find(commands, c.words, Admin)
		if err != nil || got != c {
			t.Errorf("%s: %v", c.name(), err)
		}
	}
}

func FuzzRun(f *testing.F) {
	for _, c := range commands {
		f.Add(c.name())
	}
	for _, l := range []string{`a "b`, "x|y;z", "show log | match \x00 | count", "--json", "| json", "commit comment \"a;b\"", "file put /opt/x 755", "show vrrp \xff\xfe"} {
		f.Add(l)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, role := range []Role{View, Admin} {
			s, b := session(role)
			s.OneShot = true
			s.Audit = func(e status.AuditEntry) {
				if text := e.User + e.Address + e.Command + e.Result; strings.ContainsAny(text, "\n\x1b\x00") {
					t.Errorf("control characters in the log: %q", text)
				}
			}
			r := s.Run(t.Context(), line)
			if r.Code < OK || r.Code > Usage || (r.Code != OK) != (r.Err != "") {
				t.Errorf("%q: %+v", line, r)
			}
			if strings.ContainsAny(r.Err, "\x1b\x00") {
				t.Errorf("%q: control characters on the terminal: %q", line, r.Err)
			}
			if role == View {
				for _, c := range b.calls {
					if !slices.Contains([]string{"history", "text", "file-list", "log", "connections", "journal", "audit-log", "peer-state", "peer-drift", "page", "service", "server", "orders", "crash"}, strings.Fields(c)[1]) {
						t.Errorf("%q: view did %s", line, c)
					}
				}
			}
			s.Complete(t.Context(), line)
		}
	})
}

// What a terminal would obey is never printed as it is, in JSON neither, and
// means the same there.
func TestJSONForTerminals(t *testing.T) {
	const said = "220 \u009b2J\u007f\x1b]0;owned\a é"
	got, err := indented(map[string]string{"detail": said})
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(got, "\u009b\u007f\x1b\a") || !strings.Contains(got, "é") {
		t.Errorf("%q", got)
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(got), &back); err != nil || back["detail"] != said {
		t.Errorf("%q, %v", back, err)
	}
}

func TestCheckJSONHoldsNoText(t *testing.T) {
	s, _ := session(Admin)
	s.Data = func(context.Context, string) (string, error) { return "global_defs {\n}\n", nil }
	s.OneShot = true
	r := s.Run(t.Context(), "check --json")
	if r.Code != OK || !strings.Contains(r.Out, `"errors": 0`) {
		t.Fatalf("status %d, %s%s", r.Code, r.Out, r.Err)
	}
	if strings.Contains(r.Out, "secret") || strings.Contains(r.Out, "merged") {
		t.Errorf("the merged text is printed:\n%s", r.Out)
	}
}
