package console

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ballast/configs/model"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter()
	l.now = func() time.Time { return now }
	at := func(s string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(s), Port: 4000} }
	for range 20 {
		if ok, _ := l.allow(at("192.0.2.1")); !ok {
			t.Fatal("an address without failures was dropped")
		}
	}
	for range int(limitBurst) {
		l.fail(at("192.0.2.1"), 1)
	}
	if ok, tell := l.allow(at("192.0.2.1")); ok || !tell {
		t.Errorf("after %v failures: %v, told %v", limitBurst, ok, tell)
	}
	if ok, tell := l.allow(at("192.0.2.1")); ok || tell {
		t.Errorf("a second time: %v, told %v", ok, tell)
	}
	if ok, _ := l.allow(at("192.0.2.2")); !ok {
		t.Error("another address is dropped too")
	}
	now = now.Add(limitRefill)
	if ok, _ := l.allow(at("192.0.2.1")); !ok {
		t.Error("still dropped after a token came back")
	}
	l.fail(at("192.0.2.1"), 1)
	if ok, tell := l.allow(at("192.0.2.1")); ok || !tell {
		t.Errorf("the next time it is told again: %v %v", ok, tell)
	}
	// An IPv6 host owns a /64.
	for i := range int(limitBurst) {
		l.fail(at(fmt.Sprintf("2001:db8::%d", i+1)), 1)
	}
	if ok, _ := l.allow(at("2001:db8::99")); ok {
		t.Error("a neighbour in the same /64 is allowed")
	}
	for i := range 2 * limitMax { // an attacker with many addresses does not take the memory
		l.fail(at(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)), 1)
	}
	if len(l.sources) > limitMax {
		t.Errorf("%d addresses are remembered, at most %d should be", len(l.sources), limitMax)
	}
}

func TestReadUsers(t *testing.T) {
	dir := t.TempDir()
	key := func(args ...string) string {
		path := filepath.Join(dir, strings.Join(args, ""))
		if out, err := exec.Command("ssh-keygen", append(append([]string{"-q", "-N", "", "-f", path}, "-t"), args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		b, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	ed, ec, rsa, small := key("ed25519"), key("ecdsa"), key("rsa", "-b", "2048"), key("rsa", "-b", "1024")
	u, problems := readUsers([]model.Login{
		{Name: "a", Role: "admin", Keys: []string{ed, ec, rsa, "no-agent-forwarding,restrict " + ed}},
		{Name: "b", Role: "view", Keys: []string{small, "rubbish", `from="10.0.0.1" ` + ed, ""}},
		{Name: "c", Role: "emperor", Keys: []string{ed}},
	})
	if len(u["a"].keys) != 4 || len(u["b"].keys) != 0 {
		t.Errorf("%d keys of a, %d of b", len(u["a"].keys), len(u["b"].keys))
	}
	for _, want := range []string{"login b: key 1 is left out: RSA keys need 2048 bits", "login b: key 2 is left out: it is not", "login b: key 3 is left out: the option from is not supported",
		"login b: key 4", `login c: role "emperor" is not known`} {
		if !strings.Contains(strings.Join(problems, "\n"), want) {
			t.Errorf("%q is missing in:\n%s", want, strings.Join(problems, "\n"))
		}
	}
	pub, err := readKey(ed)
	if err != nil {
		t.Fatal(err)
	}
	if !u.allows("a", pub) || u.allows("b", pub) || u.allows("c", pub) || u.allows("", pub) {
		t.Error("a key is taken for the wrong user, or for one without a role")
	}
}
