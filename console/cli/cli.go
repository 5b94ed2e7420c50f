// Package cli is the command line of a director: a line of text in, text out.
// It does no I/O of its own: services are reached through an interface, data
// and answers come from functions that the session gives it. So the same
// commands serve SSH, the serial console, one-shots and tests.
package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"ballast/configs"
	"ballast/configs/printable"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// Exit statuses of a command.
const (
	OK     = 0
	Failed = 1 // refused, or could not be done
	Usage  = 2 // not a command, or not written right
)

// Role is what a user may do.
type Role = ipc.Role

// Roles.
const (
	None    = ipc.None
	View    = ipc.View
	Operate = ipc.Operate
	Admin   = ipc.Admin
)

// Services is how the commands reach the services.
type Services interface {
	State(ctx context.Context, service string, v any) error
	Call(ctx context.Context, service, verb string, in, out any) error
}

// IPC reaches the services over their sockets, in the name of a user with a
// role: the services hold against that what is asked of them.
type IPC struct {
	dir     ipc.Dir
	role    Role
	mu      sync.Mutex
	clients map[string]*ipc.Client
}

// NewIPC returns Services over the sockets in dir for users of a role.
func NewIPC(dir ipc.Dir, role Role) *IPC {
	return &IPC{dir: dir, role: role, clients: map[string]*ipc.Client{}}
}

func (i *IPC) client(name string) *ipc.Client {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.clients[name] == nil {
		i.clients[name] = i.dir.ClientAs(name, i.role)
	}
	return i.clients[name]
}

// State implements Services.
func (i *IPC) State(ctx context.Context, service string, v any) error {
	if service == "conf" { // what a command wants to know of it; the rest has megabytes
		return i.client(service).Summary(ctx, v)
	}
	_, err := i.client(service).State(ctx, v)
	return err
}

// Call implements Services.
func (i *IPC) Call(ctx context.Context, service, verb string, in, out any) error {
	return i.client(service).Call(ctx, verb, in, out)
}

// Session is one user at one console. It is not for use by two goroutines.
type Session struct {
	Services Services
	User     string
	Address  string     // where the user comes from: "192.0.2.7", "serial"
	Local    netip.Addr // of this box, that the user talks to; not valid on the serial line
	Role     Role
	// Client and Server are the ends of the connection that carries this session;
	// not valid on the serial line.
	Client, Server netip.AddrPort
	// OneShot is set when the session is a single command line: then commit,
	// check and compare without a candidate read one from Data.
	OneShot bool
	// Data returns what the user sends along: the configuration for load, the
	// content for file put. nil: nothing can be sent.
	Data func(ctx context.Context, what string) (string, error)
	// Ask puts a yes-or-no question. nil: the answer is yes, nobody is there.
	Ask func(ctx context.Context, question string) bool
	// AskWord puts a question that is answered with a word. nil: nobody is there.
	AskWord func(ctx context.Context, question string) (string, error)
	// Streams is for commands that talk while they work. nil: they say what they
	// have to say in the end.
	Streams *Streams
	// FullScreen edits a text on the whole screen. nil: there is none.
	FullScreen FullScreen
	// Uploaded is the configuration that the user has sent by scp or sftp.
	Uploaded func() (text string, ok bool)
	// Terminal sets "width" or "length" of the screen. nil: there is none.
	Terminal func(what string, n int)
	// Monitor shows the full-screen view until the user leaves it; term is empty
	// for the terminal that the client told of. nil: there is no terminal.
	Monitor func(ctx context.Context, term string, mono, ascii bool) error
	// Host is the name of this box. nil: not known.
	Host func() string
	// Audit takes what each command was, and what came of it, without secrets. nil: dropped.
	Audit func(status.AuditEntry)
	Now   func() time.Time    // nil: time.Now
	Mask  func(string) string // nil: configs.Mask
	// Editors knows the sessions that change the configuration. nil: this is
	// the only one.
	Editors *Editors

	candidate *candidate
	editing   *editing // nil: operational mode
}

// Result is what came of a line.
type Result struct {
	Out  string // for standard output
	Err  string // for standard error: why Code is not OK
	Code int
	Exit bool // the user wants to leave
}

// Run does one line: one command, or several with ";" between them, until one
// fails. Cancelling ctx gives up waiting for the services, but never stops a
// commit that has begun.
func (s *Session) Run(ctx context.Context, line string) Result {
	statements, err := parse(line)
	if err != nil {
		return Result{Err: printable.Text(err.Error()) + "\n", Code: Usage}
	}
	var r Result
	defer s.Editors.note(s)
	if s.editing != nil && s.Role < Admin {
		s.Close() // the role was taken away meanwhile
	}
	for i, st := range statements {
		if i > 0 && ctx.Err() != nil { // Ctrl-C gives up all of the line
			r.Err += fmt.Sprintf("interrupted: %q and what follows is not done\n", shown(strings.Join(st.words, " ")))
			r.Code = Failed
			break
		}
		one := s.one(ctx, st)
		r.Out += one.Out
		r.Err += one.Err
		r.Code, r.Exit = one.Code, one.Exit
		if r.Code != OK || r.Exit {
			break
		}
	}
	return r
}

// call is one command being done.
type call struct {
	s    *Session
	name string // of the command
	args []string
	json bool
	set  bool   // "| display set"
	diff bool   // "| compare"
	what string // for the audit log
}

