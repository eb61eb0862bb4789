package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// corked is a connection whose writes can be held back, so that a burst of packets, each in a TLS
// record of its own as the official client sends them, reaches the relay in one piece.
type corked struct {
	net.Conn
	mu   sync.Mutex
	held bool
	data []byte
}

func (c *corked) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return c.Conn.Write(b)
	}
	c.data = append(c.data, b...)
	return len(b), nil
}

func (c *corked) hold() { c.mu.Lock(); c.held = true; c.mu.Unlock() }

func (c *corked) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	c.Conn.Write(c.data)
	c.data = c.data[:0]
}

type end struct {
	*derp.Client
	cork *corked
	conn net.Conn
	key  key.NodePublic
}

// dial connects one official client (package derp) with a minimal HTTP upgrade in front.
func dial(addr string, useTLS bool) (*end, error) {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	cork := &corked{Conn: raw}
	var conn net.Conn = cork
	if useTLS {
		conn = tls.Client(cork, &tls.Config{InsecureSkipVerify: true})
	}
	rw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	fmt.Fprintf(rw, "GET /derp HTTP/1.1\r\nHost: %s\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n", addr)
	if err := rw.Flush(); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(rw.Reader, nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("relay answered %s", answer.Status)
	}
	own := key.NewNode()
	link, err := derp.NewClient(own, conn, rw, logger.Discard)
	if err != nil {
		return nil, err
	}
	if message, err := link.Recv(); err != nil {
		return nil, err
	} else if _, ok := message.(derp.ServerInfoMessage); !ok {
		return nil, fmt.Errorf("first message is %T", message)
	}
	return &end{link, cork, conn, own.Public()}, nil
}

