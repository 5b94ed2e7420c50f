// Package boot holds the tests of the image as a whole: it boots in QEMU, comes
// up, mends itself and ends in order.
package boot
