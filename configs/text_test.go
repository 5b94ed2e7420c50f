package configs

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMerge(t *testing.T) {
	const running = `$LAN=192.0.2
$NET=${LAN}.0/24
# The box itself.
system {
    host_name a # here
}

global_defs { router_id R }
! the inside
! and more
interface eth1 {
    @a address ${LAN}.1/24
    @b address ${LAN}.2/24
}  # end
@a route default via 192.0.2.254
interface eth0 { dhcp }
`
	for _, tt := range []struct{ name, running, candidate, want string }{
		{"nothing to keep", "vrrp_instance A {\n}\n", "x\n", "x\n"},
		{"empty candidate", "system {\n host_name a\n}", "", "system {\n host_name a\n}\n"},
		{"all kinds stay", running, "vrrp_instance A {\n}", `vrrp_instance A {
}
$LAN=192.0.2
# The box itself.
system {
    host_name a # here
}
! the inside
! and more
interface eth1 {
    @a address ${LAN}.1/24
    @b address ${LAN}.2/24
}  # end
@a route default via 192.0.2.254
interface eth0 { dhcp }
`},
		{"a kind that the candidate has goes", running, "interface ens3 {\n dhcp\n}\nroute default via 10.0.0.1\n",
			"interface ens3 {\n dhcp\n}\nroute default via 10.0.0.1\n# The box itself.\nsystem {\n    host_name a # here\n}\n"},
		{"words inside blocks are no blocks", "global_defs {\n system {\n }\n}\n", "a\n", "a\n"},
		{"two on a line", "system { host_name a } mark 1 { tcp 192.0.2.1 1 }\n", "a\n", "a\nsystem { host_name a }\nmark 1 { tcp 192.0.2.1 1 }\n"},
		{"brace below", "bond b\n{\n member a c\n}\nx\n", "a\n", "a\nbond b\n{\n member a c\n}\n"},
		{"a comment with a brace", "system {\n # }\n host_name \"}\"\n}\n", "", "system {\n # }\n host_name \"}\"\n}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Merge(tt.running, tt.candidate)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if again := Merge(tt.running, got); again != got {
				t.Errorf("merging twice changes the text:\n%s", cmp.Diff(got, again))
			}
			if again := Merge(got, tt.candidate); again != got {
				t.Errorf("merging what runs changes the text:\n%s", cmp.Diff(got, again))
			}
		})
	}
	// What is kept means what it meant.
	before, _ := Load("r", []byte(running), Options{ConfigID: "a"})
	after, problems := Load("m", []byte(Merge(running, "global_defs {\n}\n")), Options{ConfigID: "a"})
	if len(problems) > 0 || after.System.HostName != before.System.HostName || len(after.Interfaces) != 2 || len(after.StaticRoutes) != 1 {
		t.Errorf("%+v %v", after, problems)
	}
	if d := cmp.Diff(fmt.Sprint(before.Interfaces), fmt.Sprint(after.Interfaces)); d != "" {
		t.Error(d)
	}
}

