package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

// resident is how much of the program's file is mapped in, in KiB.
func resident(t *testing.T) (kib int) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "RssFile:"); ok {
			if _, err := fmt.Sscan(v, &kib); err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}

func TestShed(t *testing.T) {
	before := resident(t)
	if err := shed(); err != nil {
		t.Fatal(err)
	}
	after := resident(t)
	if after >= before {
		t.Errorf("RssFile %d KiB before, %d KiB after", before, after)
	}
	t.Logf("RssFile %d KiB before, %d KiB after", before, after)
	// The code is still there.
	if s := fmt.Sprintf("%08.3f", 3.14159); s != "0003.142" {
		t.Error(s)
	}
}
