package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// client is one official relay client. It writes one JSON object a line for everything that it
// hears and takes commands from stdin: "send KEYHEX DATAHEX", "ping", "preferred 0|1",
// "close-peer KEYHEX". It ends with stdin.
func client(args []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	url := flags.String("url", "", "URL of the relay, ending in /derp")
	region := flags.String("node", "", "instead of the URL a tailcfg.DERPNode as JSON")
	private := flags.String("key", "", "private key, 64 hex digits; without it a new one")
	meshKey := flags.String("mesh-key", "", "64 hex digits: be a mesh peer and watch")
	prober := flags.Bool("prober", false, "be a prober")
	verbose := flags.Bool("v", false, "log to stderr")
	flags.Parse(args)

	var mu sync.Mutex
	say := func(fields map[string]any) {
		mu.Lock()
		defer mu.Unlock()
		line, _ := json.Marshal(fields)
		fmt.Println(string(line))
	}
	logf := func(format string, a ...any) {
		if *verbose {
			fmt.Fprintf(os.Stderr, format+"\n", a...)
		}
	}
	own := key.NewNode()
	if *private != "" {
		if err := own.UnmarshalText([]byte("privkey:" + *private)); err != nil {
			return err
		}
	}
	var link *derphttp.Client
	if *region != "" {
		node := new(tailcfg.DERPNode)
		if err := json.Unmarshal([]byte(*region), node); err != nil {
			return err
		}
		whole := &tailcfg.DERPRegion{RegionID: node.RegionID, Nodes: []*tailcfg.DERPNode{node}}
		link = derphttp.NewRegionClient(own, logf, netmon.NewStatic(),
			func() *tailcfg.DERPRegion { return whole })
	} else {
		var err error
		if link, err = derphttp.NewClient(own, *url, logf, netmon.NewStatic()); err != nil {
			return err
		}
	}
	link.SetCanAckPings(true)
	link.IsProber = *prober
	if *meshKey != "" {
		parsed, err := key.ParseDERPMesh(*meshKey)
		if err != nil {
			return err
		}
		link.MeshKey = parsed
		link.WatchConnectionChanges = true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := link.Connect(ctx); err != nil {
		say(map[string]any{"event": "failed", "error": err.Error()})
		return nil
	}
	server := link.ServerPublicKey()
	fields := map[string]any{"event": "connected", "key": own.Public().UntypedHexString(),
		"server": server.UntypedHexString()}
	if state, ok := link.TLSConnectionState(); ok {
		fields["tls"] = state.Version
		fields["cipher"] = state.CipherSuite
	}
	say(fields)
	go func() {
		for {
			message, err := link.Recv()
			if err != nil {
				say(map[string]any{"event": "lost", "error": err.Error()})
				os.Exit(0)
			}
			say(describe(message))
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		if err := obey(link, strings.Fields(lines.Text()), say); err != nil {
			say(map[string]any{"event": "error", "error": err.Error()})
		}
	}
	return nil
}

func obey(link *derphttp.Client, words []string, say func(map[string]any)) error {
	parse := func(text string) (key.NodePublic, error) {
		return key.ParseNodePublicUntyped(memOf(text))
	}
	switch words[0] {
	case "send":
		to, err := parse(words[1])
		if err != nil {
			return err
		}
		data, err := hex.DecodeString(words[2])
		if err != nil {
			return err
		}
		return link.Send(to, data)
	case "ping":
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			if err := link.Ping(ctx); err != nil {
				say(map[string]any{"event": "error", "error": err.Error()})
			} else {
				say(map[string]any{"event": "ponged"})
			}
		}()
		return nil
	case "preferred":
		link.NotePreferred(words[1] == "1")
		return nil
	case "close-peer":
		target, err := parse(words[1])
		if err != nil {
			return err
		}
		return link.ClosePeer(target)
	}
	return fmt.Errorf("unknown command %q", words[0])
}

func describe(message derp.ReceivedMessage) map[string]any {
	switch m := message.(type) {
	case derp.ReceivedPacket:
		return map[string]any{"event": "packet", "from": m.Source.UntypedHexString(),
			"data": hex.EncodeToString(m.Data)}
	case derp.PeerGoneMessage:
		return map[string]any{"event": "gone", "key": m.Peer.UntypedHexString(), "reason": m.Reason}
	case derp.PeerPresentMessage:
		return map[string]any{"event": "present", "key": m.Key.UntypedHexString(),
			"address": m.IPPort.String(), "flags": m.Flags, "app": m.AppName}
	case derp.ServerInfoMessage:
		return map[string]any{"event": "server-info", "rate": m.TokenBucketBytesPerSecond,
			"burst": m.TokenBucketBytesBurst}
	case derp.KeepAliveMessage:
		return map[string]any{"event": "keep-alive"}
	case derp.HealthMessage:
		return map[string]any{"event": "health", "problem": m.Problem}
	case derp.ServerRestartingMessage:
		return map[string]any{"event": "restarting", "reconnect_ms": m.ReconnectIn.Milliseconds(),
			"try_ms": m.TryFor.Milliseconds()}
	case derp.PingMessage:
		return map[string]any{"event": "ping"}
	}
	return map[string]any{"event": fmt.Sprintf("%T", message)}
}

func init() { commands["client"] = client }
