// Package configure tests the console's configure mode against the real
// configuration service, over its socket.
package configure
