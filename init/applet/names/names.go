// Package names lists the commands that the one binary answers to besides its
// own. It is data only: the image, which links them, does not build what they
// do.
package names

// All are the names, sorted.
var All = []string{
	"ash", "bash", "curl", "cut", "dash", "kill", "killall", "logger", "mail", "mailx", "nc", "pgrep", "pidof", "ping", "ping6",
	"pkill", "ps", "service", "sh", "systemctl",
}