func TestMask(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"auth_pass secret\n", "auth_pass ********\n"},
		{"authentication { auth_pass secret }\n", "authentication { auth_pass ********}\n"},
		{"  auth_pass \"se cret\" # x\n", "  auth_pass ********\n"},
		{"auth_pass\"secret\"\n", "auth_pass********\n"},
		{"# auth_pass secret\n", "# auth_pass ********\n"},
		{"#auth_pass secret\n", "#auth_pass ********\n"},
		{"@a auth_pass secret\n@b auth_pass other", "@a auth_pass ********\n@b auth_pass ********"},
		{"$P=secret\nauth_pass $P\n$Q=open\n", "$P=********\nauth_pass ********\n$Q=open\n"},
		{"auth_pass sec\\#ret more\n", "auth_pass ********\n"},
		{"key 1 hex:00ff\n", "key 1 ********\n"},
		{"key \"ssh-ed25519 AAAA me\"\n", "key \"ssh-ed25519 AAAA me\"\n"},
		{"SSL {\n password secret\n}\n", "SSL {\n password ********\n}\n"},
		{"auth_pass\nauth_type PASS\n", "auth_pass\nauth_type PASS\n"},
		{"my_auth_pass x\n", "my_auth_pass x\n"},
		{"auth_pass secret\r\nx\r\n", "auth_pass ********\r\nx\r\n"},
		{"smtp_password secret\n", "smtp_password ********\n"},
		{"snmp {\n community secret\n}\n", "snmp {\n community ********\n}\n"},
		{"heartbeat {\n key secret-of-16-bytes # x\n}\n", "heartbeat {\n key ********\n}\n"},
		{"key 1234567890123456 # secret\n", "key ********\n"},
		{"key hex:00secret }\n", "key ********}\n"},
		{"\"key\" 7 hex:00secret\n", "\"key\" 7 ********\n"},
		{"key\"secret-of-16-bytes\"\n", "key\"********\n"},
		{"\"key\"secret-of-16-bytes\n", "\"key\"********\n"},
		{"$K=secret\nkey\"${K}\"\n", "$K=********\nkey\"********\n"},
		{"\"key\" \"ssh-ed25519 AAAA me\"\nkey\"ssh-ed25519 AAAA me\"\nkeyfile x\n", "\"key\" \"ssh-ed25519 AAAA me\"\nkey\"ssh-ed25519 AAAA me\"\nkeyfile x\n"},
		{"key sk-ssh-ed25519@openssh.com AAAA me\n", "key sk-ssh-ed25519@openssh.com AAAA me\n"},
		{"$P=${Q}\n$Q=secret\nauth_pass ${P}\n", "$P=********\n$Q=********\nauth_pass ********\n"},
		{"key 7 ${K}\n$K=secret\r\n", "key 7 ********\n$K=********\r\n"},
		{"~LST(X, secret, secret2) auth_pass $X\n", "~******** auth_pass ********\n"},
		{"+auth_pass secret\n-auth_pass secret\n", "+auth_pass ********\n-auth_pass ********\n"},
		{"nothing\nhere\n", "nothing\nhere\n"},
	} {
		got := Mask(tt.in)
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
		if Mask(got) != got {
			t.Errorf("%q: masked twice %q", tt.in, Mask(got))
		}
		if strings.Contains(got, "secret") {
			t.Errorf("a secret is left in %q", got)
		}
	}
}

// TestMaskDiff: a difference shows no definition of a secret, though it does not
// show what makes it one.
func TestMaskDiff(t *testing.T) {
	filler := strings.Repeat("x\n", 20)
	a := "$P=secret1\n" + filler + "auth_pass $P\n"
	b := "$P=secret2\n" + filler + "auth_pass $P\n"
	got := MaskDiff(Diff(a, b), a, b)
	if strings.Contains(got, "secret") || !strings.Contains(got, "-$P=********\n+$P=********\n") {
		t.Errorf("%s", got)
	}
}

// TestNoSecretInProblems: however a password is written, no message shows it.
func TestNoSecretInProblems(t *testing.T) {
	for _, line := range []string{
		"auth_pass hunter2", "auth_pass one hunter2", "auth_pass \"hunter2", "auth_pass hunter2 {", "auth_pass hunter2hunter2",
		"auth_pass hunter2\nauth_type AH", "auth_pass hunter2\nauth_type pass", "auth_type PASS auth_pass hunter2\nauth_pass hunter2",
	} {
		_, problems := Load("f", []byte(vi("authentication {\n"+line+"\n}")), Options{})
		for _, p := range problems {
			if strings.Contains(p.String(), "hunter2") {
				t.Errorf("%q: %s", line, p)
			}
		}
	}
}

