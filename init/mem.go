package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// memAvailable is what the kernel could still give to programs, in bytes; what
// is free but for its caches says little.
func memAvailable() uint64 {
	b, _ := os.ReadFile("/proc/meminfo")
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == "MemAvailable:" {
			kb, _ := strconv.ParseUint(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}
