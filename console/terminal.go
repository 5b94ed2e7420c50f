package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"ballast/console/cli"
	"ballast/console/line"
	"ballast/services/ipc/status"
)

// terminal runs the command line for one session, with a line editor when
// there is a screen.
type terminal struct {
	console        *console
	user, address  string
	local          netip.Addr     // of this box, that the user talks to
	client, server netip.AddrPort // the ends of its connection; not valid on the serial line
	key            string         // fingerprint of the key that the user proved; empty: the serial line
	touch          func()         // tells that a command begins; nil: nobody asks
	fixed          cli.Role       // of the serial line; None: the configuration's, asked before each command
	out, err       io.Writer
	data           func(context.Context, string) (string, error) // without an editor
	in             io.Reader                                     // what a one-shot is sent; nil: nothing can be
	edit           *line.Editor
	display        *display            // with an editor
	getenv         func(string) string // of the client; nil: nothing is known
	keys           <-chan byte
	idle           *time.Timer

	mu     sync.Mutex
	cancel context.CancelFunc // of the command that runs; nil: none, or it reads the keyboard itself
	quit   context.CancelFunc // ends the session; nil: none is open
	idled  bool
}

// start makes the editor and reads the keyboard until ctx ends or r does. With
// again, for a line that hangs up and comes back, only ctx ends it.
func (t *terminal) start(ctx context.Context, r io.Reader, s *display, again bool) {
	keys := make(chan byte, 4096)
	t.keys = keys
	t.edit = line.New(keys, t.out)
	t.display = s
	columns, _, _ := s.size()
	t.edit.SetWidth(columns)
	t.edit.MarkPaste = s.marksPaste()
	t.idle = time.AfterFunc(t.console.idleTime(), t.expire)
	t.data = t.readText
	go func() {
		defer close(keys)
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			t.idle.Reset(t.console.idleTime())
			for _, b := range buf[:n] {
				if b == 3 && t.interrupt() { // Ctrl-C
					continue
				}
				select {
				case keys <- b:
				case <-ctx.Done():
					return
				}
			}
			switch {
			case err == nil:
			case !again:
				return
			default:
				select { // a line that hung up reads as the end at once: do not spin
				case <-time.After(time.Second):
				case <-ctx.Done():
					return
				}
			}
		}
	}()
}

// expire ends the session when nobody types any more, and no command works
// either: that may take its time.
func (t *terminal) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quit != nil && t.cancel == nil {
		t.idled = true
		t.quit()
	}
}

// begin makes quit what ends the session.
func (t *terminal) begin(quit context.CancelFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idled, t.quit = false, quit
	t.idle.Reset(t.console.idleTime())
}

// interrupt gives up the command that runs, if one does. A commit goes on to
// its end all the same.
func (t *terminal) interrupt() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel == nil {
		return false
	}
	t.cancel()
	return true
}

func (t *terminal) setCancel(f context.CancelFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel = f
}

// keyboard runs fn while the keyboard belongs to it.
func (t *terminal) keyboard(fn func() error) error {
	t.mu.Lock()
	old := t.cancel
	t.cancel = nil
	t.mu.Unlock()
	defer t.setCancel(old)
	t.idle.Reset(t.console.idleTime()) // somebody is waited for
	return fn()
}

func (t *terminal) readText(ctx context.Context, what string) (text string, err error) {
	err = t.keyboard(func() error {
		fmt.Fprintf(t.out, "Paste the %s; end with a line that holds only \".\", or Ctrl-D. Ctrl-C gives up.\r\n", what)
		text, err = t.edit.ReadText(ctx, maxInput)
		return err
	})
	return text, err
}

func (t *terminal) ask(ctx context.Context, question string) (yes bool) {
	t.keyboard(func() error {
		answer, err := t.edit.ReadAnswer(ctx, question+" [y/N] ")
		yes = err == nil && strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y")
		return err
	})
	return yes
}

// askWord puts a question that is answered with a word.
func (t *terminal) askWord(ctx context.Context, question string) (answer string, err error) {
	t.keyboard(func() error {
		answer, err = t.edit.ReadAnswer(ctx, question)
		return err
	})
	return answer, err
}

func (t *terminal) session() *cli.Session {
	s := &cli.Session{
		User: t.user, Address: t.address,
		Data: func(ctx context.Context, what string) (string, error) { return t.data(ctx, what) },
		Audit: func(e status.AuditEntry) {
			e.Key = t.key
			t.console.env.Log.Info(fmt.Sprintf("%s from %s: %s: %s", e.User, e.Address, e.Command, e.Result))
			t.console.auditor.add(e)
		},

		Local: t.local, Client: t.client, Server: t.server, Editors: &t.console.editors, Host: t.console.hostName,
	}
	s.Streams = &cli.Streams{In: t.in, Out: t.out, Note: func(text string) { io.WriteString(t.err, text) }}
	s.Uploaded = func() (string, bool) { text, _, ok := t.console.uploads.get(t.user); return text, ok }
	if t.edit != nil {
		columns, _, _ := t.display.size()
		s.Streams = &cli.Streams{Note: t.print, Width: max(columns, 1)}
		s.Ask, s.AskWord = t.ask, t.askWord
		s.Terminal = t.setTerminal
		s.Monitor = t.monitor
		s.FullScreen = t.fullScreen
	}
	return s
}