// apply is a small patch(1): it proves that a difference says what happened.
func apply(t *testing.T, a, diff string) string {
	t.Helper()
	if diff == "" {
		return a
	}
	x := splitLines(a)
	var out []string
	at := 0
	lines := splitLines(diff)
	for i := 2; i < len(lines); i++ {
		l := lines[i]
		var fromX, countX, fromY, countY int
		switch l[0] {
		case '@':
			if _, err := fmt.Sscanf(l, "@@ -%d,%d +%d,%d @@", &fromX, &countX, &fromY, &countY); err != nil {
				t.Fatal(err, l)
			}
			if countX == 0 {
				fromX++
			}
			out = append(out, x[at:fromX-1]...)
			at = fromX - 1
			if want := len(out) + 1; fromY != want && (countY > 0 || fromY != want-1) {
				t.Fatalf("hunk %q lands in line %d", l, want)
			}
		case '\\':
			out[len(out)-1] = strings.TrimSuffix(out[len(out)-1], "\n")
		case ' ', '-', '+':
			if l[0] != '+' {
				if strings.TrimSuffix(x[at], "\n") != strings.TrimSuffix(l[1:], "\n") {
					t.Fatalf("line %d is %q, the hunk says %q", at+1, x[at], l)
				}
				at++
			}
			if l[0] != '-' {
				out = append(out, l[1:])
			} else if i+1 < len(lines) && lines[i+1][0] == '\\' {
				i++
			}
		}
	}
	return strings.Join(append(out, x[at:]...), "")
}

func TestDiff(t *testing.T) {
	if d := Diff("a\nb\n", "a\nb\n"); d != "" {
		t.Error(d)
	}
	got := Diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n11\n12\n13\n")
	want := "--- running\n+++ candidate\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n@@ -10,3 +10,4 @@\n 10\n 11\n 12\n+13\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		var b strings.Builder
		for range rnd.IntN(n + 1) {
			fmt.Fprintf(&b, "%d\n", rnd.IntN(5))
		}
		return strings.TrimSuffix(b.String(), []string{"", "\n"}[rnd.IntN(2)])
	}
	for range 3000 {
		a, b := text(20), text(20)
		if got := apply(t, a, Diff(a, b)); got != b {
			t.Fatalf("%q to %q: the patch gives %q\n%s", a, b, got, Diff(a, b))
		}
	}
	// Far apart: still right, and quick.
	a, b := strings.Repeat("a\nb\n", 20000), strings.Repeat("c\nd\n", 20000)
	if got := apply(t, a, Diff(a, b)); got != b {
		t.Error("far apart")
	}
}

// large makes a configuration of n lines.
func large(n int) []byte {
	var b strings.Builder
	b.WriteString("global_defs {\n router_id L\n}\n")
	for i := 0; i*14+3 < n; i++ {
		fmt.Fprintf(&b, `virtual_server 10.%d.%d.%d 80 { # service %d
    delay_loop 6
    lb_algo wrr
    lb_kind NAT
    protocol TCP
    real_server 192.168.%d.%d 80 {
        weight 3
        TCP_CHECK {
            connect_timeout 3
            retry 3
            delay_before_retry 3
        }
    }
}
`, i>>16, i>>8&255, i&255, i, i>>8&255, i&255)
	}
	return []byte(b.String())
}

func TestLarge(t *testing.T) {
	c, problems := Load("large", large(100_000), Options{})
	if len(problems) != 0 || len(c.VirtualServers) < 7000 {
		t.Errorf("%d virtual servers, %v", len(c.VirtualServers), problems)
	}
}

func BenchmarkLoad100kLines(b *testing.B) {
	text := large(100_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		Load("large", text, Options{})
	}
}

func repeat(n int, f func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f(i))
	}
	return b.String()
}

