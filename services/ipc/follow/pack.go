package follow

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"ballast/configs/model"
)

// Virtual servers travel in a form of their own, a tenth of the work that JSON
// is: of a struct the number of each field that is not zero and its value, and
// a 0 at the end; numbers as varints; strings and lists with their length
// before them. It is made for the types of configs/model by going over them
// once (compile), so a new field needs nothing here. Both ends are the same
// program; where they are not, form tells, and JSON is spoken.

// codec does one type. The pointers are to values of that type.
type codec struct {
	zero   func(p unsafe.Pointer) bool
	equal  func(a, b unsafe.Pointer) bool // as reflect.DeepEqual
	encode func(out []byte, p unsafe.Pointer) []byte
	decode func(in *input, p unsafe.Pointer) // into a zero value
	form   string                            // what the type looks like
}

var errShort = errors.New("virtual server: the data is cut short or not ours")

// input is what is decoded. After an error everything reads as zero.
type input struct {
	b       []byte
	err     error
	strings map[string]string // short words come again and again
	rooms   []slice           // by codec of a list: memory for the next ones
}

// roomSize is how much memory lists are cut from. It stays as long as one of
// them does.
const roomSize = 8 << 10

// list makes room for n elements, 1 or more, of the list type t.
func (in *input) list(id int, t reflect.Type, size uintptr, n int) unsafe.Pointer {
	for id >= len(in.rooms) {
		in.rooms = append(in.rooms, slice{})
	}
	r := &in.rooms[id]
	if r.len < n {
		// Never much more than the bytes that are left can fill.
		m := max(n, min(roomSize/int(size), len(in.b)/16))
		*r = slice{reflect.MakeSlice(t, m, m).UnsafePointer(), m, m}
	}
	data := r.data
	if r.len -= n; r.len > 0 {
		r.data = unsafe.Add(data, uintptr(n)*size)
	} else {
		r.data = nil // behind the end is somebody else's
	}
	return data
}

func (in *input) fail() { in.b, in.err = nil, errShort }

