package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ballast/console/cli"
	"ballast/services/ipc/status"
)

// Bounds of transfers.
const (
	maxInFlight  = 96 << 20 // bytes of all uploads that are under way, and of all files that are open to be read
	maxOpenFiles = 64       // of a session
	maxLogLines  = 10000    // of a log that is read as a file
	keepUpload   = time.Hour
	cacheFor     = 10 * time.Second // what was looked at, until it is read
)

// Where files lie for scp and sftp. Scripts have the paths that they have for the
// configuration.
const (
	startDirectory = "/config"
	candidatePath  = "/config/candidate"
	keepalivedConf = "/etc/keepalived/keepalived.conf" // the habit of many years
)

// transfer shows a session's share of the box as files. Whatever is read or
// written is done by a command: roles, masks and the audit log are those of the
// command line.
type transfer struct {
	ctx context.Context
	t   *terminal
	err io.Writer // reports of what was sent; clients show it as it comes

	open     atomic.Int32
	preserve bool // modes, in the old protocol of scp

	mu      sync.Mutex
	cached  map[string]cachedFile
	sending map[string]*upload // the last one of each path
	nodes   []node
	listed  time.Time
}

type cachedFile struct {
	content []byte
	at      time.Time
}

// node is a file or folder. It is its own fs.FileInfo.
type node struct {
	path string
	size int64
	mode fs.FileMode
	time time.Time
}

func (n node) Name() string       { return path.Base(n.path) }
func (n node) Size() int64        { return n.size }
func (n node) Mode() fs.FileMode  { return n.mode }
func (n node) ModTime() time.Time { return n.time }
func (n node) IsDir() bool        { return n.mode.IsDir() }
func (n node) Sys() any           { return nil }

// quoted makes a word of the command line of any text.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// command does a line with the role that the user has now. data is what the
// command gets to read.
func (x *transfer) command(line, data string, audited bool) (string, error) {
	s := x.t.session()
	s.OneShot = true
	s.Data = func(context.Context, string) (string, error) { return data, nil }
	if !audited {
		s.Audit = nil
	}
	if s.Role = x.t.console.role(x.t.user); s.Role == cli.None {
		return "", errors.New("this user is no longer in the configuration")
	}
	s.Services = x.t.console.services[s.Role]
	if x.t.touch != nil {
		x.t.touch()
	}
	r := s.Run(x.ctx, line)
	if r.Code != cli.OK {
		return r.Out, errors.New(strings.TrimSuffix(r.Err, "\n"))
	}
	return r.Out, nil
}

// json does a command and reads what it gives. Without an answer v stays as it is.
func (x *transfer) json(line string, v any) {
	if out, err := x.command(line, "", false); err == nil {
		json.Unmarshal([]byte(out), v)
	}
}

// reads is the command whose output a file is.
func reads(p string) (line string, ok bool) {
	dir, name := path.Split(p)
	generation := func() bool { n, err := strconv.ParseUint(name, 10, 64); return err == nil && n > 0 }
	switch {
	case p == "/config/running" || p == keepalivedConf:
		return "show configuration", true
	case p == "/config/set":
		return "show configuration | display set", true
	case p == "/secrets/set":
		return "show configuration secrets | display set", true
	case p == "/secrets/running":
		return "show configuration secrets", true
	case dir == "/config/history/" && generation():
		return "show configuration " + name, true
	case dir == "/secrets/history/" && generation():
		return "show configuration " + name + " secrets", true
	case p == "/log/all":
		return fmt.Sprintf("show log %d", maxLogLines), true
	case p == "/log/journal":
		return fmt.Sprintf("show journal %d", maxLogLines), true
	case dir == "/log/":
		return fmt.Sprintf("show log %s %d", quoted(name), maxLogLines), true
	}
	return "", false
}

