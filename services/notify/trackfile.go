package notify

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ballast/configs/model"
	"ballast/services/ipc/status"
)

// trackFiles watches the numbers of track_file. The kernel tells when one was
// written (inotify on the folder), so that a change is published at once.
type trackFiles struct {
	user *scriptUser
	log  *slog.Logger
	did  func() // a value is another one
	now  func() time.Time
	tell func(name string, from, to int)

	mu    sync.Mutex
	list  []*trackFile
	watch map[int32]string // folders by watch descriptor
	in    *os.File         // the inotify descriptor; nil: nothing is watched, or it cannot be had
	gen   int              // grows when watching begins or ends
	on    bool
	wg    sync.WaitGroup
}

type trackFile struct {
	conf   model.TrackFile
	path   string // without links
	folder string // why its folder cannot be watched; empty: it is
	res    status.FileResult
}

// fileLook is how often a file is looked for whose folder is not there.
const fileLook = time.Second

const fileMask = unix.IN_CLOSE_WRITE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR

// apply takes a configuration. first: it is the first one since the box
// booted, so that init_file may overwrite.
func (s *trackFiles) apply(ctx context.Context, files []model.TrackFile, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.list
	s.list = nil
	for _, c := range files {
		f := &trackFile{conf: c, path: c.Path, res: status.FileResult{Name: c.Name}}
		if i := slices.IndexFunc(old, func(o *trackFile) bool { return o.conf.Name == c.Name && o.conf.Path == c.Path }); i >= 0 {
			f.res = old[i].res
		}
		if c.Init {
			if err := s.create(&c, first); err != nil {
				s.log.Warn(fmt.Sprintf("track_file %s: init_file: %v", c.Name, err))
			}
		}
		s.list = append(s.list, f)
	}
	s.rewatch(ctx)
	for _, f := range s.list {
		s.read(f)
	}
}

// create is init_file.
func (s *trackFiles) create(c *model.TrackFile, overwrite bool) error {
	if _, err := os.Lstat(c.Path); err == nil && !(c.Overwrite && overwrite) {
		return nil
	}
	return s.put(c.Path, c.InitValue)
}

// put writes a number.
func (s *trackFiles) put(path string, value int) error {
	if err := checkPath(path); err != nil {
		return err
	}
	return s.user.do(func() error {
		if err := makeFolder(path); err != nil {
			return err
		}
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return fmt.Errorf("write %s: %w", path, fileHint(path, err))
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			return fmt.Errorf("%s is no plain file", path)
		}
		// Not truncated first: a script that reads meanwhile finds a number.
		text := strconv.Itoa(value) + "\n"
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			return err
		}
		return f.Truncate(int64(len(text)))
	})
}

func fileHint(path string, err error) error {
	switch {
	case !errors.Is(err, fs.ErrPermission):
		return err
	case below(path, ownRoots):
		return fmt.Errorf("%w: it belongs to somebody else", err)
	}
	return fmt.Errorf("%w: scripts may not write there unless the file was stored with mode 0666 (file put); /run, /var/run and /tmp are for what changes", err)
}

// rewatch watches the folders of all files. It starts the reader when there is
// something to read, and ends it when there is not.
func (s *trackFiles) rewatch(ctx context.Context) {
	if len(s.list) == 0 {
		s.stopWatch()
		return
	}
	if !s.on {
		s.on = true
		s.gen++
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			s.log.Error("track_file: inotify: " + err.Error() + "; files are read once a second")
		} else {
			in := os.NewFile(uintptr(fd), "inotify")
			s.in = in
			s.wg.Go(func() { s.events(in) })
		}
		s.watch = map[int32]string{}
		gen := s.gen
		s.wg.Go(func() { s.poll(ctx, gen) })
	}
	keep := map[int32]bool{}
	for _, f := range s.list {
		f.path = resolve(f.conf.Path)
		if s.in == nil {
			continue
		}
		dir := filepath.Dir(f.path)
		wd := -1
		err := s.user.do(func() (err error) {
			if err := makeFolder(f.conf.Path); err != nil {
				return err
			}
			return control(s.in, func(fd int) error {
				wd, err = unix.InotifyAddWatch(fd, dir, fileMask)
				return err
			})
		})
		f.folder = ""
		if err != nil {
			f.folder = "folder " + dir + ": " + err.Error()
			continue
		}
		s.watch[int32(wd)] = dir
		keep[int32(wd)] = true
	}
	for wd := range s.watch {
		if !keep[wd] {
			control(s.in, func(fd int) error { _, err := unix.InotifyRmWatch(fd, uint32(wd)); return err })
			delete(s.watch, wd)
		}
	}
}

