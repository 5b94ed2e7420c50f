package schema

import (
	"strings"
	"testing"
	"time"

	"ballast/configs/syntax"

	"github.com/google/go-cmp/cmp"
)

// TestRows: every keyword of keepalived has exactly one row, of the same class
// and with the same default, and what nearly every user needs works.
// testdata/keywords.tsv holds block, keyword, class, default, and how we say
// the default where the words differ ("-": not at all).
func TestRows(t *testing.T) {
	have := map[string]*Keyword{}
	for i := range Keywords() {
		k := &Keywords()[i]
		key := k.Block + "\t" + k.Name
		if k.Class == 'L' || k.Class == 'O' {
			continue
		}
		if have[key] != nil {
			t.Errorf("two rows for %s", key)
		}
		have[key] = k
	}
	classes := map[byte]int{}
	for _, f := range lines(t, "testdata/keywords.tsv", 5) {
		key, class := f[0]+"\t"+f[1], f[2][0]
		k := have[key]
		if k == nil {
			t.Errorf("no row for %s", key)
			continue
		}
		delete(have, key)
		classes[class]++
		if k.Class != class {
			t.Errorf("%s is of class %c, not %c", key, class, k.Class)
		}
		want := f[3]
		if f[4] != "" {
			want = strings.TrimPrefix(f[4], "-")
		}
		if k.Default != want {
			t.Errorf("%s has the default %q, want %q", key, k.Default, want)
		}
		if class == 'A' && k.Status != Works {
			t.Errorf("%s is of class A and %s", key, k.Status)
		}
	}
	for key := range have {
		t.Errorf("%s is no keyword of keepalived", key)
	}
	if classes['A'] != 68 || classes['B'] != 103 || classes['C'] != 233 {
		t.Errorf("rows by class %v", classes)
	}
}

// TestRowsComplete: each row has its help, in one line and not that of another
// row of its block, and a reason where it does nothing.
func TestRowsComplete(t *testing.T) {
	said := map[string]string{}
	for _, k := range Keywords() {
		helps := []string{k.Help}
		for _, w := range k.Words() {
			helps = append(helps, w.Help)
		}
		for _, h := range helps {
			key := k.Block + "\x00" + strings.Join(k.In, " ") + "\x00" + h
			if h == "" || strings.HasSuffix(h, ".") || strings.ContainsAny(h, "\n|") || len(h) > 160 {
				t.Errorf("%s %s: help %q", k.Block, k.Name, h)
			}
			if said[key] != "" {
				t.Errorf("%s: %s and %s have the same help %q", k.Block, said[key], k.Name, h)
			}
			said[key] = k.Name
		}
		if k.Status != Works && k.Reason == "" {
			t.Errorf("%s %s is %s and has no reason", k.Block, k.Name, k.Status)
		}
		if len(k.In) > 0 && k.Class != 'L' && k.Default == "" && k.Opens == "" && len(k.Args) == 0 && k.Status == Works {
			t.Errorf("%s %s is a word alone and does not say what holds without it", k.Block, k.Name)
		}
		for i, a := range k.Args {
			if a.Kind == KindInt && a.Min > a.Max || a.Kind == KindEnum && len(a.Enum) == 0 {
				t.Errorf("%s %s: argument %d is %+v", k.Block, k.Name, i, a)
			}
		}
		if strings.Contains(k.Grammar(), "{ … }") != (k.Opens != "") {
			t.Errorf("%s %s: grammar %q", k.Block, k.Name, k.Grammar())
		}
	}
}

// TestWords: a row whose words are several things says what each of them is,
// and no other word.
func TestWords(t *testing.T) {
	rows := 0
	for i := range Keywords() {
		k := &Keywords()[i]
		words := k.Words()
		if len(words) == 0 {
			if len(k.Aliases) > 2 {
				t.Errorf("%s %s has %d other names, and nothing is said of each", k.Block, k.Name, len(k.Aliases))
			}
			continue
		}
		rows++
		var have []string
		for _, w := range words {
			have = append(have, w.Name)
			if k.Word(w.Name).Help != w.Help {
				t.Errorf("%s %s: Word says %q", k.Block, w.Name, k.Word(w.Name).Help)
			}
		}
		if d := cmp.Diff(append([]string{k.Name}, k.Aliases...), have); d != "" {
			t.Errorf("%s %s (-row +words):\n%s", k.Block, k.Name, d)
		}
	}
	if rows != len(wordRows()) {
		t.Errorf("%d rows have words, of %d that are written", rows, len(wordRows()))
	}
	k := Lookup("vrrp_instance", "priority")
	if w := k.Word("priority"); w.Help != k.Help || w.Grammar() != k.Grammar() {
		t.Errorf("of a row of one word: %+v", w)
	}
}