func (in *input) uvarint() uint64 {
	if len(in.b) > 0 && in.b[0] < 0x80 {
		v := in.b[0]
		in.b = in.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(in.b)
	if n <= 0 {
		in.fail()
		return 0
	}
	in.b = in.b[n:]
	return v
}

func (in *input) varint() int64 {
	v := in.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// bytes takes n bytes, which stay those of the input.
func (in *input) bytes(n uint64) []byte {
	if n > uint64(len(in.b)) {
		in.fail()
		return nil
	}
	b := in.b[:n]
	in.b = in.b[n:]
	return b
}

// short is the length of words that are kept once.
const short = 16

func (in *input) string() string {
	b := in.bytes(in.uvarint())
	if len(b) > short {
		return string(b)
	}
	if s, ok := in.strings[string(b)]; ok {
		return s
	}
	s := string(b)
	if in.strings == nil {
		in.strings = map[string]string{}
	}
	if len(in.strings) < 1024 {
		in.strings[s] = s
	}
	return s
}

func (in *input) addr() netip.Addr {
	switch n := in.uvarint(); n {
	case 0:
		return netip.Addr{}
	case 4:
		if b := in.bytes(4); b != nil {
			return netip.AddrFrom4([4]byte(b))
		}
	case 16, 17:
		b := in.bytes(16)
		if b == nil {
			break
		}
		a := netip.AddrFrom16([16]byte(b))
		if n == 17 {
			a = a.WithZone(in.string())
		}
		return a
	default:
		in.fail()
	}
	return netip.Addr{}
}

func appendString(out []byte, s string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

func appendAddr(out []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return append(out, 0)
	case a.Is4():
		b := a.As4()
		return append(append(out, 4), b[:]...)
	case a.Zone() == "":
		b := a.As16()
		return append(append(out, 16), b[:]...)
	}
	b := a.As16()
	return appendString(append(append(out, 17), b[:]...), a.Zone())
}

// leaf makes a codec of a type that == compares.
func leaf[T comparable](form string, encode func([]byte, T) []byte, decode func(*input) T) *codec {
	return &codec{
		form:   form,
		zero:   func(p unsafe.Pointer) bool { var z T; return *(*T)(p) == z },
		equal:  func(a, b unsafe.Pointer) bool { return *(*T)(a) == *(*T)(b) },
		encode: func(out []byte, p unsafe.Pointer) []byte { return encode(out, *(*T)(p)) },
		decode: func(in *input, p unsafe.Pointer) { *(*T)(p) = decode(in) },
	}
}

func unsigned[T uint8 | uint16 | uint32 | uint64 | uint](form string) *codec {
	return leaf(form, func(out []byte, v T) []byte { return binary.AppendUvarint(out, uint64(v)) }, func(in *input) T {
		v := in.uvarint()
		if uint64(T(v)) != v {
			in.fail()
		}
		return T(v)
	})
}

func signed[T int8 | int16 | int32 | int64 | int](form string) *codec {
	return leaf(form, func(out []byte, v T) []byte { return binary.AppendVarint(out, int64(v)) }, func(in *input) T {
		v := in.varint()
		if int64(T(v)) != v {
			in.fail()
		}
		return T(v)
	})
}

// leaves are the codecs of types that are one value, by kind or as a type.
var (
	leaves = map[reflect.Kind]*codec{
		reflect.Bool: leaf("b", func(out []byte, v bool) []byte {
			if v {
				return append(out, 1)
			}
			return append(out, 0)
		}, func(in *input) bool { return in.uvarint() != 0 }),
		reflect.String: leaf("s", appendString, (*input).string),
		reflect.Int:    signed[int]("i"), reflect.Int8: signed[int8]("i1"), reflect.Int16: signed[int16]("i2"),
		reflect.Int32: signed[int32]("i4"), reflect.Int64: signed[int64]("i8"),
		reflect.Uint: unsigned[uint]("u"), reflect.Uint8: unsigned[uint8]("u1"), reflect.Uint16: unsigned[uint16]("u2"),
		reflect.Uint32: unsigned[uint32]("u4"), reflect.Uint64: unsigned[uint64]("u8"),
	}
	addresses = map[reflect.Type]*codec{
		reflect.TypeFor[netip.Addr](): leaf("A", appendAddr, (*input).addr),
		reflect.TypeFor[netip.Prefix](): leaf("P", func(out []byte, p netip.Prefix) []byte {
			return binary.AppendVarint(appendAddr(out, p.Addr()), int64(p.Bits()))
		}, func(in *input) netip.Prefix {
			a := in.addr()
			return netip.PrefixFrom(a, int(in.varint()))
		}),
		reflect.TypeFor[netip.AddrPort](): leaf("AP", func(out []byte, p netip.AddrPort) []byte {
			return binary.AppendUvarint(appendAddr(out, p.Addr()), uint64(p.Port()))
		}, func(in *input) netip.AddrPort {
			a := in.addr()
			return netip.AddrPortFrom(a, uint16(in.uvarint()))
		}),
	}
)

// compiler makes codecs. One of a type that is met again, alone or in another,
// is the same: they are in the memory of every process.
type compiler struct {
	without []string  // fields "Type.Field" that are never sent
	base    *compiler // of whose codecs those without such a field are
	made    map[reflect.Type]*codec
}

// compile makes the codec of a type; nil: it holds a type that there is none
// for.
func (m *compiler) compile(t reflect.Type) *codec {
	if c := addresses[t]; c != nil {
		return c
	}
	if c, ok := m.made[t]; ok {
		return c
	}
	if m.base != nil && !m.lacks(t) {
		return m.base.compile(t)
	}
	var c *codec
	switch t.Kind() {
	case reflect.Struct:
		c = m.compileStruct(t)
	case reflect.Slice:
		c = m.compileSlice(t)
	case reflect.Pointer:
		c = m.compilePointer(t)
	default:
		return leaves[t.Kind()]
	}
	m.made[t] = c
	return c
}

// lacks reports whether t holds a field that is never sent.
func (m *compiler) lacks(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		return m.lacks(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); slices.Contains(m.without, t.Name()+"."+f.Name) || m.lacks(f.Type) {
				return true
			}
		}
	}
	return false
}

