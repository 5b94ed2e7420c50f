package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path"
	"strings"
	"time"

	"ballast/configs/printable"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// scriptDir is where a script finds the director: an abstract unix socket,
// since the script user cannot reach the folder of the services' sockets (their
// states hold what is none of a script's business). The environment variable
// BALLAST_SCRIPT tells it.
const scriptDir ipc.Dir = "@ballast"

// serveScripts answers what a script may ask: the state of keepalived, as it
// would call us, to resign, to resume, and to send mail.
func (s *service) serveScripts(ctx context.Context) error {
	l, err := net.Listen("unix", s.socket.Path("script"))
	if err != nil {
		return fmt.Errorf("notify: socket for scripts: %w", err)
	}
	srv := ipc.NewServer("script")
	vrrp := s.env.Dir.Client("vrrp")
	srv.Handle("mail", s.verbMail, ipc.UIDScript)
	srv.Handle("resign", func(ctx context.Context, p ipc.Peer, body json.RawMessage) (any, error) {
		by := "script " + processName(p.PID)
		var r status.Resign
		if json.Unmarshal(body, &r) == nil && r.By != "" {
			by += " (" + oneLine(r.By, 80) + ")"
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return nil, vrrp.Call(ctx, "resign", status.Resign{By: by}, nil)
	}, ipc.UIDScript)
	srv.Handle("resume", func(ctx context.Context, _ ipc.Peer, _ json.RawMessage) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return nil, vrrp.Call(ctx, "resume", nil, nil)
	}, ipc.UIDScript)
	srv.Handle("keepalived", func(ctx context.Context, _ ipc.Peer, _ json.RawMessage) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		var v status.VRRP
		if _, err := vrrp.State(ctx, &v); err != nil {
			return nil, err
		}
		return status.Keepalived{Active: !v.Resigned, By: v.ResignedBy}, nil
	}, ipc.UIDScript)
	return srv.Serve(ctx, l)
}

// processName is the command of a process, for a log line.
func processName(pid int32) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(b) == 0 {
		return fmt.Sprintf("of process %d", pid)
	}
	return commandName(b)
}

// commandName is the command of /proc/PID/cmdline: of a script its file, not
// the shell that reads it. Arguments and shell lines may hold secrets.
func commandName(cmdline []byte) string {
	args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
	name := args[0]
	switch path.Base(name) {
	case "sh", "bash", "dash", "ash":
		switch {
		case len(args) > 1 && args[1] == "-c":
			name += " -c"
		case len(args) > 1 && !strings.HasPrefix(args[1], "-"):
			name = args[1]
		}
	}
	return strings.TrimRight(oneLine(printable.Line(name), 80), " ")
}

func oneLine(s string, most int) string {
	s = clean(s)
	s = strings.TrimRight(s, " ")
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
