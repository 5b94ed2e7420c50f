package configs

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ballast/configs/bind"
	editor "ballast/configs/edit"
	"ballast/configs/model"
	"ballast/configs/schema"
	"ballast/configs/syntax"
)

// chains lead to a block of each kind.
var chains = map[string]string{
	"": "", "authentication": "vrrp_instance V authentication", "auth_hmac": "vrrp_instance V auth_hmac",
	"virtual_server": "virtual_server 192.0.2.80 80", "real_server": "virtual_server 192.0.2.80 80 real_server 10.0.0.2 80",
	"login": "system login u", "box": "netboot box 52:54:00:00:00:07", "mark": "mark 9", "address-line": "static_ipaddress", "route-line": "static_routes", "rule-line": "static_rules",
	"url": "virtual_server 192.0.2.80 80 real_server 10.0.0.2 80 HTTP_GET url", "smtp_host": "virtual_server 192.0.2.80 80 real_server 10.0.0.2 80 SMTP_CHECK host",
}

// chain is the way to a block.
func chain(block string) string {
	if c, ok := chains[block]; ok {
		return c
	}
	for _, k := range schema.Keywords() {
		if k.Opens == block && slices.Contains(k.In, "real_server") {
			return chains["real_server"] + " " + k.Name
		}
		if k.Opens == block && slices.Contains(k.In, "") {
			if len(k.Args) == 0 || k.Args[0].Optional {
				return k.Name
			}
			return k.Name + " x"
		}
	}
	panic(block)
}

// lineOfRow is a line that the binder takes, of a keyword in a block.
func lineOfRow(t *testing.T, k *schema.Keyword, in, name string) string {
	t.Helper()
	lists := map[string]string{"address-line": "192.0.2.9/24", "route-line": "10.0.0.0/8 via 192.0.2.1 dev eth0", "rule-line": "from 192.0.2.0/24 lookup 100 preference 9"}
	special := map[string]string{
		"login key": name + ` "` + sshKey + `"`, "peer address": name + " 192.0.2.7", "virtual_server ip_family": name + " inet6", "BFD_CHECK name": name + " b", "FILE_CHECK track_file": name + " f",
		"rule-line lookup": name + " 77", "rule-line goto": name + " 77", "rule-line nop": name, "rule-line type": name + " blackhole", "root include": name + " /etc/x.conf",
		"address-line home": name, "address-line mngtmpaddr": name, "route-line congctl": name + " cubic", "root linkbeat_interfaces": name + " {\n eth0\n}",
		"vrrp_instance preempt": name, "vrrp_instance no_virtual_ipaddress": name, "vrrp_instance linkbeat_use_polling": name,
		"route-line pref": name + " low", "rule-line inet": name, "HTTP_GET regex_stack": name + " 1 2",
		"firewall ssh": name + " from 192.0.2.7", "firewall allow": name + " tcp 77 on eth0",
	}
	var out []string
	if s, ok := special[k.Block+" "+name]; ok {
		out = []string{s}
	} else if out = candidates(k, name); out == nil {
		out = []string{name + " 7", name, name + " w7", name + " 192.0.2.7", name + " medium", name + " 7s"}
	}
	if base := lists[in]; base != "" {
		switch {
		case name == "or" || name == "nexthop" || name == "blackhole" || strings.Contains(" unreachable prohibit throw unicast local broadcast multicast anycast nat xresolve ", " "+name+" ") && in == "route-line":
			base = name + " 10.0.0.0/8"
			if name == "or" || name == "nexthop" {
				base = "10.0.0.0/8 " + name + " via 192.0.2.7 dev eth1 weight 7"
			}
			if name == "or" {
				base = "10.0.0.0/8 via 192.0.2.1 or 192.0.2.7"
			}
			if strings.Contains(" unicast local broadcast multicast anycast nat xresolve ", " "+name+" ") {
				base += " dev eth0"
			}
			return base
		case name == "pref" && in == "route-line":
			return "2001:db8::/32 via fe80::1 dev eth0 pref low"
		case name == "inet6" && in == "rule-line":
			return "inet6 lookup 100 preference 9"
		case in == "rule-line" && (name == "l3mdev" || name == "lookup" || name == "table" || name == "goto" || name == "nop" || name == "type"):
			base = "from 192.0.2.0/24 preference 9"
		case in == "rule-line" && (name == "preference" || name == "priority" || name == "order"):
			base = "from 192.0.2.0/24 lookup 100"
		case name == "home" || name == "mngtmpaddr":
			base = "2001:db8::9/64"
		}
		return base + " " + out[0]
	}
	return out[0]
}

// TestSetEveryKeyword: each keyword, in each block and under each name, can be
// set in a text that has the block only. The text then says what it says when
// the line is written by hand, and deleting takes away what setting brought.
func TestSetEveryKeyword(t *testing.T) {
	rows, tried := 0, 0
	for _, k := range schema.Keywords() {
		rows++
		if len(k.In) == 0 && !strings.HasPrefix(k.Name, "(") {
			t.Errorf("%s %s is in no block", k.Block, k.Name)
		}
		for _, in := range k.In {
			for _, name := range append([]string{k.Name}, k.Aliases...) {
				tried++
				setKeyword(t, &k, in, name)
			}
		}
	}
	if rows < 404 || tried < 600 {
		t.Errorf("%d rows, %d keywords were tried", rows, tried)
	}
}

