package modules

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"

	"ballast/image/kernel"
)

// object is the smallest ELF file with a .modinfo section.
func object(info ...string) []byte {
	data := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	var b bytes.Buffer
	le := binary.LittleEndian
	head := make([]byte, 64)
	copy(head, "\x7fELF\x02\x01\x01")
	le.PutUint16(head[16:], 1)    // relocatable
	le.PutUint16(head[18:], 0x3e) // x86-64
	le.PutUint32(head[20:], 1)
	le.PutUint64(head[40:], uint64(64+len(data)+len(names))) // section headers
	le.PutUint16(head[52:], 64)
	le.PutUint16(head[58:], 64)
	le.PutUint16(head[60:], 3)
	le.PutUint16(head[62:], 2)
	b.Write(head)
	b.Write(data)
	b.Write(names)
	section := func(name, typ uint32, off, size int) {
		s := make([]byte, 64)
		le.PutUint32(s, name)
		le.PutUint32(s[4:], typ)
		le.PutUint64(s[24:], uint64(off))
		le.PutUint64(s[32:], uint64(size))
		b.Write(s)
	}
	section(0, 0, 0, 0)
	section(1, 1, 64, len(data))
	section(10, 3, 64+len(data), len(names))
	return b.Bytes()
}

func tree(t *testing.T, mods map[string][]string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "lib/modules/1")
	write := func(name string, b []byte) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, info := range mods {
		b := object(info...)
		if strings.HasSuffix(name, ".xz") {
			var c bytes.Buffer
			w, err := xz.NewWriter(&c)
			if err != nil {
				t.Fatal(err)
			}
			w.Write(b)
			w.Close()
			b = c.Bytes()
		}
		write("kernel/"+name, b)
	}
	write("modules.builtin", []byte("kernel/crypto/crc32c-generic.ko\nkernel/lib/inside.ko\n"))
	write("modules.builtin.modinfo", []byte("crc32c-generic.alias=crypto-crc32c\x00crc32c-generic.license=GPL\x00inside.alias=pci:v*\x00"))
	return root
}

var sample = map[string][]string{
	"net/ip_vs.ko.xz":     {"depends=nf-conntrack,libcrc,inside", "license=GPL", "alias=net-pf-16-proto-16-family-IPVS"},
	"net/ip_vs_rr.ko":     {"depends=ip_vs"},
	"net/ip_vs_wlc.ko.xz": {"depends=ip_vs", "firmware=b.bin", "firmware=a.bin"},
	"net/nf_conntrack.ko": {"depends=nf_defrag"},
	"net/nf_defrag.ko":    {"depends="},
	"lib/libcrc.ko":       {"softdep=pre: crypto-crc32c fast-crc post: late"},
	"lib/fast-crc.ko":     {"alias=crc-fast"},
	"lib/late.ko":         {},
	"lib/other.ko":        {"depends=absent"},
}

func TestSelect(t *testing.T) {
	x, err := Open(tree(t, sample), "1")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		patterns []string
		want     []string
		err      string
	}{
		{"nothing", nil, nil, ""},
		{"one without needs", []string{"nf-defrag"}, []string{"nf_defrag"}, ""},
		{"built in", []string{"inside", "crc32c_generic"}, nil, ""},
		{"deep", []string{"ip_vs"}, []string{"fast_crc", "late", "libcrc", "ip_vs", "nf_conntrack", "nf_defrag"}, ""},
		{"glob", []string{"kernel/net/ip_vs_*"}, []string{"fast_crc", "late", "libcrc", "ip_vs", "ip_vs_rr", "ip_vs_wlc", "nf_conntrack", "nf_defrag"}, ""},
		{"misspelled", []string{"ip_sv", "kernel/nett/*", "late"}, nil, `has no "ip_sv"` + "\n" + `modules: kernel 1 has no "kernel/nett/*"`},
		{"needs what is not there", []string{"other"}, nil, "other depends on absent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ms, err := x.Select(tt.patterns...)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			var got []string
			for _, m := range ms {
				got = append(got, m.Name)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestTables(t *testing.T) {
	x, err := Open(tree(t, sample), "1")
	if err != nil {
		t.Fatal(err)
	}
	ms, err := x.Select("ip_vs_wlc")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for n, b := range x.Tables(ms) {
		got[n] = string(b)
	}
	want := map[string]string{
		"modules.dep": `kernel/lib/fast-crc.ko:
kernel/lib/late.ko:
kernel/lib/libcrc.ko:
kernel/net/ip_vs.ko.xz: kernel/lib/libcrc.ko kernel/net/nf_conntrack.ko kernel/net/nf_defrag.ko
kernel/net/ip_vs_wlc.ko.xz: kernel/net/ip_vs.ko.xz kernel/lib/libcrc.ko kernel/net/nf_conntrack.ko kernel/net/nf_defrag.ko
kernel/net/nf_conntrack.ko: kernel/net/nf_defrag.ko
kernel/net/nf_defrag.ko:
`,
		"modules.alias":         "alias crc-fast fast_crc\nalias net-pf-16-proto-16-family-IPVS ip_vs\n",
		"modules.softdep":       "softdep libcrc pre: crypto-crc32c fast-crc post: late\n",
		"modules.builtin":       "crc32c_generic.ko\ninside.ko\n",
		"modules.builtin.alias": "alias crypto-crc32c crc32c_generic\nalias pci:v* inside\n",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"a.bin", "b.bin"}, Firmware(ms)); d != "" {
		t.Errorf("firmware (-want +got):\n%s", d)
	}
}

// The pinned kernel itself: what IPVS needs is there.
func TestDebianKernel(t *testing.T) {
	dir, release, err := kernel.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x, err := Open(dir, release)
	if err != nil {
		t.Fatal(err)
	}
	ms, err := x.Select("ip_vs_mh", "virtio_net")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range ms {
		names = append(names, m.Name)
	}
	for _, want := range []string{"ip_vs", "ip_vs_mh", "nf_conntrack", "libcrc32c", "virtio_net", "failover"} {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+want+" ") {
			t.Errorf("%v lacks %s", names, want)
		}
	}
}

func FuzzInfo(f *testing.F) {
	f.Add(object("depends=a,b", "softdep=pre: x post: y", "alias=z"))
	f.Add(object())
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) { elfInfo(b) })
}
