// Reads compose files as Docker does, and prints what they mean as JSON. Not for running them.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithName("headwater"))
	if err == nil {
		project, failure := options.LoadProject(context.Background())
		if failure == nil {
			text, failure := project.MarshalJSON()
			if failure == nil {
				fmt.Println(string(text))
				return
			}
		}
		err = failure
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
