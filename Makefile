# Ballast. Every target works on a plain Debian or Ubuntu machine with Go.

BOARD ?= qemu

.PHONY: all ballast image secureboot-keys kernel-pin packages-pin reference check lab lab-tools test-tools test fuzz bench soak

all: ballast image

# The one static binary.
ballast:
	go run ./image/mkimage binary -o out/ballast

# Everything for a board in out/image/BOARD: disk image, upgrade bundle, netboot
# tree, SBOM, lock file, sums (docs/image.md; boards: docs/boards.md). KEY=FILE signs the upgrade
# bundle (default ~/.config/ballast/firmware.key, made at the first use); FILE,FILE
# with two keys. TRUST=FILE has public keys that the firmware takes besides.
image:
	go run ./image/mkimage image $(if $(SIGN),-sign $(SIGN)) -board $(BOARD) -o out/image/$(BOARD) $(if $(KEY),-key $(KEY)) $(if $(TRUST),-trust $(TRUST))

# Keys for UEFI Secure Boot, in a folder of yours that nobody else reads: KEYS=folder.
# "make image SIGN=folder" signs with them. docs/security.md has the whole way.
secureboot-keys:
	go run ./image/mkimage secureboot-keys -o $(KEYS)

# Move image/kernel/kernel.lock to the newest kernel that the machine's package
# sources offer.
kernel-pin:
	go run ./image/mkimage pin

# The same for image/packages/packages.lock: boot loader and so on.
packages-pin:
	go run ./image/mkimage packages

# The reference manual of the configuration, from its keyword table. A test of
# make check fails when it is not current.
reference:
	go run ./configs/schema/cmd/manual docs/reference

# Build, vet, staticcheck and unit tests. The tests of VRRP, of links and of
# marks work in network namespaces: run it as root.
check: test-tools
	go build ./...
	go vet ./...
	go tool staticcheck ./...
	go test -short ./...

# Two directors, a client and real servers in QEMU, and a live view of them.
# CONFIG=path.conf runs that keepalived.conf; PEER=path.conf is the second box's.
lab: lab-tools image
	go run ./test/lab/cmd/lab $(if $(CONFIG),-config $(CONFIG)) $(if $(PEER),-peer $(PEER)) $(LABFLAGS)

# Install what the lab needs (QEMU) where it is missing.
lab-tools:
	go run ./test/lab/cmd/lab -install

# And what the tests need: keepalived, tshark, ipvsadm, nft and so on.
test-tools:
	go run ./test/lab/cmd/lab -install -tests

# Everything: unit tests, virtual machines, and the scenarios on a director pair.
# A failure does not keep the rest from running: one run tells all. The output is
# in out/test.log too, and the beginning of what each failed test said comes again
# at the end; .ci/tests tells what happens to a test that fails.
test: test-tools image
	@.ci/tests packages "$$(go list ./... | grep -v -e /test/scenario -e /test/firmware$$ | tr '\n' ' ')" \
		firmware ./test/firmware scenario ./test/scenario

# Every Fuzz target of the repository, one after the other; goes on when one
# fails and names it at the end. FUZZTIME=10m for longer, FUZZFLAGS=-parallel=1
# to leave the machine room. What fails is kept in the package's testdata/fuzz.
# Without -fuzzminimizetime Go spends a minute on making the first new input
# shorter, which is all of the time that there is.
# "context deadline exceeded" and no input in testdata/fuzz: no fault of ours, Go
# tripped over the end of the time (golang/go issue 75804, mended in Go 1.27).
FUZZTIME ?= 20s

fuzz:
	@failed=; \
	for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$dir/*_test.go); do \
			echo "== $$dir $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $(FUZZFLAGS) $$dir || failed="$$failed $$dir:$$name"; \
		done; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

# Figures of ours beside the keepalived found on this machine, in one lab; the
# table is also in out/bench.txt. BENCHFLAGS=-quick is two rows, -n 3 three runs.
bench: test-tools ballast image
	go run ./test/bench/cmd/bench $(BENCHFLAGS)

# Break a pair at random for an hour and see that it recovers.
# SOAKFLAGS="-duration 24h -seed 7" for other lengths, or for the same faults again.
# Before that the power is cut 20 times during upgrades; CUTFLAGS="-cuts 100 -cutseed 7".
CUTFLAGS ?= -cuts 20

soak: lab-tools test-tools image
	go test -timeout 60m -v -run TestUpgradePowerCut ./test/firmware $(CUTFLAGS)
	go run ./test/bench/cmd/soak $(SOAKFLAGS)
