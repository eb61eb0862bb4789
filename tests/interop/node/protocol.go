// Node is a stock client for the interop tests: one tsnet server, driven by
// JSON lines on standard input and answering with JSON lines on standard output.
//
// A request is {"id": 7, "cmd": "ping", ...arguments}; the answer is
// {"id": 7, "result": ...} or {"id": 7, "error": "..."}. Lines without an id
// are events: {"event": "peers", "at": <unix seconds>, ...}. Requests run side
// by side. The end of standard input ends the program, so that no node outlives
// the test that started it. "node serve SOCKET" listens on a Unix socket instead
// and "node call SOCKET REQUEST" asks it one thing (socket.go).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// maxLine bounds one request; the longest real one carries a few hundred bytes.
const maxLine = 1 << 20

// defaultTimeout ends a request that did not say how long it may take.
const defaultTimeout = 20 * time.Second

type request struct {
	ID       int64   `json:"id"`
	Cmd      string  `json:"cmd"`
	TimeoutS float64 `json:"timeout_s"`
	raw      []byte
}

// args decodes the command's own arguments.
func (r *request) args(into any) error { return json.Unmarshal(r.raw, into) }

type command func(ctx context.Context, r *request) (any, error)

// wire serialises answers and events.
type wire struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (w *wire) send(v any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A closed pipe means that the test is gone; the read side ends us.
	_ = w.out.Encode(v)
}

func (w *wire) event(name string, fields map[string]any) {
	fields["event"] = name
	fields["at"] = float64(time.Now().UnixNano()) / 1e9
	w.send(fields)
}

func (w *wire) answer(r *request, result any, err error) {
	if err != nil {
		w.send(map[string]any{"id": r.ID, "error": err.Error()})
		return
	}
	w.send(map[string]any{"id": r.ID, "result": result})
}

// serve reads requests until their source ends or "quit" arrives.
func serve(commands map[string]command, w *wire, source io.Reader) {
	lines := bufio.NewScanner(source)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		r := &request{raw: append([]byte(nil), lines.Bytes()...)}
		if err := json.Unmarshal(r.raw, r); err != nil {
			w.event("bad_request", map[string]any{"error": err.Error()})
			continue
		}
		if r.Cmd == "quit" {
			w.answer(r, "bye", nil)
			return
		}
		run, known := commands[r.Cmd]
		if !known {
			w.answer(r, nil, fmt.Errorf("unknown command %q", r.Cmd))
			continue
		}
		go func() {
			timeout := defaultTimeout
			if r.TimeoutS > 0 {
				timeout = time.Duration(r.TimeoutS * float64(time.Second))
			}
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			result, err := run(ctx, r)
			if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				err = fmt.Errorf("after %v: %w", timeout, err)
			}
			w.answer(r, result, err)
		}()
	}
}

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "call":
		exitOn(callSocket(os.Args[2], os.Args[3], os.Stdout))
	case len(os.Args) == 3 && os.Args[1] == "serve":
		// What is not an answer goes to the journal.
		n := newNode(&wire{out: json.NewEncoder(os.Stdout)})
		defer n.close()
		exitOn(serveSocket(os.Args[2], n.commands()))
	default:
		w := &wire{out: json.NewEncoder(os.Stdout)}
		n := newNode(w)
		defer n.close()
		w.event("ready", map[string]any{"pid": os.Getpid(), "version": clientVersion()})
		serve(n.commands(), w, os.Stdin)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (n *node) commands() map[string]command {
	return map[string]command{
		"up": n.up, "close": n.shut, "down": n.down, "resume": n.resume,
		"status": n.status, "prefs": n.prefs, "edit_prefs": n.editPrefs,
		"logout": n.logout, "rotate": n.rotate, "login": n.login,
		"listen": n.listen, "dial": n.dial, "http_get": n.httpGet,
		"stream_start": n.streamStart, "stream_stats": n.streamStats, "stream_stop": n.streamStop,
		"ping": n.ping, "whois": n.whois, "resolve": n.resolve, "ssh_login": n.sshLogin,
		"derp_map": n.derpMap, "dns_config": n.dnsConfig, "metrics": n.metrics, "logs": n.logs, "debug": n.debug, "relay_stranger": n.relayStranger,
	}
}
