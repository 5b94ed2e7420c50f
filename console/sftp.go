package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"ballast/console/cli"

	"github.com/gliderlabs/ssh"
	"github.com/pkg/sftp"
)

// sftp serves the SFTP subsystem, which scp uses too.
func (c *console) sftp(ctx context.Context, t *terminal, s ssh.Session) int {
	idle := time.AfterFunc(c.idleTime(), func() { s.Close() })
	defer idle.Stop()
	h := sftpHandlers{&transfer{ctx: ctx, t: t, err: s.Stderr()}}
	server := sftp.NewRequestServer(awake{s, c, idle}, sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h},
		sftp.WithStartDirectory(startDirectory))
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return cli.Failed
	}
	return cli.OK
}

// awake is a connection that is closed when nothing comes for too long.
type awake struct {
	ssh.Session
	console *console
	idle    *time.Timer
}

// Read implements io.Reader.
func (a awake) Read(p []byte) (int, error) {
	n, err := a.Session.Read(p)
	a.idle.Reset(a.console.idleTime())
	return n, err
}

// sftpHandlers answers requests of the protocol.
type sftpHandlers struct{ x *transfer }

// opened is a file that is read.
type opened struct {
	*bytes.Reader
	x *transfer
}

// Close implements io.Closer.
func (o opened) Close() error {
	o.x.open.Add(-1)
	o.x.t.console.reading.Add(-o.Size())
	return nil
}

// Fileread implements sftp.FileReader.
func (h sftpHandlers) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	if err := h.x.opened(); err != nil {
		return nil, err
	}
	b, err := h.x.read(r.Filepath, true)
	if err != nil {
		h.x.open.Add(-1)
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, h.x.refused(r.Filepath, err)
		}
		return nil, os.ErrNotExist
	}
	// Old generations that are open are not the one text that is cached.
	if held := &h.x.t.console.reading; held.Add(int64(len(b))) > maxInFlight {
		held.Add(-int64(len(b)))
		h.x.open.Add(-1)
		return nil, h.x.refused(r.Filepath, errors.New("too much is read at a time; try again"))
	}
	return opened{bytes.NewReader(b), h.x}, nil
}

// Filewrite implements sftp.FileWriter.
func (h sftpHandlers) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	if f := r.Pflags(); f.Append || !f.Trunc && !f.Creat {
		return nil, h.x.refused(r.Filepath, errors.New("files are written as a whole: neither resumed nor appended to"))
	}
	u, err := h.x.upload(r.Filepath)
	if err != nil {
		return nil, os.ErrPermission
	}
	return u, nil
}

// Filecmd implements sftp.FileCmder.
func (h sftpHandlers) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Setstat": // times belong to the generation, not to the file
		if r.AttrFlags().Permissions {
			return h.x.chmod(r.Filepath, r.Attributes().FileMode().Perm())
		}
		return nil
	case "Remove":
		return h.x.remove(r.Filepath)
	}
	return sftp.ErrSSHFxOpUnsupported
}

// listing is a list of files for the protocol.
type listing []node

// ListAt implements sftp.ListerAt.
func (l listing) ListAt(to []os.FileInfo, from int64) (int, error) {
	if from < 0 || from >= int64(len(l)) {
		return 0, io.EOF
	}
	n := 0
	for ; n < len(to) && int(from)+n < len(l); n++ {
		to[n] = l[int(from)+n]
	}
	if int(from)+n == len(l) {
		return n, io.EOF
	}
	return n, nil
}

// Filelist implements sftp.FileLister.
func (h sftpHandlers) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "List" {
		list, err := h.x.list(r.Filepath)
		return listing(list), err
	}
	n, err := h.x.stat(r.Filepath)
	if err != nil {
		return nil, err
	}
	return listing{n}, nil
}
