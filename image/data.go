package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"ballast/board"
	"ballast/image/archive"
	"ballast/image/layout"
)

// dataSize is that of the empty file system; init makes it as large as the
// disk when it has written it. A journal fits, and the smallest disk is larger.
const dataSize = layout.SizeData << 20

// DataTemplate makes an empty ext4 file system with the build machine's mke2fs,
// compressed to some kilobytes. A director has no mke2fs: it writes this to a
// blank disk.
func DataTemplate(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "ballast-data-")
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "data.ext4")
	f, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	err = f.Truncate(dataSize)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	tool := findTool("mke2fs")
	if tool == "" {
		return nil, fmt.Errorf("image: mke2fs is not installed: apt-get install e2fsprogs")
	}
	// Everything is said here, so that neither the clock nor the defaults of the
	// machine show: features, inode size, identifiers.
	cmd := exec.CommandContext(ctx, tool, "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-L", "data",
		"-U", board.DataUUID,
		"-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum",
		"-J", "size=4",
		"-E", "hash_seed="+board.DataUUID+",lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0",
		file)
	cmd.Env = []string{"E2FSPROGS_FAKE_TIME=1700000000", "MKE2FS_CONFIG=/dev/null", "LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("image: mke2fs: %w: %s", err, tail(words.String(), 500))
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	z, err := archive.Compress(b)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return z, nil
}

// findTool looks where users' PATH often does not.
func findTool(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, d := range []string{"/sbin", "/usr/sbin"} {
		if p := filepath.Join(d, name); exec.Command(p, "-V").Run() == nil {
			return p
		}
	}
	return ""
}