func control(f *os.File, fn func(fd int) error) (err error) {
	c, cerr := f.SyscallConn()
	if cerr != nil {
		return cerr
	}
	if cerr := c.Control(func(fd uintptr) { err = fn(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

func (s *trackFiles) stopWatch() {
	if s.in != nil {
		s.in.Close()
	}
	s.in, s.watch, s.on = nil, nil, false
	s.gen++
}

// stop ends the watch.
func (s *trackFiles) stop() {
	s.mu.Lock()
	s.list = nil
	s.stopWatch()
	s.mu.Unlock()
	s.wg.Wait()
}

// resolve follows links, as the kernel's events come from where the file
// really is.
func resolve(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// poll looks once a second for folders that were not there, and for all files
// when the kernel cannot tell. A file that the kernel tells of is left alone:
// its writer may have emptied it and not yet written, which is no number.
func (s *trackFiles) poll(ctx context.Context, gen int) {
	t := time.NewTicker(fileLook)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		if s.gen != gen {
			s.mu.Unlock()
			return
		}
		if unseen := slices.DeleteFunc(slices.Clone(s.list), func(f *trackFile) bool { return s.in != nil && s.watched(f) }); len(unseen) > 0 {
			s.rewatch(ctx)
			for _, f := range unseen {
				s.read(f)
			}
		}
		s.mu.Unlock()
	}
}

func (s *trackFiles) watched(f *trackFile) bool {
	dir := filepath.Dir(f.path)
	for _, d := range s.watch {
		if d == dir {
			return true
		}
	}
	return false
}

// events reads what inotify tells until its descriptor is closed.
func (s *trackFiles) events(in *os.File) {
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		for e := range inotifyEvents(buf[:n]) {
			switch {
			case e.mask&unix.IN_Q_OVERFLOW != 0:
				for _, f := range s.list {
					s.read(f)
				}
			case e.mask&unix.IN_IGNORED != 0: // the folder is gone
				dir := s.watch[e.wd]
				delete(s.watch, e.wd)
				for _, f := range s.list {
					if filepath.Dir(f.path) == dir {
						s.read(f)
					}
				}
			default:
				dir := s.watch[e.wd]
				for _, f := range s.list {
					if filepath.Dir(f.path) == dir && filepath.Base(f.path) == e.name {
						s.read(f)
					}
				}
			}
		}
		s.mu.Unlock()
	}
}

type inotifyEvent struct {
	wd   int32
	mask uint32
	name string
}

// inotifyEvents are the events of one read (inotify(7)).
func inotifyEvents(b []byte) func(func(inotifyEvent) bool) {
	return func(yield func(inotifyEvent) bool) {
		for len(b) >= unix.SizeofInotifyEvent {
			e := inotifyEvent{wd: int32(binary.NativeEndian.Uint32(b)), mask: binary.NativeEndian.Uint32(b[4:])}
			n := uint64(binary.NativeEndian.Uint32(b[12:])) + unix.SizeofInotifyEvent
			if n > uint64(len(b)) {
				return
			}
			e.name, _, _ = strings.Cut(string(b[unix.SizeofInotifyEvent:n]), "\x00")
			b = b[n:]
			if !yield(e) {
				return
			}
		}
	}
}

// read takes the number of a file. One that is out of range changes nothing.
func (s *trackFiles) read(f *trackFile) {
	text, err := s.content(f.path)
	value, detail := 0, ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		detail = cmp.Or(f.folder, "no such file")
	case err != nil:
		detail = err.Error()
	default:
		var ok bool
		if value, ok, err = number(text); err != nil {
			if detail = fmt.Sprintf("%q: %v; the value before holds", oneLine(text, 40), err); f.res.Detail != detail {
				f.res.Detail = detail
				s.did()
			}
			return
		} else if !ok {
			detail = fmt.Sprintf("%q is no number", oneLine(text, 40))
		}
	}
	if f.res.Value == value && f.res.Detail == detail && !f.res.Last.IsZero() {
		return
	}
	if f.res.Value != value || f.res.Last.IsZero() {
		if !f.res.Last.IsZero() {
			s.log.Info(fmt.Sprintf("track_file %s: %d -> %d", f.conf.Name, f.res.Value, value))
			s.tell(f.conf.Name, f.res.Value, value)
		}
		f.res.Last = s.now()
	}
	f.res.Value, f.res.Detail = value, detail
	s.did()
}

func (s *trackFiles) content(path string) (string, error) {
	var b [127]byte // all that keepalived looks at
	n := 0
	err := s.user.do(func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		n, err = unix.Read(fd, b[:])
		n = max(n, 0)
		return err
	})
	return string(b[:n]), err
}

// number reads as strtol(3) with base 0 does: white space, a sign, then
// decimal, 0x or octal digits; what follows does not count. No digits are 0.
func number(s string) (n int, ok bool, err error) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	neg := strings.HasPrefix(s, "-")
	if neg || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	base := 10
	switch {
	case len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") && digit(s[2]) < 16:
		base, s = 16, s[2:]
	case strings.HasPrefix(s, "0"):
		base = 8
	}
	v := int64(0)
	for i := 0; i < len(s) && digit(s[i]) < base; i++ {
		ok = true
		if v = v*int64(base) + int64(digit(s[i])); v > math.MaxUint32 {
			v = math.MaxUint32 // far out of range, and stays so
		}
	}
	if neg {
		v = -v
	}
	if v < math.MinInt32 || v > math.MaxInt32 {
		return 0, ok, errors.New("out of range")
	}
	return int(v), ok, nil
}

// digit is the value of a digit, 99 for no digit.
func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return 99
}

// set is the verb "track-file".
func (s *trackFiles) set(name string, value int) error {
	s.mu.Lock()
	i := slices.IndexFunc(s.list, func(f *trackFile) bool { return f.conf.Name == name })
	if i < 0 {
		var names []string
		for _, f := range s.list {
			names = append(names, f.conf.Name)
		}
		s.mu.Unlock()
		if len(names) == 0 {
			return fmt.Errorf("track-file %s: the running configuration has no track_file; one is added with: track_file %[1]s { file /run/%[1]s }", name)
		}
		return fmt.Errorf("track-file %s: the running configuration has no track_file of this name; it has: %s", name, strings.Join(names, ", "))
	}
	path := s.list[i].path
	s.mu.Unlock()
	if value < math.MinInt32 || value > math.MaxInt32 {
		return fmt.Errorf("track-file %s: %d is out of range", name, value)
	}
	if err := s.put(path, value); err != nil {
		return fmt.Errorf("track-file %s: %w", name, err)
	}
	return nil
}

func (s *trackFiles) results() []status.FileResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []status.FileResult
	for _, f := range s.list {
		out = append(out, f.res)
	}
	return out
}
