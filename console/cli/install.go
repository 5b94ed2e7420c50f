package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"ballast/console/show"
	"ballast/services/ipc/status"
)

const installArgs = "DISK [net|slot|URL] [older]"

// install writes firmware, configuration and identity of this box to a whole disk.
func install(ctx context.Context, c *call) (string, error) {
	var list []status.InstallTarget
	if err := c.verb(ctx, "init", "disks", nil, &list); err != nil {
		return "", err
	}
	if len(c.args) == 0 {
		return "", usagef("install %s; the disks of this box:\n%s", installArgs, show.Disks(list))
	}
	q := status.FirmwareInstall{Disk: strings.TrimPrefix(c.args[0], "/dev/"), By: c.s.author()}
	var target status.InstallTarget
	for _, t := range list {
		if t.Disk == q.Disk {
			target = t
		}
	}
	switch {
	case target.Disk == "":
		return "", fmt.Errorf("there is no disk %s; the disks of this box:\n%s", shown(q.Disk), show.Disks(list))
	case target.Refuse != "":
		return "", errors.New(target.Refuse)
	}
	source, err := sourceWords(c.args[1:], []string{"net", "older", "slot"}, map[string]*bool{"older": &q.Older}, func(a string) error {
		return usagef("install %[1]s does not take %[2]q: want install %[3]s; a file is sent: ssh USER@BOX install %[1]s < FILE.bundle", shown(q.Disk), a, installArgs)
	}, usagef("install takes one source: want install %s", installArgs))
	if err != nil {
		return "", err
	}
	q.Source = source
	st := c.streams()
	var in io.Reader
	switch {
	case q.Source != "":
	case st.In != nil: // what is sent
		in = st.In
	case target.Slot != "":
		q.Source = "slot"
	case target.Net != "":
		q.Source = "net"
	default:
		return "", errors.New("this box has no firmware to install: ssh USER@BOX install DISK < FILE.bundle, or install DISK URL")
	}
	if c.s.AskWord != nil {
		answer, err := c.s.AskWord(ctx, fmt.Sprintf("Everything on %s is lost. Type the name of the disk again: ", target.About))
		if err != nil || strings.TrimPrefix(strings.TrimSpace(answer), "/dev/") != q.Disk {
			return "", fmt.Errorf("not done: install goes on only at the answer %s", q.Disk)
		}
	}
	return "", c.firmwareStream(ctx, st, "install", q, in)
}
