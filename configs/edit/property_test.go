package edit

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/bind"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// texts are all configurations that the tests of the language have, faulty ones
// among them.
func texts(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{"pair": pair}
	for _, pattern := range []string{"../examples/*.conf", "../testdata/*/*.conf"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatal(pattern, err)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			out[n] = string(b)
		}
	}
	return out
}

// paths are all blocks of a text that can be named.
func paths(d *Doc) (out []Path) {
	var walk func(s *scope)
	walk = func(s *scope) {
		out = append(out, s.path)
		for i := range s.spans {
			b := &s.spans[i]
			k := schema.Lookup(s.block, d.keyword(b))
			if b.Kind == syntax.SpanBlock && k != nil && k.Opens != "" {
				walk(s.inside(b, k.Opens, headline(d.words(b), 0)))
			}
		}
	}
	walk(d.root())
	return out
}

// lineFor is a line that a block does not have yet.
func lineFor(block string) []string {
	kind, list := strings.CutPrefix(block, "list:")
	switch {
	case list:
		return map[string][]string{"address": {"203.0.113.77/24"}, "route": {"203.0.113.0/24", "via", "203.0.113.1"}, "peer": {"203.0.113.77"},
			"rule": {"from", "203.0.113.0/24", "lookup", "77"}, "track": {"zz77"}, "word": {"zz77"}, "delay": {"zz77", "7"}}[kind]
	case block == "virtual_server_group":
		return []string{"203.0.113.77", "77"}
	case block == "":
		return []string{"route", "203.0.113.0/24", "via", "203.0.113.1"}
	}
	return nil
}

// TestSetDelete: in each block of each text, a line that is set and deleted
// again leaves the text as it was, and while it is there all other lines are.
func TestSetDelete(t *testing.T) {
	tried := 0
	for name, text := range texts(t) {
		for _, at := range paths(New(text)) {
			d := New(text)
			found, err := d.at(at)
			if err != nil {
				continue // two of a name, or a name that is none
			}
			words := lineFor(found[0].block)
			if words == nil {
				// A keyword with a number or a word that the block does not use.
				for _, k := range rows(found[0].block) {
					if len(found[0].blocks(&head{words: []string{k.Name}, k: k})) > 0 || len((&target{scopes: found}).hits(k, k.Name)) > 0 || k.Opens != "" || len(k.Args) != 0 || opposites[k.Name] != "" {
						continue
					}
					words = []string{k.Name}
				}
			}
			open := slices.ContainsFunc(found[0].spans, func(b syntax.Span) bool { return b.Unclosed })
			if words == nil || open || lastShares(found[0]) || found[0].own != nil && !strings.Contains(text[found[0].from:found[0].to], "\n") && found[0].list() != "word" && found[0].list() != "peer" {
				continue // a block on one line is written out
			}
			if err := d.Set(at, words); err != nil {
				t.Errorf("%s %q set %q: %v", name, at, words, err)
				continue
			}
			tried++
			// The parser finds no fault that was not there.
			faults := func(text string) int {
				_, problems := syntax.Parse("t", text, syntax.Options{Grammar: schema.Grammar{}})
				return len(problems)
			}
			if before, after := faults(text), faults(d.Text()); after > before {
				t.Errorf("%s %q set %q: %d faults became %d", name, at, words, before, after)
			}
			was, is := strings.SplitAfter(text, "\n"), strings.SplitAfter(d.Text(), "\n")
			if len(is) < len(was) || len(is) > len(was)+3 {
				t.Errorf("%s %q set %q: %d lines became %d", name, at, words, len(was), len(is))
			}
			if err := d.Set(at, words); err != nil || len(strings.SplitAfter(d.Text(), "\n")) != len(is) {
				t.Errorf("%s %q set %q twice: %v", name, at, words, err)
			}
			if err := d.Delete(at, words); err != nil {
				t.Errorf("%s %q delete %q: %v\n%s", name, at, words, err, changed(text, d.Text()))
				continue
			}
			if d.Text() != text {
				t.Errorf("%s %q %q: set and delete leave\n%s", name, at, words, changed(text, d.Text()))
			}
		}
	}
	if tried < 150 {
		t.Errorf("only %d blocks were tried", tried)
	}
}

// lastShares tells whether the closing brace of a block follows on the line of
// the last statement: it gets a line of its own when one more is set.
func lastShares(s *scope) bool {
	if s.own == nil || len(s.spans) == 0 {
		return false
	}
	_, ok := s.d.quiet(s.spans[len(s.spans)-1].End, s.to)
	return !ok && strings.Contains(s.d.text[s.from:s.to], "\n")
}

