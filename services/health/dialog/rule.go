package dialog

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"ballast/configs/model"
)

// Rule is what an answer to one URL must be.
type Rule struct {
	status  []model.StatusRange
	digest  string // MD5 in lower-case hex, empty: any
	regex   *regexp.Regexp
	noMatch bool // a match is a failure
	from    int  // byte of the body where the search starts
	before  int  // a match begins before this byte; 0: anywhere
	expect  []model.Header
}

// NewRule compiles what a url block asks of an answer. It also refuses header
// lines that would not be one line.
func NewRule(u *model.URL) (Rule, error) {
	r := Rule{
		status: u.Status, digest: strings.ToLower(u.Digest), noMatch: u.RegexNoMatch,
		from: u.RegexMin, before: u.RegexMax, expect: u.Expect,
	}
	if len(r.status) == 0 {
		r.status = []model.StatusRange{{From: 200, To: 299}}
	}
	for _, h := range u.Headers {
		if h.Name == "" || strings.ContainsAny(h.Name, " :\r\n\x00") || strings.ContainsAny(h.Value, "\r\n\x00") {
			return r, fmt.Errorf("url %s: header %q: a name without blanks or colon, and a value of one line, are needed", u.Path, h.Name)
		}
	}
	if u.Regex == "" {
		return r, nil
	}
	re, err := regexp.Compile(u.Regex)
	if err != nil {
		return r, fmt.Errorf("url %s: regex: %w (RE2 syntax: no look-around, no back references)", u.Path, err)
	}
	if r.before > 0 && r.before <= r.from || r.from >= maxRegex {
		return r, fmt.Errorf("url %s: regex_min_offset %d leaves nothing to search: it must be below regex_max_offset and below %d", u.Path, r.from, maxRegex)
	}
	r.regex = re
	return r, nil
}

func (r *Rule) statusOK(code int) bool {
	for _, s := range r.status {
		if code >= s.From && code <= s.To {
			return true
		}
	}
	return false
}

func (r *Rule) wantStatus() string {
	var words []string
	for _, s := range r.status {
		if s.From == s.To {
			words = append(words, strconv.Itoa(s.From))
		} else {
			words = append(words, fmt.Sprintf("%d-%d", s.From, s.To))
		}
	}
	return strings.Join(words, " ")
}

// matches says whether the regex matches where it may. The text before
// regex_min_offset is cut off, so that "^" matches there.
func (r *Rule) matches(text []byte) bool {
	if r.from > len(text) {
		return false
	}
	// The leftmost match: when that one begins too late, all do.
	at := r.regex.FindIndex(text[r.from:])
	return at != nil && (r.before == 0 || at[0]+r.from < r.before)
}

// judge applies a rule to one answer, whatever version of HTTP brought it.
type judge struct {
	rule      *Rule
	inBody    bool
	status    int
	length    int64 // Content-Length, -1: none
	got       int64 // body bytes
	sum       hash.Hash
	text      []byte // start of the body, for the regex
	undecided bool   // all is here, and only the regex is still to be asked
	starved   bool
	finished  bool
	verdict   bool
	reason    string
}

func (a *judge) fail(format string, args ...any) bool {
	a.finished, a.verdict, a.reason = true, false, fmt.Sprintf(format, args...)
	return true
}

// begin takes the status and the fields of the header; field calls back with
// each. It reports whether the verdict is known.
func (a *judge) begin(status int, length int64, fields func(func(name, value string))) bool {
	a.status, a.length, a.inBody = status, length, true
	if !a.rule.statusOK(status) {
		return a.fail("status %d, want %s", status, a.rule.wantStatus())
	}
	if len(a.rule.expect) > 0 && !a.fieldsOK(fields) {
		return true
	}
	if a.rule.digest != "" {
		a.sum = md5.New()
	}
	return false
}

func (a *judge) fieldsOK(fields func(func(name, value string))) bool {
	found := make([]bool, len(a.rule.expect))
	other := make([]string, len(a.rule.expect)) // what was there instead
	fields(func(name, value string) {
		for i, want := range a.rule.expect {
			if strings.EqualFold(name, want.Name) {
				if strings.Contains(value, want.Value) {
					found[i] = true
				} else {
					other[i] = value
				}
			}
		}
	})
	for i, ok := range found {
		want := a.rule.expect[i]
		switch {
		case ok:
		case other[i] != "":
			return !a.fail("header %s is %s, want %q in it", want.Name, Clip([]byte(other[i])), want.Value)
		default:
			return !a.fail("no header %s in the answer", want.Name)
		}
	}
	return true
}

func (a *judge) body(b []byte) bool {
	if a.sum != nil {
		// What follows Content-Length is not part of the body.
		in := b
		if a.length >= 0 {
			in = b[:min(int64(len(b)), max(a.length-a.got, 0))]
		}
		a.sum.Write(in)
	}
	if a.rule.regex != nil && len(a.text) < maxRegex {
		part := b[:min(len(b), maxRegex-len(a.text))]
		if !a.grow(len(part)) {
			a.starved = true
			return a.fail("answers that a regex waits for hold %d MiB already: there is no room for this one", maxTexts>>20)
		}
		a.text = append(a.text, part...)
	}
	a.got += int64(len(b))
	if a.got > maxBody {
		return a.fail("answer longer than %d MiB", maxBody>>20)
	}
	return false
}

// whole judges a body that has come to its end.
func (a *judge) whole() {
	if a.sum != nil {
		if d := hex.EncodeToString(a.sum.Sum(nil)); d != a.rule.digest {
			a.fail("digest %s of %d bytes, want %s", d, a.got, a.rule.digest)
			return
		}
	}
	if a.rule.regex != nil && len(a.text) > quickRegex {
		a.finished, a.undecided = true, true
		return
	}
	a.decide()
}

// decide asks the regex.
func (a *judge) decide() {
	a.undecided = false
	if a.rule.regex != nil && a.rule.matches(a.text) == a.rule.noMatch {
		if a.rule.noMatch {
			a.fail("regex matches the %d bytes of the body, must not", a.got)
		} else {
			a.fail("regex does not match the %d bytes of the body", a.got)
		}
		return
	}
	a.finished, a.verdict, a.reason = true, true, fmt.Sprintf("status %d", a.status)
}

// end is End for a body that was heard whole.
func (a *judge) end() (bool, string) {
	if a.undecided {
		a.decide()
	}
	return a.verdict, a.reason
}

func (a *judge) heavy() bool {
	return a.rule.regex != nil && len(a.text) > quickRegex && a.inBody && (a.undecided || !a.finished)
}

// texts is what all dialogs of the process hold for their regexes: thousands
// of them run at one time, and each may keep maxRegex.
var texts atomic.Int64

// grow makes room in text, and says whether there is any.
func (a *judge) grow(n int) bool {
	need := len(a.text) + n
	if need <= cap(a.text) {
		return true
	}
	size := min(max(need, 2*cap(a.text)), maxRegex)
	more := int64(size - cap(a.text))
	if texts.Add(more) > maxTexts {
		texts.Add(-more)
		return false
	}
	a.text = append(make([]byte, 0, size), a.text...)
	return true
}

func (a *judge) release() {
	texts.Add(-int64(cap(a.text)))
	a.text = nil
}

func (a *judge) isStarved() bool { return a.starved }
