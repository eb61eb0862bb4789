// Command derptool is the tests' side of the relay on the official Go packages: a server to compare
// with, a client to be driven line by line, a load generator and a writer of golden vectors.
//
// It is built by tests/relay/gotool.py, on older releases with fewer commands; nothing of it is part
// of the program.
package main

import (
	"fmt"
	"os"
)

// commands is filled by the files that are built in.
var commands = map[string]func([]string) error{}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: derptool COMMAND [flags]; commands:")
		for name := range commands {
			fmt.Fprintln(os.Stderr, "  ", name)
		}
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "derptool:", err)
		os.Exit(1)
	}
}
