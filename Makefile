# Ballast. Every target works on a plain Debian or Ubuntu machine with Go.

BOARD ?= qemu

.PHONY: all ballast image kernel-pin check lab lab-tools test

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

# Two directors, a client and real servers in QEMU, and a live view of them.
# CONFIG=path.conf runs that keepalived.conf; PEER=path.conf is the second box's.
lab: lab-tools image
	go run ./test/lab/cmd/lab $(if $(CONFIG),-config $(CONFIG)) $(if $(PEER),-peer $(PEER)) $(LABFLAGS)

# Install what the lab and the tests need (QEMU) where that is missing.
lab-tools:
	go run ./test/lab/cmd/lab -install

# Everything: unit tests, virtual machines, and the scenarios on a director pair.
test: lab-tools image
	go test $$(go list ./... | grep -v /test/scenario)
	go test -timeout 40m ./test/scenario
