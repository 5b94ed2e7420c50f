// Package check finds what is wrong with a configuration as a whole: things
// that no single line shows. It is pure: model in, problems out. Facts about
// the box are optional.
package check

import "ballast/configs/model"

// NIC is one network interface of the box.
type NIC struct {
	Name string
	MAC  string // lower case with colons
	PCI  string // "0000:00:02.0", empty for virtual devices
}

// Facts are what is known about the box that the configuration is for.
type Facts struct {
	Interfaces []NIC    // every link the kernel has, physical or not; nil: not known
	Files      []string // absolute paths of the script files present; nil: not known
	// Commands are names that a script can call without a file of its own
	// (shell built-ins and the commands of the image); nil: not known.
	Commands []string
	Box      string // how the operator reaches this box by ssh, for hints; empty: "BOX"
}

// Places finds where the text says what a path in the configuration names
// ("instance/VI_1/interface").
type Places func(path string) (model.Pos, bool)
