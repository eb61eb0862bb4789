// Command derptool is the tests' side of the relay on the official Go packages: a server to compare
// with, a client to be driven line by line, a load generator and a writer of golden vectors.
//
// It is built by tests/relay/gotool.py; nothing of it is part of the program.
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"serve":   serve,
		"client":  client,
		"load":    load,
		"vectors": vectors,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: derptool serve|client|load|vectors [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "derptool:", err)
		os.Exit(1)
	}
}
