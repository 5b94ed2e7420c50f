// Package grub makes the boot loader of an image: GRUB as Debian builds it, for
// BIOS and for UEFI machines, with one script embedded in both (grub.cfg). Neither
// needs a file of the disk besides the state and the slots.
package grub

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"ballast/image/layout"
	"ballast/image/packages"
)

//go:embed grub.cfg
var script string

// Files are what a disk gets.
type Files struct {
	Boot []byte // the first 440 bytes of the disk
	Core []byte // the partition "bios"
	EFI  []byte // EFI/BOOT/BOOTX64.EFI
}

// modules that the script's commands and the disk need, on both platforms.
var modules = []string{
	"boot", "configfile", "echo", "fat", "linux", "loadenv", "loopback", "memdisk", "minicmd", "normal", "part_gpt", "part_msdos",
	"probe", "reboot", "regexp", "search", "search_fs_file", "serial", "sleep", "tar", "terminal", "test", "true",
}

// early is what GRUB runs before it knows more than the simplest commands.
const early = "set prefix=(memdisk)/boot/grub\nnormal (memdisk)/boot/grub/grub.cfg\n"

// sbat says of what the EFI program is made, for shim's list of what is revoked.
// The generation of "grub" is that of Debian's package.
const sbat = `sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md
grub,5,Free Software Foundation,grub,%[1]s,https://www.gnu.org/software/grub/
grub.debian,5,Debian,grub2,%[1]s,https://tracker.debian.org/pkg/grub2
`

// Build makes the boot loader for a box with these consoles ("ttyS0,115200",
// "tty0"), as board.Board names them.
func Build(ctx context.Context, consoles []string) (Files, error) {
	dirs := map[string]string{}
	for _, p := range []string{"grub-common", "grub-pc-bin", "grub-efi-amd64-bin", "libdevmapper1.02.1"} {
		dir, err := packages.Tree(ctx, p)
		if err != nil {
			return Files{}, err
		}
		dirs[p] = dir
	}
	loader, err := packages.Get("grub-efi-amd64-bin")
	if err != nil {
		return Files{}, err
	}
	tmp, err := os.MkdirTemp("", "ballast-grub-")
	if err != nil {
		return Files{}, fmt.Errorf("grub: %w", err)
	}
	defer os.RemoveAll(tmp)
	disk, err := memdisk(Script(consoles))
	if err != nil {
		return Files{}, err
	}
	for name, b := range map[string][]byte{"early.cfg": []byte(early), "memdisk.tar": disk, "sbat.csv": fmt.Appendf(nil, sbat, loader.Version)} {
		if err := os.WriteFile(filepath.Join(tmp, name), b, 0o644); err != nil {
			return Files{}, fmt.Errorf("grub: %w", err)
		}
	}
	mkimage := func(format, dir string, more ...string) ([]byte, error) {
		out := filepath.Join(tmp, format)
		args := []string{
			"--format=" + format, "--directory=" + filepath.Join(dir, "usr/lib/grub", strings.TrimSuffix(format, "-pxe")), "--output=" + out,
			"--config=" + filepath.Join(tmp, "early.cfg"), "--memdisk=" + filepath.Join(tmp, "memdisk.tar"), "--prefix=(memdisk)/boot/grub",
		}
		cmd := exec.CommandContext(ctx, filepath.Join(dirs["grub-common"], "usr/bin/grub-mkimage"), append(append(args, more...), modules...)...)
		// The machine's own libraries come first where it has them.
		libs := os.Getenv("LD_LIBRARY_PATH")
		for _, d := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", filepath.Join(dirs["libdevmapper1.02.1"], "lib/x86_64-linux-gnu"), filepath.Join(dirs["libdevmapper1.02.1"], "usr/lib/x86_64-linux-gnu")} {
			libs = strings.TrimPrefix(libs+":"+d, ":")
		}
		cmd.Env = []string{"LC_ALL=C", "LD_LIBRARY_PATH=" + libs, "PATH=" + os.Getenv("PATH")}
		var words bytes.Buffer
		cmd.Stdout, cmd.Stderr = &words, &words
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("grub: grub-mkimage %s: %w: %s", format, err, strings.TrimSpace(words.String()))
		}
		return os.ReadFile(out)
	}
	var f Files
	if f.Core, err = mkimage("i386-pc", dirs["grub-pc-bin"], "biosdisk"); err != nil {
		return Files{}, err
	}
	if f.EFI, err = mkimage("x86_64-efi", dirs["grub-efi-amd64-bin"], "--sbat="+filepath.Join(tmp, "sbat.csv"), "chain"); err != nil {
		return Files{}, err
	}
	boot, err := os.ReadFile(filepath.Join(dirs["grub-pc-bin"], "usr/lib/grub/i386-pc/boot.img"))
	if err != nil {
		return Files{}, fmt.Errorf("grub: %w", err)
	}
	f.Boot, err = embed(boot, f.Core)
	return f, err
}

// Script is the boot script for a box with these consoles.
func Script(consoles []string) string {
	var serial strings.Builder
	for _, c := range consoles {
		if m := serialForm.FindStringSubmatch(c); m != nil {
			speed := cmp.Or(m[2], "9600") // the kernel's default
			fmt.Fprintf(&serial, "  if serial --unit=%[1]s --speed=%[2]s; then set lines=\"$lines serial_com%[1]s\"; fi\n", m[1], speed)
		}
	}
	return strings.NewReplacer("@SERIAL@\n", serial.String(), "@ESC@", "\x1b").Replace(script)
}

var serialForm = regexp.MustCompile(`^ttyS([0-3])(?:,([0-9]+))?`)

// memdisk is the file system in the boot loader: a tar archive with the script.
func memdisk(script string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: "boot/grub/grub.cfg", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(script)), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = w.Write([]byte(script))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("grub: memdisk: %w", err)
	}
	return b.Bytes(), nil
}

// Places in boot.img and in the first sector of core.img (diskboot.img), as
// include/grub/i386/pc/boot.h of GRUB has them.
const (
	bootCode    = 440
	kernelAt    = 0x5c // boot.img: first sector of core.img, 8 bytes
	driveCheck  = 0x66 // boot.img: a jump that believes the BIOS about the drive's number
	firstListAt = 0x1f4
)

// coreSector is where core.img lies on every Ballast disk: the first partition
// begins at 1 MiB.
const coreSector = 2048

// embed makes boot code and core image know where the latter lies, as
// grub-bios-setup would. It changes core.
func embed(boot, core []byte) ([]byte, error) {
	le := binary.LittleEndian
	if len(boot) != 512 || len(core) < 1024 || len(core) > layout.SizeBIOS<<20 {
		return nil, fmt.Errorf("grub: boot.img has %d bytes, core.img %d", len(boot), len(core))
	}
	if le.Uint64(boot[kernelAt:]) != 1 || boot[driveCheck] != 0xeb || le.Uint64(core[firstListAt:]) != 2 {
		return nil, fmt.Errorf("grub: boot.img or core.img are of a form that is not known here: is it another version of GRUB?")
	}
	boot = bytes.Clone(boot)
	le.PutUint64(boot[kernelAt:], coreSector)
	// Some BIOSes pass a wrong number; no operation, twice, has it corrected.
	boot[driveCheck], boot[driveCheck+1] = 0x90, 0x90
	le.PutUint64(core[firstListAt:], coreSector+1)
	return boot[:bootCode], nil
}
