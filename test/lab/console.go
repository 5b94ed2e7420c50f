package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ballast/test/lab/vm"
)

// SSHCommand is what a user types to reach the console.
func (d *Director) SSHCommand() string {
	return fmt.Sprintf("ssh -i %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p %d admin@127.0.0.1", d.lab.key.file, d.SSHPort)
}

// SerialCommand is what a user types to reach the serial console.
func (d *Director) SerialCommand() string {
	return "socat STDIO,raw,echo=0,escape=0x1d UNIX-CONNECT:" + vm.SerialSocket(d.lab.Dir, d.file())
}

// writeSSHConfig makes "ssh -F FILE director-a" work.
func (l *Lab) writeSSHConfig() error {
	var b strings.Builder
	for _, d := range l.Directors {
		fmt.Fprintf(&b, "Host %s\n  HostName 127.0.0.1\n  Port %d\n  User admin\n  IdentityFile %s\n  IdentitiesOnly yes\n"+
			"  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n", d.file(), d.SSHPort, l.key.file)
	}
	if err := os.WriteFile(l.sshConfig(), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

func (l *Lab) sshConfig() string { return filepath.Join(l.Dir, "ssh") }

// ShortCommands are what a user types to reach the consoles, short.
func (l *Lab) ShortCommands() []string {
	var out []string
	for _, d := range l.Directors {
		out = append(out, fmt.Sprintf("ssh -F %s %s", l.sshConfig(), d.file()), d.SerialCommand())
	}
	return out
}

// OpenSSH runs a console command with the machine's own ssh.
func (l *Lab) OpenSSH(ctx context.Context, i int, command string) (string, error) {
	cmd := exec.CommandContext(ctx, "ssh", "-F", l.sshConfig(), l.Directors[i].file(), command)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("lab: ssh: %w: %s", err, strings.TrimSpace(words.String()))
	}
	return string(out), err
}

// Serial types on the serial console and returns what came until a text was
// there.
func (d *Director) Serial(ctx context.Context, keys, until string) (string, error) {
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "unix", vm.SerialSocket(d.lab.Dir, d.file()))
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte(keys)); err != nil {
		return "", fmt.Errorf("lab: serial console: %w", err)
	}
	var all []byte
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		all = append(all, b[:n]...)
		if bytes.Contains(all, []byte(until)) {
			return string(all), nil
		}
		if err != nil {
			return string(all), fmt.Errorf("lab: serial console: no %q: %w", until, err)
		}
	}
}
