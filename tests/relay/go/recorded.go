package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"sync"

	"tailscale.com/derp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// tape is the client's end of a pipe to the official server; it keeps what the server sent.
type tape struct {
	net.Conn
	mu   sync.Mutex
	kept bytes.Buffer
}

func (t *tape) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.mu.Lock()
	t.kept.Write(b[:n])
	t.mu.Unlock()
	return n, err
}

// frame takes the first recorded frame of this type off the tape.
func (t *tape) frame(kind derp.FrameType) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for rest := t.kept.Bytes(); len(rest) >= 5; {
		size := 5 + int(rest[1])<<24 + int(rest[2])<<16 + int(rest[3])<<8 + int(rest[4])
		if derp.FrameType(rest[0]) == kind {
			return hex.EncodeToString(rest[:size]), nil
		}
		rest = rest[size:]
	}
	return "", fmt.Errorf("no frame of type %#x was recorded", kind)
}

// record talks to the official server over pipes and gives the frames that it sent, by name.
func record(serverKey, own, peer key.NodePrivate, mesh key.DERPMesh) (map[string]string, error) {
	server := derpserver.New(serverKey, logger.Discard)
	defer server.Close()
	text := mesh.String()
	if err := server.SetMeshKey(text); err != nil {
		return nil, err
	}
	join := func(private key.NodePrivate, addr string, opts ...derp.ClientOpt) (*derp.Client, *tape, error) {
		near, far := net.Pipe()
		farRW := bufio.NewReadWriter(bufio.NewReader(far), bufio.NewWriter(far))
		go server.Accept(context.Background(), far, farRW, addr)
		tape := &tape{Conn: near}
		rw := bufio.NewReadWriter(bufio.NewReader(tape), bufio.NewWriter(tape))
		link, err := derp.NewClient(private, tape, rw, logger.Discard, opts...)
		if err != nil {
			return nil, nil, err
		}
		rw.Flush()
		_, err = link.Recv() // ServerInfo
		return link, tape, err
	}
	frames := map[string]string{}
	keep := func(name string, link *derp.Client, tape *tape, kind derp.FrameType) error {
		for {
			found, err := tape.frame(kind)
			if err == nil {
				frames[name] = found
				return nil
			}
			if _, err := link.Recv(); err != nil && err != io.EOF {
				return err
			}
		}
	}
	first, firstTape, err := join(own, "192.0.2.1:1001")
	if err != nil {
		return nil, err
	}
	second, _, err := join(peer, "[2001:db8::2]:1002")
	if err != nil {
		return nil, err
	}
	watcher, watcherTape, err := join(key.NewNode(), "192.0.2.3:1003", derp.MeshKey(mesh))
	if err != nil {
		return nil, err
	}
	if err := keep("server-key", first, firstTape, derp.FrameServerKey); err != nil {
		return nil, err
	}
	if err := keep("server-info", first, firstTape, derp.FrameServerInfo); err != nil {
		return nil, err
	}
	if err := second.Send(own.Public(), []byte("\x00\x01a packet of some bytes")); err != nil {
		return nil, err
	}
	if err := keep("recv-packet", first, firstTape, derp.FrameRecvPacket); err != nil {
		return nil, err
	}
	if err := first.SendPing([8]byte{1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		return nil, err
	}
	if err := keep("pong", first, firstTape, derp.FramePong); err != nil {
		return nil, err
	}
	disco := append([]byte("TS\xf0\x9f\x92\xac"), make([]byte, 60)...)
	if err := first.Send(key.NewNode().Public(), disco); err != nil {
		return nil, err
	}
	if err := keep("peer-gone-not-here", first, firstTape, derp.FramePeerGone); err != nil {
		return nil, err
	}
	if err := watcher.WatchConnectionChanges(); err != nil {
		return nil, err
	}
	late, _, err := join(key.NewNode(), "[2001:db8::4]:1004", derp.AppName("an app"), derp.IsProber(true))
	if err != nil {
		return nil, err
	}
	_ = late
	for {
		message, err := watcher.Recv()
		if err != nil {
			return nil, err
		}
		if present, ok := message.(derp.PeerPresentMessage); ok && present.AppName != "" {
			break
		}
	}
	// The last PeerPresent on the tape is the late one; take it by its application name.
	watcherTape.mu.Lock()
	all := watcherTape.kept.Bytes()
	at := bytes.LastIndex(all, []byte("an app"))
	frames["peer-present"] = hex.EncodeToString(all[at-57 : at+6])
	watcherTape.mu.Unlock()
	return frames, nil
}
