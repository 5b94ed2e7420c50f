package schema

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Kind is what an argument is.
type Kind uint8

// Kinds of arguments. In the tables they are written int:1..255, timer:0..10,
// millis:1..,
// bool, word, ip, enum:A|B, cmd, free; a ? behind makes one optional, words is
// one or more words.
const (
	KindWord  Kind = iota // any one word; the text behind ':' names it
	KindWords             // one or more words
	KindInt               // whole number
	KindTimer             // seconds with up to six decimals
	KindBool              // on off true false yes no
	KindEnum              // one of the words in Enum
	KindIP                // address; a /length behind it is read over
	KindCmd               // command line [USER [GROUP]]
	KindFree              // a grammar of its own: Text shows it, the binder checks it
)

// Arg is one argument of a keyword.
type Arg struct {
	Kind     Kind
	Optional bool
	Text     string // name or grammar for people
	Min, Max float64
	Enum     []string
	Unit     string // of a timer; empty: seconds
}

// arg reads the compact form.
func arg(s string) Arg {
	var a Arg
	if len(s) > 1 {
		s, a.Optional = strings.CutSuffix(s, "?")
	}
	kind, rest, _ := strings.Cut(s, ":")
	a.Text = rest
	switch kind {
	case "words":
		a.Kind = KindWords
	case "int", "timer", "millis":
		a.Kind, a.Min, a.Max = KindInt, 0, math.Inf(1)
		if kind != "int" {
			a.Kind = KindTimer
		}
		if kind == "millis" {
			a.Unit = "MILLISECONDS"
		}
		if lo, hi, ok := strings.Cut(rest, ".."); ok {
			a.Min, _ = strconv.ParseFloat(lo, 64)
			if hi != "" {
				a.Max, _ = strconv.ParseFloat(hi, 64)
			}
		}
	case "bool":
		a.Kind = KindBool
	case "enum":
		a.Kind, a.Enum = KindEnum, strings.Split(rest, "|")
	case "ip":
		a.Kind = KindIP
	case "cmd":
		a.Kind = KindCmd
	case "free":
		a.Kind = KindFree
		a.Text = strings.ReplaceAll(rest, "_", " ")
	default:
		a.Kind = KindWord
	}
	return a
}

// String prints the argument for the manual.
func (a Arg) String() string {
	s := a.Text
	switch a.Kind {
	case KindWord:
		if s == "" {
			s = "NAME"
		}
	case KindWords:
		if s == "" {
			s = "WORD"
		}
		s += " …"
	case KindInt:
		s = a.Range()
	case KindTimer:
		if s = a.Unit; s == "" {
			s = "SECONDS"
		}
		if !math.IsInf(a.Max, 1) || a.Min > 0 {
			s += " " + a.Range()
		}
	case KindBool:
		s = "on|off"
	case KindEnum:
		s = strings.Join(a.Enum, "|")
	case KindIP:
		s = "ADDRESS"
	case KindCmd:
		s = `"COMMAND ARGUMENTS" [USER [GROUP]]`
	}
	if a.Optional {
		s = "[" + s + "]"
	}
	return s
}

// Range prints the bounds of a number.
func (a Arg) Range() string {
	f := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	if math.IsInf(a.Max, 1) {
		return f(a.Min) + "…"
	}
	return f(a.Min) + "…" + f(a.Max)
}

// Grammar prints the arguments of a keyword for the manual.
func (k *Keyword) Grammar() string { return grammar(k.Args, k.Opens) }

func grammar(args []Arg, opens string) string {
	var out []string
	for _, a := range args {
		out = append(out, a.String())
	}
	if opens != "" {
		out = append(out, "{ … }")
	}
	return strings.Join(out, " ")
}

// Usage is the keyword with its grammar.
func (k *Keyword) Usage() string {
	return strings.TrimSpace(k.Name + " " + k.Grammar())
}

// Int reads a whole number of the argument's range.
func (a Arg) Int(s string) (int64, error) {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		if u, uerr := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 32); uerr == nil && strings.HasPrefix(s, "0x") {
			v, err = int64(u), nil
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%s is no whole number", quote(s))
	}
	if float64(v) < a.Min || float64(v) > a.Max {
		return 0, fmt.Errorf("%s is outside %s", quote(s), a.Range())
	}
	return v, nil
}

// Timer reads seconds with up to six decimals.
func (a Arg) Timer(s string) (time.Duration, error) {
	whole, frac, _ := strings.Cut(s, ".")
	if whole == "" {
		whole = "0"
	}
	n, err := strconv.ParseUint(whole, 10, 32)
	if err != nil || len(frac) > 32 || strings.Trim(frac, "0123456789") != "" {
		return 0, fmt.Errorf("%s is no number of seconds", quote(s))
	}
	micro, _ := strconv.ParseUint((frac + "000000")[:6], 10, 32)
	d := time.Duration(n)*time.Second + time.Duration(micro)*time.Microsecond
	if v := d.Seconds(); v < a.Min || v > a.Max {
		unit := " s"
		if a.Unit != "" {
			unit = " ms"
		}
		return 0, fmt.Errorf("%s is outside %s%s", quote(s), a.Range(), unit)
	}
	return d, nil
}

// Bool reads a truth value.
func Bool(s string) (v, ok bool) {
	switch s {
	case "on", "true", "yes":
		return true, true
	case "off", "false", "no":
		return false, true
	}
	return false, false
}

// Check says what is wrong with one word as this argument; nil when nothing is.
func (a Arg) Check(s string) error {
	var err error
	switch a.Kind {
	case KindInt:
		_, err = a.Int(s)
	case KindTimer:
		_, err = a.Timer(s)
	case KindBool:
		if _, ok := Bool(s); !ok {
			err = fmt.Errorf("%s is not on or off", quote(s))
		}
	case KindEnum:
		for _, e := range a.Enum {
			if e == s {
				return nil
			}
		}
		err = fmt.Errorf("%s is not one of %s", quote(s), strings.Join(a.Enum, ", "))
	case KindIP:
		_, err = Addr(s)
	}
	return err
}

// Addr reads an address; a /length behind it is read over, as keepalived does.
func Addr(s string) (netip.Addr, error) {
	s, _, _ = strings.Cut(s, "/")
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s is no IP address", quote(s))
	}
	return a, nil
}

func quote(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strconv.Quote(s)
}
