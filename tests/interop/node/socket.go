package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// serveSocket serves requests from everybody who connects to a Unix socket,
// for stories on whole machines, where a shell command asks one thing at a
// time. The node lives until the program is told to end.
func serveSocket(path string, commands map[string]command) error {
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		listener.Close()
	}()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			w := &wire{out: json.NewEncoder(conn)}
			serve(commands, w, conn)
		}()
	}
}

// callSocket sends one request and prints the answer, which is the first line
// that has an id.
func callSocket(path, text string, out io.Writer) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, text); err != nil {
		return err
	}
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("no answer: %w", err)
		}
		var answer struct {
			ID int64 `json:"id"`
		}
		if json.Unmarshal(line, &answer) == nil && answer.ID != 0 {
			_, err = out.Write(line)
			return err
		}
	}
}
