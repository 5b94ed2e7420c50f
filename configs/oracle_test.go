package configs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// oracleEnv makes the test binary the process that runs keepalived.
const oracleEnv = "BALLAST_ORACLE"

// order is what that process is told, on its standard input.
type order struct {
	Text  string
	Files map[string]string // files beside it, by name
	Links []string          // interfaces to make
	Args  []string          // of keepalived
}

// account is what it tells back, on its standard output.
type account struct {
	Exit  int
	Log   string
	Files map[string]string // /tmp/keepalived*.data, by name
	Fault string
}

func TestMain(m *testing.M) {
	if os.Getenv(oracleEnv) != "" {
		os.Exit(oracle())
	}
	os.Exit(m.Run())
}

// ask runs keepalived with a text in a network and a mount namespace of its
// own, and gives what it dumps on SIGUSR1. Its /tmp and /run are its own too:
// nothing of the machine is touched.
func ask(t *testing.T, o order) account {
	t.Helper()
	in, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), oracleEnv+"=1")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	var a account
	if err == nil {
		err = json.Unmarshal(out, &a)
	}
	if err == nil && a.Fault != "" {
		err = errors.New(a.Fault)
	}
	if err != nil {
		t.Fatalf("keepalived in its namespaces: %v", err)
	}
	return a
}

func oracle() int {
	runtime.LockOSThread()
	var o order
	var a account
	err := json.NewDecoder(os.Stdin).Decode(&o)
	if err == nil {
		err = runOracle(o, &a)
	}
	if err != nil {
		a.Fault = err.Error()
	}
	if json.NewEncoder(os.Stdout).Encode(a) != nil {
		return 1
	}
	return 0
}

const oracleConf = "/run/keepalived.conf"

func runOracle(o order, a *account) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	for _, dir := range []string{"/tmp", "/run"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("oracle", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := os.WriteFile(oracleConf, []byte(o.Text), 0o600); err != nil {
		return err
	}
	for name, text := range o.Files {
		name = filepath.Join(filepath.Dir(oracleConf), name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	if err := links(o.Links); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGUSR1)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	args := append([]string{"-n", "-l", "-D", "-i", "main", "-f", oracleConf, "-p", "/run/k.pid", "-r", "/run/v.pid", "-c", "/run/c.pid", "-b", "/run/b.pid"}, o.Args...)
	cmd := exec.Command("keepalived", args...)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.Close()
	// It is asked once it has read its configuration, and told to stop at once:
	// of two pending signals it takes the lower number first.
	asked := false
	var log strings.Builder
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		log.WriteString(line)
		if !asked && strings.Contains(line, "Startup complete") {
			asked = true
			cmd.Process.Signal(syscall.SIGUSR1)
			cmd.Process.Signal(syscall.SIGTERM)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	cmd.Wait()
	a.Exit, a.Log, a.Files = cmd.ProcessState.ExitCode(), log.String(), map[string]string{}
	files, err := filepath.Glob("/tmp/keepalived*.data")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		a.Files[filepath.Base(f)] = string(text)
	}
	return nil
}

// links makes interfaces, each with a carrier and an address.
func links(names []string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for i, name := range names {
		peer := fmt.Sprintf("far%d", i)
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}
		if err := netlink.LinkAdd(v); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
		for _, n := range []string{name, peer} {
			l, err := netlink.LinkByName(n)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
			if n == name {
				a, _ := netlink.ParseAddr(fmt.Sprintf("198.18.%d.1/24", i))
				if err := netlink.AddrAdd(l, a); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
