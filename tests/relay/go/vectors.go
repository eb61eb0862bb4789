package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"time"

	"go4.org/mem"
	"tailscale.com/derp"
	"tailscale.com/net/stun"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

func memOf(text string) mem.RO { return mem.S(text) }

// replay is a connection on which the official client hears what it is given; what it writes is kept.
type replay struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *replay) Read(b []byte) (int, error)         { return c.in.Read(b) }
func (c *replay) Write(b []byte) (int, error)        { return c.out.Write(b) }
func (c *replay) Close() error                       { return nil }
func (c *replay) LocalAddr() net.Addr                { return nil }
func (c *replay) SetDeadline(time.Time) error        { return nil }
func (c *replay) SetReadDeadline(time.Time) error    { return nil }
func (c *replay) SetWriteDeadline(t time.Time) error { return nil }

// vectors prints golden bytes of the official packages as JSON: every frame that a client writes,
// a whole login with its private keys, and what the client reads out of a server's frames.
func vectors(args []string) error {
	own, server, peer, other := key.NewNode(), key.NewNode(), key.NewNode(), key.NewNode()
	hexOf := func(b []byte) string { return hex.EncodeToString(b) }
	secret := func(k key.NodePrivate) string {
		text, _ := k.MarshalText()
		return string(bytes.TrimPrefix(text, []byte("privkey:")))
	}
	frames := map[string]string{}
	meshKey := make([]byte, 32)
	rand.Read(meshKey)
	mesh, err := key.ParseDERPMesh(hexOf(meshKey))
	if err != nil {
		return err
	}
	take := func(name string, opts []derp.ClientOpt, use func(*derp.Client) error) error {
		conn := &replay{in: bytes.NewReader(nil)}
		rw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
		opts = append(opts, derp.ServerPublicKey(server.Public()))
		link, err := derp.NewClient(own, conn, rw, logger.Discard, opts...)
		if err != nil {
			return err
		}
		rw.Flush()
		if use != nil {
			conn.out.Reset()
			if err := use(link); err != nil {
				return err
			}
			rw.Flush()
		}
		frames[name] = hexOf(conn.out.Bytes())
		return nil
	}
	packet := []byte("\x00\x01a packet of some bytes")
	steps := []struct {
		name string
		opts []derp.ClientOpt
		use  func(*derp.Client) error
	}{
		{"client-info", []derp.ClientOpt{derp.CanAckPings(true)}, nil},
		{"client-info-mesh", []derp.ClientOpt{derp.MeshKey(mesh)}, nil},
		{"client-info-prober", []derp.ClientOpt{derp.IsProber(true), derp.AppName("prober 1")}, nil},
		{"send-packet", nil, func(c *derp.Client) error { return c.Send(peer.Public(), packet) }},
		{"forward-packet", nil, func(c *derp.Client) error {
			return c.ForwardPacket(peer.Public(), other.Public(), derp.LoanBytes(packet))
		}},
		{"ping", nil, func(c *derp.Client) error { return c.SendPing([8]byte{1, 2, 3, 4, 5, 6, 7, 8}) }},
		{"pong", nil, func(c *derp.Client) error { return c.SendPong([8]byte{8, 7, 6, 5, 4, 3, 2, 1}) }},
		{"note-preferred-yes", nil, func(c *derp.Client) error { return c.NotePreferred(true) }},
		{"note-preferred-no", nil, func(c *derp.Client) error { return c.NotePreferred(false) }},
		{"watch-conns", nil, func(c *derp.Client) error { return c.WatchConnectionChanges() }},
		{"close-peer", nil, func(c *derp.Client) error { return c.ClosePeer(peer.Public()) }},
	}
	for _, step := range steps {
		if err := take(step.name, step.opts, step.use); err != nil {
			return err
		}
	}
	var tx stun.TxID
	copy(tx[:], "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b")
	recorded, err := record(server, own, peer, mesh)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	return encoder.Encode(map[string]any{
		"keys": map[string]string{
			"client_private": secret(own), "client": own.Public().UntypedHexString(),
			"server_private": secret(server), "server": server.Public().UntypedHexString(),
			"peer": peer.Public().UntypedHexString(), "other": other.Public().UntypedHexString(),
			"mesh": hexOf(meshKey),
		},
		"packet": hexOf(packet),
		"frames": frames,
		"server": recorded,
		"stun": map[string]string{
			"request":     hexOf(stun.Request(tx)),
			"response_v4": hexOf(stun.Response(tx, netip.MustParseAddrPort("1.2.3.4:5678"))),
			"response_v6": hexOf(stun.Response(tx, netip.MustParseAddrPort("[2001:db8::7]:41641"))),
		},
	})
}

func init() { commands["vectors"] = vectors }
