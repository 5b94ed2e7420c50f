package console

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"ballast/console/cli"
)

// scpOrder reads the command that a client of the old scp protocol gives: "scp
// -t PATH" to send a file, "scp -f PATH" to fetch one.
func scpOrder(line string) (to bool, p string, ok bool) {
	words := strings.Fields(line)
	if len(words) < 3 || words[0] != "scp" {
		return false, "", false
	}
	for i, w := range words[1:] {
		if w == "--" {
			continue
		}
		if !strings.HasPrefix(w, "-") {
			p = strings.Trim(strings.Join(words[i+1:], " "), "'\"")
			break
		}
		to = to || strings.Contains(w, "t")
		ok = ok || strings.ContainsAny(w, "tf")
	}
	return to, path.Join("/", p), ok && p != ""
}

// scp serves the old scp protocol, which OpenSSH before 9.0 and "scp -O" speak: one
// file, in or out.
func (x *transfer) scp(in *bufio.Reader, out io.Writer, line string) int {
	to, p, ok := scpOrder(line)
	if !ok {
		fmt.Fprintf(x.err, "this form of scp is not known here: scp FILE %s@BOX:candidate\n", x.t.user)
		return cli.Usage
	}
	if !strings.HasPrefix(line[strings.LastIndexAny(line, " ")+1:], "/") {
		p = path.Join(startDirectory, p)
	}
	var err error
	if to {
		err = x.sink(in, out, p)
	} else {
		err = x.source(in, out, p)
	}
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n") // a message of the protocol is one line
		if told := (*toldError)(nil); errors.As(err, &told) {
			text = "refused"
		}
		fmt.Fprintf(out, "\x01scp: %s: %s\n", p, text)
		return cli.Failed
	}
	return cli.OK
}

// sink takes one file.
func (x *transfer) sink(in *bufio.Reader, out io.Writer, p string) error {
	if n, err := x.stat(p); err == nil && !n.IsDir() || isCandidate(p) {
		if err := x.takes(p); err != nil {
			return err
		}
	}
	if _, err := out.Write([]byte{0}); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	for {
		head, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(head) == 0 {
			return nil
		}
		if err != nil || len(head) < 2 {
			return errors.New("the transfer was cut off: nothing changes")
		}
		switch text := strings.TrimSuffix(string(head), "\n"); text[0] {
		case 'T': // times: of "scp -p", which also means the mode
			x.preserve = true
			out.Write([]byte{0})
		case 'C':
			if err := x.receive(in, out, p, text[1:]); err != nil {
				return err
			}
		case 1, 2:
			return fmt.Errorf("the client gave up: %s", text[1:])
		default:
			return errors.New("only single files can be sent")
		}
	}
}

// receive takes the file that head announces: "0644 SIZE NAME".
func (x *transfer) receive(in *bufio.Reader, out io.Writer, p, head string) error {
	f := strings.SplitN(head, " ", 3)
	if len(f) != 3 {
		return errors.New("the announcement of a file cannot be read")
	}
	mode, err := strconv.ParseUint(f[0], 8, 32)
	size, err2 := strconv.ParseInt(f[1], 10, 64)
	if err != nil || err2 != nil || size < 0 || size > maxInput || strings.Contains(f[2], "/") {
		return fmt.Errorf("%q cannot be taken; a file has at most %d bytes", f[2], maxInput)
	}
	if n, err := x.stat(p); err == nil && n.IsDir() {
		p = path.Join(p, f[2])
	}
	u, err := x.upload(p)
	if err != nil {
		return err
	}
	if x.preserve {
		u.mode = fs.FileMode(mode).Perm()
	}
	out.Write([]byte{0})
	n, err := io.Copy(io.NewOffsetWriter(u, 0), io.LimitReader(in, size))
	end := byte(1)
	if err == nil && n == size {
		end, err = in.ReadByte()
	}
	if err != nil || n != size || end != 0 {
		u.TransferError(io.ErrUnexpectedEOF)
	}
	if err := u.Close(); err != nil {
		return err
	}
	_, err = out.Write([]byte{0})
	return err
}

// source sends one file.
func (x *transfer) source(in *bufio.Reader, out io.Writer, p string) error {
	goOn := func() error {
		b, err := in.ReadByte()
		if err == nil && b != 0 {
			err = errors.New("the client gave up")
		}
		return err
	}
	if err := goOn(); err != nil {
		return err
	}
	if n, err := x.stat(p); err != nil {
		return err
	} else if n.IsDir() {
		return errors.New("not a regular file")
	}
	b, err := x.read(p, true)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "C0644 %d %s\n", len(b), path.Base(p)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if err := goOn(); err != nil {
		return err
	}
	if _, err := out.Write(append(b[:len(b):len(b)], 0)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return goOn()
}