// read returns the content of a file. again takes what was read a moment ago.
func (x *transfer) read(p string, again bool) ([]byte, error) {
	x.mu.Lock()
	c, ok := x.cached[p]
	x.mu.Unlock()
	if ok && again && time.Since(c.at) < cacheFor {
		return c.content, nil
	}
	var text string
	var err error
	if p == candidatePath {
		if x.t.console.role(x.t.user) < cli.Admin {
			return nil, fs.ErrPermission
		}
		if text, _, ok = x.t.console.uploads.get(x.t.user); !ok {
			return nil, fs.ErrNotExist
		}
	} else if line, ok := reads(p); ok {
		if text, err = x.command(line, "", true); err != nil {
			return nil, err
		}
	} else {
		if !slices.ContainsFunc(x.tree(), func(n node) bool { return n.path == p && !n.IsDir() }) {
			return nil, fs.ErrNotExist
		}
		if text, err = x.command("file show "+quoted(p), "", true); err != nil {
			return nil, err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cached = map[string]cachedFile{p: {[]byte(text), time.Now()}} // one is enough, and bounded
	return []byte(text), nil
}

// tree lists what there is, folders too.
func (x *transfer) tree() []node {
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.listed) < cacheFor {
		return x.nodes
	}
	now := time.Now()
	admin := x.t.console.role(x.t.user) >= cli.Admin
	list := []node{{"/config/running", 0, 0o444, now}, {"/config/set", 0, 0o444, now}, {"/log/all", 0, 0o444, now}, {"/log/journal", 0, 0o444, now}}
	if admin {
		list = append(list, node{"/secrets/running", 0, 0o400, now}, node{"/secrets/set", 0, 0o400, now})
		if text, at, ok := x.t.console.uploads.get(x.t.user); ok {
			list = append(list, node{candidatePath, int64(len(text)), 0o600, at})
		}
	}
	var gens []status.Generation
	x.json("show history --json", &gens)
	for _, g := range gens {
		list = append(list, node{fmt.Sprintf("/config/history/%d", g.Generation), 0, 0o444, g.Time})
		if admin {
			list = append(list, node{fmt.Sprintf("/secrets/history/%d", g.Generation), 0, 0o400, g.Time})
		}
		if g.Running {
			list[0].time = g.Time
		}
	}
	var in status.Init
	x.json("show processes --json", &in)
	for _, s := range in.Services {
		list = append(list, node{"/log/" + s.Name, 0, 0o444, now})
	}
	var files []status.File
	x.json("file list --json", &files)
	for _, f := range files {
		list = append(list, node{f.Path, int64(f.Size), fs.FileMode(f.Mode & 0o777), now})
	}
	folders := map[string]bool{"/": true}
	for _, n := range list {
		for d := path.Dir(n.path); d != "/"; d = path.Dir(d) {
			folders[d] = true
		}
	}
	for _, d := range []string{"/etc/keepalived", "/usr/local", "/usr/libexec/keepalived", "/opt"} { // scripts may lie there
		for ; d != "/"; d = path.Dir(d) {
			folders[d] = true
		}
	}
	for d := range folders {
		list = append(list, node{d, 0, fs.ModeDir | 0o755, now})
	}
	slices.SortFunc(list, func(a, b node) int { return strings.Compare(a.path, b.path) })
	x.nodes, x.listed = list, now
	return list
}

// stat describes a file or folder.
func (x *transfer) stat(p string) (node, error) {
	for _, n := range x.tree() {
		if n.path != p {
			continue
		}
		if _, made := reads(p); made { // its size is known only when it is made
			b, err := x.read(p, true)
			if err != nil {
				return node{}, err
			}
			n.size = int64(len(b))
		}
		return n, nil
	}
	if _, made := reads(p); made { // an old generation, a service that init does not list
		b, err := x.read(p, true)
		if err != nil {
			return node{}, err
		}
		return node{p, int64(len(b)), 0o444, time.Now()}, nil
	}
	return node{}, fs.ErrNotExist
}

// list is what lies in a folder.
func (x *transfer) list(dir string) (list []node, err error) {
	found := false
	for _, n := range x.tree() {
		found = found || n.path == dir && n.IsDir()
		if path.Dir(n.path) == dir && n.path != "/" {
			list = append(list, n)
		}
	}
	if !found {
		return nil, fs.ErrNotExist
	}
	return list, nil
}

// changed forgets what was listed.
func (x *transfer) changed() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cached, x.listed = nil, time.Time{}
}