// TestMergeItself: a text merged with itself does not change, and merged into
// nothing it means the same.
func TestMergeItself(t *testing.T) {
	for name, text := range texts(t) {
		if strings.Contains(name, "faults") || strings.Contains(name, "quirks") {
			continue
		}
		d := New(text)
		if err := d.Merge(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := changed(text, d.Text()); diff != "" {
			t.Errorf("%s changes by itself:\n%s", name, diff)
		}
		d = New("")
		if err := d.Merge(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		load := func(text string) any {
			tree, _ := syntax.Parse("t", text, syntax.Options{Grammar: schema.Grammar{}, ConfigID: "lb1"})
			return bind.Bind(tree).Config
		}
		if !reflect.DeepEqual(load(text), load(d.Text())) {
			t.Errorf("%s into nothing is\n%s", name, d.Text())
		}
	}
}

func TestMerge(t *testing.T) {
	const more = `$PRIO=90
$NEW=1
global_defs {
  router_id lb9
  notification_email {
    a@example
  }
}
vrrp_instance VI_1 {
  state MASTER
  @lb1 priority 151
  virtual_ipaddress {
    192.0.2.11/24 dev eth1
    192.0.2.12/24
  }
}
# A new one.
vrrp_instance VI_3 {
  state BACKUP
}
vrrp_instance VI_3 {
  priority 7
}
virtual_server 10.0.0.1 53 {
  protocol TCP
  lb_algo rr
}
virtual_server 10.0.0.1 53 {
  real_server 10.1.0.1 53 {
    weight 3
    HTTP_GET {
      url {
        path /b
        status_code 200
      }
      url {
        path /c
      }
    }
  }
  real_server 10.1.0.2 53 {
    weight 4
  }
}
route default via 192.0.2.1
`
	d := New(pair)
	if err := d.Merge(more); err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(
		"$PRIO=100\n", "$PRIO=90\n$NEW=1\n",
		"    router_id lb1   # of mail\n", "    router_id lb9   # of mail\n    notification_email {\n      a@example\n    }\n",
		"state BACKUP\n    @lb1 priority 150", "state MASTER\n    @lb1 priority 151",
		"        192.0.2.11/24\n", "        192.0.2.11/24 dev eth1\n        192.0.2.12/24\n",
		"weight 1\n", "weight 3\n",
		"                path /b\n            }\n", "                path /b\n                status_code 200\n            }\n            url {\n              path /c\n            }\n",
		"    protocol TCP\n", "    protocol TCP\n    lb_algo rr\n",
		"        }\n    }\n}\nvirtual_server", "        }\n    }\n    real_server 10.1.0.2 53 {\n      weight 4\n    }\n}\nvirtual_server",
	).Replace(pair) + "\nroute default via 192.0.2.1\n\n# A new one.\nvrrp_instance VI_3 {\n  state BACKUP\n  priority 7\n}\n"
	if diff := cmp.Diff(want, d.Text()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	one := New("peer 10.0.0.2 {\n  port 7\n}\n")
	if err := one.Merge("peer 10.0.0.3 {\n  port 8\n}\n"); err != nil || one.Text() != "peer 10.0.0.3 {\n  port 8\n}\n" {
		t.Errorf("a head is merged into %q, %v", one.Text(), err)
	}
	before := d.Text()
	if err := d.Merge(more); err != nil || d.Text() != before {
		t.Errorf("once more: %v\n%s", err, changed(before, d.Text()))
	}
}

func TestMove(t *testing.T) {
	const text = "# one\na_x {\n}\nvrrp_instance A {\n  # a\n  virtual_ipaddress {\n    192.0.2.1 # one\n    192.0.2.2\n    192.0.2.3\n  }\n}\nvrrp_instance B {\n}\nvirtual_server 192.0.2.1 80 {\n}\n"
	for _, tt := range []struct{ line, want string }{
		{"rename vrrp_instance A to C", "-vrrp_instance A {\n+vrrp_instance C {\n"},
		{"rename virtual_server 192.0.2.1 80 to 192.0.2.9 443", "-virtual_server 192.0.2.1 80 {\n+virtual_server 192.0.2.9 443 {\n"},
		{"rename virtual_server 192.0.2.1 80 to virtual_server fwmark 7", "-virtual_server 192.0.2.1 80 {\n+virtual_server fwmark 7 {\n"},
		{"rename vrrp_instance A to B", "there is a block vrrp_instance B already (line 12); take another name"},
		{"rename vrrp_instance A to x y", `"vrrp_instance x y" is no head of a block; write vrrp_instance NAME`},
		{"copy vrrp_instance B to C", "+\n+vrrp_instance C {\n+}\n"},
		{"copy vrrp_instance B to A", "there is a block vrrp_instance A already (line 4); take another name"},
		{"insert vrrp_instance A virtual_ipaddress 192.0.2.3 before 192.0.2.1", "-    192.0.2.1 # one\n-    192.0.2.2\n-    192.0.2.3\n+    192.0.2.3\n+    192.0.2.1 # one\n+    192.0.2.2\n"},
		{"insert vrrp_instance A virtual_ipaddress 192.0.2.1 after 192.0.2.2", "-    192.0.2.1 # one\n-    192.0.2.2\n+    192.0.2.2\n+    192.0.2.1 # one\n"},
		{"insert vrrp_instance A before vrrp_instance A virtual_ipaddress 192.0.2.1", "vrrp_instance A and vrrp_instance A virtual_ipaddress 192.0.2.1 are not in one block"},
	} {
		d := New(text)
		got := ""
		if err := edited(t, d, nil, tt.line); err != nil {
			got = err.Error()
		} else {
			got = changed(text, d.Text())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, diff)
		}
	}
}

func TestComplete(t *testing.T) {
	live := func(kind string) []string {
		if kind == "interface" {
			return []string{"eth0", "eth1"}
		}
		return nil
	}
	vi1 := Path{"vrrp_instance VI_1"}
	for _, tt := range []struct {
		at   Path
		line string // the last word is what is there of the next one
		want string
	}{
		{nil, "vrrp_i|", "vrrp_instance"},
		{nil, "vrrp_instance |", "VI_1 VI_2 <NAME>"},
		{nil, "vrrp_instance VI_2 pri|", "priority"},
		{vi1, "priority |", "150 100 <1..255>"},
		{vi1, "preempt_delay |", "<0..1000>"},
		{vi1, "state |", "MASTER BACKUP"},
		{vi1, "state B|", "BACKUP"},
		{vi1, "interface |", "eth0 eth1 <IF>"},
		{vi1, "smtp_alert o|", "on off <ENTER>"},
		{vi1, "nopreempt |", "<ENTER>"},
		{vi1, "authentication auth_t|", "auth_type"},
		{vi1, "virtual_ipaddress |", "192.0.2.10/24 192.0.2.11/24 <ADDRESS/LENGTH>"},
		{vi1, "virtual_ipaddress 192.0.2.9/24 dev |", "eth0 eth1 <IF>"},
		{vi1, "virtual_ipaddress 192.0.2.9/24 scope li|", "link"},
		{vi1, "track_interface eth0 w|", "weight"},
		{vi1, "track_interface eth0 weight |", "<-253..253>"},
		{nil, "vrrp_sync_group G group |", "VI_1 VI_2 <WORD>"},
		{nil, "virtual_server |", "10.0.0.1 192.0.2.10 192.0.2.11 fwmark group <ADDRESS>"},
		{nil, "virtual_server 10.0.0.1 5|", "53 <1..65535>"},
		{nil, "virtual_server[2] 10.0.0.1 53 lb_k|", "lb_kind"},
		{nil, "virtual_server[2] 10.0.0.1 53 lb_kind |", "NAT DR TUN"},
		{nil, "virtual_server[2] 10.0.0.1 53 lb_kind TUN t|", "type"},
		{nil, "virtual_server[1] 10.0.0.1 53 real_server |", "10.1.0.1 <IP>"},
		{nil, "virtual_server[1] 10.0.0.1 53 real_server 10.1.0.1 53 HTTP_GET url|", "url[1] url[2]"},
		{nil, "virtual_server[1] 10.0.0.1 53 lvs_s|", "lvs_sched"},
		{nil, "zz|", ""},
		{nil, "zz |", ""},
	} {
		words := strings.Split(strings.TrimSuffix(tt.line, "|"), " ")
		last := words[len(words)-1]
		var got []string
		for _, c := range Complete(New(pair), tt.at, words[:len(words)-1], last, live) {
			got = append(got, c.Text)
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, diff)
		}
	}
}

// FuzzEdit: whatever the text and the words are, there is an error or a text,
// an error leaves the text alone, and what is set is there.
func FuzzEdit(f *testing.F) {
	f.Add(pair, "vrrp_instance VI_1 priority 7")
	f.Add(pair, "vrrp_instance VI_1 virtual_ipaddress 192.0.2.77/24")
	f.Add("a {", "virtual_server 10.0.0.1 80 real_server 10.0.0.2 80 TCP_CHECK connect_port 7")
	f.Add("vrrp_instance V { unicast_peer { 192.0.2.1 } }", "vrrp_instance V unicast_peer 192.0.2.2")
	f.Add("system { dns 1.1.1.1 }", `system login a key "ssh x"`)
	f.Add("\xef\xbb\xbf}", "$X=7")
	f.Fuzz(func(t *testing.T, text, line string) {
		words, _ := Split(line)
		if len(text) > 4096 || len(words) > 64 {
			return
		}
		for i, do := range []func(d *Doc) error{
			func(d *Doc) error { return d.Set(nil, words) },
			func(d *Doc) error { return d.Delete(nil, words) },
			func(d *Doc) error { return d.Annotate(nil, words, "x") },
			func(d *Doc) error { return d.Copy(nil, words, []string{"zz"}) },
			func(d *Doc) error { return d.Rename(nil, words, []string{"zz"}) },
			func(d *Doc) error { return d.Merge(line) },
			func(d *Doc) error { return d.Insert(nil, words, true, []string{"system"}) },
			func(d *Doc) error { _, err := d.Enter(nil, words, true); return err },
		} {
			d := New(text)
			err := do(d)
			if err != nil && d.Text() != text && i != 5 {
				t.Fatalf("%d: an error changed the text: %v\n%q", i, err, d.Text())
			}
			if !slices.Equal(New(d.Text()).root().spans, d.root().spans) {
				t.Fatalf("%d: spans are not those of the text %q", i, d.Text())
			}
			if i == 0 && err == nil {
				was := d.Text()
				if err := d.Set(nil, words); err != nil {
					t.Fatalf("set once more: %v in %q", err, was)
				}
				if was != d.Text() && !strings.Contains(line, "[") {
					t.Fatalf("set once more changes %q into %q", was, d.Text())
				}
			}
			d.Commands(nil)
		}
		d := New(text)
		for i := range words {
			Complete(d, nil, words[:i], words[i], nil)
		}
		Complete(d, nil, words, "", func(string) []string { return []string{"eth0"} })
	})
}

// large is a text of n lines.
func large(n int) string {
	var b strings.Builder
	for i := 0; i*23 < n; i++ {
		fmt.Fprintf(&b, "# service %d\nvirtual_server 10.%d.%d.1 80 {\n    delay_loop 5\n    lb_algo wlc\n    lb_kind DR\n    protocol TCP\n", i, i>>8, i&255)
		for r := range 3 {
			fmt.Fprintf(&b, "    real_server 192.0.2.%d 80 {\n        TCP_CHECK {\n            connect_port 80\n        }\n    }\n", r)
		}
		b.WriteString("}\n\n")
	}
	return b.String()
}

// TestFast: a line is set in a text of 100,000 lines in less time than the text
// is parsed in, from nothing on.
func TestFast(t *testing.T) {
	text := large(100_000)
	best := func(f func()) (d time.Duration) {
		d = time.Hour
		for range 3 {
			begin := time.Now()
			f()
			d = min(d, time.Since(begin))
		}
		return d
	}
	parse := best(func() { syntax.Parse("t", text, syntax.Options{Grammar: schema.Grammar{}}) })
	set := best(func() {
		if err := New(text).Set(nil, []string{"virtual_server", "10.9.9.1", "80", "quorum", "7"}); err != nil {
			t.Error(err)
		}
	})
	if set > parse {
		t.Errorf("set takes %v, parse %v", set, parse)
	}
	t.Logf("set %v, parse %v: %.2f", set, parse, set.Seconds()/parse.Seconds())
}

// BenchmarkSet: the first line set in a text of 100,000 lines, with New.
func BenchmarkSet(b *testing.B) {
	text := large(100_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		d := New(text)
		if err := d.Set(nil, []string{"virtual_server", "10.9.9.1", "80", "real_server", "192.0.2.1", "80", "weight", "7"}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSetAgain: further lines of the same text.
func BenchmarkSetAgain(b *testing.B) {
	d := New(large(100_000))
	n := 0
	for b.Loop() {
		n++
		if err := d.Set(nil, []string{"virtual_server", "10.9.9.1", "80", "real_server", "192.0.2.1", "80", "weight", fmt.Sprint(n % 1000)}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParse is what Set is compared with.
func BenchmarkParse(b *testing.B) {
	text := large(100_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		syntax.Parse("t", text, syntax.Options{Grammar: schema.Grammar{}})
	}
}

// BenchmarkMerge: a text of 100,000 lines into another one.
func BenchmarkMerge(b *testing.B) {
	text := large(100_000)
	other := strings.ReplaceAll(text, "delay_loop 5", "delay_loop 6")
	for b.Loop() {
		if err := New(text).Merge(other); err != nil {
			b.Fatal(err)
		}
	}
}
