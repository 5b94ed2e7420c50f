package ipc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const asConsole = "BALLAST_TEST_AS_CONSOLE" // folder of the sockets

func TestMain(m *testing.M) {
	if dir := os.Getenv(asConsole); dir != "" {
		if err := playConsole(Dir(dir)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// playConsole is the process of the console: it takes the roles and calls the
// verb of each with each, many at a time, then tries to become more.
func playConsole(dir Dir) error {
	if err := TakeRoles(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var faults []error
	for range 20 {
		for role := None; role <= Admin; role++ {
			c := dir.ClientAs("x", role) // a connection of its own
			wg.Go(func() {
				for verb, need := range map[string]Role{"look": View, "act": Operate, "change": Admin, "console": Admin, "any": View, "none": Admin + 1} {
					var answer Role
					err := c.Call(context.Background(), verb, nil, &answer)
					var refused *Refused
					switch {
					case role == None && err != nil && !errors.As(err, &refused): // not even asked
						continue
					case role >= need && err == nil && answer == role:
						continue
					case role < need && errors.As(err, &refused) && refused.Status == http.StatusForbidden:
						continue
					}
					mu.Lock()
					faults = append(faults, fmt.Errorf("role %s, verb %s: answer %s, %v", role, verb, answer, err))
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	// Whoever asks without a word about roles may look.
	var answer Role
	if err := dir.Client("x").Call(context.Background(), "look", nil, &answer); err != nil || answer != View {
		faults = append(faults, fmt.Errorf("without a role: %s, %v", answer, err))
	}
	// No thread kept the group of another role, or a capability.
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		for _, want := range []string{"\nGid:\t122\t121\t123\t121\n", "\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n"} {
			if !strings.Contains(string(b), want) {
				faults = append(faults, fmt.Errorf("%s has no line %q:\n%s", task, want, b))
			}
		}
	}
	if err := syscall.Setresgid(0, 0, 0); err == nil {
		faults = append(faults, errors.New("it could take group 0"))
	}
	if err := syscall.Setresgid(GroupBallast, GroupBallast, GroupBallast); err == nil {
		faults = append(faults, errors.New("it could take another group"))
	}
	return errors.Join(faults...)
}

// TestRolesByCredentials runs the console's side in a process like the one that
// init makes, against real sockets.
func TestRolesByCredentials(t *testing.T) {
	dir, err := os.MkdirTemp("", "role")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	env, err := NewEnv(Dir(dir), "x", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o750, Dir(dir).Path("x"): 0o660} { // as init has them
		if err := errors.Join(os.Chown(path, 0, GroupBallast), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	s := NewServer("x")
	for verb, allow := range map[string]uint32{"look": GroupView, "act": GroupOperate, "change": GroupAdmin, "console": UIDConsole, "any": AnyUID, "none": UIDHealth} {
		s.Handle(verb, func(_ context.Context, p Peer, _ json.RawMessage) (any, error) { return p.Role(), nil }, allow)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, env.Listener) }()
	defer func() { cancel(); <-done }()

	exe := "/proc/self/exe"
	var more []*os.File
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != 0 {
		// This test is linked with C, which the director's program never is.
		exe = filepath.Join(t.TempDir(), "console")
		build := exec.Command("go", "test", "-c", "-o", exe, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		f, err := os.Open(exe)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		exe, more = "/proc/self/fd/3", []*os.File{f} // its folder is not for everybody
	}
	cmd := exec.Command(exe)
	cmd.ExtraFiles = more
	cmd.Env = append(os.Environ(), asConsole+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: UIDConsole, Gid: GroupBallast, Groups: []uint32{GroupBallast}},
		AmbientCaps: []uintptr{unix.CAP_SETGID},
	}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Without the roles, what the console's user asks is nobody's.
	cmd = exec.Command(exe)
	cmd.ExtraFiles = more
	cmd.Env, cmd.Dir = append(os.Environ(), asConsole+"="+dir), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: UIDConsole, Gid: GroupBallast, Groups: []uint32{GroupBallast}}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "take the groups of the roles: operation not permitted") {
		t.Errorf("without the capability: %v\n%s", err, out)
	}
}

func TestRefusalTellsTheRole(t *testing.T) {
	v := verb{allow: []uint32{GroupOperate, UIDScript}}
	for _, tc := range []struct {
		p    Peer
		ok   bool
		text string
	}{
		{Peer{UID: UIDConsole, GID: GroupView}, false, "vrrp resign: permission denied: it needs role operate, this user has role view"},
		{Peer{UID: UIDConsole, GID: GroupBallast}, false, "vrrp resign: permission denied: it needs role operate, this user has role none"},
		{Peer{UID: UIDHealth, GID: GroupAdmin}, false, "vrrp: user 105 may not resign"},
		{Peer{UID: UIDScript}, true, ""},
		{Peer{UID: UIDConsole, GID: GroupOperate}, true, ""},
		{Peer{UID: UIDConsole, GID: GroupAdmin}, true, ""},
		{Peer{}, true, ""},
	} {
		if v.allows(tc.p) != tc.ok || !tc.ok && v.refusal("vrrp", "resign", tc.p) != tc.text {
			t.Errorf("%+v: %v %q", tc.p, v.allows(tc.p), v.refusal("vrrp", "resign", tc.p))
		}
	}
}

// turned never loses one of the three groups.
func TestTurned(t *testing.T) {
	for _, base := range [][3]int{{1, 2, 3}, {3, 1, 2}, {2, 3, 1}} {
		for want := 1; want <= 3; want++ {
			r, e, s := turned(base[0], base[1], base[2], want)
			if e != want || r+e+s != 6 || r*e*s != 6 {
				t.Errorf("%v for %d: %d %d %d", base, want, r, e, s)
			}
		}
	}
}