type result struct {
	Delivered int64   `json:"delivered"`
	Lost      int64   `json:"lost"`
	Wrong     int64   `json:"wrong"`
	Seconds   float64 `json:"seconds"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	Connected int     `json:"connected"`
}

// load drives a relay. It prints "ready" when all clients are connected and begins at a line on
// stdin, so that the caller can read the server's CPU time at both ends; then one line of JSON.
func load(args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	addr := flags.String("a", "", "address of the relay")
	useTLS := flags.Bool("tls", false, "use TLS")
	pairs := flags.Int("pairs", 20, "pairs of sender and receiver")
	window := flags.Int("window", 8, "packets in flight per pair")
	burst := flags.Int("burst", 0, "instead: exactly so many packets per wake of the relay")
	rate := flags.Int("rate", 0, "instead: packets a second per pair")
	size := flags.Int("size", 1400, "bytes of a packet")
	seconds := flags.Float64("seconds", 3, "how long")
	idle := flags.Int("idle", 0, "instead: hold so many idle connections until stdin ends")
	connects := flags.Int("connects", 0, "instead: connect and leave so many times")
	flags.Parse(args)

	stdin := bufio.NewReader(os.Stdin)
	begin := func() { fmt.Println("ready"); stdin.ReadString('\n') }
	if *idle > 0 {
		return holdIdle(*addr, *useTLS, *idle, stdin)
	}
	if *connects > 0 {
		begin()
		return connectOften(*addr, *useTLS, *connects)
	}
	run := &runner{size: *size, window: *window, burst: *burst, rate: *rate}
	for range *pairs {
		from, err := dial(*addr, *useTLS)
		if err != nil {
			return err
		}
		to, err := dial(*addr, *useTLS)
		if err != nil {
			return err
		}
		run.pairs = append(run.pairs, [2]*end{from, to})
	}
	begin()
	out := run.run(time.Duration(*seconds * float64(time.Second)))
	out.Connected = 2 * *pairs
	return json.NewEncoder(os.Stdout).Encode(out)
}

type runner struct {
	pairs                     [][2]*end
	size, window, burst, rate int
	stop                      atomic.Bool
	delivered, sent, wrong    atomic.Int64
	mu                        sync.Mutex
	latencies                 []time.Duration
}

func (r *runner) run(d time.Duration) result {
	var senders sync.WaitGroup
	started := time.Now()
	for _, pair := range r.pairs {
		tokens := make(chan struct{}, 1<<16)
		go r.receive(pair[0].key, pair[1], tokens)
		senders.Add(1)
		go func() {
			defer senders.Done()
			r.send(pair[0], pair[1].key, tokens)
		}()
	}
	time.Sleep(d)
	r.stop.Store(true)
	took := time.Since(started)
	delivered := r.delivered.Load()
	done := make(chan struct{})
	go func() { senders.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
	}
	time.Sleep(200 * time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.latencies)
	at := func(q float64) float64 {
		if len(r.latencies) == 0 {
			return 0
		}
		return float64(r.latencies[int(q*float64(len(r.latencies)-1))].Nanoseconds()) / 1e3
	}
	return result{
		Delivered: delivered, Lost: r.sent.Load() - r.delivered.Load(), Wrong: r.wrong.Load(),
		Seconds: took.Seconds(), P50: at(0.5), P99: at(0.99),
	}
}

// send fills each packet with a number, the time, and a pattern that depends on the number.
func (r *runner) send(from *end, to key.NodePublic, tokens chan struct{}) {
	packet := make([]byte, r.size)
	number := uint64(0)
	one := func() {
		binary.BigEndian.PutUint64(packet, number)
		binary.BigEndian.PutUint64(packet[8:], uint64(time.Now().UnixNano()))
		packet[16] = byte(number)
		packet[len(packet)-1] = byte(number * 7)
		number++
		r.sent.Add(1)
		if from.Send(to, packet) != nil {
			r.stop.Store(true)
		}
	}
	switch {
	case r.rate > 0:
		next := time.Now()
		for !r.stop.Load() {
			one()
			next = next.Add(time.Second / time.Duration(r.rate))
			time.Sleep(time.Until(next))
		}
	case r.burst > 0:
		for !r.stop.Load() {
			from.cork.hold()
			for range r.burst {
				one()
			}
			from.cork.release()
			for range r.burst {
				<-tokens
			}
		}
	default:
		for range r.window {
			one()
		}
		for !r.stop.Load() {
			<-tokens
			one()
		}
	}
}

func (r *runner) receive(from key.NodePublic, to *end, tokens chan struct{}) {
	next := uint64(0)
	var latencies []time.Duration
	for {
		message, err := to.Recv()
		if err != nil {
			break
		}
		packet, ok := message.(derp.ReceivedPacket)
		if !ok {
			continue
		}
		number := binary.BigEndian.Uint64(packet.Data)
		if packet.Source != from || len(packet.Data) != r.size || number < next ||
			packet.Data[16] != byte(number) || packet.Data[len(packet.Data)-1] != byte(number*7) {
			r.wrong.Add(1)
		}
		next = number + 1
		r.delivered.Add(1)
		if r.rate > 0 || number%64 == 0 {
			sent := time.Unix(0, int64(binary.BigEndian.Uint64(packet.Data[8:])))
			latencies = append(latencies, time.Since(sent))
			if len(latencies) == 256 {
				r.mu.Lock()
				r.latencies = append(r.latencies, latencies...)
				r.mu.Unlock()
				latencies = latencies[:0]
			}
		}
		select {
		case tokens <- struct{}{}:
		default:
		}
	}
}

func holdIdle(addr string, useTLS bool, count int, stdin io.Reader) error {
	var group sync.WaitGroup
	var failed atomic.Int64
	held := make([]*end, count) // what nobody refers to is collected, and closed by that
	slots := make(chan struct{}, 8)
	for number := range count {
		group.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; group.Done() }()
			var err error
			if held[number], err = dial(addr, useTLS); err != nil {
				failed.Add(1)
			}
		}()
	}
	group.Wait()
	fmt.Println("ready", count-int(failed.Load()))
	io.Copy(io.Discard, stdin)
	runtime.KeepAlive(held)
	return nil
}

func connectOften(addr string, useTLS bool, count int) error {
	started := time.Now()
	var group sync.WaitGroup
	var good atomic.Int64
	for range 2 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range count / 2 {
				if one, err := dial(addr, useTLS); err == nil {
					good.Add(1)
					one.conn.Close()
				}
			}
		}()
	}
	group.Wait()
	return json.NewEncoder(os.Stdout).Encode(result{
		Connected: int(good.Load()), Seconds: time.Since(started).Seconds()})
}

func init() { commands["load"] = load }