// flags takes what asks for another form of the answer out of a statement.
func (c *call) flags(st statement) (words []string) {
	for _, w := range st.words {
		if w == "--json" {
			c.json = true
			continue
		}
		words = append(words, w)
	}
	for _, f := range st.filters {
		switch name, what := filterName(f); {
		case name == "json" && what == "":
			c.json = true
		case name == "display" && what == "set":
			c.set = true
		case name == "display" && what == "json":
			c.json = true
		case name == "compare" && what == "":
			c.diff = true
		}
	}
	return words
}

func (s *Session) one(ctx context.Context, st statement) Result {
	c := &call{s: s}
	cmd, args, err := find(s.commands(), c.flags(st), s.Role)
	if err != nil {
		// What is not a command may be anything, a pasted password too: it is
		// not logged.
		s.audit("unknown command", errors.New("not a command"))
		return Result{Err: printable.Text(s.hinted(err, st.words).Error()) + "\n", Code: code(err)}
	}
	out, err := c.do(ctx, cmd, args)
	for _, f := range st.filters {
		if err != nil {
			break
		}
		out, err = apply(f, out)
	}
	if cmd.name() != "exit" {
		s.audit(c.what, err)
	}
	r := Result{Out: out, Code: code(err), Exit: errors.Is(err, errExit)}
	if err != nil && !r.Exit {
		r.Err = printable.Text(err.Error()) + "\n"
	}
	return r
}

// do runs a command of the table, if the session may and the form is there.
func (c *call) do(ctx context.Context, cmd *command, args []string) (string, error) {
	c.name, c.args = cmd.name(), args
	words := slices.Clone(cmd.words)
	for _, a := range args {
		words = append(words, redacted(a))
	}
	c.what = strings.Join(words, " ")
	switch {
	case cmd.role > c.s.Role:
		return "", fmt.Errorf("%s: permission denied: it needs role %s, %s has role %s; an administrator can give it (block users)", cmd.name(), cmd.role, shown(c.s.User), c.s.Role)
	case c.json && !cmd.json:
		return "", usagef("%s has no --json form: leave it out", cmd.name())
	case c.set && !cmd.set:
		return "", usagef("%s has no form of set commands: leave \"display set\" out", cmd.name())
	case c.diff && !cmd.diff:
		return "", usagef("%s cannot be compared: leave \"compare\" out", cmd.name())
	}
	return cmd.run(ctx, c)
}

// consent asks the user, where there is one to ask.
func (c *call) consent(ctx context.Context, question string) error {
	if c.s.Ask != nil && !c.s.Ask(ctx, question) {
		return fmt.Errorf("not done: %s goes on only at the answer y", c.name)
	}
	return nil
}

// reportError is a configuration with errors.
type reportError struct {
	text   string
	errors int
}

func (e *reportError) Error() string { return e.text }

// unloggedError may quote what was typed into a configuration, secrets too.
type unloggedError struct{ err error }

func (e *unloggedError) Error() string { return e.err.Error() }
func (e *unloggedError) Unwrap() error { return e.err }

var errExit = errors.New("exit")

func code(err error) int {
	var u *usageError
	switch {
	case err == nil || errors.Is(err, errExit):
		return OK
	case errors.As(err, &u):
		return Usage
	}
	return Failed
}

func (s *Session) audit(what string, err error) {
	if s.Audit == nil {
		return
	}
	result := "ok"
	if err != nil {
		// Only the first line, and nothing of a report: it may quote lines of
		// a configuration.
		result, _, _ = strings.Cut(err.Error(), "\n")
		var r *reportError
		var u *unloggedError
		switch {
		case errors.As(err, &r):
			result = fmt.Sprintf("%d errors", r.errors)
		case errors.As(err, &u):
			result = "refused"
		}
	}
	// A secret may be among the words: set … auth_pass WORD.
	s.Audit(status.AuditEntry{Time: s.now(), User: shown(s.User), Address: shown(s.Address), Command: shown(configs.Mask(what)), Result: shown(configs.Mask(result))})
}

func (s *Session) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Session) mask(text string) string {
	if s.Mask != nil {
		return s.Mask(text)
	}
	return configs.Mask(text)
}

// answerBound is how long a service may take to answer a look.
const answerBound = 10 * time.Second

// state reads the state of a service.
func (c *call) state(ctx context.Context, service string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	return c.explain(service, c.s.Services.State(ctx, service, v))
}

// verb calls a verb of a service.
func (c *call) verb(ctx context.Context, service, verb string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	return c.explain(service, c.s.Services.Call(ctx, service, verb, in, out))
}

// commitBound is how long a commit may take: every service has its own, shorter bound.
const commitBound = 3 * time.Minute

// change calls a verb of conf that must not be cut short: Ctrl-C and a lost
// connection leave it running to its end.
func (c *call) change(ctx context.Context, verb string, in, out any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitBound)
	defer cancel()
	return c.explain("conf", c.s.Services.Call(ctx, "conf", verb, in, out))
}

// explain turns a failure to reach a service into what to do about it.
func (c *call) explain(service string, err error) error {
	var refused *ipc.Refused
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return err
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: what %s was asked may be done all the same", service)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer in time; see \"show processes\" and \"show log %s\"", service, service)
	}
	return fmt.Errorf("%s does not answer; see \"show processes\" and \"show log %s\"", service, service)
}

// author names the user for the history.
func (s *Session) author() string { return s.User + "@" + s.Address }

// runningConf is the part of conf's state that the commands need.
type runningConf struct {
	Generation uint64    `json:"generation"`
	Source     string    `json:"source"`
	Author     string    `json:"author"`
	Time       time.Time `json:"time"`

	Pending *status.Pending `json:"pending"`
}

func (c *call) running(ctx context.Context) (r runningConf, err error) {
	err = c.state(ctx, "conf", &r)
	return r, err
}
