// Package firmware holds the tests of firmware on disks, in QEMU: what boots,
// what an upgrade does, what is left after a crash. The library is in machine.
package firmware