func setKeyword(t *testing.T, k *schema.Keyword, in, name string) {
	t.Helper()
	what := fmt.Sprintf("%s in %q", name, in)
	base := editor.New("! head\n\n$X=1\n# tail\n")
	var at editor.Path
	if c := chain(in); c != "" {
		var err error
		if at, err = base.Enter(nil, strings.Fields(c), true); err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
	}
	before := base.Text()
	if k.Name == "include" {
		if err := base.Set(nil, []string{name, "/etc/x.conf"}); err == nil || base.Text() != before {
			t.Errorf("include can be set: %v", err)
		}
		return // a box has one text
	}
	// The line by hand, and the commands that say it.
	line := lineOfRow(t, k, in, name)
	hand := line + "\n"
	for _, head := range slices.Backward(at) {
		hand = head + " {\n" + hand + "}\n"
	}
	commands := editor.New(hand).Commands(nil)
	for _, c := range commands {
		words, ok := editor.Split(c)
		if !ok || words[0] != "set" {
			t.Errorf("%s: command %q", what, c)
			return
		}
		if err := base.Set(nil, words[1:]); err != nil {
			t.Errorf("%s: %s: %v", what, c, err)
			return
		}
	}
	after := base.Text()
	shown, err := base.Show(at)
	for _, w := range strings.Fields(strings.NewReplacer("{", " ", "}", " ").Replace(line)) {
		if err != nil || !strings.Contains(shown, w) {
			t.Errorf("%s: %q is not in %q (%v)", what, w, shown, err)
		}
	}
	// Setting again changes nothing.
	for _, c := range commands {
		words, _ := editor.Split(c)
		if err := base.Set(nil, words[1:]); err != nil || base.Text() != after {
			t.Errorf("%s: %s once more: %v\n%s", what, c, err, base.Text())
			return
		}
	}
	parsed := func(text string) (bind.Result, []model.Problem) {
		tree, problems := syntax.Parse("t", text, syntax.Options{Grammar: schema.Grammar{}})
		return bind.Bind(tree), problems
	}
	mine, problems := parsed(after)
	if len(problems) > 0 {
		t.Errorf("%s: %v\n%s", what, problems, after)
	}
	theirs, _ := parsed(hand)
	if diff := cmp.Diff(theirs.Config, mine.Config, cmp.Comparer(func(a, b model.Config) bool { return reflect.DeepEqual(a, b) })); diff != "" {
		t.Errorf("%s (-by hand +set):\n%s", what, diff)
	}
	first := strings.Fields(line)[0]
	if !slices.ContainsFunc(mine.Uses, func(u bind.Use) bool { return u.Word == first }) {
		t.Errorf("%s: the binder does not see it:\n%s", what, after)
	}
	// Backwards: the statements of the block, the last one first.
	own := syntax.Outline(line, 0, len(line))
	for _, s := range slices.Backward(own) {
		var words []string
		for _, w := range syntax.Words(line[s.Head:s.Stop]) {
			words = append(words, w.Text)
		}
		if err := base.Delete(at, words); err != nil {
			t.Errorf("%s: delete %q: %v\n%s", what, words, err, base.Text())
			return
		}
	}
	if diff := cmp.Diff(before, base.Text()); diff != "" {
		t.Errorf("%s: after delete (-want +got):\n%s", what, diff)
	}
}

// TestCommandsRecreate: the set commands of a text, entered into an empty one,
// make the same configuration. Texts that hold what no command can say do not
// count.
func TestCommandsRecreate(t *testing.T) {
	var files []string
	for _, pattern := range []string{"examples/*.conf", "testdata/cases/*.conf", "testdata/quirks/*.conf", "testdata/oracle/*.conf"} {
		more, err := filepath.Glob(pattern)
		if err != nil || len(more) == 0 {
			t.Fatal(pattern, err)
		}
		files = append(files, more...)
	}
	done := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		d := editor.New("")
		skipped, refused := "", false
		for _, c := range editor.New(string(text)).Commands(nil) {
			if strings.HasPrefix(c, "#") {
				skipped = c
				continue
			}
			words, ok := editor.Split(c)
			if !ok {
				t.Fatalf("%s: %s", name, c)
			}
			if err := d.Set(nil, words[1:]); err != nil {
				refused = true
				if want, _ := Load(name, text, Options{ConfigID: "director-a"}); want.Global.RouterID == "" && strings.Contains(name, "examples") {
					t.Errorf("%s: %s: %v", name, c, err)
				}
			}
		}
		if skipped != "" || refused {
			if strings.Contains(name, "examples") || strings.Contains(name, "cases") {
				t.Errorf("%s: %s", name, skipped)
			}
			continue
		}
		done++
		for _, id := range []string{"director-a", "x"} {
			want, _ := Load(name, text, Options{ConfigID: id})
			got, _ := Load(name, []byte(d.Text()), Options{ConfigID: id})
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b model.Config) bool { return reflect.DeepEqual(a, b) })); diff != "" {
				t.Errorf("%s (-text +commands):\n%s\n%s", name, diff, d.Text())
			}
		}
	}
	if done < 25 {
		t.Errorf("only %d of %d texts were made again", done, len(files))
	}
}
