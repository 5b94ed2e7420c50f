package bench

import (
	"fmt"
	"os"
	"path/filepath"
)

const mib = 1 << 20

// imageAim is what kernel and initramfs together may weigh, in MiB.
const imageAim = 32

func (r *run) sizes() error {
	var total float64
	var rows []Row
	for _, f := range []struct{ file, name string }{
		{"vmlinuz", "kernel (vmlinuz)"}, {"initramfs.zst", "initramfs (zstd): binary, commands, modules"},
	} {
		st, err := os.Stat(filepath.Join(r.Image, f.file))
		if err != nil {
			return fmt.Errorf("bench: no image: %w: make image builds it", err)
		}
		size := float64(st.Size()) / mib
		total += size
		rows = append(rows, Row{Group: "size", Name: f.name, Unit: "MiB", Ours: &Series{Values: []float64{size}}})
	}
	r.add(Row{Group: "size", Name: "image", Unit: "MiB", Ours: &Series{Values: []float64{total}}, Aim: imageAim})
	for _, row := range rows {
		r.add(row)
	}
	st, err := os.Stat(r.Binary)
	if err != nil {
		return fmt.Errorf("bench: no binary: %w: make ballast builds it", err)
	}
	r.add(Row{Group: "size", Name: "the one static binary, not compressed", Unit: "MiB", Ours: &Series{Values: []float64{float64(st.Size()) / mib}}})
	return nil
}
