package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// capture stands for the service: it gives bytes that are no text until its
// input ends, or it has given what was asked for.
func (l *lab) capture() (asked <-chan status.CaptureRequest, ended <-chan string) {
	l.t.Helper()
	env, err := ipc.NewEnv(ipc.Dir(l.dir), "capture", slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	requests, ends := make(chan status.CaptureRequest, 10), make(chan string, 10)
	s := ipc.NewServer("capture")
	s.HandleStream("capture", func(ctx context.Context, _ ipc.Peer, st *ipc.Stream) error {
		var r status.CaptureRequest
		if err := json.Unmarshal(st.Argument, &r); err != nil {
			return err
		}
		requests <- r
		if r.Interface == "eth9" {
			return errors.New(`there is no interface "eth9"`)
		}
		over := make(chan struct{})
		go func() { io.Copy(io.Discard, st.In); close(over) }()
		for n := uint64(0); ; n++ {
			packet := "\x0a\x0d\x0d\x0a\x00\xffpacket"
			if r.Text {
				packet = fmt.Sprintf("packet %d\n", n)
			}
			if r.Count > 0 && n == r.Count {
				return st.Note("%d packets, 0 dropped", n)
			}
			if _, err := st.Write([]byte(packet)); err != nil {
				ends <- "broken"
				return err
			}
			select {
			case <-over:
				ends <- "input"
				return st.Note("%d packets, 0 dropped", n+1)
			case <-ctx.Done():
				ends <- "gone"
				return ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		}
	}, ipc.GroupAdmin)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, env.Listener) }()
	l.t.Cleanup(func() { cancel(); <-done })
	return requests, ends
}

func TestCapture(t *testing.T) {
	l := newLab(t)
	asked, ended := l.capture()
	l.start()
	const packet = "\x0a\x0d\x0d\x0a\x00\xffpacket"
	// Its input is at its end at once, as that of a script or of cron.
	o := l.ssh("admin", "", "capture eth0 tcp port 80 or (vrrp) count 3 snap 96")
	o.want(t, 0, "", "3 packets, 0 dropped\n")
	if o.out != packet+packet+packet {
		t.Errorf("on standard output: %q", o.out)
	}
	r := <-asked
	if r.Interface != "eth0" || r.Filter != "tcp port 80 or (vrrp)" || r.Count != 3 || r.Snap != 96 || r.Text || r.By != "admin@127.0.0.1" ||
		fmt.Sprint(r.Server) != "127.0.0.1:"+l.port || r.Client.Addr() != r.Server.Addr() || r.Client.Port() == 0 {
		t.Errorf("%+v", r)
	}
	l.ssh("admin", "", "capture any own text for 1m30s count 2 promiscuous \"'not arp'\"").want(t, 0, "packet 0\npacket 1\n", "")
	r = <-asked
	if r.Interface != "any" || r.Filter != "not arp" || !r.Text || !r.Promiscuous || r.For != 90*time.Second || r.Client != (netip.AddrPort{}) {
		t.Errorf("%+v", r)
	}
	l.ssh("operate", "", "capture eth0").want(t, 1, "", "permission denied: it needs role admin")
	l.ssh("admin", "", "capture").want(t, 2, "", "capture wants an interface")
	l.ssh("admin", "", "capture eth0 count many").want(t, 2, "", "capture count wants a number")
	l.ssh("admin", "", "capture eth0 for -3s").want(t, 2, "", "capture for wants seconds")
	l.ssh("admin", "", "capture eth9").want(t, 1, "", "there is no interface \"eth9\"")
	<-asked

	// The user's client ends: so does the capture.
	cmd := exec.Command("ssh", append(l.sshArgs("admin", "admin@127.0.0.1"), "capture eth0")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	some := make([]byte, 3*len(packet))
	if _, err := io.ReadFull(out, some); err != nil || !bytes.HasPrefix(some, []byte(packet)) {
		t.Fatalf("%q, %v", some, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it goes on for nobody")
	}
}

// Nobody need type while a command works, whichever way it was given.
func TestIdleWhileACommandWorks(t *testing.T) {
	l := newLab(t)
	l.capture()
	l.start()
	s, cmd := l.onTerminal("admin")
	s.expect("lb1> ")
	l.idleTime("lb2", time.Second)
	const long = "capture eth0 text count 500" // 5 ms and more each
	l.ssh("admin", "", long).want(t, 0, "packet 499\n", "500 packets, 0 dropped\n")
	l.run("", append(l.sshArgs("admin", "-tt", "admin@127.0.0.1"), long)...).want(t, 0, "500 packets, 0 dropped", "")
	s.send(long + "\r")
	s.expect("packet 1\r\n")
	s.send("x") // that somebody typed meanwhile does not count
	s.expect("500 packets, 0 dropped", "nobody typed for a long time")
	l.wantEnd(cmd)
}

// On a terminal there is a line a packet, until Ctrl-C.
func TestCaptureOnATerminal(t *testing.T) {
	l := newLab(t)
	asked, ended := l.capture()
	l.start()
	s, _ := l.onTerminal("admin")
	s.expect("lb1> ")
	s.send("capture eth0 'vrrp'\r")
	s.expect("packet 0\r\n", "packet 3\r\n")
	s.send("\x03")
	s.expect("packets, 0 dropped", "lb1> ")
	if r := <-asked; !r.Text || r.Filter != "vrrp" {
		t.Errorf("%+v", r)
	}
	if how := <-ended; how != "input" {
		t.Errorf("it ended by %s", how)
	}
	l.log.await(t, 0, "admin from 127.0.0.1: capture eth0 'vrrp': ok")
}
