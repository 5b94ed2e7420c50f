package line

import (
	"context"
	"slices"
	"unicode/utf8"

	"ballast/configs/printable"
)

// Code tells what kind of key was pressed.
type Code int

// Codes of keys.
const (
	Unknown     Code = iota // a key that means nothing here
	Text                    // Rune is what was typed
	Control                 // Rune is 1…31 or 127
	Up                      // cursor keys
	Down                    //
	Left                    //
	Right                   //
	Home                    //
	End                     //
	PageUp                  //
	PageDown                //
	Insert                  //
	Delete                  //
	F1                      // F2…F12 follow
	F2                      //
	F3                      //
	F4                      //
	F5                      //
	F6                      //
	F7                      //
	F8                      //
	F9                      //
	F10                     //
	F11                     //
	F12                     //
	PasteBegins             // what follows was pasted, up to
	PasteEnds               // this
)

// Key is one key.
type Key struct {
	Code Code
	Rune rune
	Alt  bool
	Ctrl bool // with a cursor key
}

// Keys reads keys from the bytes that a terminal sends.
type Keys struct {
	in     <-chan byte
	back   []Key // read before, and given back
	normal bool  // cursor keys came as CSI
}

// NewKeys reads keys from in; closed is the end.
func NewKeys(in <-chan byte) *Keys { return &Keys{in: in} }

// more tells whether more bytes wait.
func (k *Keys) more() bool { return len(k.back) > 0 || len(k.in) > 0 }

// unread gives a key back: it is the next one again.
func (k *Keys) unread(key Key) { k.back = append(k.back, key) }

// byte waits for the next byte.
func (k *Keys) byte(ctx context.Context) (byte, error) {
	select {
	case b, ok := <-k.in:
		if !ok {
			return 0, ErrEnd
		}
		return b, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Read waits for the next key.
func (k *Keys) Read(ctx context.Context) (Key, error) {
	if n := len(k.back); n > 0 {
		key := k.back[n-1]
		k.back = k.back[:n-1]
		return key, nil
	}
	b, err := k.byte(ctx)
	switch {
	case err != nil:
		return Key{}, err
	case b == esc:
		return k.escape(ctx)
	}
	return k.plain(ctx, b)
}

// plain makes a key of a byte that begins no escape sequence.
func (k *Keys) plain(ctx context.Context, b byte) (Key, error) {
	if b < ' ' || b == del {
		return Key{Code: Control, Rune: rune(b)}, nil
	}
	p := []byte{b}
	for !utf8.FullRune(p) {
		c, err := k.byte(ctx)
		if err != nil {
			return Key{}, err
		}
		p = append(p, c)
	}
	r, _ := utf8.DecodeRune(p)
	if !printable.Rune(r) {
		r = utf8.RuneError
	}
	return Key{Code: Text, Rune: r}, nil
}

// maxSequence bounds an escape sequence: no key's is longer.
const maxSequence = 16

// escape reads the rest of a key that sends an escape sequence, or of one that
// was typed with Alt, which sends ESC first.
func (k *Keys) escape(ctx context.Context) (Key, error) {
	alt := false
	for {
		b, err := k.byte(ctx)
		if err != nil {
			return Key{}, err
		}
		switch b {
		case esc: // Alt with a key that itself begins with ESC
			alt = true
			continue
		case '[', 'O':
			key, err := k.sequence(ctx, b)
			key.Alt = key.Alt || alt
			return key, err
		}
		key, err := k.plain(ctx, b)
		key.Alt = true
		return key, err
	}
}

// sequence reads what follows ESC [ or ESC O.
func (k *Keys) sequence(ctx context.Context, kind byte) (Key, error) {
	var params []byte
	for len(params) < maxSequence {
		b, err := k.byte(ctx)
		if err != nil {
			return Key{}, err
		}
		if b == '[' && kind == '[' && len(params) == 0 { // F1…F5 of the Linux console: ESC [ [ A
			b, err = k.byte(ctx)
			if err == nil && b >= 'A' && b <= 'E' {
				return Key{Code: F1 + Code(b-'A')}, nil
			}
			return Key{}, err
		}
		if b < ' ' || b > '~' { // no part of a sequence: it was not one
			if b == esc {
				return k.escape(ctx)
			}
			return k.plain(ctx, b)
		}
		if b >= '@' {
			return k.named(kind, params, b), nil
		}
		params = append(params, b)
	}
	return Key{}, nil
}

// finals are the keys that the last character of a sequence tells.
var finals = map[byte]Code{'A': Up, 'B': Down, 'C': Right, 'D': Left, 'H': Home, 'F': End, 'P': F1, 'Q': F2, 'R': F3, 'S': F4}

// numbers are the keys that a number before "~" tells: VT220, xterm, PuTTY and
// rxvt.
var numbers = map[int]Code{1: Home, 2: Insert, 3: Delete, 4: End, 5: PageUp, 6: PageDown, 7: Home, 8: End,
	11: F1, 12: F2, 13: F3, 14: F4, 15: F5, 17: F6, 18: F7, 19: F8, 20: F9, 21: F10, 23: F11, 24: F12, 200: PasteBegins, 201: PasteEnds}

// named finds the key of a whole sequence.
func (k *Keys) named(kind byte, params []byte, final byte) Key {
	n := [2]int{}
	at := 0
	for _, b := range params {
		switch {
		case b == ';':
			at = min(at+1, 1)
		case b >= '0' && b <= '9':
			n[at] = min(n[at]*10+int(b-'0'), 9999)
		}
	}
	mod := max(0, n[1]-1) // 1 + (1 shift, 2 alt, 4 control)
	if !slices.Contains(params, ';') && final != '~' && n[0] > 1 {
		mod = n[0] - 1 // ESC [ 5 C of old terminals
	}
	key := Key{Alt: mod&2 != 0, Ctrl: mod&4 != 0}
	switch {
	case final == '~':
		key.Code = numbers[n[0]]
	case final == 'M' && kind == 'O': // Enter of the number pad
		return Key{Code: Control, Rune: cr}
	case kind == 'O' && final >= 'a' && final <= 'd': // rxvt with Ctrl
		key.Code, key.Ctrl = finals[final-'a'+'A'], true
	default:
		key.Code = finals[final]
	}
	if final >= 'A' && final <= 'D' && len(params) == 0 {
		// PuTTY sends the other of both forms for a cursor key with Ctrl.
		if kind == '[' {
			k.normal = true
		} else {
			key.Ctrl = k.normal
		}
	}
	if key.Code == Unknown {
		return Key{}
	}
	return key
}
