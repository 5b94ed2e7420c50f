package netboot

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ballast/configs/model"
	"ballast/image/layout"
	"ballast/services/ipc"
)

// Who asks is judged by its address, whoever let the connection in; and a word
// counts for one boot, which has an end.
func TestWhoGetsWhat(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{layout.NetUndionly: "undionly", "arp": `IP address       HW type     Flags       HW address            Mask     Device
192.0.2.12       0x1         0x2         02:00:00:00:00:0c     *        lan
192.0.2.13       0x1         0x2         02:00:00:00:00:0d     *        lan
192.0.2.14       0x1         0x2         02:00:00:00:00:0e     *        lan
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	network := netip.MustParsePrefix("192.0.2.11/24")
	b := &box{NetbootBox: model.NetbootBox{Name: "lb2"}, ifname: "lan", network: network, word: "WORD", wordAt: time.Now().Add(-wordAge - time.Second)}
	s := &service{env: &ipc.Env{Log: slog.New(slog.DiscardHandler)}, places: places{arp: filepath.Join(dir, "arp"), image: dir},
		boxes: map[string]*box{"02:00:00:00:00:0c": b, "02:00:00:00:00:0e": {ifname: "dmz", network: network}}}
	g := &segment{s: s, name: "lan", network: network, ctx: t.Context()}
	for _, tt := range []struct {
		from, method, path string
		want               int
	}{
		{"192.0.2.13:4000", http.MethodGet, "/WORD/fw.efi", http.StatusForbidden}, // nobody serves it
		{"192.0.2.14:4000", http.MethodGet, "/WORD/fw.efi", http.StatusForbidden}, // it is served elsewhere
		{"192.0.2.12:4000", http.MethodPost, "/WORD/fw.efi", http.StatusMethodNotAllowed},
		{"192.0.2.12:4000", http.MethodGet, "/WORD/passwd", http.StatusNotFound},
		{"192.0.2.12:4000", http.MethodGet, "/WORD/seed", http.StatusGone}, // too late
		{"192.0.2.12:4000", http.MethodGet, "/word/seed", http.StatusGone},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		r.RemoteAddr = tt.from
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s %s of %s: %d, want %d", tt.method, tt.path, tt.from, w.Code, tt.want)
		}
	}
	// The folder of the boot may be before the name.
	f, err := s.file(b, g, "/WORD/"+layout.NetUndionly)
	if err != nil {
		t.Fatal(err)
	}
	defer f.(io.Closer).Close()
	if f.Size() != int64(len("undionly")) {
		t.Errorf("%d bytes", f.Size())
	}
}
