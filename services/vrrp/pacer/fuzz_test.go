package pacer

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FuzzTable lets vrrp write anything into the shared memory, and say anything:
// the pacer goes on, and sends no more than a slot holds.
func FuzzTable(f *testing.F) {
	good := make([]byte, 2*unsafe.Sizeof(slot{}))
	binary.NativeEndian.PutUint32(good, 1)                                      // armed
	binary.NativeEndian.PutUint64(good[unsafe.Offsetof(slot{}.interval):], 1e6) // 1 ms
	binary.NativeEndian.PutUint32(good[unsafe.Offsetof(slot{}.data):], MaxData) // as long as it may be
	binary.NativeEndian.PutUint32(good[unsafe.Offsetof(slot{}.control):], 0)    // none
	long := append([]byte(nil), good...)                                        // one byte more
	binary.NativeEndian.PutUint32(long[unsafe.Offsetof(slot{}.data):], MaxData+1)
	f.Add(uint32(2), int64(1<<40), good, []byte{sayLook, 0, 0, 0, 0, 0, 0, 0})
	f.Add(uint32(1<<31), int64(-1), long, []byte{sayForget, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add(uint32(1), int64(0), good, []byte{sayCommit, 0, 0, 0, 0, 0, 0, 0, sayForget, 0, 0, 0, 0, 0, 0, 0, sayHello, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, used uint32, turn int64, heads, words []byte) {
		mem, fd, err := newTable()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(mem)
		copy(mem[headsAt:bodiesAt], heads)
		h := tableAt(unsafe.Pointer(&mem[0]))
		h.used.Store(used)
		h.turn.Store(turn)

		null, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(null)
		l, err := newLoop(null, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		out, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(out[1])
		say, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := &l.conns[0]
		ok := false
		if c.mem, ok = l.scratch.mapTable(fd); !ok {
			t.Fatal("our own memory was refused")
		}
		unix.Close(fd)
		c.table, c.fd = tableAt(c.mem), say[0]
		for i := range c.socks {
			c.socks[i] = -1
		}
		c.socks[0] = int32(out[0])
		l.used[0], l.force = true, 0
		l.look()
		for len(words) > 0 && l.used[0] {
			n := min(len(words), wordSize)
			if unix.Sendto(say[1], words[:n], unix.MSG_DONTWAIT, nil) != nil {
				break
			}
			words = words[n:]
			l.hear(0)
			l.look()
		}
		unix.Close(say[1])
		if l.used[0] && l.conns[0].fd >= 0 {
			l.hear(0)
		}
		l.look()
		b := make([]byte, 2*MaxData)
		for {
			n, _, err := unix.Recvfrom(out[1], b, unix.MSG_DONTWAIT)
			if err != nil || n <= 0 {
				break
			}
			if n > MaxData {
				t.Fatalf("a frame of %d bytes", n)
			}
		}
	})
}
