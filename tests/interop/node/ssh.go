package main

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	// Lets the client be an SSH server once its preference RunSSH is set.
	_ "tailscale.com/ssh/tailssh"
)

// sshLogin logs in at a peer's SSH server and says whether it let us in. What
// it tells the person at the prompt meanwhile comes as "ssh_banner" events too.
// No session is begun: that would need the daemon's own helper program.
func (n *node) sshLogin(ctx context.Context, r *request) (any, error) {
	var args struct {
		Addr string `json:"addr"`
		User string `json:"user"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	server, _, err := n.running()
	if err != nil {
		return nil, err
	}
	conn, err := server.Dial(ctx, "tcp", args.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if ends, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(ends)
	}
	var mu sync.Mutex
	var said strings.Builder
	opened, _, _, err := ssh.NewClientConn(conn, args.Addr, &ssh.ClientConfig{
		User:            args.User,
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // WireGuard has proved the peer
		BannerCallback: func(message string) error {
			mu.Lock()
			defer mu.Unlock()
			said.WriteString(message)
			n.w.event("ssh_banner", map[string]any{"text": message})
			return nil
		},
	})
	mu.Lock()
	defer mu.Unlock()
	answer := map[string]any{"accepted": err == nil, "said": said.String()}
	if err == nil {
		_ = opened.Close()
	} else {
		answer["error"] = err.Error()
	}
	return answer, nil
}
