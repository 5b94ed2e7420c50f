package follow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"ballast/configs/model"
)

// fill gives every field below v a value that is not zero.
func fill(v reflect.Value, n *int) {
	*n++
	switch p := v.Addr().Interface().(type) {
	case *netip.Addr:
		*p = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(*n >> 8), byte(*n)}), netip.MustParseAddr("2001:db8::1"),
			netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("::ffff:192.0.2.1")}[*n%4]
		return
	case *netip.Prefix:
		*p = netip.MustParsePrefix("192.0.2.0/24")
		return
	case *netip.AddrPort:
		*p = netip.MustParseAddrPort("[2001:db8::1]:80")
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.String:
		v.SetString(fmt.Sprintf("text number %d, not short", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-int64(*n % 100))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n%200 + 1))
	default:
		panic(v.Type())
	}
}

// each calls f with each value below v that has no parts.
func each(v reflect.Value, f func(reflect.Value)) {
	switch v.Interface().(type) {
	case netip.Addr, netip.Prefix, netip.AddrPort:
		f(v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			each(v.Field(i), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			each(v.Index(i), f)
		}
		f(v)
	case reflect.Pointer:
		each(v.Elem(), f)
		f(v)
	default:
		f(v)
	}
}

// TestEveryField: whatever a virtual server says arrives, and every difference
// of two is seen.
func TestEveryField(t *testing.T) {
	if all().config == nil {
		t.Fatal("model.Config holds a type that there is no codec for")
	}
	var v model.VirtualServer
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	var back model.VirtualServer
	in := &input{b: Whole.pack(nil, &v)}
	if err := unpackServer(in, &back); err != nil || len(in.b) > 0 || !reflect.DeepEqual(v, back) {
		t.Fatalf("%v, %d bytes left\n%+v\nwant\n%+v", err, len(in.b), back, v)
	}
	if !sameServer(&v, &back) {
		t.Error("two that are the same count as different")
	}
	for _, need := range []Need{Whole, Bare, Slim} {
		v := v
		sorry := *v.Sorry
		sorry.Checks = nil // it has none
		v.Sorry = &sorry
		seen := need.of(v)
		if got, want := need.pack(nil, &v), Whole.pack(nil, &seen); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes that are not those of what it may see, %d", need, len(got), len(want))
		}
	}
	var whole model.Config
	n = 0
	fill(reflect.ValueOf(&whole).Elem(), &n)
	whole.VirtualServers = nil
	b := packRest(&whole)
	switch got, err := unpackRest(b); {
	case err != nil || !reflect.DeepEqual(*got, whole):
		t.Errorf("%v\n%+v\nwant\n%+v", err, got, whole)
	case !sameRest(got, &whole):
		t.Error("two configurations that are the same count as different")
	}
	for i := range b {
		if _, err := unpackRest(b[:i]); err == nil {
			t.Fatalf("%d of %d bytes are a configuration", i, len(b))
		}
	}
	if _, err := unpackRest(append(b, 0)); err == nil {
		t.Error("a byte too many is none")
	}
	var empty model.VirtualServer
	in = &input{b: Whole.pack(nil, &model.VirtualServer{Services: []model.ServiceID{}})}
	if err := unpackServer(in, &empty); err != nil || empty.Services == nil || len(empty.Services) > 0 {
		t.Errorf("an empty list arrives as %v, %v", empty.Services, err)
	}

	var c, d model.Config
	n = 0
	fill(reflect.ValueOf(&c).Elem(), &n)
	n = 0
	fill(reflect.ValueOf(&d).Elem(), &n)
	c.VirtualServers, d.VirtualServers = nil, nil
	if !sameRest(&c, &d) {
		t.Error("two configurations that are the same count as different")
	}
	for _, pair := range []struct {
		v    reflect.Value
		same func() bool
	}{
		{reflect.ValueOf(&d).Elem(), func() bool { return sameRest(&c, &d) }},
		{reflect.ValueOf(&back).Elem(), func() bool { return sameServer(&v, &back) }},
	} {
		count := 0
		each(pair.v, func(f reflect.Value) {
			if f.IsZero() {
				return
			}
			count++
			was := reflect.New(f.Type()).Elem()
			was.Set(f)
			f.SetZero()
			if pair.same() {
				t.Errorf("a difference in a %v is not seen", f.Type())
			}
			f.Set(was)
		})
		if count < 40 {
			t.Errorf("only %d values were tried", count)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	var v model.VirtualServer
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	f.Add(Whole.pack(nil, &v))
	f.Add([]byte{0})
	f.Add([]byte{2, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var v, w model.VirtualServer
		if unpackServer(&input{b: b}, &v) != nil {
			return
		}
		if err := unpackServer(&input{b: Whole.pack(nil, &v)}, &w); err != nil || !sameServer(&v, &w) {
			t.Fatalf("%v\n%+v\nwant\n%+v", err, w, v)
		}
	})
}

func FuzzPatch(f *testing.F) {
	line, _ := json.Marshal(header{Need: Whole, Form: form(), Packed: 1, Servers: 2, Runs: [][2]int{{0, 1}, {-1, 1}}})
	f.Add(append(append(line, '\n'), 0, 1, 1, 'x', 0))
	f.Add([]byte("{\"token\":\"a\",\"base\":\"b\",\"need\":\"whole\",\"servers\":3,\"runs\":[[0,2],[-1,1]]}\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		base := &held{token: "b"}
		base.list = []*model.VirtualServer{{Name: "x"}, {Name: "y"}}
		h, err := patched(base, b, Whole)
		if err == nil && len(h.list) != h.servers {
			t.Fatalf("%d virtual servers, said to be %d", len(h.list), h.servers)
		}
	})
}

func BenchmarkForms(b *testing.B) {
	v := model.VirtualServer{Name: "[10.0.0.1]:tcp:80", Services: []model.ServiceID{{Addr: netip.MustParseAddr("10.0.0.1"), Port: 80, Protocol: 6}}, Scheduler: "rr", Quorum: 1, Granularity: 32}
	for i := range 10 {
		a := netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})
		v.Real = append(v.Real, model.RealServer{Addr: a, Port: 80, ConfPort: 80, Weight: 1, Forward: 1, SMTPAlert: true,
			Checks: []model.Check{{Kind: model.TCPCheck, Addr: a, Port: 80, ConnectTimeout: 3 * time.Second, Retry: 1, DelayBeforeRetry: time.Second, DelayLoop: 6 * time.Second, Warmup: 6 * time.Second}}})
	}
	packed := Whole.pack(nil, &v)
	text, _ := json.Marshal(&v)
	b.Logf("packed %d bytes, JSON %d", len(packed), len(text))
	b.Run("pack", func(b *testing.B) {
		for b.Loop() {
			packed = Whole.pack(packed[:0], &v)
		}
	})
	b.Run("unpack", func(b *testing.B) {
		in := &input{}
		for b.Loop() {
			var w model.VirtualServer
			in.b = packed
			unpackServer(in, &w)
		}
	})
	b.Run("json-encode", func(b *testing.B) {
		for b.Loop() {
			json.Marshal(&v)
		}
	})
	b.Run("json-decode", func(b *testing.B) {
		for b.Loop() {
			var w model.VirtualServer
			json.Unmarshal(text, &w)
		}
	})
	w := v
	w.Real = append([]model.RealServer{}, v.Real...)
	b.Run("same", func(b *testing.B) {
		for b.Loop() {
			sameServer(&v, &w)
		}
	})
	b.Run("shared", func(b *testing.B) {
		w := v
		for b.Loop() {
			sameServer(&v, &w)
		}
	})
}
