package modules

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ulikunitz/xz"
)

// Info is what a module says of itself in its .modinfo section.
type Info struct {
	Depends  []string // modules that must be there first
	SoftPre  []string // should be there first
	SoftPost []string // should be loaded after it
	Aliases  []string // patterns of device ids and request_module names
	Firmware []string // files below /lib/firmware
}

// maxModule bounds a decompressed module; the largest of a kernel has 10 MB.
const maxModule = 64 << 20

// readInfo reads the .modinfo of a .ko or .ko.xz file.
func readInfo(name string) (Info, error) {
	f, err := os.Open(name)
	if err != nil {
		return Info{}, fmt.Errorf("modules: %w", err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".xz") {
		if r, err = xz.NewReader(f); err != nil {
			return Info{}, fmt.Errorf("modules: %s: %w", name, err)
		}
	}
	b, err := io.ReadAll(io.LimitReader(r, maxModule))
	if err != nil {
		return Info{}, fmt.Errorf("modules: %s: %w", name, err)
	}
	info, err := elfInfo(b)
	if err != nil {
		return Info{}, fmt.Errorf("modules: %s: %w", name, err)
	}
	return info, nil
}

func elfInfo(b []byte) (Info, error) {
	e, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return Info{}, err
	}
	s := e.Section(".modinfo")
	if s == nil {
		return Info{}, fmt.Errorf("no .modinfo section: not a kernel module")
	}
	raw, err := s.Data()
	if err != nil {
		return Info{}, err
	}
	return parseInfo(raw), nil
}

// parseInfo reads NUL-separated "key=value" strings (include/linux/module.h).
func parseInfo(raw []byte) Info {
	var i Info
	for _, kv := range strings.Split(string(raw), "\x00") {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "depends":
			for _, d := range strings.Split(v, ",") {
				if d != "" {
					i.Depends = append(i.Depends, Name(d))
				}
			}
		case "alias":
			i.Aliases = append(i.Aliases, v)
		case "firmware":
			i.Firmware = append(i.Firmware, v)
		case "softdep":
			to := &i.SoftPre
			for _, w := range strings.Fields(v) {
				switch w {
				case "pre:":
					to = &i.SoftPre
				case "post:":
					to = &i.SoftPost
				default:
					*to = append(*to, w) // may be an alias: left as written
				}
			}
		}
	}
	return i
}
