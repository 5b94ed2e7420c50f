package boot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ballast/image/layout"
)

const slotGUID = "0b0b0b0b-1111-4222-8333-444444444444"

// flashedDisk is a loop device of so many MiB on which an image of 16 MiB lies.
func flashedDisk(t *testing.T, mib int, slot string) (img, dev string) {
	t.Helper()
	img = filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Truncate(img, 16<<20)
	run(t, "sgdisk", "-n", "1:1M:+1M", "-c", "1:bios", "-n", "2:2M:+2M", "-c", "2:esp", "-n", "3:4M:+2M", "-c", "3:slotA", "-u", "3:"+slot, "-n", "4:6M:+2M", "-c", "4:slotB", img)
	os.Truncate(img, int64(mib)<<20)
	dev = strings.TrimSpace(run(t, "losetup", "-P", "-f", "--show", img))
	t.Cleanup(func() { run(t, "losetup", "-d", dev) })
	return img, dev
}

// The disk is the one that the boot loader names, and its data partition takes
// what the image leaves, at the first boot and again when the disk is larger.
func TestBootDisk(t *testing.T) {
	_, other := flashedDisk(t, 100, "0b0b0b0b-1111-4222-8333-000000000000")
	img, dev := flashedDisk(t, 100, slotGUID)
	words := CmdLine("quiet " + layout.WordSlot + "=B " + layout.WordPart + "=" + strings.ToUpper(slotGUID))
	d, err := findBootDisk("/sys/class/block", "/dev", words, 0)
	if err != nil || d.Device != dev || d.Slot != layout.B {
		t.Fatalf("%+v, %v; want %s and not %s", d, err, dev, other)
	}
	if got, want := d.Partition(layout.NumberData), dev+"p5"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	sys := filepath.Join("/sys/class/block", filepath.Base(dev), filepath.Base(dev)+"p5")
	if note, err := d.Fit(); err != nil || note != fmt.Sprintf("partition 5 of %s, data: 91 MiB", dev) {
		t.Fatalf("%q, %v", note, err)
	}
	if n := readNumber(sys + "/size"); n != 91<<11 {
		t.Errorf("the kernel's partition has %d sectors", n)
	}
	if note, err := d.Fit(); note != "" || err != nil {
		t.Errorf("a second time: %q, %v", note, err)
	}
	// A larger disk; and the first copy of the table has gone since.
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Truncate(200 << 20)
	run(t, "losetup", "-c", dev)
	if d, err = findBootDisk("/sys/class/block", "/dev", words, 0); err != nil {
		t.Fatal(err)
	}
	if note, err := d.Fit(); err != nil || note != fmt.Sprintf("partition 5 of %s, data: 191 MiB", dev) {
		t.Fatalf("%q, %v", note, err)
	}
	if n := readNumber(sys + "/size"); n != 191<<11 {
		t.Errorf("the kernel's partition has %d sectors", n)
	}
	raw, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw.WriteAt(make([]byte, 512), 512)
	raw.Close()
	if d, err = findBootDisk("/sys/class/block", "/dev", words, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Fit(); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "sgdisk", "-v", img); !strings.Contains(out, "No problems found") {
		t.Error(out)
	}
}

func TestDisks(t *testing.T) {
	sys := t.TempDir()
	for _, n := range []string{"sda", "sda1", "nvme0n1", "vda", "md0", "dm-0", "ram0", "zram0", "sr0", "fd0", "nbd0"} {
		write(t, filepath.Join(sys, n, "size"), "2048\n")
	}
	write(t, filepath.Join(sys, "sda1/partition"), "1\n")
	write(t, filepath.Join(sys, "sdb/size"), "0\n") // a reader without a card
	if got, want := disks(sys), []string{"nvme0n1", "sda", "vda"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNoBootDisk(t *testing.T) {
	if _, err := findBootDisk(t.TempDir(), t.TempDir(), "quiet", 0); !errors.Is(err, ErrNoSlot) {
		t.Error(err)
	}
	for _, words := range []string{layout.WordPart + "=junk", layout.WordPart + "=" + slotGUID} {
		if _, err := findBootDisk(t.TempDir(), t.TempDir(), CmdLine(words), 0); err == nil || errors.Is(err, ErrNoSlot) {
			t.Error(err)
		}
	}
}

// A partition for a director and nothing else is made anew whatever is in it.
func TestOwnPartition(t *testing.T) {
	d := newDisk(t, 4<<20, false, func(img string) {
		if out, err := exec.Command("sh", "-c", "yes junk | head -c 8M > "+img+".x && dd conv=notrunc if="+img+".x of="+img).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	got, err := d.mountAt(d.dev)
	if err != nil || got.Stateless || !strings.Contains(got.Warning, "held something else") {
		t.Errorf("%+v, %v", got, err)
	}
}
