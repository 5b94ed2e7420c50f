// Package access tests who may do what on a director: every verb of every
// service against every role of the console's users, with real sockets and
// real credentials.
package access
