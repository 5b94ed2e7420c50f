package dialog

import (
	"bytes"
	"fmt"
	"time"
)

// maxReply bounds one reply of a mail server, of however many lines
// (RFC 5321 section 4.5.3.1.5 has 512 bytes for a line).
const maxReply = 8 << 10

// smtp greets a mail server: 220, HELO, 250, QUIT. The verdict is known at
// 250; QUIT and its answer are manners, so that the server does not log a lost
// connection.
type smtp struct {
	evidence
	helo   string
	step   smtpStep
	reply  []byte
	ok     bool
	reason string
}

type smtpStep uint8

const (
	awaitBanner smtpStep = iota
	awaitHelo
	awaitBye
	smtpDone
)

// SMTP greets a mail server by the name given.
func SMTP(helo string) Dialog { return &smtp{helo: helo} }

func (s *smtp) Open() []byte { return nil }

func (s *smtp) fail(format string, args ...any) {
	s.step, s.ok, s.reason = smtpDone, false, fmt.Sprintf(format, args...)
}

func (s *smtp) Hear(b []byte) (say []byte, done bool) {
	s.keep(b)
	for len(b) > 0 && s.step != smtpDone {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line = b[:i+1]
		}
		b = b[len(line):]
		if len(s.reply)+len(line) > maxReply {
			if s.step == awaitBye {
				s.step = smtpDone
				break
			}
			s.fail("reply longer than %d KiB", maxReply>>10)
			return say, true
		}
		s.reply = append(s.reply, line...)
		if line[len(line)-1] != '\n' {
			break
		}
		code, last, ok := replyCode(s.reply)
		if !ok {
			if s.step == awaitBye {
				s.step = smtpDone
				break
			}
			s.fail("no SMTP reply code in %s", Clip(bytes.TrimRight(s.lastLine(), "\r\n")))
			return say, true
		}
		if !last {
			continue
		}
		switch {
		case s.step == awaitBanner && code == 220:
			s.step = awaitHelo
			say = append(say, "HELO "+s.helo+"\r\n"...)
		case s.step == awaitBanner:
			s.fail("greeting %d, want 220", code)
			return say, true
		case s.step == awaitHelo && code == 250:
			s.step, s.ok, s.reason = awaitBye, true, "250 to HELO"
			say = append(say, "QUIT\r\n"...)
		case s.step == awaitHelo:
			s.fail("%d to HELO, want 250", code)
			return say, true
		default:
			s.step = smtpDone
		}
		s.reply = s.reply[:0]
	}
	return say, s.step == smtpDone
}

// lastLine is the line that is being read; those before it were looked at.
func (s *smtp) lastLine() []byte { return lastLine(s.reply) }

func lastLine(reply []byte) []byte {
	end := len(reply)
	if end > 0 && reply[end-1] == '\n' {
		end--
	}
	return reply[bytes.LastIndexByte(reply[:end], '\n')+1:]
}

// replyCode reads the last complete line of a reply: three digits, then a
// blank or the end in the last line of it, a dash in the others.
func replyCode(reply []byte) (code int, last, ok bool) {
	line := bytes.TrimRight(lastLine(reply), "\r\n")
	if len(line) < 3 {
		return 0, false, false
	}
	code, ok = threeDigits(line[:3])
	if !ok || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, false, false
	}
	return code, len(line) == 3 || line[3] == ' ', true
}

func (s *smtp) End() (bool, string) {
	switch s.step {
	case awaitBanner:
		s.fail("connection closed without a greeting")
	case awaitHelo:
		s.fail("connection closed without an answer to HELO")
	}
	return s.ok, s.reason
}

func (s *smtp) Stalled(step, whole time.Duration) (bool, string) {
	t := orWhole(step, whole)
	switch {
	case s.step >= awaitBye:
		return s.ok, s.reason
	case s.step == awaitHelo:
		return false, fmt.Sprintf("no answer to HELO within %s", t)
	case len(s.reply) > 0:
		return false, fmt.Sprintf("greeting not complete within %s, %d bytes of it", t, len(s.reply))
	}
	return false, fmt.Sprintf("no greeting within %s", t)
}

// Broken of a server that has answered HELO is for the caller to overlook:
// End still says that it is well.
func (s *smtp) Broken(err string) string {
	if s.step == awaitHelo {
		return err + " instead of an answer to HELO"
	}
	return err
}
