package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// streamDrain is how long a stopped stream waits for the echoes under way.
const streamDrain = 5 * time.Second

// stream is one TCP connection over the tailnet that carries numbered records
// to an echo server and back. It never reconnects: a broken stream stays broken,
// so that "the stream survived" means this very connection.
type stream struct {
	conn     net.Conn
	stopping chan struct{}
	sender   chan struct{} // closed when nothing more is sent
	done     chan struct{} // closed when nothing more is read

	mu       sync.Mutex
	sent     uint64
	received uint64
	bytes    uint64
	last     time.Time
	maxGap   time.Duration
	maxRTT   time.Duration
	failure  string
}

type streamArgs struct {
	Name       string `json:"name"`
	Addr       string `json:"addr"`
	IntervalMs int    `json:"interval_ms"`
	Size       int    `json:"size"` // bytes of one record, at least 16
}

func (n *node) streamStart(ctx context.Context, r *request) (any, error) {
	args := streamArgs{IntervalMs: 20, Size: 64}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	if args.Size < 16 || args.Size > 1<<20 || args.IntervalMs < 1 {
		return nil, fmt.Errorf("stream: size %d or interval %d out of range", args.Size, args.IntervalMs)
	}
	server, _, err := n.running()
	if err != nil {
		return nil, err
	}
	conn, err := server.Dial(ctx, "tcp", args.Addr)
	if err != nil {
		return nil, err
	}
	s := &stream{
		conn: conn, stopping: make(chan struct{}), sender: make(chan struct{}),
		done: make(chan struct{}), last: time.Now(),
	}
	n.mu.Lock()
	_, taken := n.streams[args.Name]
	if !taken {
		n.streams[args.Name] = s
	}
	n.mu.Unlock()
	if taken {
		conn.Close()
		return nil, fmt.Errorf("stream: %q runs already", args.Name)
	}
	go s.send(args)
	go s.receive(args.Size)
	return conn.LocalAddr().String(), nil
}

func (s *stream) fail(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == "" {
		s.failure = text
	}
}

func (s *stream) send(args streamArgs) {
	defer close(s.sender)
	tick := time.NewTicker(time.Duration(args.IntervalMs) * time.Millisecond)
	defer tick.Stop()
	record := make([]byte, args.Size)
	for {
		select {
		case <-s.stopping:
			return
		case <-s.done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		next := s.sent
		s.sent++
		s.mu.Unlock()
		binary.BigEndian.PutUint64(record, next)
		binary.BigEndian.PutUint64(record[8:], uint64(time.Now().UnixNano()))
		if _, err := s.conn.Write(record); err != nil {
			s.fail("write: " + err.Error())
			return
		}
	}
}

func (s *stream) receive(size int) {
	defer close(s.done)
	record := make([]byte, size)
	for {
		if _, err := io.ReadFull(s.conn, record); err != nil {
			select {
			case <-s.stopping: // our own close
			default:
				s.fail("read: " + err.Error())
			}
			return
		}
		now := time.Now()
		number := binary.BigEndian.Uint64(record)
		born := time.Unix(0, int64(binary.BigEndian.Uint64(record[8:])))
		s.mu.Lock()
		expected := s.received
		s.received++
		s.bytes += uint64(size)
		s.maxGap = max(s.maxGap, now.Sub(s.last))
		s.maxRTT = max(s.maxRTT, now.Sub(born))
		s.last = now
		s.mu.Unlock()
		if number != expected {
			s.fail(fmt.Sprintf("record %d came where %d was due", number, expected))
			return
		}
	}
}

func (s *stream) stats() map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]any{
		"sent": s.sent, "received": s.received, "bytes": s.bytes, "failure": s.failure,
		"silent_s": time.Since(s.last).Seconds(), "max_gap_s": s.maxGap.Seconds(), "max_rtt_s": s.maxRTT.Seconds(),
	}
}

func (n *node) findStream(r *request) (string, *stream, error) {
	var args streamArgs
	if err := r.args(&args); err != nil {
		return "", nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s, known := n.streams[args.Name]
	if !known {
		return "", nil, fmt.Errorf("stream: no %q", args.Name)
	}
	return args.Name, s, nil
}

func (n *node) streamStats(_ context.Context, r *request) (any, error) {
	_, s, err := n.findStream(r)
	if err != nil {
		return nil, err
	}
	return s.stats(), nil
}

// streamStop stops sending, waits for the echoes under way and says the totals.
func (n *node) streamStop(ctx context.Context, r *request) (any, error) {
	name, s, err := n.findStream(r)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	delete(n.streams, name)
	n.mu.Unlock()
	close(s.stopping)
	drained, cancel := context.WithTimeout(ctx, streamDrain)
	defer cancel()
	_ = until(drained, func() (bool, error) {
		select {
		case <-s.sender:
		default:
			return false, nil
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.received == s.sent || s.failure != "", nil
	})
	s.conn.Close()
	return s.stats(), nil
}