// TestHostile: whatever comes in ends quickly, as problems.
func TestHostile(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	garbage := make([]byte, 300_000)
	for i := range garbage {
		garbage[i] = byte(rnd.Uint32())
	}
	for name, text := range map[string][]byte{
		"garbage":       garbage,
		"1 MB line":     []byte(strings.Repeat("x", 1<<20)),
		"1 MB of {":     []byte(strings.Repeat("{", 1<<20)),
		"lines of {":    []byte(strings.Repeat("a {\n", 100_000)),
		"lines of }":    []byte(strings.Repeat("}\n", 100_000)),
		"unknown words": []byte(strings.Repeat("frob 1 2 3\n", 100_000)),
		"quotes":        []byte(strings.Repeat("\"\n", 100_000)),
		"half a file":   large(1000)[:20_000],
		"sequences":     []byte(strings.Repeat("~SEQ(A,1,1000) ~SEQ(B,1,1000) ~SEQ(C,1,1000) a ${A} ${B} ${C}\n", 10)),
		"definitions":   []byte("$A=" + strings.Repeat("x", 500) + "\n$B=${A}${A}${A}${A}${A}${A}\n$C=${B}${B}${B}${B}${B}${B}\n$D=${C}${C}${C}${C}${C}${C}\n" + strings.Repeat("y ${D}${D}${D}\n", 5000)),
		"instances": []byte(repeat(15_000, func(i int) string {
			return fmt.Sprintf("vrrp_instance I%d {\n interface eth0\n virtual_router_id 7\n virtual_ipaddress {\n 10.0.%d.%d\n }\n}\n", i, i>>8&255, i&255)
		})),
		"unknown scripts": []byte(repeat(15_000, func(i int) string { return fmt.Sprintf("vrrp_script s%d {\n script x\n}\n", i) }) +
			"vrrp_instance I {\n interface e\n virtual_router_id 0\n track_script {\n" + repeat(50_000, func(i int) string { return fmt.Sprintf("t%d\n", i) }) + "}\n}\n"),
		"tracked twice": []byte("vrrp_instance I {\n track_interface {\n" + repeat(50_000, func(i int) string { return fmt.Sprintf("t%d\n", i) }) + "}\n}\n"),
		"many groups": []byte(repeat(10_000, func(i int) string {
			return fmt.Sprintf("vrrp_sync_group g%d {\n group {\n a%d\n}\n}\nvrrp_instance a%d {\n interface e\n virtual_router_id 1\n priority 300\n}\n", i, i, i)
		})),
		"grown sequences":   []byte("$A=" + strings.Repeat("x", 500) + "\n$B=${A}${A}${A}${A}${A}${A}\n~SEQ(I,1,40000) y ${B}${B}${B}${B}${B}${B}\n"),
		"parameter starts":  []byte(strings.Repeat("${", 400_000) + "\n" + strings.Repeat(strings.Repeat("${", 4000)+"\n", 200)),
		"nested conditions": []byte(strings.Repeat(strings.Repeat("@^z ", 2000)+"a\n", 100)),
	} {
		start := used(t)
		_, problems := Load(name, text, Options{})
		Merge(string(text), "")
		Mask(string(text))
		if d := used(t) - start; d > 20*time.Second {
			t.Errorf("%s takes %s", name, d)
		} else if testing.Verbose() {
			t.Log(name, d)
		}
		if errorsOf(problems) == 0 {
			t.Errorf("%s loads", name)
		}
		if len(problems) > maxProblems+1 {
			t.Errorf("%s: %d problems", name, len(problems))
		}
		for _, p := range problems {
			if len(p.Text) > 2000 || strings.ContainsFunc(p.Text+p.Fix, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("%s: problem %q", name, p)
			}
		}
	}
}

func TestIncludedPlaces(t *testing.T) {
	files := fstest.MapFS{"inc/a.conf": {Data: []byte("global_defs {\n frob\n}\n"), Mode: 0o644}}
	_, problems := Load("main.conf", []byte("x\ninclude inc/*.conf\ny\n"), Options{Open: func(p string) (fs.File, error) { return files.Open(p) }})
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s:%d", p.File, p.Line))
	}
	if d := cmp.Diff([]string{"main.conf:1", "main.conf:3", "inc/a.conf:2"}, got); d != "" {
		t.Error(d)
	}
}

