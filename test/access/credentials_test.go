package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"ballast/console/cli"
	"ballast/services/conf"
	"ballast/services/ipc"
	"ballast/services/ipc/status"

	"golang.org/x/sys/unix"
)

// What the console's process of a test is to do, and where the sockets are.
const (
	play    = "BALLAST_TEST_CONSOLE_PLAYS"
	sockets = "BALLAST_TEST_SOCKETS"
	names   = "BALLAST_TEST_VERBS"
)

func TestMain(m *testing.M) {
	what := os.Getenv(play)
	if what == "" {
		os.Exit(m.Run())
	}
	err := ipc.TakeRoles()
	if err == nil {
		err = map[string]func(ipc.Dir) error{"matrix": playMatrix, "bug": playBug}[what](ipc.Dir(os.Getenv(sockets)))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// program is this test without C, as the director's program is, built once and
// held open: its folder is not for everybody, and is gone again.
var program = sync.OnceValues(func() (*os.File, error) {
	dir, err := os.MkdirTemp("", "acc")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "test", "-c", "-o", dir+"/console", ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.Open(dir + "/console")
})

// runConsole runs what one of the functions above does in a process like the
// one that init makes for the console.
func runConsole(t *testing.T, dir, what string, env ...string) {
	t.Helper()
	f, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles, cmd.Dir = []*os.File{f}, "/"
	cmd.Env = append(append(os.Environ(), play+"="+what, sockets+"="+dir), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: ipc.UIDConsole, Gid: ipc.GroupBallast, Groups: []uint32{ipc.GroupBallast}},
		AmbientCaps: []uintptr{unix.CAP_SETGID},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// box is a folder of sockets as init makes it.
func box(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "acc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chown(dir, 0, ipc.GroupBallast), os.Chmod(dir, 0o750)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func listen(t *testing.T, dir, service string) *ipc.Env {
	t.Helper()
	env, err := ipc.NewEnv(ipc.Dir(dir), service, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	path := ipc.Dir(dir).Path(service)
	if err := errors.Join(os.Chown(path, 0, ipc.GroupBallast), os.Chmod(path, 0o660)); err != nil {
		t.Fatal(err)
	}
	return env
}

// playMatrix calls every verb with every role.
func playMatrix(dir ipc.Dir) error {
	var faults []error
	for _, name := range strings.Split(os.Getenv(names), ",") {
		service, verb, _ := strings.Cut(name, " ")
		need := matrix[name]
		for role := ipc.View; role <= ipc.Admin; role++ {
			err := dir.ClientAs(service, role).Call(context.Background(), verb, nil, nil)
			var refused *ipc.Refused
			switch {
			case need != ipc.None && role >= need && err == nil:
			case (need == ipc.None || role < need) && errors.As(err, &refused) && refused.Status == http.StatusForbidden:
			default:
				faults = append(faults, fmt.Errorf("%s by role %s, needs %s: %v", name, role, need, err))
			}
		}
	}
	return errors.Join(faults...)
}

// TestMatrix serves every verb of every service for those whom its service
// names, and calls it with every role.
func TestMatrix(t *testing.T) {
	dir := box(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	servers := map[string]*ipc.Server{}
	var all []string
	for name, ids := range declared(t) {
		all = append(all, name)
		service, verb, _ := strings.Cut(name, " ")
		if servers[service] == nil {
			s, env := ipc.NewServer(service), listen(t, dir, service)
			servers[service] = s
			wg.Go(func() { s.Serve(ctx, env.Listener) })
		}
		servers[service].Handle(verb, func(context.Context, ipc.Peer, json.RawMessage) (any, error) { return nil, nil }, ids...)
	}
	runConsole(t, dir, "matrix", names+"="+strings.Join(all, ","))
}

// secretText is a configuration with a secret.
const secretText = "interface eth0 {\n    address 10.0.0.2/24\n}\nvrrp_instance VI_1 {\n    interface eth0\n    virtual_router_id 51\n    " +
	"authentication {\n        auth_type PASS\n        auth_pass sesame12\n    }\n    virtual_ipaddress {\n        10.0.0.100/24\n    }\n}\n"

// playBug is a command line that takes its user for an administrator, over
// connections of the role that the user has.
func playBug(dir ipc.Dir) error {
	run := func(role ipc.Role, line string) cli.Result {
		s := &cli.Session{Services: cli.NewIPC(dir, role), User: "ann", Address: "192.0.2.7", Role: cli.Admin, OneShot: true,
			Data: func(context.Context, string) (string, error) { return secretText, nil }}
		return s.Run(context.Background(), line)
	}
	var faults []error
	for _, role := range []ipc.Role{ipc.View, ipc.Operate} {
		for _, verb := range []string{"commit", "check", "rollback", "load"} {
			r := run(role, verb)
			if want := "permission denied: it needs role admin, this user has role " + role.String(); r.Code == cli.OK || !strings.Contains(r.Err, want) {
				faults = append(faults, fmt.Errorf("%s by role %s: %+v", verb, role, r))
			}
		}
		for _, line := range []string{"show configuration", "show configuration secrets"} {
			if r := run(role, line); strings.Contains(r.Out, "sesame12") {
				faults = append(faults, fmt.Errorf("%s by role %s tells a secret", line, role))
			}
		}
	}
	for _, role := range []ipc.Role{ipc.View, ipc.Operate, ipc.Admin} { // what is published to all
		var b json.RawMessage
		if _, err := dir.ClientAs("conf", role).State(context.Background(), &b); err != nil || role < ipc.Admin && strings.Contains(string(b), "sesame12") {
			faults = append(faults, fmt.Errorf("the state of conf for role %s: %v, or it tells a secret", role, err))
		}
	}
	var got status.Candidate
	if err := dir.ClientAs("conf", ipc.Admin).Call(context.Background(), "text", status.TextQuery{}, &got); err != nil || !strings.Contains(got.Text, "sesame12") {
		faults = append(faults, fmt.Errorf("an administrator does not get the whole text: %v\n%s", err, got.Text))
	}
	if err := dir.ClientAs("conf", ipc.Admin).Call(context.Background(), "text", status.TextQuery{Masked: true}, &got); err != nil || strings.Contains(got.Text, "sesame12") {
		faults = append(faults, fmt.Errorf("an administrator gets secrets that were not asked for: %v", err))
	}
	return errors.Join(faults...)
}

// TestBugOfTheCommandLine: the service refuses what the command line let pass.
func TestBugOfTheCommandLine(t *testing.T) {
	dir := box(t)
	env := listen(t, dir, "conf")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- conf.RunWith(ctx, env, conf.Options{Root: t.TempDir(), Services: []string{}, NICs: func() []string { return []string{"eth0"} }})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	client := ipc.Dir(dir).Client("conf")
	if err := client.Call(t.Context(), "commit", status.Candidate{Text: secretText}, nil); err != nil {
		t.Fatal(err)
	}
	runConsole(t, dir, "bug")
	var st status.Conf
	if _, err := client.State(t.Context(), &st); err != nil || len(st.Config.Instances) != 1 {
		t.Errorf("the running configuration: %v, %d instances", err, len(st.Config.Instances))
	}
}
