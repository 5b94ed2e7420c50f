package support_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"ballast/configs"
	"ballast/configs/schema"
	"ballast/console/support"
	"ballast/services/ipc/status"
	parts "ballast/services/ipc/support"
)

// secretText has a secret behind every keyword of the language that takes one,
// in the forms in which it may stand.
const secretText = `$PASS=Zsecret-defined
global_defs {
    smtp_password Zsecret-smtp
    router_id OPEN
}
vrrp_instance VI_1 {
    authentication {
        auth_type PASS
        auth_pass Zsecret-auth
    }
    auth_hmac {
        key 7 Zsecret-hmac
        key 8 "Zsecret <quoted> & more"
    }
}
vrrp_instance VI_2 {
    authentication {
        auth_pass $PASS
    }
}
heartbeat {
    key hex:Zsecret00112233
}
SSL {
    password Zsecret-ssl
}
snmp {
    community Zsecret-community
}
peer {
    key Zsecret-peer
}
# auth_pass Zsecret-comment
`

// secrets are all of them.
func secrets(t *testing.T) []string {
	t.Helper()
	var out []string
	for rest := secretText; ; {
		i := strings.Index(rest, "Zsecret")
		if i < 0 {
			return out
		}
		rest = rest[i:]
		out = append(out, rest[:strings.IndexAny(rest, "\"\n ")])
		rest = rest[7:]
	}
}

// box answers what a bundle asks. What it is not asked for in this way fails the test.
type box struct {
	t      *testing.T
	silent map[string]bool // services that never answer
	leak   string          // what stands in everything
}

