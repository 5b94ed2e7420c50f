package configs

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/configs/check"
	"ballast/configs/model"
	"ballast/test/golden"

	"github.com/google/go-cmp/cmp"
)

// dump prints a value with what is zero left out.
func dump(b *strings.Builder, indent, name string, v reflect.Value) {
	if v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 {
		return
	}
	switch x := v.Interface().(type) {
	case netip.Addr, netip.Prefix, time.Duration, model.Forward, model.Protocol:
		fmt.Fprintf(b, "%s%s: %v\n", indent, name, x)
		return
	case []byte:
		fmt.Fprintf(b, "%s%s: %q\n", indent, name, x)
		return
	case []string:
		fmt.Fprintf(b, "%s%s: %q\n", indent, name, x)
		return
	case model.ServiceID:
		fmt.Fprintf(b, "%s%s: %v\n", indent, name, x)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		dump(b, indent, name, v.Elem())
	case reflect.Struct:
		fmt.Fprintf(b, "%s%s\n", indent, name)
		for i := range v.NumField() {
			dump(b, indent+"  ", v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			dump(b, indent, fmt.Sprintf("%s[%d]", name, i), v.Index(i))
		}
	default:
		fmt.Fprintf(b, "%s%s: %v\n", indent, name, v.Interface())
	}
}

func report(r Report) string {
	var b strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintln(&b, p)
	}
	b.WriteString("\n")
	dump(&b, "", "Config", reflect.ValueOf(r.Config))
	return b.String()
}

func errorsOf(problems []model.Problem) (n int) {
	for _, p := range problems {
		if p.Severity == model.Error {
			n++
		}
	}
	return n
}

