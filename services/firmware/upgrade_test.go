package firmware

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/image/bootenv"
	"ballast/image/layout"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// heard is what an upgrade told its user.
type heard struct {
	notes string
	steps []status.FirmwareProgress
}

func upgrade(t testing.TB, c *ipc.Client, q status.FirmwareUpgrade, in io.Reader) (heard, error) {
	t.Helper()
	var h heard
	var out bytes.Buffer
	err := c.Stream(t.Context(), "upgrade", q, in, &out, func(s string) { h.notes += s })
	for d := json.NewDecoder(&out); ; {
		var p status.FirmwareProgress
		if derr := d.Decode(&p); errors.Is(derr, io.EOF) {
			return h, err
		} else if derr != nil {
			t.Fatal(derr)
		}
		h.steps = append(h.steps, p)
	}
}

func upgradeWords() status.FirmwareUpgrade { return status.FirmwareUpgrade{By: "ann"} }

func TestUpgrade(t *testing.T) {
	s, d, b := newService(t)
	s.begin(t.Context())
	c := serve(t, s)
	file := bundled(t, newID, maker)
	h, err := upgrade(t, c, status.FirmwareUpgrade{By: "ann"}, bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	<-b.rebooted
	// What runs is what starts before a byte of the other slot changes, and the
	// trial is set when all of it is there.
	if diff := cmp.Diff([]string{"env A  0", "begin B", "wrote B", "env A B 2"}, d.done()); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{"1.1 (1970-01-01 00:33), signed by SHA256:", "this box runs 1.0", "slot A, which stays", "writing slot B", "reboots into slot B", "show firmware"} {
		if !strings.Contains(h.notes, want) {
			t.Errorf("the user does not read %q:\n%s", want, h.notes)
		}
	}
	last := h.steps[len(h.steps)-1]
	if last.Step != "verify" || !slices.ContainsFunc(h.steps, func(p status.FirmwareProgress) bool {
		return p.Step == "fw.efi" && p.Done == p.Total && p.Total == 6<<20+1
	}) {
		t.Errorf("progress %+v", h.steps)
	}
	st := published(t, c)
	if st.Upgrade != nil || st.Next != "B" || st.Slots[1].State != status.SlotTrial || st.Slots[1].Identity.Version != "1.1" {
		t.Errorf("state %+v", st)
	}
	if len(st.History) != 1 || st.History[0].By != "ann" || st.History[0].Verdict != "" || st.History[0].From.Version != "1.0" || st.History[0].Source != "ssh" {
		t.Errorf("history %+v", st.History)
	}
	if _, err := upgrade(t, c, status.FirmwareUpgrade{}, bytes.NewReader(file)); err == nil || !strings.Contains(err.Error(), "about to reboot") {
		t.Errorf("one more while it reboots: %v", err)
	}
	var base baseline
	if err := s.records.read(baselineFile, &base); err != nil || base.Instances["VI_2"] != status.VRRPFault || base.Source != "commit" {
		t.Errorf("baseline %+v, %v", base, err)
	}
}

// What is not taken leaves the disk as it was; what breaks off leaves the other
// slot empty and this one the one that starts.
func TestUpgradeRefused(t *testing.T) {
	good := bundled(t, newID, maker)
	stranger := bundled(t, newID, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	older := bundled(t, layout.Identity{Version: "0.9", Build: 900, Board: "qemu", Kernel: "6.12"}, maker)
	bad := bytes.Clone(good)
	bad[len(bad)-3<<20] ^= 1
	for _, c := range []struct {
		name  string
		file  []byte
		setup func(*service, *fakeDisk, *fakeBox)
		want  string
		begun bool // the other slot was touched
	}{
		{"a stranger's", stranger, nil, "this box trusts SHA256:", false},
		{"no bundle", []byte(strings.Repeat("tarball", 99)), nil, "this is no bundle", false},
		{"no bundle: how one is sent", []byte(strings.Repeat("tarball", 99)), nil, "(a bundle is expected to be sent: ssh admin@BOX upgrade < FILE.bundle; else say \"usb\" or a URL)\nnothing was written", false},
		{"nothing", nil, nil, "broke off in its first line: unexpected EOF: fetch or send all of it again (a bundle is expected to be sent: ssh admin@BOX upgrade < FILE.bundle", false},
		{"older", older, nil, `add the word "older"`, false},
		{"not signed, and Secure Boot is on", good, func(s *service, _ *fakeDisk, _ *fakeBox) { s.secure = true }, "SIGN=", false},
		{"cut in the head", good[:60], nil, "broke off in the manifest", false},
		{"cut in the middle", good[:len(good)-3<<20-7], nil, "broke off in fw.efi", true},
		{"a wrong byte", bad, nil, "they are not what was signed", true},
		{"a bad disk", good, func(_ *service, d *fakeDisk, _ *fakeBox) { d.broken = true }, "the disk is bad", true},
		{"a commit waits", good, func(_ *service, _ *fakeDisk, b *fakeBox) { b.pending = &status.Pending{Generation: 9} }, "generation 9 of the configuration waits", false},
		{"no slots", good, func(s *service, _ *fakeDisk, _ *fakeBox) { s.cannot = "it came from the network" }, "it came from the network", false},
		{"on trial", good, func(s *service, d *fakeDisk, _ *fakeBox) {
			s.slot, s.onTrial, d.env = layout.B, true, bootenv.Env{Good: layout.A, Try: layout.B, Left: 1}
		}, "is itself on trial", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, d, b := newService(t)
			if c.setup != nil {
				c.setup(s, d, b)
			}
			s.begin(t.Context())
			client := serve(t, s)
			before := d.done()
			_, err := upgrade(t, client, status.FirmwareUpgrade{By: "ann"}, bytes.NewReader(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if c.name == "a stranger's" && strings.Contains(err.Error(), "expected to be sent") {
				t.Errorf("who sent a bundle is told how to send one: %v", err)
			}
			env, _ := d.Env()
			if env.Good != layout.A || env.Next() != layout.A && c.name != "on trial" {
				t.Errorf("the boot loader is told %+v", env)
			}
			if c.begun {
				if !strings.Contains(err.Error(), "slot A runs on") {
					t.Errorf("error %v", err)
				}
				if st := published(t, client); st.Slots[1].State != status.SlotEmpty || st.Upgrade != nil || len(st.History) > 0 {
					t.Errorf("state %+v", st)
				}
			} else if diff := cmp.Diff(before, d.done()); diff != "" {
				t.Errorf("the disk was touched: %s", diff)
			}
			select {
			case <-b.rebooted:
				t.Error("it reboots")
			default:
			}
			if err := s.able(t.Context()); err != nil && c.setup == nil {
				t.Errorf("the next one would be refused: %v", err)
			}
		})
	}
}

// A commit that waits to be confirmed holds the reboot up, also when it came
// while the bundle was sent.
func TestCommitMeanwhile(t *testing.T) {
	s, d, b := newService(t)
	s.begin(t.Context())
	c := serve(t, s)
	file := bundled(t, newID, maker)
	in := io.MultiReader(bytes.NewReader(file[:len(file)/2]), readerFunc(func([]byte) (int, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pending = &status.Pending{Generation: 9}
		return 0, io.EOF
	}), bytes.NewReader(file[len(file)/2:]))
	_, err := upgrade(t, c, status.FirmwareUpgrade{}, in)
	if err == nil || !strings.Contains(err.Error(), "generation 9") || !strings.Contains(err.Error(), "slot B holds 1.1 and is not started") {
		t.Errorf("error %v", err)
	}
	if env, _ := d.Env(); env != bootenv.Default {
		t.Errorf("%+v", env)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// One that was loaded and not started is replaced by the next, whatever becomes
// of that.
func TestReplaced(t *testing.T) {
	s, d, _ := newService(t)
	s.begin(t.Context())
	c := serve(t, s)
	file := bundled(t, newID, maker)
	if _, err := upgrade(t, c, status.FirmwareUpgrade{NoReboot: true}, bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	if _, err := upgrade(t, c, status.FirmwareUpgrade{}, bytes.NewReader(file[:len(file)-9])); err == nil {
		t.Fatal("half of one was taken")
	}
	st := published(t, c)
	if e := st.History[0]; len(st.History) != 1 || e.Verdict != status.VerdictRejected || !strings.Contains(e.Reason, "another one was loaded") {
		t.Errorf("history %+v", st.History)
	}
	if env, _ := d.Env(); env != bootenv.Default {
		t.Errorf("%+v", env)
	}
}

// Of two at a time one is told so.
func TestOneAtATime(t *testing.T) {
	s, _, b := newService(t)
	s.begin(t.Context())
	c := serve(t, s)
	in, user := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := upgrade(t, c, status.FirmwareUpgrade{NoReboot: true}, in)
		first <- err
	}()
	file := bundled(t, newID, maker)
	user.Write(file[:len(file)/2])
	if _, err := upgrade(t, c, status.FirmwareUpgrade{}, bytes.NewReader(file)); err == nil || err.Error() != errBusy.Error() {
		t.Errorf("the second: %v", err)
	}
	if err := c.Call(t.Context(), "rollback", nil, nil); err == nil || err.Error() != errBusy.Error() {
		t.Errorf("a rollback: %v", err)
	}
	user.Write(file[len(file)/2:])
	user.Close()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if st := published(t, c); st.Next != "B" || !strings.Contains(st.Notice, "starts on trial at the next reboot") {
		t.Errorf("state %+v", st)
	}
	// Taken back before it was started.
	var a status.FirmwareAnswer
	if err := c.Call(t.Context(), "rollback", status.FirmwareOrder{By: "ann"}, &a); err != nil || a.Reboot {
		t.Fatalf("%+v, %v", a, err)
	}
	if st := published(t, c); st.Next != "A" || st.History[0].Verdict != status.VerdictRejected {
		t.Errorf("state %+v", st)
	}
	select {
	case <-b.rebooted:
		t.Error("it reboots")
	default:
	}
}

func TestFromURLAndStick(t *testing.T) {
	file := bundled(t, newID, maker)
	mux := http.NewServeMux()
	mux.HandleFunc("/fw", func(w http.ResponseWriter, _ *http.Request) { w.Write(file) })
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<!DOCTYPE html><title>login</title>") })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/fw", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "ftp://x/fw", http.StatusFound) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "99999999")
		w.Write(file[:len(file)/2])
	})
	plain := httptest.NewServer(mux)
	defer plain.Close()
	secret := httptest.NewTLSServer(mux)
	defer secret.Close()
	for _, c := range []struct{ source, want string }{
		{plain.URL + "/fw", ""},
		{plain.URL + "/moved", ""},
		{secret.URL + "/fw", ""}, // a certificate that nobody knows
		{"usb", ""},
		{plain.URL + "/nothing", "404 Not Found: look at the URL, or send the bundle by SSH"},
		{plain.URL + "/page", "give the file ballast-BOARD.bundle\nnothing was written"},
		{"http://127.0.0.1:1/fw", "connection refused: look at the URL, and whether this box reaches the server, or send the bundle by SSH"},
		{"http://ann:hidden@127.0.0.1:1/fw", "connection refused: look at the URL"},
		{plain.URL + "/cut", "broke off in fw.efi"},
		{plain.URL + "/elsewhere", "want http://"},
		{"ftp://host/fw", "want http://"},
		{"file:///etc/passwd", "want http://"},
		{"ftp://ann:hidden@host/fw", `"ftp://ann:xxxxx@host/fw": want http://`},
		{"http://ann:hidden%@host/fw", "want http://"},
	} {
		s, d, b := newService(t)
		b.usb = file
		s.begin(t.Context())
		h, err := upgrade(t, serve(t, s), status.FirmwareUpgrade{Source: c.source, NoReboot: true}, nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.source, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("an error with a password: %v", err)
		}
		if strings.HasPrefix(c.source, "https:") && !strings.Contains(h.notes, "certificate is not looked at") {
			t.Errorf("%s: it tells %q", c.source, h.notes)
		}
		if env, _ := d.Env(); (env.Try == layout.B) != (c.want == "") {
			t.Errorf("%s: %+v", c.source, env)
		}
	}
	if got := sourceWord("https://ann:secret@host/fw"); strings.Contains(got, "secret") {
		t.Errorf("the history keeps %s", got)
	}
}

func TestRollback(t *testing.T) {
	s, d, b := newService(t)
	s.begin(t.Context())
	c := serve(t, s)
	if err := c.Call(t.Context(), "rollback", nil, nil); err == nil || !strings.Contains(err.Error(), "slot B holds nothing") {
		t.Fatalf("to an empty slot: %v", err)
	}
	d.slots[layout.B] = newID
	s.begin(t.Context())
	d.checks = errors.New("fw.efi is not what its bundle says")
	if err := c.Call(t.Context(), "rollback", nil, nil); err == nil || !strings.Contains(err.Error(), "not what its bundle says") {
		t.Fatalf("to a damaged slot: %v", err)
	}
	d.checks = nil
	var a status.FirmwareAnswer
	if err := c.Call(t.Context(), "rollback", status.FirmwareOrder{By: "ann"}, &a); err != nil || !a.Reboot || !strings.Contains(a.Text, "on trial") {
		t.Fatalf("%+v, %v", a, err)
	}
	<-b.rebooted
	if env, _ := d.Env(); env != bootenv.Default.Trial(layout.B) {
		t.Errorf("the boot loader is told %+v", env)
	}
	if st := published(t, c); st.History[0].Kind != "rollback" || st.History[0].To.Version != "1.1" {
		t.Errorf("history %+v", st.History)
	}
}

// By hand a user keeps what the boot menu started, and nothing else.
func TestConfirmByHand(t *testing.T) {
	s, d, _ := newService(t)
	s.begin(t.Context())
	c := serve(t, s)
	if err := c.Call(t.Context(), "confirm", nil, nil); err == nil || !strings.Contains(err.Error(), "nothing waits") {
		t.Errorf("nothing to confirm: %v", err)
	}
	d.env = bootenv.Env{Good: layout.B}
	s.begin(t.Context())
	if st := published(t, c); !strings.Contains(st.Notice, `slot A runs, and the boot loader starts slot B next: "confirm firmware"`) {
		t.Errorf("the notice of a box that was started from the menu: %q", st.Notice)
	}
	if err := c.Call(t.Context(), "confirm", status.FirmwareOrder{By: "ann"}, nil); err != nil {
		t.Fatal(err)
	}
	if env, _ := d.Env(); env != (bootenv.Env{Good: layout.A}) {
		t.Errorf("the boot loader is told %+v", env)
	}
}

// The process that comes after knows what the one before did.
func TestHistoryIsKept(t *testing.T) {
	s, _, _ := newService(t)
	s.begin(t.Context())
	for i := range maxHistory + 5 {
		s.record(status.FirmwareEvent{Time: time.Unix(int64(i), 0), Kind: "upgrade", Verdict: status.VerdictConfirmed}, true)
	}
	again, _, _ := newService(t)
	again.records = s.records
	again.begin(t.Context())
	if len(again.history) != maxHistory || again.history[0].Time.Unix() != 5 {
		t.Errorf("%d events, from %v on", len(again.history), again.history[0].Time)
	}
	s.records.keep(make([]status.FirmwareEvent, maxHistory+1)) // of a firmware that keeps more
	if list, err := s.records.history(); err != nil || len(list) != maxHistory {
		t.Errorf("%d events, %v", len(list), err)
	}
}

// A transfer that stands still is given up, and one whose disk is slow is not.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		p := newPatient(r, func() { w.CloseWithError(context.Canceled) })
		go w.Write([]byte("two"))
		b := make([]byte, 2)
		if n, err := p.Read(b); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(2 * stallTime) // the disk
		if n, err := p.Read(b); n != 1 || err != nil {
			t.Errorf("after a slow write: %d, %v", n, err)
		}
		began := time.Now()
		if _, err := p.Read(b); err == nil || !strings.Contains(err.Error(), "nothing came for 1m0s") || time.Since(began) != stallTime {
			t.Errorf("given up after %v: %v", time.Since(began), err)
		}
		p.Close()
	})
}
