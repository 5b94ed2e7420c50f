package main

import "ballast/init/applet"

// applets are the names that the binary answers to besides its own.
var applets = applet.Names
