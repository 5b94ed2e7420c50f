package both

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ballast/image/bundle"
	"ballast/image/layout"
	"ballast/services/firmware/pairing"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

var (
	older = layout.Identity{Version: "1", Build: 1, Board: "x", Kernel: "k"}
	newer = layout.Identity{Version: "2", Build: 2, Board: "x", Kernel: "k"}
)

// site is a pair of boxes and VRRP between them.
type site struct {
	mu     sync.Mutex
	boxes  [2]*director
	cut    bool // the wire between the boxes
	active int  // master of VI_1 where it takes part
	t      *testing.T
}

// director is a box as far as this package sees it.
type director struct {
	s        *site
	i        int
	name     string
	dir      string
	up       bool
	boot     int
	since    time.Time
	running  layout.Identity
	loaded   layout.Identity
	trial    bool
	verdict  string
	bad      bool // the new firmware does not do its job here
	going    bool
	resigned string
	refuses  error // of writing
	wrote    func(*layout.Identity)
	reboots  int
	notes    []string // in its journal

	both *Both
	stop context.CancelFunc
	done chan struct{}
}

func newSite(t *testing.T) *site {
	s := &site{t: t, active: 0}
	for i := range s.boxes {
		d := &director{s: s, i: i, name: fmt.Sprintf("lb%d", i+1), dir: t.TempDir(), running: older}
		s.boxes[i] = d
		d.start()
	}
	return s
}

// start is a boot.
func (d *director) start() {
	d.s.mu.Lock()
	d.up, d.boot, d.going, d.resigned, d.since = true, d.boot+1, false, "", time.Now()
	d.both = New(Options{Data: d.dir, Log: slog.New(slog.DiscardHandler), Box: d, Services: d, BootID: fmt.Sprintf("%s-%d", d.name, d.boot)})
	ctx, cancel := context.WithCancel(context.Background())
	d.stop, d.done = cancel, make(chan struct{})
	both, done := d.both, d.done
	d.s.mu.Unlock()
	go func() {
		defer close(done)
		both.Run(ctx)
	}()
}

// down is the end of a box, in order or not.
func (d *director) down() {
	d.s.mu.Lock()
	d.up = false
	stop, done := d.stop, d.done
	d.s.mu.Unlock()
	stop()
	<-done
}

// part is what runs on the box now.
func (d *director) part() *Both {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.both
}

func (s *site) close() {
	for _, d := range s.boxes {
		d.down()
	}
}

// master is who serves now; -1: nobody. Called with mu held.
func (s *site) master() int {
	can := func(i int) bool { d := s.boxes[i]; return d.up && d.resigned == "" }
	switch {
	case can(s.active):
		return s.active
	case can(1 - s.active):
		return 1 - s.active
	}
	return -1
}

// Look implements Services.
func (d *director) Look(_ context.Context, r *pairing.Report) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	r.Box, r.Content, r.Resigned, r.Live = d.name, "c", d.resigned, 3
	if time.Since(d.since) < 500*time.Millisecond { // its configuration does not run yet
		r.Box = "ballast"
	}
	state := "BACKUP"
	if d.s.master() == d.i {
		state = "MASTER"
	}
	r.Instances = []pairing.Instance{{Name: "VI_1", State: state}}
	return nil
}

// Fill implements Box.
func (d *director) Fill(r *pairing.Report) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	r.Running, r.Slot, r.Trial, r.Loaded, r.Verdict, r.Going = d.running, layout.A, d.trial, d.loaded, d.verdict, d.going
}

func (d *director) Resign(context.Context) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.resigned = pairing.By
	return nil
}

func (d *director) Resume(context.Context) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.resigned = ""
	return nil
}

func (d *director) Note(tr status.Transition) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.notes = append(d.notes, tr.To)
}

