package cli

import (
	"context"
	"errors"

	"ballast/services/ipc/status"
)

// loadUploaded loads what was sent by scp or sftp. What may follow is as after
// load.
func loadUploaded(ctx context.Context, c *call) (string, error) {
	text, ok := "", false
	if c.s.Uploaded != nil {
		text, ok = c.s.Uploaded()
	}
	if !ok {
		return "", errors.New("nothing was uploaded in the last hour: scp keepalived.conf USER@BOX:candidate")
	}
	data := c.s.Data
	defer func() { c.s.Data = data }()
	c.s.Data = func(context.Context, string) (string, error) { return text, nil }
	return load(ctx, c)
}

// fileShow prints a script file.
func fileShow(ctx context.Context, c *call) (string, error) {
	if len(c.args) != 1 {
		return "", usagef("file show PATH, for example: file show /etc/keepalived/check.sh; see \"file list\"")
	}
	var f status.File
	if err := c.verb(ctx, "conf", "file-get", status.File{Path: c.args[0]}, &f); err != nil {
		return "", err
	}
	return string(f.Content), nil
}
