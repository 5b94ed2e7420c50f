package ipc

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Env is what init hands to each service process, and what a test hands to a
// service that it runs in its own process.
type Env struct {
	Listener net.Listener // the service's own socket, already listening
	Dir      Dir          // where the sockets of the others are
	Data     string       // folder for the service's own files that outlive a reboot; empty: none
	Run      string       // the same for files that are gone at a reboot; every user may look into it; empty: none
	Log      *slog.Logger
	// Files are further descriptors that init opened for this service, by name
	// (the SSH listener and the serial line of console, for example).
	Files map[string]*os.File

	notify io.Writer
	once   sync.Once
	mu     sync.Mutex
}

// Environment variables of a service process. Descriptor 3 is the listener,
// descriptor 4 the pipe to init, 5 and up are the names in EnvFiles.
const (
	EnvDir   = "BALLAST_RUN"   // Dir
	EnvData  = "BALLAST_DATA"  // Data
	EnvOwn   = "BALLAST_OWN"   // Run
	EnvFiles = "BALLAST_FILES" // "name:fd name:fd"
	EnvIdle  = "BALLAST_IDLE"  // after how long without use it ends; only of a service on demand
)

// NewEnv makes an Env for a test, without an init behind it. Its Run is dir.
func NewEnv(dir Dir, service string, log *slog.Logger) (*Env, error) {
	l, err := net.Listen("unix", dir.Path(service))
	if err != nil {
		return nil, fmt.Errorf("ipc: %w", err)
	}
	return &Env{Listener: l, Dir: dir, Run: string(dir), Log: log, notify: io.Discard}, nil
}

// FromInit takes over what init handed to this process.
func FromInit() (*Env, error) {
	dir := os.Getenv(EnvDir)
	if dir == "" {
		return nil, errors.New("ipc: " + EnvDir + " is not set: services are started by init")
	}
	// What the service starts for others (scripts) inherits none of this: the
	// pipe to init speaks for the service.
	files := parseFiles(os.Getenv(EnvFiles))
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	for _, fd := range files {
		syscall.CloseOnExec(int(fd))
	}
	f := os.NewFile(3, "listener")
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("ipc: descriptor 3 is not a listener: %w", err)
	}
	f.Close()
	e := &Env{
		Listener: l,
		Dir:      Dir(dir),
		Data:     os.Getenv(EnvData),
		Run:      os.Getenv(EnvOwn),
		Files:    map[string]*os.File{},
		notify:   os.NewFile(4, "notify"),
		Log:      slog.New(NewLogHandler(os.Stderr)),
	}
	if idle, err := time.ParseDuration(os.Getenv(EnvIdle)); err == nil && idle > 0 {
		e.OnDemand(idle)
	}
	for name, fd := range files {
		e.Files[name] = os.NewFile(fd, name)
	}
	return e, nil
}

func parseFiles(s string) map[string]uintptr {
	out := map[string]uintptr{}
	for _, word := range strings.Fields(s) {
		name, fd, _ := strings.Cut(word, ":")
		if n, err := strconv.ParseUint(fd, 10, 16); err == nil {
			out[name] = uintptr(n)
		}
	}
	return out
}

// Ready tells init that the service does its job. Only the first call counts.
func (e *Env) Ready() { e.once.Do(func() { e.say("ready\n") }) }

// Progress tells init that the service's main loop went round. init feeds the
// hardware watchdog only while vrrp, net and ipvs do this at least every 5 s.
func (e *Env) Progress() { e.say("progress\n") }

func (e *Env) say(s string) {
	if e.notify == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	io.WriteString(e.notify, s) // init gone means PID 1 gone: nobody to tell
}
