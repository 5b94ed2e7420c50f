// Package pair holds the tests of two boxes that share a configuration: conf in
// a process of its own for each box, which the tests kill at every step of a
// commit, the real wire between them, and services that do as they are told.
package pair