// FuzzLoad: no text makes Load, Merge, Mask or Diff panic or hang, and what
// loads without error loads again, merged with itself.
func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.conf")
	more, _ := filepath.Glob("examples/*.conf")
	for _, name := range append(files, more...) {
		if text, err := os.ReadFile(name); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, problems := Load("f", text, Options{ConfigID: "director-a"})
		if errorsOf(problems) == 0 {
			for _, in := range c.Instances {
				if in.VRID == 0 || in.Priority == 0 || in.AdvertInt <= 0 || in.Version < 2 || in.Version > 3 || len(in.AuthPass) > 8 || !in.McastGroup.IsValid() {
					t.Errorf("instance %+v", in)
				}
			}
			for _, v := range c.VirtualServers {
				if len(v.Services) == 0 || len(v.Real) == 0 || v.Quorum < 1 || v.Hysteresis >= v.Quorum || v.Scheduler == "" {
					t.Errorf("virtual server %+v", v)
				}
			}
		}
		s := string(text)
		merged := Merge(s, "global_defs {\n}\n")
		if errorsOf(problems) == 0 {
			if d := Merge(s, merged); d != merged {
				t.Errorf("merge is not stable: %q, then %q", merged, d)
			}
		}
		Mask(s)
		Diff(s, merged)
	})
}

// TestMerger is asked about texts in any order: what it remembers must not
// show.
func TestMerger(t *testing.T) {
	texts := []string{
		"", "system {\n    hostname a\n}\n", "virtual_server 10.0.0.1 80 {\n}\n", "$N=eth0\ninterface $N {\n}\n", "@b system {\n    hostname b\n}\n",
	}
	var m Merger
	for round := range 3 {
		for i := range texts {
			for j := range texts {
				a, b := texts[i], texts[(j+round)%len(texts)]
				if got, want := m.Merge(a, b), Merge(a, b); got != want {
					t.Errorf("%q into %q: %q, want %q", b, a, got, want)
				}
			}
		}
	}
}

// TestMergerFollowsEdits: of texts that differ in their virtual servers it reads only
// those, and what it then merges is what Merge does.
func TestMergerFollowsEdits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(*seed, 9))
	server := func() string {
		return fmt.Sprintf("virtual_server 10.0.0.%d 80 {\n real_server 10.0.1.%d 80 {\n }\n}\n", rnd.IntN(9), rnd.IntN(9))
	}
	around := []string{"", "", "# above\n", "system {\n host_name a\n}\n", "$N=eth0\n", "interface $N {\n dhcp\n}\n", "interface eth1\n{\n dhcp\n}\n", "bond b {\n", "}\n", "global_defs {\n}\n", "route 10.9.0.0/16 via 10.0.0.9\n"}
	for range 300 {
		var pieces []string
		for range 1 + rnd.IntN(8) {
			pieces = append(pieces, around[rnd.IntN(len(around))], server())
		}
		var m Merger
		last := strings.Join(pieces, "")
		for range 10 {
			i := rnd.IntN(len(pieces))
			was := pieces[i]
			if i%2 == 1 {
				pieces[i] = []string{server(), "", server() + server()}[rnd.IntN(3)]
			} else if rnd.IntN(3) == 0 {
				pieces[i] = around[rnd.IntN(len(around))]
			}
			text := strings.Join(pieces, "")
			if rnd.IntN(2) == 0 {
				text += around[rnd.IntN(len(around))]
			}
			for _, other := range []string{"", "global_defs {\n}\n", last} {
				if got, want := m.Merge(text, other), Merge(text, other); got != want {
					t.Fatalf("%q into %q: %q, want %q", other, text, got, want)
				}
			}
			last = text
			if rnd.IntN(3) == 0 {
				pieces[i] = was
			}
		}
	}
}
