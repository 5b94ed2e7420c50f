// Package packets holds the test of a capture from end to end: the user's own
// ssh, the console, the service, the kernel, and the user's tshark.
package packets
