package firmware

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/image"
	"ballast/image/bootenv"
	"ballast/image/layout"
	"ballast/services/ipc/status"
	"ballast/test/firmware/machine"
	"ballast/test/lab/vm"
)

// newer is a firmware with other files, under a later build.
func newer(t testing.TB, version string, steps int64) *machine.Firmware {
	t.Helper()
	f, err := fw.With(version, fw.ID.Build+steps*60, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func bundleOf(t testing.TB, f *machine.Firmware) []byte {
	t.Helper()
	b, err := f.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// upgrade sends a bundle as a user does.
func upgrade(t testing.TB, m *machine.Machine, file []byte, words string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), machine.Slow)
	defer cancel()
	return m.Run(ctx, strings.TrimSpace("upgrade "+words), bytes.NewReader(file))
}

// state is what the box says of its firmware.
func state(t testing.TB, m *machine.Machine) status.Firmware {
	t.Helper()
	var st status.Firmware
	if err := json.Unmarshal([]byte(m.Await(machine.Slow, "show firmware --json", `(?s)^\{.*\}\s*$`)), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// decided waits until the last upgrade has a verdict.
func decided(t testing.TB, m *machine.Machine, verdict string) status.FirmwareEvent {
	t.Helper()
	for end := time.Now().Add(2 * machine.Slow); ; time.Sleep(time.Second) { // a box tells nobody by itself
		st := state(t, m)
		if n := len(st.History); n > 0 && st.History[n-1].Verdict == verdict {
			return st.History[n-1]
		} else if time.Now().After(end) {
			t.Fatalf("no verdict %q: %+v", verdict, st)
		}
	}
}

// An upgrade over SSH: what is refused is refused before the other slot is
// touched, what breaks off leaves this one, and what is good runs and is confirmed.
func TestUpgrade(t *testing.T) {
	machine.Lab(t)
	for _, uefi := range []bool{false, true} {
		name := map[bool]string{false: "BIOS", true: "UEFI"}[uefi]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := bundleOf(t, newer(t, "test-2", 1))
			c := machine.Config{Disk: base, UEFI: uefi, SSH: fw.SSH}
			words, sent := "", file
			if uefi { // brought on a stick
				c.More = []vm.Disk{{File: bundleStick(t, file), Serial: "stick", Bus: vm.USB}}
				words, sent = "usb", nil
			}
			m := machine.New(t, c)
			m.PowerOn()
			m.Expect(machine.Slow, "ready: ")
			st := state(t, m)
			if st.Slot != "A" || st.Cannot != "" || st.Slots[1].State != status.SlotEmpty {
				t.Fatalf("a disk that was just flashed: %+v", st)
			}
			if !uefi {
				refusals(t, m, file)
			}
			begin := time.Now()
			out, err := upgrade(t, m, sent, words)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			written := time.Since(begin)
			t.Logf("%s: it says:\n%s", name, out)
			m.Expect(machine.Slow, "reboot", tell(layout.B), "ballast.trial=1", "ready: ")
			back := time.Since(begin)
			e := decided(t, m, status.VerdictConfirmed)
			t.Logf("%s: %.1f MB written and read back in %.1f s, ready again after %.1f s, confirmed after %.1f s: %s",
				name, float64(len(file))/1e6, written.Seconds(), back.Seconds(), time.Since(begin).Seconds(), e.Reason)
			if st = state(t, m); st.Slot != "B" || st.Running.Version != "test-2" || st.Next != "B" || st.Trial != nil {
				t.Errorf("after the upgrade: %+v", st)
			}
			if e.By != "admin@10.0.2.2" || e.From.Version != fw.ID.Version {
				t.Errorf("history %+v", e)
			}
			// The verdict is told first, and then to the audit log.
			m.Await(machine.Slow, "show audit", `(?s)admin from 10\.0\.2\.2 \(SHA256:.*\): upgrade( usb)?: ok\n.*firmware from -: upgrade of admin@10\.0\.2\.2: .*confirmed`)
			t.Logf("%s", m.Ask("show firmware"))
			good := layout.B
			if uefi {
				installLate(t, m)
			} else { // and back, on trial as well
				m.Ask("rollback firmware")
				m.Expect(machine.Slow, "reboot", tell(layout.A), "ballast.trial=1", "ready: ")
				if e := decided(t, m, status.VerdictConfirmed); e.Kind != "rollback" || e.To.Version != fw.ID.Version {
					t.Errorf("the rollback: %+v", e)
				}
				good = layout.A
			}
			m.PowerCord()
			if got := m.Env(); got != (bootenv.Env{Good: good}) {
				t.Errorf("the boot loader is told %+v", got)
			}
		})
	}
}

// installLate installs what runs on a disk that comes when the service has
// confined itself, and knows nothing of it.
func installLate(t *testing.T, m *machine.Machine) {
	t.Helper()
	file := filepath.Join(m.Dir, "late.img")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, diskSize)); err != nil {
		t.Fatal(err)
	}
	state(t, m) // the service is there, for some seconds
	if err := errors.Join(
		m.VM().QMP(t.Context(), "blockdev-add", map[string]any{"driver": "raw", "node-name": "late", "file": map[string]string{"driver": "file", "filename": file}}),
		m.VM().QMP(t.Context(), "device_add", map[string]any{"driver": "usb-storage", "bus": "usb1.0", "drive": "late", "serial": "late"}), // beside the stick
	); err != nil {
		t.Fatal(err)
	}
	m.Await(30*time.Second, "install", `sdb +`)
	begin := time.Now()
	out, err := m.Run(t.Context(), "install sdb slot", nil)
	if err != nil || !strings.Contains(out, "sdb has the firmware, the configuration and the identity") {
		t.Errorf("install: %v: %s", err, out)
	}
	t.Logf("installed in %.1f s", time.Since(begin).Seconds())
}

