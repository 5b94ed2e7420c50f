package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// qmp is a connection to QEMU's monitor (docs/interop/qmp-spec.txt in its tree).
type qmp struct {
	c net.Conn
	r *bufio.Reader
}

func (q *qmp) close() { q.c.Close() }

// dial connects to a socket that QEMU makes shortly after its start.
func (v *VM) dial(ctx context.Context, name string) (net.Conn, error) {
	path := filepath.Join(v.dir, v.Name+name)
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return c, nil
		}
		select {
		case <-v.exited:
			return nil, v.died()
		case <-ctx.Done():
			return nil, fmt.Errorf("lab: %s: connect to %s: %w", v.Name, path, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// qmpBound is how long QEMU may take for a command, on a machine that is busy with
// several of them.
const qmpBound = time.Minute

// QMP runs one monitor command.
func (v *VM) QMP(ctx context.Context, command string, arguments map[string]any) error {
	v.qmu.Lock()
	defer v.qmu.Unlock()
	if !v.Running() {
		return v.died()
	}
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(qmpBound)
	}
	if v.qmp == nil {
		c, err := v.dial(ctx, ".qmp")
		if err != nil {
			return err
		}
		c.SetDeadline(until)
		q := &qmp{c, bufio.NewReader(c)}
		if _, err := q.r.ReadBytes('\n'); err != nil { // the greeting
			c.Close()
			return fmt.Errorf("lab: %s: qmp: %w", v.Name, err)
		}
		if err := q.do("qmp_capabilities", nil); err != nil {
			c.Close()
			return fmt.Errorf("lab: %s: qmp: %w", v.Name, err)
		}
		v.qmp = q
	}
	v.qmp.c.SetDeadline(until)
	if err := v.qmp.do(command, arguments); err != nil {
		return fmt.Errorf("lab: %s: qmp %s: %w", v.Name, command, err)
	}
	return nil
}

func (q *qmp) do(command string, arguments map[string]any) error {
	m := map[string]any{"execute": command}
	if arguments != nil {
		m["arguments"] = arguments
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := q.c.Write(append(b, '\n')); err != nil {
		return err
	}
	for {
		line, err := q.r.ReadBytes('\n')
		if err != nil {
			return err
		}
		var a struct {
			Return *json.RawMessage `json:"return"`
			Error  *struct{ Desc string }
			Event  string
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return err
		}
		switch {
		case a.Error != nil:
			return fmt.Errorf("%s", a.Error.Desc)
		case a.Return != nil:
			return nil
		}
	}
}
