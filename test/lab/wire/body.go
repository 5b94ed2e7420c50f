package wire

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/url"
	"strings"
)

// ServerHeader is the HTTP header with the real server's name.
const ServerHeader = "X-Real-Server"

// MaxBody bounds N of /bytes/N.
const MaxBody = 1 << 30

// Got is what "node get" prints: one answer.
type Got struct {
	Status int    `json:"status"`
	Server string `json:"server"`
	Bytes  int64  `json:"bytes"`
	Differ int64  `json:"differ"` // offset of the first byte that is not as sent; -1: none
}

// Body is an endless stream of bytes that depend on the seed alone, so that
// both ends can make it.
func Body(seed string) io.Reader {
	return rand.NewChaCha8(sha256.Sum256([]byte(seed)))
}

// CheckBody reads a body to its end and compares it with Body when path (which
// may hold "?seed=") is one of /bytes/N. differ is -1 when they are equal.
func CheckBody(body io.Reader, path string) (n, differ int64, err error) {
	u, err := url.Parse(path)
	if err != nil {
		return 0, -1, err
	}
	var want io.Reader
	if strings.HasPrefix(u.Path, "/bytes/") {
		want = Body(u.Query().Get("seed"))
	}
	differ = -1
	have, expect := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		m, err := body.Read(have)
		if m > 0 && want != nil && differ < 0 {
			if _, err := io.ReadFull(want, expect[:m]); err != nil {
				return n, differ, err
			}
			if !bytes.Equal(have[:m], expect[:m]) {
				for i := range m {
					if have[i] != expect[i] {
						differ = n + int64(i)
						break
					}
				}
			}
		}
		n += int64(m)
		if err == io.EOF {
			return n, differ, nil
		}
		if err != nil {
			return n, differ, err
		}
	}
}