// bundleStick is a disk with a file system and a bundle on it.
func bundleStick(t *testing.T, file []byte) string {
	t.Helper()
	dir := t.TempDir()
	content, img := filepath.Join(dir, "content"), filepath.Join(dir, "stick.img")
	if err := errors.Join(os.Mkdir(content, 0o755), os.WriteFile(filepath.Join(content, image.BundleFile("qemu")), file, 0o600), os.WriteFile(img, nil, 0o600), os.Truncate(img, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", content, img).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return img
}

// refusals are upgrades that come to nothing, on a box that runs on.
func refusals(t *testing.T, m *machine.Machine, good []byte) {
	stranger := *newer(t, "test-2", 1)
	_, stranger.Key, _ = ed25519.GenerateKey(nil)
	for _, c := range []struct {
		name, words string
		file        []byte
		want        string
		touched     bool
	}{
		{"a stranger's key", "older again", bundleOf(t, &stranger), "nothing of it is used", false},
		{"older", "", bundleOf(t, newer(t, "test-0", -1)), `add the word "older"`, false},
		{"the same", "", bundleOf(t, newer(t, fw.ID.Version, 0)), `add the word "again"`, false},
		{"a wrong byte", "", changed(good, len(good)/2), "they are not what was signed", true},
		{"cut short", "", good[:len(good)*2/3], "broke off", true},
	} {
		out, err := upgrade(t, m, c.file, c.words)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
		if strings.Contains(out, "nothing was written") == c.touched {
			t.Errorf("%s: it says %s", c.name, out)
		}
		if st := state(t, m); st.Next != "A" || st.Slots[1].State != status.SlotEmpty || len(st.History) > 0 {
			t.Errorf("%s: %+v", c.name, st)
		}
	}
}

func changed(file []byte, at int) []byte {
	b := bytes.Clone(file)
	b[at] ^= 0x40
	return b
}
