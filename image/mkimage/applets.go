package main

import "ballast/init/applet/names"

// applets are the names that the binary answers to besides its own.
var applets = names.All
