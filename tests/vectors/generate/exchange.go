package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync"

	"tailscale.com/control/controlbase"
	"tailscale.com/types/key"
)

// counted hands out bytes that a test can hand out as well.
type counted struct{ next byte }

func (c *counted) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.next
		c.next++
	}
	return len(p), nil
}

// tap keeps what is written to a connection.
type tap struct {
	net.Conn
	mu      sync.Mutex
	written []byte
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.written = append(t.written, p...)
	t.mu.Unlock()
	return t.Conn.Write(p)
}

func (t *tap) take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := hex.EncodeToString(t.written)
	t.written = nil
	return taken
}

func exchanges() []any {
	var all []any
	for _, version := range []uint16{1, 49, 142, 65535} {
		all = append(all, exchange(version))
	}
	return all
}

func exchange(version uint16) map[string]any {
	was := rand.Reader
	rand.Reader = &counted{next: byte(version)}
	defer func() { rand.Reader = was }()
	machine, control := key.NewMachine(), key.NewMachine()
	left, right := net.Pipe()
	client, server := &tap{Conn: left}, &tap{Conn: right}

	ctx := context.Background()
	initiation, proceed, err := controlbase.ClientDeferred(machine, control.Public(), version)
	check(err)
	type result struct {
		conn *controlbase.Conn
		err  error
	}
	accepted := make(chan result)
	go func() {
		conn, err := controlbase.Server(ctx, server, control, initiation)
		accepted <- result{conn, err}
	}()
	c := must(proceed(ctx, client))
	r := <-accepted
	check(r.err)
	s := r.conn
	hash := c.HandshakeHash()
	vector := map[string]any{
		"version": version,
		// Keys are drawn in this order: machine, control, client ephemeral, server ephemeral.
		"random_start":   byte(version),
		"machine":        machine.Public().String(),
		"control":        control.Public().String(),
		"initiation":     hex.EncodeToString(initiation),
		"response":       server.take(),
		"handshake_hash": hex.EncodeToString(hash[:]),
	}
	var records []any
	for _, size := range []int{1, 0, 300, 4077, 4078, 9000} {
		plaintext := []byte(strings.Repeat("x", size))
		records = append(records,
			record("server", size, send(c, s, client, plaintext)),
			record("client", size, send(s, c, server, plaintext)))
	}
	vector["records"] = records
	return vector
}

// record keeps the bytes of short records, and of long ones the hash.
func record(to string, size int, wire string) map[string]any {
	if size > 300 {
		sum := sha256.Sum256(must(hex.DecodeString(wire)))
		return map[string]any{"to": to, "size": size, "sha256": hex.EncodeToString(sum[:])}
	}
	return map[string]any{"to": to, "size": size, "wire": wire}
}

func send(from, to *controlbase.Conn, wire *tap, plaintext []byte) string {
	done := make(chan error)
	go func() {
		_, err := io.ReadFull(to, make([]byte, len(plaintext)))
		done <- err
	}()
	must(from.Write(plaintext))
	check(<-done)
	return wire.take()
}
