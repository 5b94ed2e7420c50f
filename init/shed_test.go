package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

// With its pages alone, a program that was shed takes back what it uses and not
// what lies around it.
func TestPagesAlone(t *testing.T) {
	use := func() int {
		t.Helper()
		if err := shed(); err != nil {
			t.Fatal(err)
		}
		// Something of many packages.
		exec.Command("/nowhere").Run()
		json.Unmarshal([]byte(`{"a":[1,2.5,"x"]}`), new(any))
		regexp.MustCompile(`a+b`).MatchString("aab")
		return resident(t)
	}
	before := use()
	p, err := openPages()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p.fd) })
	if err := p.alone(); err != nil {
		t.Fatal(err)
	}
	after := use()
	t.Logf("RssFile %d KiB, with pages alone %d KiB", before, after)
	if after > before*2/3 {
		t.Errorf("RssFile %d KiB before, %d KiB after", before, after)
	}
	if err := (*programPages)(nil).alone(); err != nil {
		t.Error(err)
	}
}
