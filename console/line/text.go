package line

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"ballast/configs/printable"
)

// pasteMarks are what a terminal sends around what is pasted.
var pasteMarks = [][]byte{[]byte("\x1b[200~"), []byte("\x1b[201~")}

// ReadText reads lines until a line that holds only ".", or Ctrl-D at the
// start of a line, echoing what comes. Ctrl-C gives up. At most limit bytes.
func (e *Editor) ReadText(ctx context.Context, limit int) (string, error) {
	var text strings.Builder
	var line []byte
	echoed := 0 // how much of line is on the screen
	afterCR := e.afterCR
	for {
		b, err := e.keys.byte(ctx)
		if errors.Is(err, ErrEnd) {
			text.Write(line)
			return text.String(), nil
		}
		if err != nil {
			return "", err
		}
		if b == lf && afterCR {
			afterCR = false
			continue
		}
		afterCR = b == cr
		e.afterCR = afterCR
		switch b {
		case ctrlC:
			e.write("^C\r\n")
			return "", ErrInterrupted
		case ctrlD:
			if len(line) == 0 {
				e.write("\r\n")
				return text.String(), nil
			}
			continue
		case backspace, del:
			if n := len(line); n > 0 {
				_, size := utf8.DecodeLastRune(line)
				line = line[:n-size]
				if echoed > len(line) {
					echoed = len(line)
					e.write("\b \b")
				}
			}
			continue
		case cr, lf:
			e.write("\r\n")
			if string(line) == "." {
				return text.String(), nil
			}
			text.Write(line)
			text.WriteByte('\n')
			line, echoed = line[:0], 0
		default:
			line = append(line, b)
			if end, begins := pasteMark(line); end {
				line = line[:len(line)-len(pasteMarks[0])]
				e.pasting = begins
			}
			// What is pasted may come from anywhere: it is shown by whole characters.
			for echoed < len(line) && utf8.FullRune(line[echoed:]) && !maybeMark(line[echoed:]) {
				_, size := utf8.DecodeRune(line[echoed:])
				e.echo(line[echoed : echoed+size])
				echoed += size
			}
		}
		if text.Len()+len(line) > limit {
			return "", errors.New("the text is too long")
		}
	}
}

func (e *Editor) echo(p []byte) { e.write(printable.Text(string(p))) }

// pasteMark tells whether line ends in a mark of a paste, and which.
func pasteMark(line []byte) (is, begins bool) {
	for i, m := range pasteMarks {
		if bytes.HasSuffix(line, m) {
			return true, i == 0
		}
	}
	return false, false
}

// maybeMark tells whether p can still become a mark of a paste.
func maybeMark(p []byte) bool {
	for _, m := range pasteMarks {
		if len(p) < len(m) && bytes.HasPrefix(m, p) {
			return true
		}
	}
	return false
}
