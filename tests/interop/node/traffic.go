package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
)

// maxBody bounds what http_get and dial hand back.
const maxBody = 1 << 20

type listenArgs struct {
	Port int    `json:"port"`
	Kind string `json:"kind"` // "http" says who asked; "echo" sends everything back
}

func (n *node) listen(_ context.Context, r *request) (any, error) {
	var args listenArgs
	if err := r.args(&args); err != nil {
		return nil, err
	}
	server, _, err := n.running()
	if err != nil {
		return nil, err
	}
	listener, err := server.Listen("tcp", fmt.Sprintf(":%d", args.Port))
	if err != nil {
		return nil, err
	}
	switch args.Kind {
	case "http":
		web := &http.Server{Handler: http.HandlerFunc(n.whoAsked), ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = web.Serve(listener) }()
	case "echo":
		go echo(listener)
	default:
		listener.Close()
		return nil, fmt.Errorf("listen: unknown kind %q", args.Kind)
	}
	return listener.Addr().String(), nil
}

func echo(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// whoAsked answers every request with the asker's identity as this node knows it.
func (n *node) whoAsked(w http.ResponseWriter, req *http.Request) {
	_, client, err := n.running()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer := map[string]any{"from": req.RemoteAddr, "host": req.Host, "path": req.URL.Path}
	who, err := client.WhoIs(req.Context(), req.RemoteAddr)
	if err != nil {
		answer["error"] = err.Error()
	} else {
		answer["node"] = who.Node.Name
		answer["login"] = who.UserProfile.LoginName
		answer["tags"] = who.Node.Tags
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (n *node) httpGet(ctx context.Context, r *request) (any, error) {
	var args struct {
		URL string `json:"url"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	server, _, err := n.running()
	if err != nil {
		return nil, err
	}
	client := server.HTTPClient()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args.URL, nil)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"status": resp.StatusCode, "body": string(body), "seconds": time.Since(began).Seconds(),
	}, nil
}

// dial connects, sends a text and returns as many bytes as it sent.
func (n *node) dial(ctx context.Context, r *request) (any, error) {
	var args struct {
		Network string `json:"network"`
		Addr    string `json:"addr"`
		Send    string `json:"send"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	server, _, err := n.running()
	if err != nil {
		return nil, err
	}
	conn, err := server.Dial(ctx, args.Network, args.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, args.Send); err != nil {
		return nil, err
	}
	back := make([]byte, min(len(args.Send), maxBody))
	if _, err := io.ReadFull(conn, back); err != nil {
		return nil, err
	}
	return map[string]any{
		"received": string(back), "local": conn.LocalAddr().String(), "remote": conn.RemoteAddr().String(),
	}, nil
}

func (n *node) ping(ctx context.Context, r *request) (any, error) {
	var args struct {
		IP   string `json:"ip"`
		Type string `json:"type"` // disco, TSMP, ICMP, peerapi
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(args.IP)
	if err != nil {
		return nil, err
	}
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	return client.Ping(ctx, ip, tailcfg.PingType(args.Type))
}

func (n *node) whois(ctx context.Context, r *request) (any, error) {
	var args struct {
		Addr string `json:"addr"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	return client.WhoIs(ctx, args.Addr)
}

// resolve asks the client's own resolver, as a query to 100.100.100.100 would.
func (n *node) resolve(ctx context.Context, r *request) (any, error) {
	var args struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	raw, _, err := client.QueryDNS(ctx, args.Name, args.Type)
	if err != nil {
		return nil, err
	}
	var message dnsmessage.Message
	if err := message.Unpack(raw); err != nil {
		return nil, err
	}
	answers := []string{}
	for _, record := range message.Answers {
		switch body := record.Body.(type) {
		case *dnsmessage.AResource:
			answers = append(answers, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			answers = append(answers, netip.AddrFrom16(body.AAAA).String())
		case *dnsmessage.PTRResource:
			answers = append(answers, body.PTR.String())
		case *dnsmessage.TXTResource:
			answers = append(answers, body.TXT...)
		default:
			answers = append(answers, body.GoString())
		}
	}
	return map[string]any{"rcode": message.RCode.String(), "answers": answers}, nil
}

// dnsConfig tells the DNS configuration that control gave the client.
func (n *node) dnsConfig(ctx context.Context, _ *request) (any, error) {
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	bus, err := client.WatchIPNBus(ctx, ipn.NotifyInitialNetMap)
	if err != nil {
		return nil, err
	}
	defer bus.Close()
	for {
		notify, err := bus.Next()
		if err != nil {
			return nil, err
		}
		if notify.NetMap != nil {
			return notify.NetMap.DNS, nil
		}
	}
}

func (n *node) derpMap(ctx context.Context, _ *request) (any, error) {
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	return client.CurrentDERPMap(ctx)
}

func (n *node) metrics(ctx context.Context, _ *request) (any, error) {
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	text, err := client.DaemonMetrics(ctx)
	return string(text), err
}

func (n *node) logs(_ context.Context, r *request) (any, error) {
	var args struct {
		Lines int `json:"lines"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	n.logMu.Lock()
	defer n.logMu.Unlock()
	lines := n.logLines
	if args.Lines > 0 && len(lines) > args.Lines {
		lines = lines[len(lines)-args.Lines:]
	}
	return append([]string{}, lines...), nil
}

// debug runs one of the client's own debug actions, such as "rebind" or "restun".
func (n *node) debug(ctx context.Context, r *request) (any, error) {
	var args struct {
		Action string `json:"action"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	if args.Action == "" {
		return nil, errors.New("debug: say which action")
	}
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	return "done", client.DebugAction(ctx, args.Action)
}