func (m *compiler) compilePointer(t reflect.Type) *codec {
	e := m.compile(t.Elem())
	if e == nil {
		return nil
	}
	elem := t.Elem()
	return &codec{
		form: "*" + e.form,
		zero: func(p unsafe.Pointer) bool { return *(*unsafe.Pointer)(p) == nil },
		equal: func(a, b unsafe.Pointer) bool {
			x, y := *(*unsafe.Pointer)(a), *(*unsafe.Pointer)(b)
			return x == y || x != nil && y != nil && e.equal(x, y)
		},
		encode: func(out []byte, p unsafe.Pointer) []byte { return e.encode(out, *(*unsafe.Pointer)(p)) },
		decode: func(in *input, p unsafe.Pointer) {
			v := reflect.New(elem).UnsafePointer()
			e.decode(in, v)
			*(*unsafe.Pointer)(p) = v
		},
	}
}

// lists counts the codecs of lists.
var lists int

// slice is what a slice looks like in memory.
type slice struct {
	data     unsafe.Pointer
	len, cap int
}

func (m *compiler) compileSlice(t reflect.Type) *codec {
	elem := t.Elem()
	e := m.compile(elem)
	if e == nil || elem.Size() == 0 {
		return nil
	}
	size := elem.Size()
	lists++
	id := lists
	return &codec{
		form: "[" + e.form + "]",
		zero: func(p unsafe.Pointer) bool { return (*slice)(p).data == nil },
		equal: func(a, b unsafe.Pointer) bool {
			x, y := (*slice)(a), (*slice)(b)
			if x.len != y.len || (x.data == nil) != (y.data == nil) {
				return false
			}
			if x.data == y.data {
				return true
			}
			for i := range x.len {
				if !e.equal(unsafe.Add(x.data, uintptr(i)*size), unsafe.Add(y.data, uintptr(i)*size)) {
					return false
				}
			}
			return true
		},
		encode: func(out []byte, p unsafe.Pointer) []byte {
			x := (*slice)(p)
			out = binary.AppendUvarint(out, uint64(x.len))
			for i := range x.len {
				out = e.encode(out, unsafe.Add(x.data, uintptr(i)*size))
			}
			return out
		},
		decode: func(in *input, p unsafe.Pointer) {
			n := in.uvarint()
			if n > uint64(len(in.b)) { // an element takes a byte at least
				in.fail()
				return
			}
			if n == 0 {
				*(*slice)(p) = slice{data: reflect.MakeSlice(t, 0, 0).UnsafePointer()}
				return
			}
			data := in.list(id, t, size, int(n))
			for i := uintptr(0); i < uintptr(n) && in.err == nil; i++ {
				e.decode(in, unsafe.Add(data, i*size))
			}
			*(*slice)(p) = slice{data, int(n), int(n)}
		},
	}
}