func TestLookup(t *testing.T) {
	for _, tt := range []struct{ block, word, want string }{
		{"", "vrrp_instance", "vrrp_instance NAME { … }"},
		{"", "vrrp_track_file", "track_file NAME { … }"},
		{"vrrp_instance", "advert_int", "advert_int SECONDS 0.01…255"},
		{"virtual_server", "lvs_sched", "lb_algo rr|wrr|lc|wlc|lblc|sh|mh|dh|fo|ovf|lblcr|sed|nq|twos"},
		{"HTTP_GET", "nb_get_retry", "nb_get_retry 0…4294967295"},
		{"TCP_CHECK", "connect_port", "connect_port 1…65535"},
		{"url", "status_code", "status_code N|N-M …"},
		{"vrrp_script", "script", `script "COMMAND ARGUMENTS" [USER [GROUP]]`},
		{"MISC_CHECK", "connect_port", ""},
		{"vrrp_instance", "(name)", ""},
	} {
		got := ""
		if k := Lookup(tt.block, tt.word); k != nil {
			got = k.Usage()
		}
		if got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.block, tt.word, got, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, tt := range []struct{ block, word, want string }{
		{"vrrp_instance", "Priority", "priority"},
		{"vrrp_instance", "virtual_router_ip", "virtual_router_id"},
		{"vrrp_instance", "advert_nit", "advert_int"},
		{"virtual_server", "lb_algorithm", "lb_algo"},
		{"", "vrrp_instanse", "vrrp_instance"},
		{"", "xyzzy", ""},
		{"", strings.Repeat("x", 1000), ""},
	} {
		if got := Nearest(tt.block, tt.word); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.block, tt.word, got, tt.want)
		}
	}
}

func TestArgs(t *testing.T) {
	for _, tt := range []struct {
		arg, in string
		ok      bool
	}{
		{"int:1..255", "255", true}, {"int:1..255", "0", false}, {"int:1..255", "256", false}, {"int:1..255", "1.5", false},
		{"int:1..4294967295", "4294967295", true}, {"int:1..4294967295", "4294967296", false}, {"int:0..", "99999999999", true},
		{"int:0..255", "0x1f", true}, {"int:0..255", "", false},
		{"timer:0.01..255", "0.01", true}, {"timer:0.01..255", "0.001", false}, {"timer:0.01..255", "255.5", false}, {"timer", "1e3", false}, {"timer", "-1", false},
		{"timer", ".5", true}, {"timer", "5.", true},
		{"bool", "on", true}, {"bool", "ON", false},
		{"enum:A|B", "A", true}, {"enum:A|B", "a", false},
		{"ip", "192.0.2.1", true}, {"ip", "192.0.2.1/24", true}, {"ip", "2001:db8::1", true}, {"ip", "[2001:db8::1]", false},
	} {
		if err := arg(tt.arg).Check(tt.in); (err == nil) != tt.ok {
			t.Errorf("%s %q: %v", tt.arg, tt.in, err)
		}
	}
	if d, err := (Arg{Max: 10}).Timer("1.2345678"); d != 1234567*time.Microsecond || err != nil {
		t.Error(d, err)
	}
}

func TestGrammarUse(t *testing.T) {
	w := func(s string) []syntax.Word { return []syntax.Word{{Text: s}} }
	for _, tt := range []struct {
		block, word, child string
		use                syntax.Use
	}{
		{"", "global_defs", "global_defs", syntax.Block},
		{"real_server", "SSL_GET", "HTTP_GET", syntax.Block},
		{"vrrp_instance", "priority", "", syntax.Line},
		{"vrrp_instance", "frob", "", syntax.Unknown},
		{"list:address", "192.0.2.1", "", syntax.Line},
		{"list:address", "priority", "", syntax.Unknown},
		{"list:track", "anything", "", syntax.Line},
		{"list:route", "default", "", syntax.Line},
	} {
		child, use := Grammar{}.Use(tt.block, w(tt.word))
		if child != tt.child || use != tt.use {
			t.Errorf("%s %s: %q %v", tt.block, tt.word, child, use)
		}
	}
}