func (b *box) wait(ctx context.Context, service string) error {
	if b.silent[service] {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func answer(v, out any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

func (b *box) State(ctx context.Context, service string, v any) error {
	if err := b.wait(ctx, service); err != nil {
		return err
	}
	if service == "init" {
		return answer(status.Init{Version: "1.0", Services: []status.Process{{Name: "init", State: "ready"}, {Name: "vrrp", State: "ready"}, {Name: "net", State: "ready"}, {Name: "health", State: "ready"},
			{Name: "pacer", State: "ready"}, {Name: "capture", State: "idle"}, {Name: "netboot", State: "stopped"}, {Name: "snmp", State: "stopped"}}}, v)
	}
	if !slices.Contains([]string{"vrrp", "net", "health"}, service) {
		b.t.Errorf("the state of %s was asked for", service)
	}
	return answer(map[string]string{"of": service, "leak": b.leak}, v)
}

func (b *box) Call(ctx context.Context, service, verb string, in, out any) error {
	if err := b.wait(ctx, service); err != nil {
		return err
	}
	switch service + " " + verb {
	case "conf text":
		q := in.(status.TextQuery)
		text := secretText
		if q.Generation == 3 {
			text = "vrrp_instance VI_1 {\n auth_pass Zsecret-of-old\n}\n"
		}
		if q.Masked {
			text = configs.Mask(text)
		}
		return answer(status.Candidate{Text: text}, out)
	case "conf history":
		return answer([]status.Generation{{Generation: 4, Running: true, Author: "admin"}, {Generation: 3}}, out)
	case "conf file-list":
		return answer([]status.File{{Path: "/etc/keepalived/x.sh", Content: []byte("Zsecret-of-script"), Size: 17}}, out)
	case "init log":
		q := in.(status.LogQuery)
		if q.Service == "snmp" || q.Service == "netboot" || q.Service == "capture" {
			return errors.New(`log: nothing of "` + q.Service + `"`)
		}
		return answer([]status.LogLine{{Time: time.Unix(0, 0), Service: q.Service, Text: "of " + q.Service + " " + b.leak}}, out)
	case "init crash":
		if q := in.(status.CrashQuery); q.Number != 0 {
			if !q.Unseen {
				b.t.Error("the bundle counts as having looked")
			}
			return answer(status.CrashAnswer{Report: &status.CrashReport{}}, out)
		}
		return answer(status.CrashAnswer{List: []status.Crash{{Number: 2}}}, out)
	case "notify journal":
		return answer([]status.Entry{{Service: "vrrp", Transition: status.Transition{Reason: b.leak}}}, out)
	case "notify audit-log":
		return answer([]status.AuditEntry{{User: "admin", Command: "set " + b.leak}}, out)
	}
	b.t.Errorf("%s %s was asked", service, verb)
	return errors.New("no such verb")
}

func (b *box) Stream(ctx context.Context, service, verb string, _ any, _ io.Reader, out io.Writer, _ func(string)) error {
	if err := b.wait(ctx, service); err != nil {
		return err
	}
	e := json.NewEncoder(out)
	if service == "net" && verb == parts.Verb {
		e.Encode(parts.Part{Name: "links.json", Text: "[\"" + b.leak + "\"]\n"})
		e.Encode(parts.Part{Name: "routes.txt", Text: "half of them\n", Error: "dump was interrupted"})
		return e.Encode(parts.Part{Name: "proc/../../etc/x y", Text: "odd name\n"})
	}
	if service == "ipvs" && verb == parts.Verb {
		e.Encode(parts.Part{Name: "ipvs.json", Text: "{}\n"})
		return errors.New("ipvs: the kernel has gone")
	}
	b.t.Errorf("%s %s was asked", service, verb)
	return nil
}

func (b *box) bundle(pages ...support.Page) (map[string]string, []string) {
	b.t.Helper()
	var out bytes.Buffer
	missing, err := support.Write(b.t.Context(), &out, support.Options{Services: b, Host: "lb1/../x", By: "admin@192.0.2.9", Pages: pages, Patience: 200 * time.Millisecond,
		Now: func() time.Time { return time.Date(2026, 11, 21, 19, 45, 0, 0, time.UTC) }})
	if err != nil {
		b.t.Fatal(err)
	}
	z, err := gzip.NewReader(&out)
	if err != nil {
		b.t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, missing
		}
		if err != nil {
			b.t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			b.t.Fatal(err)
		}
		file, ok := strings.CutPrefix(h.Name, "support-lb1_.._x-20261121-194500/")
		if !ok || strings.Contains(file, "..") {
			b.t.Errorf("a file %q", h.Name)
		}
		if _, twice := files[file]; twice {
			b.t.Errorf("%s twice", file)
		}
		files[file] = string(text)
	}
}

func TestBundle(t *testing.T) {
	b := &box{t: t}
	files, missing := b.bundle(support.Page{Name: "vrrp", Text: func(context.Context) (string, error) { return "VI_1 MASTER\n", nil }},
		support.Page{Name: "netboot", Text: func(context.Context) (string, error) { t.Error("a page of what does not run"); return "", nil }})
	want := []string{"README.txt", "audit.json", "box.json", "configuration/files.json", "configuration/generation-3.conf", "configuration/history.json", "configuration/running.conf",
		"crash/2.json", "crash/list.json", "journal.json", "kernel/ipvs.json", "kernel/links.json", "kernel/proc/box/box/etc/x_y", "kernel/routes.txt",
		"log/health.txt", "log/init.txt", "log/kernel.txt", "log/net.txt", "log/pacer.txt", "log/vrrp.txt", "missing.txt", "show/vrrp.txt", "state/health.json", "state/net.json", "state/vrrp.json"}
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	for file, part := range map[string]string{"README.txt": "Support bundle of lb1/../x, made 2026-11-21T19:45:00Z for admin@192.0.2.9", "configuration/running.conf": "auth_pass ********",
		"log/vrrp.txt": "1970-01-01T00:00:00Z <0> of vrrp", "state/vrrp.json": `"of":"vrrp"`, "show/vrrp.txt": "VI_1 MASTER", "kernel/routes.txt": "half of them"} {
		if !strings.Contains(files[file], part) {
			t.Errorf("%s: %s\nwant %s", file, files[file], part)
		}
	}
	if want := []string{"kernel/routes.txt: dump was interrupted", "kernel tables of ipvs: ipvs: the kernel has gone"}; !slices.Equal(missing, want) {
		t.Errorf("missing: %q, want %q", missing, want)
	}
	if files["missing.txt"] != strings.Join(missing, "\n")+"\n" {
		t.Errorf("missing.txt: %s", files["missing.txt"])
	}
}

// What a secret of the configuration is stands nowhere, whoever has said it.
func TestBundleHasNoSecrets(t *testing.T) {
	all := append(secrets(t), "Zsecret-of-old")
	if len(all) < 10 {
		t.Fatal(all)
	}
	b := &box{t: t, leak: "it was " + strings.Join(all, " and ") + " and Zsecret <quoted> & more"}
	files, missing := b.bundle(support.Page{Name: "scripts", Text: func(context.Context) (string, error) { return b.leak, nil }},
		support.Page{Name: "bad", Text: func(context.Context) (string, error) { return "", errors.New(b.leak) }})
	for file, text := range files {
		if i := strings.Index(text, "Zsecret"); i >= 0 {
			t.Errorf("%s: …%s", file, text[max(0, i-30):min(len(text), i+40)])
		}
	}
	if s := fmt.Sprint(missing); strings.Contains(s, "Zsecret") || !strings.Contains(s, "show/bad") {
		t.Errorf("missing: %s", s)
	}
	if !strings.Contains(files["log/vrrp.txt"], "it was ********") {
		t.Errorf("the log: %s", files["log/vrrp.txt"])
	}
	// Every keyword that Mask knows is in the text of this test.
	for _, k := range schema.Keywords() {
		for _, word := range append([]string{k.Name}, k.Aliases...) {
			line := word + " Hidden-1234\n"
			if configs.Mask(line) != line && !strings.Contains(secretText, word+" ") {
				t.Errorf("this test has no %s (%s)", word, k.Block)
			}
		}
	}
}

// Who does not answer is named, and the rest comes in time.
func TestBundleOfASickBox(t *testing.T) {
	b := &box{t: t, silent: map[string]bool{"health": true, "notify": true, "net": true}}
	files, missing := b.bundle()
	for _, part := range []string{"state/health.json: no answer within 200ms", "journal.json: no answer", "audit.json: no answer", "state/net.json: no answer", "kernel tables of net: no answer"} {
		if !strings.Contains(strings.Join(missing, "\n"), part) {
			t.Errorf("missing: %q; want %s", missing, part)
		}
	}
	for _, file := range []string{"configuration/running.conf", "state/vrrp.json", "kernel/ipvs.json", "log/health.txt", "README.txt"} {
		if files[file] == "" {
			t.Errorf("no %s", file)
		}
	}
	b = &box{t: t, silent: map[string]bool{"init": true, "conf": true, "notify": true, "net": true, "ipvs": true}}
	if files, missing := b.bundle(); files["README.txt"] == "" || len(missing) < 6 {
		t.Errorf("%q, missing %q", slices.Collect(maps.Keys(files)), missing)
	}
}

// A client that goes away ends it.
func TestBundleForNobody(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := support.Write(ctx, io.Discard, support.Options{Services: &box{t: t}, Now: time.Now}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := support.Write(t.Context(), broken{}, support.Options{Services: &box{t: t}, Now: time.Now}); err == nil {
		t.Error("nobody takes it, and that is no error")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }
