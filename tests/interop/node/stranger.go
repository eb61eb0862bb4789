package main

import (
	"context"
	"fmt"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

// relayStranger logs in to a relay as somebody with a fresh key, whom no tailnet
// knows, and says whether the relay took them. The node need not be up.
func (n *node) relayStranger(ctx context.Context, r *request) (any, error) {
	var args struct {
		URL string `json:"url"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	client, err := derphttp.NewClient(key.NewNode(), args.URL, n.logf, netmon.NewStatic())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := client.Connect(ctx); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	// The login itself says nothing; the relay's information follows, or the end.
	first := make(chan any, 1)
	go func() {
		message, err := client.Recv()
		if err != nil {
			first <- err
			return
		}
		first <- message
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case got := <-first:
		switch got := got.(type) {
		case derp.ServerInfoMessage:
			return map[string]any{"admitted": true}, nil
		case error:
			return map[string]any{"admitted": false, "error": got.Error()}, nil
		default:
			return nil, fmt.Errorf("the relay began with %T", got)
		}
	}
}
