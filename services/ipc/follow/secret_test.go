package follow

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"ballast/configs/model"
	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// TestSecretsGoWhereTheyAreDue: each service finds its own secrets in what conf
// answers, and nobody else's; the open state has none at all.
func TestSecretsGoWhereTheyAreDue(t *testing.T) {
	c := model.Config{
		Global:    model.Global{SMTPPassword: "MAILSECRET", SNMP: model.SNMP{Community: "SNMPSECRET"}},
		SSL:       model.SSL{Password: "SSLSECRET"},
		Heartbeat: &model.Heartbeat{Key: []byte("HEARTSECRET")},
		Instances: []model.Instance{{Name: "V", AuthPass: []byte("PASSSECRET"), AuthHMAC: &model.AuthHMAC{Keys: []model.HMACKey{{ID: 1, Key: []byte("HMACSECRET")}}}}},
	}
	book := NewBook()
	before := book.Publish(status.Conf{Generation: 1, Config: c, Text: "TEXTSECRET"}, "").page.token
	c.Global.RouterID = "changed"
	p := book.Publish(status.Conf{Generation: 2, Config: c, Text: "TEXTSECRET"}, "")
	own := map[uint32][]string{
		ipc.UIDVRRP:   {"HEARTSECRET", "PASSSECRET", "HMACSECRET"},
		ipc.UIDNotify: {"MAILSECRET"},
		ipc.UIDHealth: {"SSLSECRET"},
		ipc.UIDSNMP:   {"SNMPSECRET"},
		ipc.UIDNet:    nil, ipc.UIDIPVS: nil, ipc.UIDConsole: nil, ipc.UIDScript: nil, 65534: nil,
	}
	all := []string{"MAILSECRET", "SNMPSECRET", "SSLSECRET", "HEARTSECRET", "PASSSECRET", "HMACSECRET", "TEXTSECRET"}
	for uid, want := range own {
		for _, have := range []string{"", before} {
			b, err := p.Patch(ipc.Peer{UID: uid}, url.Values{"need": {"head"}, "have": {have}})
			if err != nil {
				t.Fatal(err)
			}
			h, err := patched(&held{token: before}, b, Head)
			if err != nil {
				t.Fatal(err)
			}
			got := h.conf.Config
			in := got.Instances[0]
			text := fmt.Sprintf("%s %s %s %s %s %s %s", got.Global.SMTPPassword, got.Global.SNMP.Community, got.SSL.Password, got.Heartbeat.Key, in.AuthPass, in.AuthHMAC.Keys[0].Key, h.conf.Text)
			for _, s := range all {
				if has, due := strings.Contains(text, s), strings.Contains(strings.Join(want, " "), s); has != due {
					t.Errorf("user %d, have %q: %s is there: %v, want %v", uid, have, s, has, due)
				}
			}
			if len(in.AuthPass) == 0 {
				t.Error("that there is a password is no secret")
			}
		}
	}
	whole, err := json.Marshal([]any{p.State(), p.Summary()})
	if err != nil || strings.Contains(string(whole), "SECRET") {
		t.Errorf("%v: the open state holds a secret: %s", err, whole)
	}
	var plain struct {
		Instances []struct{ AuthPass []byte }
	}
	b, _ := json.Marshal(p.State().(status.Conf).Config)
	json.Unmarshal(b, &plain)
	if string(plain.Instances[0].AuthPass) == "PASSSECRET" {
		t.Error("the open state holds a password")
	}
	if string(c.Instances[0].AuthPass) != "PASSSECRET" || string(c.Heartbeat.Key) != "HEARTSECRET" {
		t.Error("the configuration itself was changed")
	}
}

// TestProblemsAreForThoseWhoShowThem, in the state, its summary and a patch.
func TestProblemsAreForThoseWhoShowThem(t *testing.T) {
	book := NewBook()
	p := book.Publish(status.Conf{Generation: 1, Problems: []model.Problem{{Text: "QUOTED"}}}, "")
	for uid, want := range map[uint32]bool{ipc.UIDConsole: true, ipc.UIDRoot: true, ipc.UIDHealth: false, ipc.UIDSNMP: false, ipc.UIDScript: false, ipc.AnyUID: false} {
		peer := ipc.Peer{UID: uid}
		state := p.For(peer)
		patch, err := p.Patch(peer, url.Values{"need": {"head"}})
		if err != nil {
			t.Fatal(err)
		}
		whole, _ := json.Marshal(state.(ipc.Lazy).State())
		summary, _ := json.Marshal(state.(ipc.Summarizer).Summary())
		for what, b := range map[string][]byte{"state": whole, "summary": summary, "patch": patch} {
			if got := strings.Contains(string(b), "QUOTED"); got != want {
				t.Errorf("user %d: problems in the %s: %v, want %v", uid, what, got, want)
			}
		}
	}
}
