package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

// serve runs the official relay, mounted on net/http the way derper mounts it, until stdin ends.
// It prints "listening ADDRESS PUBLICKEY" once it accepts connections.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	addr := flags.String("a", "127.0.0.1:0", "address")
	pem := flags.String("pem", "", "file with certificate chain and key; without it plain HTTP")
	meshKey := flags.String("mesh-key", "", "64 hex digits")
	meshWith := flags.String("mesh-with", "", "URLs of the other relays, comma separated")
	verifyURL := flags.String("verify-url", "", "admission URL")
	verbose := flags.Bool("v", false, "log")
	flags.Parse(args)

	logf := func(string, ...any) {}
	if *verbose {
		logf = log.Printf
	}
	server := derpserver.New(key.NewNode(), logf)
	if *meshKey != "" {
		if err := server.SetMeshKey(*meshKey); err != nil {
			return err
		}
	}
	if *verifyURL != "" {
		server.SetVerifyClientURL(*verifyURL)
		server.SetVerifyClientURLFailOpen(false)
	}
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.Handler(server))
	mux.HandleFunc("/derp/probe", derpserver.ProbeHandler)
	mux.HandleFunc("/derp/latency-check", derpserver.ProbeHandler)
	mux.HandleFunc("/generate_204", derpserver.ServeNoContent)
	front := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	if *pem != "" {
		pair, err := tls.LoadX509KeyPair(*pem, *pem)
		if err != nil {
			return err
		}
		config := &tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil },
			NextProtos:     []string{"http/1.1"},
		}
		server.ModifyTLSConfigToAddMetaCert(config)
		listener = tls.NewListener(listener, config)
	}
	for _, url := range strings.Split(*meshWith, ",") {
		if url != "" {
			if err := mesh(server, url, logf); err != nil {
				return err
			}
		}
	}
	go front.Serve(listener)
	fmt.Println("listening", listener.Addr(), server.PublicKey().UntypedHexString())
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// mesh dials one other relay of the region for good, as derper does.
func mesh(server *derpserver.Server, url string, logf func(string, ...any)) error {
	link, err := derphttp.NewClient(server.PrivateKey(), url, logf, netmon.NewStatic())
	if err != nil {
		return err
	}
	link.MeshKey = server.MeshKey()
	link.WatchConnectionChanges = true
	present := func(m derp.PeerPresentMessage) { server.AddPacketForwarder(m.Key, link) }
	gone := func(m derp.PeerGoneMessage) { server.RemovePacketForwarder(m.Peer, link) }
	go link.RunWatchConnectionLoop(
		context.Background(), server.PublicKey(), logf, present, gone, func(error) {})
	return nil
}

func init() { commands["serve"] = serve }