// takes tells whether a file can be written at all, before it is sent.
func (x *transfer) takes(p string) error {
	switch {
	case x.t.console.role(x.t.user) < cli.Admin:
		return x.refused(p, fmt.Errorf("permission denied: it needs role admin"))
	case isCandidate(p):
		return nil
	case strings.HasPrefix(p, "/config/") || strings.HasPrefix(p, "/secrets/") || strings.HasPrefix(p, "/log/"):
		return x.refused(p, fmt.Errorf("cannot be written; a configuration goes to %s", candidatePath))
	}
	return nil // conf knows where scripts may lie
}

// isCandidate tells whether a file that is written is a configuration: by the
// name candidate, or as any .conf that is put into the folder one starts in.
func isCandidate(p string) bool {
	return p == candidatePath || p == keepalivedConf || path.Dir(p) == startDirectory && strings.HasSuffix(p, ".conf")
}

// write takes over a file that was sent as a whole.
func (x *transfer) write(p string, mode fs.FileMode, content []byte) error {
	defer x.changed()
	if err := x.takes(p); err != nil {
		return err
	}
	if !isCandidate(p) {
		line := "file put " + quoted(p)
		if mode != 0 { // else as of "file put": that it can be run is what scripts are for
			line += fmt.Sprintf(" %o", mode.Perm())
		}
		out, err := x.command(line, string(content), true)
		if err != nil {
			return x.refused(p, err)
		}
		fmt.Fprint(x.err, out)
		return nil
	}
	out, err := x.command("check", string(content), true)
	if err != nil {
		return x.refused(p, fmt.Errorf("not taken over, nothing changes:\n%w", err))
	}
	if err := x.t.console.uploads.put(x.t.user, string(content)); err != nil {
		return x.refused(p, err)
	}
	fmt.Fprintf(x.err, "%s%d lines, checked and kept; nothing runs yet: \"load uploaded\" makes it the candidate\n", out, strings.Count(string(content), "\n"))
	return nil
}

// remove deletes a script, or forgets what was uploaded.
func (x *transfer) remove(p string) error {
	defer x.changed()
	if p == candidatePath && x.t.console.role(x.t.user) >= cli.Admin {
		x.t.console.uploads.drop(x.t.user)
		return nil
	}
	if _, made := reads(p); made || isCandidate(p) {
		return x.refused(p, errors.New("cannot be deleted"))
	}
	_, err := x.command("file delete "+quoted(p), "", true)
	if err != nil {
		return x.refused(p, err)
	}
	return nil
}

// refused tells the user why: of an error of the protocol clients show hardly
// more than that there was one.
func (x *transfer) refused(p string, err error) error {
	fmt.Fprintf(x.err, "%s: %v\n", p, err)
	return &toldError{err}
}

// toldError was told to the user already.
type toldError struct{ err error }

func (e *toldError) Error() string { return e.err.Error() }
func (e *toldError) Unwrap() error { return e.err }

// chmod sets the mode of a script, also while it is sent. Of what is not kept as a
// file it has no meaning.
func (x *transfer) chmod(p string, mode fs.FileMode) error {
	x.mu.Lock()
	u := x.sending[p]
	x.mu.Unlock()
	if u != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.mode = mode
		return nil
	}
	if _, made := reads(p); made || isCandidate(p) {
		return nil
	}
	b, err := x.read(p, false)
	if err != nil {
		return err
	}
	return x.write(p, mode, b)
}

// upload begins to take a file.
func (x *transfer) upload(p string) (*upload, error) {
	if err := x.takes(p); err != nil {
		return nil, err
	}
	if err := x.opened(); err != nil {
		return nil, err
	}
	u := &upload{x: x, path: p}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sending == nil {
		x.sending = map[string]*upload{}
	}
	x.sending[p] = u
	return u, nil
}

// upload is a file on its way in.
type upload struct {
	x    *transfer
	path string
	mode fs.FileMode

	mu      sync.Mutex
	content []byte
	charged int64 // of maxInFlight
	written int
	failed  error
	closed  bool
}

// WriteAt implements io.WriterAt.
func (u *upload) WriteAt(p []byte, off int64) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	end := off + int64(len(p))
	switch {
	case u.failed != nil || u.closed:
		return 0, fs.ErrClosed
	case off < 0 || end < off || end > maxInput:
		u.failed = fmt.Errorf("more than %d bytes were sent", maxInput)
		return 0, u.failed
	case end > int64(len(u.content)):
		more := end - int64(len(u.content))
		if u.x.t.console.inFlight.Add(more) > maxInFlight {
			u.x.t.console.inFlight.Add(-more)
			u.failed = errors.New("too much is sent at a time; try again")
			return 0, u.failed
		}
		u.charged += more
		u.content = append(u.content, make([]byte, more)...)
	}
	copy(u.content[off:], p)
	u.written += len(p)
	return len(p), nil
}

// TransferError is told when the connection is lost before the end.
func (u *upload) TransferError(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failed = fmt.Errorf("cut off: %w", err)
}

// Close takes over what was sent, if it is whole.
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	u.closed = true
	defer func() {
		u.x.t.console.inFlight.Add(-u.charged)
		u.x.open.Add(-1)
		u.content = nil
		u.x.mu.Lock()
		defer u.x.mu.Unlock()
		if u.x.sending[u.path] == u {
			delete(u.x.sending, u.path)
		}
	}()
	if u.failed == nil && u.written != len(u.content) {
		u.failed = fmt.Errorf("%d bytes were sent for %d", u.written, len(u.content))
	}
	if u.failed != nil {
		u.x.t.console.env.Log.Info(fmt.Sprintf("%s from %s: upload of %q given up, nothing changes: %v", u.x.t.user, u.x.t.address, u.path, u.failed))
		return u.x.refused(u.path, fmt.Errorf("nothing changes: %w", u.failed))
	}
	return u.x.write(u.path, u.mode, u.content)
}

// opened counts an open file.
func (x *transfer) opened() error {
	if x.open.Add(1) > maxOpenFiles {
		x.open.Add(-1)
		return errors.New("too many open files")
	}
	return nil
}

// uploads are configurations that were sent and not yet loaded, one a user.
type uploads struct {
	mu   sync.Mutex
	list map[string]uploaded
}

type uploaded struct {
	text string
	at   time.Time
}

// put keeps a text for the user for an hour.
func (u *uploads) put(user, text string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	total := len(text)
	for name, one := range u.list {
		if time.Since(one.at) > keepUpload {
			delete(u.list, name)
		} else if name != user {
			total += len(one.text)
		}
	}
	if total > 2*maxInput {
		return errors.New("too much waits to be loaded: \"load uploaded\" of another user first")
	}
	if u.list == nil {
		u.list = map[string]uploaded{}
	}
	u.list[user] = uploaded{text, time.Now()}
	return nil
}

// get returns what waits for the user.
func (u *uploads) get(user string) (text string, at time.Time, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one, ok := u.list[user]
	if ok && time.Since(one.at) > keepUpload {
		delete(u.list, user)
		return "", time.Time{}, false
	}
	return one.text, one.at, ok
}

func (u *uploads) drop(user string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.list, user)
}
