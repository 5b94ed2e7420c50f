package machine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Who waits for words gets them in the order in which he asked, and does not wait
// for ever.
func TestWords(t *testing.T) {
	var w Words
	got := make(chan error, 1)
	go func() { got <- w.Await(t.Context(), "write", " 40%", "verify", " 10%") }()
	for _, s := range []string{"wri", "te   10% 40", "% 100%\nverify ", "  10%"} {
		select {
		case err := <-got:
			t.Fatalf("before %q: %v", s, err)
		default:
		}
		w.Write([]byte(s))
	}
	if err := <-got; err != nil || w.String() != "write   10% 40% 100%\nverify   10%" {
		t.Errorf("%v, %q", err, w.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Await(ctx, "verify", "40%"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A copy of a disk holds the same, is as large as it is to be, and takes no more
// room than what is in it.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size, larger = 64 << 20, 80 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 30 << 20, size - 5} {
		if _, err := f.WriteAt([]byte("some "), at); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int64{0, larger} {
		if err := Copy(to, from, want); err != nil {
			t.Fatal(err)
		}
		a, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(b)) != max(size, want) || !bytes.Equal(a, b[:size]) || len(bytes.Trim(b[size:], "\x00")) != 0 {
			t.Errorf("a copy of %d bytes for %d", len(b), want)
		}
		var st unix.Stat_t
		if err := unix.Stat(to, &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks*512 > 4<<20 {
			t.Errorf("the copy takes %d bytes", st.Blocks*512)
		}
	}
	if err := Copy(to, filepath.Join(dir, "nothing"), 0); err == nil {
		t.Error("a disk that is not there was copied")
	}
}