// TestGolden compares problems and model of every file under testdata: cases
// (users' files, which must load without error), quirks (what keepalived makes
// of odd input, and what we make of it) and faults (damaged files).
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.conf")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if strings.HasPrefix(f, "testdata/oracle/") {
			continue // read by keepalived itself, in TestKeepalivedAgreesVRRP
		}
		t.Run(f, func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			r := Inspect(filepath.Base(f), text, Options{ConfigID: "main"})
			got := report(r)
			golden.Check(t, strings.TrimSuffix(f, ".conf")+".txt", got)
			if strings.HasPrefix(f, "testdata/cases/") && errorsOf(r.Problems) > 0 {
				t.Errorf("a user's file does not load: %v", r.Problems)
			}
			if strings.HasPrefix(f, "testdata/faults/") && errorsOf(r.Problems) == 0 {
				t.Error("a damaged file loads")
			}
			// Loading is a function of the text.
			again, problems := Load(filepath.Base(f), text, Options{ConfigID: "main"})
			if d := cmp.Diff(r.Config, again, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(r.Problems, problems); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestTLSVerifyWithoutCA: tls_verify trusts the ca of the SSL block and nobody
// else.
func TestTLSVerifyWithoutCA(t *testing.T) {
	text := vs("", "SSL_GET {\n tls_verify\n sni_name a\n url {\n path /\n }\n}\n}\nreal_server 10.0.0.3 80 {\nSSL_GET {\n tls_verify\n sni_name a\n url {\n path /\n }\n}")
	warned := func(text string) (n int) {
		_, problems := Load("c", []byte(text), Options{})
		for _, p := range problems {
			if p.Severity == model.Warning && strings.Contains(p.Text, "real server 10.0.0.2 trusts no certificate") && p.Line == 1 && strings.Contains(p.Fix, "SSL { ca ") {
				n++
			}
		}
		return n
	}
	if n := warned(text); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if n := warned(text + "SSL {\n ca /etc/keepalived/ca.pem\n}\n"); n != 0 {
		t.Errorf("%d warnings with a ca", n)
	}
	if n := warned(strings.ReplaceAll(text, "tls_verify\n", "\n")); n != 0 {
		t.Errorf("%d warnings without tls_verify", n)
	}
}

// TestCAWithoutUse: a ca with which nothing is verified is told of where it
// stands, and one that is used is not.
func TestCAWithoutUse(t *testing.T) {
	const ca = "SSL {\n ca /etc/keepalived/ca.pem\n}\n"
	get := func(lines string) string { return vs("", "SSL_GET {\n "+lines+"\n url {\n path /\n }\n}") }
	mail := func(lines string) string {
		return "global_defs {\n smtp_server 10.0.0.9\n " + lines + "\n}\n"
	}
	for _, c := range []struct {
		name, text string
		told       bool
	}{
		{"alone", "", true},
		{"not verified", get(""), true},
		{"tls_verify", get("tls_verify\n sni_name a"), false},
		{"tls_verify off", get("tls_verify off"), true},
		{"of the second server", get("") + strings.ReplaceAll(get("tls_verify\n sni_name a"), "192.0.2.80", "192.0.2.81"), false},
		{"mail over TLS", mail("smtp_tls starttls"), false},
		{"mail without TLS", mail(""), true},
		{"mail, any certificate", mail("smtp_tls on\n smtp_verify off"), true},
	} {
		_, problems := Load("c", []byte(ca+c.text), Options{})
		told := slices.ContainsFunc(problems, func(p model.Problem) bool {
			return p.Severity == model.Note && strings.HasPrefix(p.Text, "SSL: nothing is verified with ca") && p.Line == 2 && strings.Contains(p.Fix, "tls_verify")
		})
		if told != c.told {
			t.Errorf("%s: told %v, want %v: %v", c.name, told, c.told, problems)
		}
		if slices.ContainsFunc(problems, func(p model.Problem) bool { return !told && p.Line == 2 }) {
			t.Errorf("%s: a problem at a ca that is used: %v", c.name, problems)
		}
	}
}

// TestFacts checks a user's file against a box.
func TestFacts(t *testing.T) {
	text, err := os.ReadFile("testdata/cases/web-dr-sorry.conf")
	if err != nil {
		t.Fatal(err)
	}
	facts := &check.Facts{
		Interfaces: []check.NIC{{Name: "lo"}, {Name: "enp1s0", MAC: "52:54:00:00:00:01", PCI: "0000:01:00.0"}},
		Files:      []string{}, Box: "192.0.2.11",
	}
	_, problems := Load("c", text, Options{Facts: facts})
	if n := errorsOf(problems); n != 1 {
		t.Fatalf("%d errors in %v", n, problems)
	}
	for _, p := range problems {
		if p.Severity == model.Error {
			want := "c:25:15: error: VI_1: the box has no interface eth0; the box has enp1s0 (52:54:00:00:00:01); to give a card this name write: interface eth0 { mac 52:54:00:00:00:01 }"
			if p.String() != want {
				t.Errorf("got  %s\nwant %s", p, want)
			}
		}
	}
	// The block that the message shows is the cure.
	if _, problems = Load("c", append(text, "\ninterface eth0 { mac 52:54:00:00:00:01 }\n"...), Options{Facts: facts}); errorsOf(problems) != 0 {
		t.Error(problems)
	}
	// With dynamic_interfaces a missing interface is a warning.
	if _, problems = Load("c", append(text, "\nglobal_defs { \n dynamic_interfaces\n }\n"...), Options{Facts: facts}); errorsOf(problems) != 0 {
		t.Error(problems)
	}

	text, err = os.ReadFile("testdata/cases/script-weight.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, problems = Load("c", text, Options{Facts: &check.Facts{Files: []string{}, Box: "192.0.2.11"}})
	want := []model.Problem{{
		Severity: model.Warning, File: "c", Line: 12, Col: 5,
		Text: "vrrp_script check_nginx_alive calls /etc/keepalived/check_nginx_alive_or_not.sh, which is not on the box",
		Fix:  "load it: ssh admin@192.0.2.11 file put /etc/keepalived/check_nginx_alive_or_not.sh < check_nginx_alive_or_not.sh",
	}}
	if d := cmp.Diff(want, problems); d != "" {
		t.Error(d)
	}

	// Commands of the system come with the image; only a list of them can tell.
	text = []byte(vi("notify_master \"/usr/bin/curl x\"\nnotify_backup \"/bin/true; /opt/a b\"\nnotify_fault \"/bin/sh /opt/c\"\nnotify \"logger x\""))
	texts := func(f *check.Facts) (out []string) {
		_, problems := Load("c", text, Options{Facts: f})
		for _, p := range problems {
			out = append(out, p.Text)
		}
		return out
	}
	if d := cmp.Diff([]string{"V notify_backup calls /opt/a, which is not on the box", "V notify_fault calls /opt/c, which is not on the box"}, texts(&check.Facts{Files: []string{}})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"V notify_master calls /usr/bin/curl, and there is no such command on the box", "V notify_fault calls /opt/c, which is not on the box"},
		texts(&check.Facts{Files: []string{"/opt/a"}, Commands: []string{"true", "logger"}})); d != "" {
		t.Error(d)
	}
}