// Send implements Services.
func (d *director) Send(ctx context.Context, message []byte) ([]byte, error) {
	d.s.mu.Lock()
	other := d.s.boxes[1-d.i]
	gone, both := d.s.cut || !other.up, other.both
	d.s.mu.Unlock()
	if gone {
		return nil, errors.New("no route to host")
	}
	out, err := both.Pair(ctx, ipc.Peer{}, message)
	if err != nil {
		return nil, err
	}
	return out.(status.PeerMessage).Body, nil
}

func (d *director) Open(_ context.Context, _ status.FirmwareUpgrade, sent io.Reader, take func(io.Reader) error) error {
	return take(sent)
}

var maker = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func keys() []bundle.Key { return []bundle.Key{{Public: maker.Public().(ed25519.PublicKey)}} }

// Write implements Box.
func (d *director) Write(_ context.Context, r io.Reader, _ status.FirmwareUpgrade, progress func(status.FirmwareProgress)) (layout.Identity, error) {
	b, err := bundle.Open(r, keys())
	if err != nil {
		return layout.Identity{}, err
	}
	for {
		p, err := b.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return layout.Identity{}, err
		}
		if _, err := io.Copy(io.Discard, p); err != nil {
			return layout.Identity{}, err
		}
		progress(status.FirmwareProgress{Step: p.Name, Done: p.Size, Total: p.Size})
		d.s.mu.Lock()
		no := d.refuses
		d.s.mu.Unlock()
		if no != nil {
			return layout.Identity{}, no
		}
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.loaded = b.Manifest.Identity
	id := d.loaded
	if d.wrote != nil {
		d.wrote(&id)
	}
	return id, nil
}

// Try implements Box: down, up, a trial, and what comes of it.
func (d *director) Try(context.Context, string) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if d.going {
		return nil
	}
	if other := d.s.boxes[1-d.i]; !other.up || other.trial || d.s.master() == d.i {
		d.s.t.Errorf("%s reboots, other: %+v", d.name, other)
	}
	d.going = true
	d.reboots++
	go func() {
		time.Sleep(2 * time.Second)
		d.down()
		time.Sleep(20 * time.Second)
		d.s.mu.Lock()
		was := d.running
		d.running, d.loaded, d.trial = d.loaded, d.running, true
		d.s.mu.Unlock()
		d.start()
		time.Sleep(15 * time.Second)
		d.s.mu.Lock()
		d.trial = false
		bad := d.bad
		d.s.mu.Unlock()
		if bad {
			d.down()
			d.s.mu.Lock()
			d.loaded, d.running, d.verdict = d.running, was, "no VRRP"
			d.s.mu.Unlock()
			time.Sleep(20 * time.Second)
			d.start()
		}
	}()
	return nil
}

func (d *director) Changed() { d.part().Notice() }

// aBundle is a firmware of some size.
func aBundle(t *testing.T, id layout.Identity) []byte {
	t.Helper()
	var b bytes.Buffer
	m := bundle.Manifest{Identity: id, ConfigFormat: 1}
	fw := bytes.Repeat([]byte("firmware"), 400<<10)
	if err := bundle.Write(&b, m, []bundle.File{{Name: bundle.SlotConfig, Data: []byte("slot")}, {Name: bundle.Firmware, Data: fw}}, maker); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// upgrade is a user on a box.
func (d *director) upgrade(ctx context.Context, in io.Reader) (string, error) {
	var out bytes.Buffer
	r, both := &rows{to: &out}, d.part()
	id, err := both.begin(ctx, status.FirmwareUpgrade{By: "ann"}, in, r)
	if err == nil {
		err = both.follow(ctx, id, r)
	}
	var text strings.Builder
	for line := range strings.Lines(out.String()) {
		var p status.FirmwarePairProgress
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			d.s.t.Errorf("%q: %v", line, err)
		}
		if p.Text != "" {
			text.WriteString(p.Text + "\n")
		} else {
			fmt.Fprintf(&text, "%s %s\n", p.Box, p.Step)
		}
	}
	return text.String(), err
}

