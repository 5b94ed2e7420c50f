package watchdog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	now := time.Unix(10000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	good := Sign{"net", true, ago(time.Second), ago(time.Hour)}
	tests := []struct {
		name string
		sign Sign
		want string
	}{
		{"alive", Sign{"vrrp", true, ago(4 * time.Second), ago(time.Hour)}, ""},
		{"silent", Sign{"vrrp", true, ago(6 * time.Second), ago(time.Hour)}, "vrrp shows no progress for 6s"},
		{"booting", Sign{"vrrp", false, time.Time{}, ago(50 * time.Second)}, ""},
		{"never ready", Sign{"vrrp", false, time.Time{}, ago(61 * time.Second)}, "vrrp is not ready for 1m1s"},
		{"restarting", Sign{"vrrp", false, ago(30 * time.Second), ago(time.Hour)}, ""},
		{"cannot come back", Sign{"vrrp", false, ago(2 * time.Minute), ago(time.Hour)}, "vrrp is not ready for 2m0s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Judge(now, []Sign{good, tt.sign}); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

type fake struct {
	fed  int
	fail bool
}

func (f *fake) Feed() error {
	if f.fail {
		return errors.New("gone")
	}
	f.fed++
	return nil
}

func TestFeeder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fake{}
		begin := time.Now()
		var said []string
		f := Feeder{Device: d, Interval: time.Second, Starved: func(s string) { said = append(said, s) },
			Health: func(now time.Time) string {
				if s := now.Sub(begin); s >= 10*time.Second && s < 20*time.Second {
					return "vrrp hangs"
				}
				return ""
			}}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { f.Run(ctx); close(done) }()
		time.Sleep(9500 * time.Millisecond)
		synctest.Wait()
		if d.fed != 10 {
			t.Errorf("fed %d times in 9.5 s, want 10", d.fed)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if d.fed != 10 {
			t.Errorf("fed %d times while a service hung", d.fed-10)
		}
		time.Sleep(5 * time.Second)
		d.fail = true
		time.Sleep(3 * time.Second)
		stop()
		<-done
		if diff := cmp.Diff([]string{"vrrp hangs", "", "gone"}, said); diff != "" {
			t.Errorf("said (-want +got):\n%s", diff)
		}
	})
}

// A feeding that comes after the device was disarmed would take the disarming
// back.
func TestFeedAfterDisarm(t *testing.T) {
	name := filepath.Join(t.TempDir(), "watchdog")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{f: f}
	if err := errors.Join(d.Feed(), d.Disarm(), d.Feed()); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(name); string(b) != "\x00V" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// Hardware is better than a timer of the kernel, whichever was found first.
func TestBest(t *testing.T) {
	sys := t.TempDir()
	if got := best(sys); got != "" {
		t.Errorf("%q of none", got)
	}
	if err := os.MkdirAll(filepath.Join(sys, "misc", "watchdog"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := best(sys); got != "/dev/watchdog" {
		t.Errorf("%q of one that is none of the kernel's watchdog class", got)
	}
	for _, tt := range []struct{ name, identity, want string }{
		{"watchdog0", "Software Watchdog", "/dev/watchdog0"}, {"watchdog1", "iTCO_wdt", "/dev/watchdog1"}, {"watchdog2", "IPMI", "/dev/watchdog1"},
	} {
		if err := os.MkdirAll(filepath.Join(sys, "watchdog", tt.name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, "watchdog", tt.name, "identity"), []byte(tt.identity+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := best(sys); got != tt.want {
			t.Errorf("with %s: %s, want %s", tt.identity, got, tt.want)
		}
	}
}