// run does one line, with the role that the user has now.
func (t *terminal) run(ctx context.Context, s *cli.Session, text string) cli.Result {
	if s.Role = t.fixed; s.Role == cli.None {
		s.Role = t.console.role(t.user)
	}
	if s.Role == cli.None {
		return cli.Result{Err: "this user is no longer in the configuration\n", Code: cli.Failed, Exit: true}
	}
	s.Services = t.console.services[s.Role]
	if t.touch != nil {
		t.touch()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.setCancel(cancel)
	defer t.setCancel(nil)
	r := s.Run(ctx, text)
	t.show(ctx, r.Out, !s.OneShot && !cli.NoMore(text))
	io.WriteString(t.err, r.Err)
	return r
}

func (t *terminal) oneShot(ctx context.Context, text string) int {
	s := t.session()
	defer s.Close()
	s.OneShot = true
	r := t.run(ctx, s, text)
	if r.Code == cli.OK && s.Edited() {
		return t.unsaved(s)
	}
	return r.Code
}

// script does one command a line until one fails.
func (t *terminal) script(ctx context.Context, in *bufio.Reader) int {
	s := t.session()
	defer s.Close()
	for {
		text, err := readCommand(in)
		if text != "" {
			if r := t.run(ctx, s, text); r.Code != cli.OK || r.Exit {
				if r.Code == cli.OK && s.Edited() {
					return t.unsaved(s)
				}
				return r.Code
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return t.unsaved(s)
		case err != nil:
			fmt.Fprintf(t.err, "%v\n", err)
			return cli.Failed
		}
	}
}

// readCommand reads one line of bounded length.
func readCommand(in *bufio.Reader) (string, error) {
	text, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = fmt.Errorf("a command is longer than %d bytes", cli.MaxLine)
		return "", err
	}
	return strings.TrimRight(string(text), "\r\n"), err
}

func (t *terminal) unsaved(s *cli.Session) int {
	if s.Dirty() {
		io.WriteString(t.err, "the candidate was not committed and is forgotten\n")
		return cli.Failed
	}
	return cli.OK
}

// loop is the interactive session.
func (t *terminal) loop(ctx context.Context) int {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	t.begin(quit)
	defer t.begin(nil)
	s := t.session()
	defer s.Close()
	t.edit.Complete = func(before string) (int, []string, []string) {
		if s.Role = t.fixed; s.Role == cli.None {
			s.Role = t.console.role(t.user)
		}
		s.Services = t.console.services[s.Role]
		cctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		start, list := s.Complete(cctx, before)
		var words, helps []string
		for _, c := range list {
			words, helps = append(words, c.Text), append(helps, c.Help)
		}
		return start, words, helps
	}
	t.edit.SetHistory(t.console.histories.load(t.user))
	defer func() { t.console.histories.save(t.user, t.edit.History()) }()
	fmt.Fprintf(t.out, "Ballast director %s. \"help\" lists the commands, Tab and ? complete.\r\n", t.console.hostName())
	t.print(t.console.warning() + t.console.boxAlarms(ctx) + t.console.firmwareNews(ctx))
	if _, at, ok := t.console.uploads.get(t.user); ok {
		t.print(fmt.Sprintf("A configuration was uploaded %v ago: \"load uploaded\" takes it.\n", time.Since(at).Round(time.Minute)))
	}
	warned := false
	var pending unconfirmed
	for {
		t.print(pending.note(t.console.running(), time.Now()))
		above, prompt := s.Prompt(t.console.hostName())
		t.print(above)
		text, err := t.edit.ReadLine(ctx, prompt)
		switch {
		case errors.Is(err, line.ErrInterrupted):
			continue
		case err != nil:
			t.mu.Lock()
			if t.idled {
				io.WriteString(t.out, "\r\nnobody typed for a long time: session closed\r\n")
			}
			t.mu.Unlock()
			return cli.OK
		}
		r := t.run(ctx, s, text)
		t.idle.Reset(t.console.idleTime())
		if r.Code != cli.OK {
			t.dropPaste(ctx)
		}
		if r.Exit && s.Dirty() && !warned && r.Code == cli.OK {
			t.print("The candidate is not committed; \"exit\" again forgets it.\n")
			warned = true
			continue
		}
		if r.Exit {
			return r.Code
		}
		warned = false
	}
}

// dropPaste forgets what is left of a paste, of which a command has failed.
func (t *terminal) dropPaste(ctx context.Context) {
	if n := t.edit.DropPaste(ctx); n > 0 {
		t.print(fmt.Sprintf("%d more pasted lines are left out\n", n))
	}
}

func (t *terminal) print(text string) {
	io.WriteString(t.out, strings.ReplaceAll(text, "\n", "\r\n"))
}