func (d *director) state() status.FirmwarePair {
	if st := d.part().State(); st != nil {
		return *st
	}
	return status.FirmwarePair{}
}

// over waits until both boxes say that it is over, and have done what follows from
// that: they look at the same moments as this does.
func (s *site) over(within time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(time.Second) {
		synctest.Wait()
		a, b := s.boxes[0].state(), s.boxes[1].state()
		if a.ID != "" && b.ID != "" && !a.Goes && !b.Goes {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("it goes on:\n%+v\n%+v", a, b)
		}
	}
}

// TestUpgrade: from either box both end on the new firmware, the backup first,
// and there is a master all the time.
func TestUpgrade(t *testing.T) {
	for here := range 2 {
		t.Run(fmt.Sprintf("from lb%d", here+1), func(t *testing.T) {
			b := aBundle(t, newer)
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				ctx, stop := context.WithCancel(t.Context())
				watched := make(chan struct{})
				defer func() { stop(); <-watched }()
				go func() {
					defer close(watched)
					for ctx.Err() == nil {
						s.mu.Lock()
						if s.master() < 0 {
							t.Error("nobody is master")
						}
						s.mu.Unlock()
						time.Sleep(100 * time.Millisecond)
					}
				}()
				time.Sleep(time.Second)
				in := bytes.NewReader(append(bytes.Clone(b), "rest"...))
				text, err := s.boxes[here].upgrade(t.Context(), in)
				if err != nil {
					t.Fatalf("%v\n%s", err, text)
				}
				if in.Len() != 4 {
					t.Errorf("%d bytes are left, want what is behind the bundle", in.Len())
				}
				for _, want := range []string{"lb2 reboots first, then lb1", "both boxes hold 2, checked", "lb1 fw.efi", "lb2 fw.efi", "this box reboots now"} {
					if !strings.Contains(text, want) {
						t.Errorf("the user does not read %q:\n%s", want, text)
					}
				}
				s.over(10 * time.Minute)
				for _, d := range s.boxes {
					want := "yield, first trial, first ready, switchover, second trial, settle, done"
					if got := strings.Join(slices.Compact(d.notes), ", "); got != want {
						t.Errorf("the journal of %s: %s", d.name, got)
					}
					if st := d.state(); !st.Done || d.running != newer || d.reboots != 1 || d.resigned != "" || d.part().Notice() != "" {
						t.Errorf("%s: %+v, %d reboots, %q", d.name, st, d.reboots, d.part().Notice())
					}
				}
			})
		})
	}
}

// TestTrialFails: the firmware proves nothing on the first box; the second one is
// left alone, both say where it stopped, and a user goes on or ends it.
func TestTrialFails(t *testing.T) {
	b := aBundle(t, newer)
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		s.mu.Lock()
		s.boxes[1].bad = true
		s.mu.Unlock()
		time.Sleep(time.Second)
		text, err := s.boxes[0].upgrade(t.Context(), bytes.NewReader(b))
		if err == nil || !strings.Contains(err.Error(), "stopped while lb2 boots the new firmware: lb2 is back with 1: no VRRP; nothing more reboots: \"upgrade pair continue\"") {
			t.Fatalf("%v\n%s", err, text)
		}
		s.over(time.Minute)
		for _, d := range s.boxes {
			if d.notes[len(d.notes)-1] != "stopped" {
				t.Errorf("the journal of %s: %v", d.name, d.notes)
			}
			if d.running != older || !strings.Contains(d.part().Notice(), "lb2 is back with 1: no VRRP") {
				t.Errorf("%s runs %s: %q", d.name, d.running.Version, d.part().Notice())
			}
		}
		if s.boxes[0].reboots != 0 {
			t.Error("lb1 has rebooted")
		}
		// Asked for on the box that does not drive.
		ask := func(what string) error {
			raw, _ := json.Marshal(status.FirmwarePairAsk{Ask: what, By: "ann"})
			_, err := s.boxes[1].part().Ask(t.Context(), ipc.Peer{}, raw)
			return err
		}
		s.mu.Lock()
		s.boxes[1].bad = false
		s.mu.Unlock()
		// What cannot be kept is not begun.
		dir := s.boxes[0].dir
		if err := os.Rename(dir, dir+"-away"); err != nil {
			t.Fatal(err)
		}
		if err := ask(status.PairContinue); err == nil || !strings.Contains(err.Error(), "cannot be kept") || s.boxes[0].state().Goes {
			t.Errorf("%v, %+v", err, s.boxes[0].state())
		}
		if err := os.Rename(dir+"-away", dir); err != nil {
			t.Fatal(err)
		}
		if err := ask(status.PairContinue); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if _, err := s.boxes[0].upgrade(t.Context(), bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("a second one at the same time: %v", err)
		}
		s.over(10 * time.Minute)
		for _, d := range s.boxes {
			if d.running != newer || !d.state().Done {
				t.Errorf("%s runs %s: %+v", d.name, d.running.Version, d.state())
			}
		}
		if err := ask(status.PairAbort); err == nil {
			t.Error("what is done is aborted")
		}
	})
}

