package flash

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress tells how far it is: a bar that moves on a terminal, a line for each
// step elsewhere.
type progress struct {
	w    io.Writer
	bar  bool
	what string
	last time.Time
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, bar: ok && term.IsTerminal(int(f.Fd()))}
}

const barWidth = 30

// step is called often; small files are not told.
func (p *progress) step(what string, done, total int64) {
	if total < 1<<20 {
		return
	}
	if what != p.what {
		p.end()
		p.what = what
		if !p.bar {
			fmt.Fprintf(p.w, "%s, %s\n", what, bytesText(total))
		}
	}
	if !p.bar || done < total && time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	full := int(done * barWidth / total)
	fmt.Fprintf(p.w, "\r%-10s [%s%s] %3d%%", what, strings.Repeat("#", full), strings.Repeat(" ", barWidth-full), done*100/total)
}

// end closes the line of the bar.
func (p *progress) end() {
	if p.bar && p.what != "" {
		fmt.Fprintln(p.w)
	}
	p.what = ""
}
