package main

// applets are the names that the binary answers to.
var applets []string