// TestNothingReboots: whatever is wrong with the bundle, or with what a box makes
// of it, is told before anything reboots.
func TestNothingReboots(t *testing.T) {
	good := aBundle(t, newer)
	forged := bytes.Clone(good)
	forged[len(forged)-10] ^= 1
	for name, c := range map[string]struct {
		b    []byte
		prep func(s *site)
		want string
	}{
		"forged":            {forged, nil, "not what was signed"},
		"cut short":         {good[:len(good)/2], nil, "broke off"},
		"no bundle":         {[]byte("hello, this is no bundle at all"), nil, "no bundle"},
		"both have it":      {aBundle(t, older), nil, "both boxes run 1 already"},
		"refused there":     {good, func(s *site) { s.boxes[1].refuses = errors.New("the disk is bad") }, "lb2: the disk is bad"},
		"refused here":      {good, func(s *site) { s.boxes[0].refuses = errors.New("the disk is bad") }, "nothing reboots: the disk is bad"},
		"without a peer":    {good, func(s *site) { s.cut = true }, "the other box does not answer: no route to host"},
		"another one there": {good, func(s *site) { s.boxes[1].wrote = func(id *layout.Identity) { *id = older } }, "nothing reboots: lb1 holds 2 and lb2 1"},
		"resigns meanwhile": {good, func(s *site) { s.boxes[1].wrote = func(*layout.Identity) { s.boxes[1].resigned = "bob" } }, "lb2: bob made it resign"},
		"it is not kept":    {good, func(s *site) { os.RemoveAll(s.boxes[0].dir) }, "cannot be kept"},
		"somebody resigned": {good, func(s *site) { s.boxes[1].resigned = "bob" }, "lb2: bob made it resign"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				defer s.close()
				if c.prep != nil {
					s.mu.Lock()
					c.prep(s)
					s.mu.Unlock()
				}
				time.Sleep(time.Second)
				text, err := s.boxes[0].upgrade(t.Context(), bytes.NewReader(c.b))
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q\n%s", err, c.want, text)
				}
				time.Sleep(5 * time.Minute)
				for _, d := range s.boxes {
					if d.reboots > 0 || d.state().Goes {
						t.Errorf("%s: %d reboots, %+v", d.name, d.reboots, d.state())
					}
				}
				s.mu.Lock()
				s.cut, s.boxes[0].refuses, s.boxes[1].refuses, s.boxes[1].resigned, s.boxes[1].wrote = false, nil, nil, "", nil
				os.MkdirAll(s.boxes[0].dir, 0o755)
				s.mu.Unlock()
				if _, err := s.boxes[0].upgrade(t.Context(), bytes.NewReader(good)); err != nil {
					t.Errorf("and then: %v", err)
				}
				s.over(10 * time.Minute)
			})
		})
	}
}

