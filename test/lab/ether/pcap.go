package ether

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"
)

// Capture writes every frame of the switch to a pcap file (nanosecond
// variant, https://www.tcpdump.org/manpages/pcap-savefile.5.html) until the
// returned function is called, which reports the first error of writing.
func (s *Switch) Capture(name string) (stop func() error, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("ether: capture: %w", err)
	}
	w := bufio.NewWriter(f)
	le := binary.LittleEndian
	h := le.AppendUint32(nil, 0xa1b23c4d)
	h = le.AppendUint16(h, 2)
	h = le.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...) // time zone and accuracy: zero
	h = le.AppendUint32(h, maxFrame)
	h = le.AppendUint32(h, 1) // Ethernet
	w.Write(h)
	var mu sync.Mutex
	remove := s.Tap(func(at time.Time, _ *Port, frame []byte) {
		mu.Lock()
		defer mu.Unlock()
		r := le.AppendUint32(nil, uint32(at.Unix()))
		r = le.AppendUint32(r, uint32(at.Nanosecond()))
		r = le.AppendUint32(r, uint32(len(frame)))
		r = le.AppendUint32(r, uint32(len(frame)))
		w.Write(r)
		w.Write(frame)
	})
	return func() error {
		remove()
		mu.Lock()
		defer mu.Unlock()
		err := w.Flush() // the first error sticks
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("ether: capture: %w", err)
		}
		return nil
	}, nil
}