func (m *compiler) compileStruct(t reflect.Type) *codec {
	type field struct {
		*codec
		at   uintptr
		kept bool
	}
	fields := make([]field, 0, t.NumField())
	var form strings.Builder
	form.WriteByte('{')
	for i := range t.NumField() {
		f := t.Field(i)
		c := m.compile(f.Type)
		if c == nil || !f.IsExported() {
			return nil
		}
		fields = append(fields, field{c, f.Offset, !slices.Contains(m.without, t.Name()+"."+f.Name)})
		form.WriteString(f.Name + ":" + c.form + ";")
	}
	form.WriteByte('}')
	return &codec{
		form: form.String(),
		zero: func(p unsafe.Pointer) bool {
			for i := range fields {
				if !fields[i].zero(unsafe.Add(p, fields[i].at)) {
					return false
				}
			}
			return true
		},
		equal: func(a, b unsafe.Pointer) bool {
			for i := range fields {
				if !fields[i].equal(unsafe.Add(a, fields[i].at), unsafe.Add(b, fields[i].at)) {
					return false
				}
			}
			return true
		},
		encode: func(out []byte, p unsafe.Pointer) []byte {
			for i := range fields {
				f := &fields[i]
				if at := unsafe.Add(p, f.at); f.kept && !f.zero(at) {
					out = f.encode(binary.AppendUvarint(out, uint64(i)+1), at)
				}
			}
			return append(out, 0)
		},
		decode: func(in *input, p unsafe.Pointer) {
			for {
				i := in.uvarint()
				if i == 0 {
					return
				}
				if i > uint64(len(fields)) {
					in.fail()
					return
				}
				fields[i-1].decode(in, unsafe.Add(p, fields[i-1].at))
			}
		},
	}
}

// codecs are those that are used. A test says that there is one for each.
type codecs struct {
	server, config *codec
	bare, slim     *codec // of a virtual server
	form           string // names the form in which this program packs
}

var all = sync.OnceValue(func() *codecs {
	whole := &compiler{made: map[reflect.Type]*codec{}}
	server := reflect.TypeFor[model.VirtualServer]()
	but := func(field string) *codec {
		m := &compiler{without: []string{field}, base: whole, made: map[reflect.Type]*codec{}}
		return m.compile(server)
	}
	c := &codecs{
		server: whole.compile(server), config: whole.compile(reflect.TypeFor[model.Config]()),
		bare: but("RealServer.Checks"), slim: but("VirtualServer.Real"),
	}
	sum := sha256.New()
	sum.Write([]byte(c.server.form))
	if c.config != nil {
		sum.Write([]byte(c.config.form))
	}
	c.form = hex.EncodeToString(sum.Sum(nil)[:8])
	for _, made := range whole.made {
		if made != nil {
			made.form = "" // kilobytes, which have said what they are for
		}
	}
	return c
})

// form names the form in which this program packs.
func form() string { return all().form }

// pack packs v as somebody with this need sees it (Need.of), without a copy.
func (n Need) pack(out []byte, v *model.VirtualServer) []byte {
	c := all().server
	switch n {
	case Bare:
		c = all().bare
	case Slim:
		c = all().slim
	}
	return c.encode(out, unsafe.Pointer(v))
}

func unpackServer(in *input, v *model.VirtualServer) error {
	all().server.decode(in, unsafe.Pointer(v))
	if in.err != nil {
		return fmt.Errorf("configuration: %w", in.err)
	}
	return nil
}

// packRest packs a configuration, which has no virtual servers here.
func packRest(c *model.Config) []byte { return all().config.encode(nil, unsafe.Pointer(c)) }

func unpackRest(b []byte) (*model.Config, error) {
	in, c := &input{b: b}, &model.Config{}
	all().config.decode(in, unsafe.Pointer(c))
	if in.err == nil && len(in.b) > 0 {
		in.fail()
	}
	if in.err != nil {
		return nil, fmt.Errorf("configuration: %w", in.err)
	}
	return c, nil
}

func sameServer(a, b *model.VirtualServer) bool {
	// Those that were not read anew share all that they point to.
	return image(a) == image(b) || all().server.equal(unsafe.Pointer(a), unsafe.Pointer(b))
}

// image is what a virtual server looks like in memory. Equal images are equal
// virtual servers; others may be too.
func image(v *model.VirtualServer) string {
	return unsafe.String((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// sameRest compares all but the virtual servers.
func sameRest(a, b *model.Config) bool {
	x, y := *a, *b
	x.VirtualServers, y.VirtualServers = nil, nil
	return all().config.equal(unsafe.Pointer(&x), unsafe.Pointer(&y))
}