// TestMixed: a pair of which one box was upgraded by itself.
func TestMixed(t *testing.T) {
	for have := range 2 {
		b := aBundle(t, newer)
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			defer s.close()
			s.mu.Lock()
			s.boxes[have].running = newer
			s.mu.Unlock()
			time.Sleep(time.Second)
			if text, err := s.boxes[0].upgrade(t.Context(), bytes.NewReader(b)); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			s.over(10 * time.Minute)
			for i, d := range s.boxes {
				want := 1
				if i == have {
					want = 0
				}
				if !d.state().Done || d.running != newer || d.reboots != want {
					t.Errorf("%s: %+v, %d reboots", d.name, d.state(), d.reboots)
				}
			}
		})
	}
}

// upgradeUntil begins an upgrade on the first box, and waits until it is in a phase.
func (s *site) upgradeUntil(b []byte, phase pairing.Phase) {
	s.t.Helper()
	time.Sleep(time.Second)
	go s.boxes[0].upgrade(s.t.Context(), bytes.NewReader(b))
	for end := time.Now().Add(10 * time.Minute); s.boxes[0].state().Phase != string(phase); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("it never comes so far: %+v", s.boxes[0].state())
		}
	}
	synctest.Wait() // what follows from that is done
}

// TestNotKept: a box that can no longer keep how far it is does not reboot.
func TestNotKept(t *testing.T) {
	b := aBundle(t, newer)
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		s.upgradeUntil(b, pairing.Switch)
		if err := os.RemoveAll(s.boxes[0].dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st := s.boxes[0].state(); !strings.Contains(st.Stopped, "cannot be kept") || s.boxes[0].reboots != 0 || s.boxes[0].resigned != "" {
			t.Errorf("%d reboots, resigned by %q: %+v", s.boxes[0].reboots, s.boxes[0].resigned, st)
		}
	})
}

// TestOtherTransfer: a piece belongs to the transfer that is named in it.
func TestOtherTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		time.Sleep(time.Second)
		say := func(m pairing.Message) string {
			t.Helper()
			a, err := s.boxes[0].part().tell(t.Context(), m, orderBound)
			if err != nil {
				t.Fatal(err)
			}
			return a.Refused
		}
		if why := say(pairing.Message{Kind: pairing.KindLoad, Load: "one"}); why != "" {
			t.Fatal(why)
		}
		if why := say(pairing.Message{Kind: pairing.KindPiece, Load: "two", Payload: []byte("x")}); why != "this transfer is over" {
			t.Errorf("a piece of another transfer: %q", why)
		}
		if why := say(pairing.Message{Kind: pairing.KindDrop, Load: "one"}); why != "" {
			t.Error(why)
		}
	})
}

// TestCut: the wire between the boxes breaks in the middle, and the user on the
// first box is told as well; when it is back both know how it ended.
func TestCut(t *testing.T) {
	b := aBundle(t, newer)
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		defer s.close()
		s.upgradeUntil(b, pairing.Ready)
		s.mu.Lock()
		s.cut = true
		s.mu.Unlock()
		time.Sleep(time.Minute)
		if st := s.boxes[0].state(); !strings.Contains(st.Stopped, "lb2 does not answer: no route to host") {
			t.Errorf("lb1: %+v", st)
		}
		if n := s.boxes[1].part().Notice(); !strings.Contains(n, "lb1, which drives it, has not been heard") {
			t.Errorf("lb2: %q", n)
		}
		s.mu.Lock()
		s.cut = false
		s.mu.Unlock()
		s.over(time.Minute)
		if st := s.boxes[1].state(); !strings.Contains(st.Stopped, "lb2 does not answer") {
			t.Errorf("lb2 does not know: %+v", st)
		}
		if s.boxes[0].reboots != 0 {
			t.Error("lb1 has rebooted")
		}
	})
}
