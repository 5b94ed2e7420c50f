# Ballast. Every target works on a plain Debian or Ubuntu machine with Go.

BOARD ?= qemu

.PHONY: all ballast image kernel-pin check

all: ballast image

# The one static binary.
ballast:
	go run ./image/mkimage binary -o out/ballast

# Kernel and initramfs for a board, in out/image/BOARD.
image:
	go run ./image/mkimage image -board $(BOARD) -o out/image/$(BOARD)

# Move image/kernel/kernel.lock to the newest kernel that the machine's package
# sources offer.
kernel-pin:
	go run ./image/mkimage pin

# Build, vet, staticcheck and unit tests.
check:
	go build ./...
	go vet ./...
	go tool staticcheck ./...
	go test -short ./...
