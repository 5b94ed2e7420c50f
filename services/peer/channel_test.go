package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"ballast/services/ipc"
	"ballast/services/ipc/status"
)

// firmware serves the channel of a box.
func (b *box) firmware(answer func([]byte) ([]byte, error)) {
	b.t.Helper()
	env, err := ipc.NewEnv(b.dir, status.ChannelFirmware, slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	server := ipc.NewServer(status.ChannelFirmware)
	server.Handle("pair", func(_ context.Context, _ ipc.Peer, body json.RawMessage) (any, error) {
		out, err := answer(body)
		return status.PeerMessage{Body: out}, err
	}, ipc.UIDPeer)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(ctx, env.Listener) })
	b.t.Cleanup(func() { cancel(); wg.Wait() })
}

var toChannel = status.PeerTarget{Channel: status.ChannelFirmware}

// TestChannel: what firmware says reaches the firmware of the other box, never
// its conf, and the other way round; in pieces that are not too long.
func TestChannel(t *testing.T) {
	a, b, _, toB := pairOf(t)
	b.firmware(func(in []byte) ([]byte, error) {
		if string(in) == "no" {
			return nil, errors.New("not while another one runs")
		}
		return append([]byte("firmware got "), in[:min(len(in), 5)]...), nil
	})
	b.mu.Lock()
	b.answer = func(in []byte) ([]byte, error) {
		if string(in) != "{}" {
			t.Errorf("conf got %q", in)
		}
		return []byte("{conf}"), nil
	}
	b.mu.Unlock()
	for range 2 {
		for message, want := range map[string]string{"hello": "firmware got hello", "{}": "firmware got {}", strings.Repeat("x", MaxChannel): "firmware got xxxxx"} {
			if out, err := a.send(toChannel, message); err != nil || out != want {
				t.Errorf("%.10s: %q, %v", message, out, err)
			}
		}
		if out, err := a.send(toB, "{}"); err != nil || out != "{conf}" {
			t.Errorf("conf: %q, %v", out, err)
		}
	}
	for message, want := range map[string]string{"no": b.addr.String() + ": not while another one runs", strings.Repeat("x", MaxChannel+1): "is longer than"} {
		if _, err := a.send(toChannel, message); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10s: %v", message, err)
		}
	}
	if _, err := b.send(toChannel, "hello"); err == nil || !strings.Contains(err.Error(), "its firmware service does not answer") {
		t.Errorf("without the service there: %v", err)
	}
	if _, err := a.send(status.PeerTarget{Channel: "console"}, "hello"); err == nil || !strings.Contains(err.Error(), "no channel") {
		t.Errorf("another channel: %v", err)
	}
	// What conf sends cannot pass for a message of another service.
	if _, err := a.send(toB, "\x02firmware\x00hello"); err == nil {
		t.Error("conf speaks as firmware")
	}
	a.configure(nil)
	a.await("silent", func(s status.Peer) bool { return s.Listening == "" })
	if _, err := a.send(toChannel, "hello"); err == nil || !strings.Contains(err.Error(), "no peer is configured") {
		t.Errorf("without a peer block: %v", err)
	}
}

// TestChannelOfOldPeer: a box from before there were channels hands everything
// to conf, which cannot read this, or does not answer at all.
func TestChannelOfOldPeer(t *testing.T) {
	for _, answer := range []string{"", `{"refused":"the message has no proper head"}`, "127.0.0.1 got x"} {
		if _, err := unwrap([]byte(answer)); !errors.Is(err, errOld) {
			t.Errorf("%q: %v", answer, err)
		}
	}
	// And one that comes after us may have channels that we do not know.
	a, _, _, _ := pairOf(t)
	message, err := addressTo("weather", []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	s := service{env: &ipc.Env{Dir: a.dir}, conf: a.dir.Client("conf")}
	out, err := s.answer(t.Context(), message)
	if err != nil || out[0] != declined {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := unwrap(out); err == nil || !strings.Contains(err.Error(), "does not know what this is about") {
		t.Errorf("%v", err)
	}
}

func FuzzAddressee(f *testing.F) {
	f.Add([]byte("\x02firmware\x00hello"))
	f.Add([]byte("\x02\x00"))
	f.Add([]byte("{}\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		channel, message := addressee(b)
		if len(message) > len(b) {
			t.Errorf("%q: %q", b, message)
		}
		if _, known := channels[channel]; known {
			back, err := addressTo(channel, message)
			if err == nil && !bytes.Equal(back, b) && bytes.IndexByte(b, 0) >= 0 {
				t.Errorf("%q becomes %q", b, back)
			}
		}
		unwrap(b)
	})
}
