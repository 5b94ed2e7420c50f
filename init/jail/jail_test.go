package jail

import (
	"runtime"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// run is what the filter says to a system call.
func run(t *testing.T, p Policy, arch, nr uint32, args ...uint32) uint32 {
	t.Helper()
	vm, err := bpf.NewVM(program(p, unix.AUDIT_ARCH_X86_64))
	if err != nil {
		t.Fatal(err)
	}
	// The machine of x/net/bpf reads packets, which are big endian; what the
	// kernel hands to this program is in its own order, and is written here so
	// that a load finds the same number.
	data := make([]byte, 64)
	put := func(off int, v uint32) {
		data[off], data[off+1], data[off+2], data[off+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	}
	put(dataNr, nr)
	put(dataArch, arch)
	for i, a := range args {
		put(dataArg0+8*i, a)
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func TestFilter(t *testing.T) {
	const amd64 = unix.AUDIT_ARCH_X86_64
	eperm, family, access := uint32(retErrno|unix.EPERM), uint32(retErrno|unix.EAFNOSUPPORT), uint32(retErrno|unix.EACCES)
	for _, tt := range []struct {
		name string
		p    Policy
		arch uint32
		nr   uint32
		args []uint32
		want uint32
	}{
		{"read", Policy{}, amd64, unix.SYS_READ, nil, retAllow},
		{"another machine", Policy{}, unix.AUDIT_ARCH_I386, unix.SYS_READ, nil, retKill},
		{"x32", Policy{}, amd64, unix.SYS_READ | x32Bit, nil, retKill},
		{"ptrace", Policy{}, amd64, unix.SYS_PTRACE, nil, eperm},
		{"exec", Policy{}, amd64, unix.SYS_EXECVE, nil, eperm},
		{"exec of who may", Policy{Exec: true}, amd64, unix.SYS_EXECVE, nil, retAllow},
		{"module of who may start programs", Policy{Exec: true}, amd64, unix.SYS_FINIT_MODULE, nil, eperm},
		{"unix socket", Policy{NoTCP: true}, amd64, unix.SYS_SOCKET, []uint32{unix.AF_UNIX, unix.SOCK_STREAM}, retAllow},
		{"TCP", Policy{}, amd64, unix.SYS_SOCKET, []uint32{unix.AF_INET6, unix.SOCK_STREAM}, retAllow},
		{"no TCP", Policy{NoTCP: true}, amd64, unix.SYS_SOCKET, []uint32{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC}, access},
		{"no TCP, IPv6", Policy{NoTCP: true}, amd64, unix.SYS_SOCKET, []uint32{unix.AF_INET6, unix.SOCK_STREAM | unix.SOCK_NONBLOCK}, access},
		{"no TCP, but UDP", Policy{NoTCP: true}, amd64, unix.SYS_SOCKET, []uint32{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}, retAllow},
		{"frames", Policy{}, amd64, unix.SYS_SOCKET, []uint32{unix.AF_PACKET, unix.SOCK_RAW}, family},
		{"frames of who may", Policy{Packets: true, NoTCP: true}, amd64, unix.SYS_SOCKET, []uint32{unix.AF_PACKET, unix.SOCK_RAW}, retAllow},
		{"XDP", Policy{Packets: true}, amd64, unix.SYS_SOCKET, []uint32{unix.AF_XDP, unix.SOCK_RAW}, family},
	} {
		if got := run(t, tt.p, tt.arch, tt.nr, tt.args...); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	if _, ok := auditArch[runtime.GOARCH]; !ok {
		t.Errorf("no filter for %s", runtime.GOARCH)
	}
	sorted := slices.Sorted(slices.Values(refused))
	if len(slices.Compact(sorted)) != len(refused) {
		t.Error("a system call is refused twice")
	}
}

// What an older kernel does not know is not asked of it: it would refuse all of it.
func TestHandled(t *testing.T) {
	for abi, want := range map[uintptr]struct {
		size       uintptr
		refer, cut bool
		scoped     uint64
	}{1: {8, false, false, 0}, 2: {8, true, false, 0}, 3: {8, true, true, 0}, 5: {8, true, true, 0}, 6: {24, true, true, 3}, 9: {24, true, true, 3}} {
		a, size := handled(abi, Policy{Confine: true})
		if size != want.size || a.fs&unix.LANDLOCK_ACCESS_FS_REFER != 0 != want.refer || a.fs&unix.LANDLOCK_ACCESS_FS_TRUNCATE != 0 != want.cut || a.scoped != want.scoped {
			t.Errorf("version %d: %+v, %d bytes", abi, a, size)
		}
	}
	if a, _ := handled(9, Policy{Exec: true}); a != (rulesetAttr{}) {
		t.Errorf("nothing to confine: %+v", a)
	}
}
