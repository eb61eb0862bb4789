package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/version"
)

// notifyPeerChanges asks newer clients for peer additions on the bus. Older
// ones do not know the bit and send those events anyway.
const notifyPeerChanges ipn.NotifyWatchOpt = 1 << 12

// pollPeers is how often the peer list is read besides the bus events.
const pollPeers = 100 * time.Millisecond

// keptLogLines bounds what "logs" can return; the file in the node's
// directory has everything.
const keptLogLines = 4000

var errNotUp = errors.New("the node was not started: send \"up\" first")

func clientVersion() string { return version.Short() }

type node struct {
	w *wire

	mu      sync.Mutex
	server  *tsnet.Server
	upWith  upArgs
	stop    context.CancelFunc
	streams map[string]*stream

	logMu    sync.Mutex
	logFile  *os.File
	logLines []string
}

func newNode(w *wire) *node {
	return &node{w: w, streams: map[string]*stream{}}
}

// logf keeps the client's log in a file and in memory, never on the protocol.
func (n *node) logf(format string, args ...any) {
	line := time.Now().Format("15:04:05.000 ") + fmt.Sprintf(format, args...)
	n.logMu.Lock()
	defer n.logMu.Unlock()
	n.logLines = append(n.logLines, line)
	if len(n.logLines) > keptLogLines {
		n.logLines = n.logLines[len(n.logLines)-keptLogLines:]
	}
	if n.logFile != nil {
		fmt.Fprintln(n.logFile, line)
	}
}

func (n *node) running() (*tsnet.Server, *local.Client, error) {
	n.mu.Lock()
	server := n.server
	n.mu.Unlock()
	if server == nil {
		return nil, nil, errNotUp
	}
	client, err := server.LocalClient()
	return server, client, err
}

type upArgs struct {
	ControlURL string   `json:"control_url"`
	AuthKey    string   `json:"auth_key"`
	Hostname   string   `json:"hostname"`
	Dir        string   `json:"dir"`
	Ephemeral  bool     `json:"ephemeral"`
	Tags       []string `json:"tags"`
	Port       uint16   `json:"port"`
	NoWait     bool     `json:"no_wait"`
}

// up starts the client and waits until it is running. A client that control
// refuses answers with the text that its user would see.
func (n *node) up(ctx context.Context, r *request) (any, error) {
	var args upArgs
	if err := r.args(&args); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(args.Dir, 0o700); err != nil {
		return nil, err
	}
	n.mu.Lock()
	if n.server != nil {
		n.mu.Unlock()
		return nil, errors.New("the node is up already")
	}
	logFile, err := os.OpenFile(filepath.Join(args.Dir, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.mu.Unlock()
		return nil, err
	}
	n.logMu.Lock()
	n.logFile = logFile
	n.logMu.Unlock()
	n.server = &tsnet.Server{
		Dir: args.Dir, Hostname: args.Hostname, Ephemeral: args.Ephemeral,
		AuthKey: args.AuthKey, ControlURL: args.ControlURL,
		AdvertiseTags: args.Tags, Port: args.Port,
		Logf: n.logf, UserLogf: n.logf,
	}
	n.upWith = args
	server := n.server
	watching, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.mu.Unlock()

	if err := server.Start(); err != nil {
		return nil, err
	}
	client, err := server.LocalClient()
	if err != nil {
		return nil, err
	}
	go n.watch(watching, client)
	if args.NoWait {
		return client.Status(ctx)
	}
	return server.Up(ctx)
}

func (n *node) close() {
	n.mu.Lock()
	server, stop := n.server, n.stop
	n.server, n.stop = nil, nil
	n.mu.Unlock()
	if stop != nil {
		stop()
	}
	if server != nil {
		_ = server.Close()
	}
}

func (n *node) shut(context.Context, *request) (any, error) {
	n.close()
	return "closed", nil
}

func (n *node) status(ctx context.Context, _ *request) (any, error) {
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	return client.Status(ctx)
}

func (n *node) prefs(ctx context.Context, _ *request) (any, error) {
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	return client.GetPrefs(ctx)
}

// editPrefs takes {"prefs": <MaskedPrefs>}, for instance {"Hostname": "x", "HostnameSet": true}.
func (n *node) editPrefs(ctx context.Context, r *request) (any, error) {
	var args struct {
		Prefs ipn.MaskedPrefs `json:"prefs"`
	}
	if err := r.args(&args); err != nil {
		return nil, err
	}
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	return client.EditPrefs(ctx, &args.Prefs)
}

func (n *node) want(ctx context.Context, running bool) (any, error) {
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	change := &ipn.MaskedPrefs{WantRunningSet: true}
	change.WantRunning = running
	if _, err := client.EditPrefs(ctx, change); err != nil {
		return nil, err
	}
	return client.Status(ctx)
}

func (n *node) down(ctx context.Context, _ *request) (any, error)   { return n.want(ctx, false) }
func (n *node) resume(ctx context.Context, _ *request) (any, error) { return n.want(ctx, true) }

func (n *node) logout(ctx context.Context, _ *request) (any, error) {
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	return "logged out", client.Logout(ctx)
}

// relogin does what "tailscale up --force-reauth --auth-key" does, with the
// settings of the first "up": a logout has made the client forget them.
func (n *node) relogin(ctx context.Context, client *local.Client, authKey string) error {
	prefs, err := client.GetPrefs(ctx)
	if err != nil {
		return err
	}
	prefs.WantRunning = true
	prefs.LoggedOut = false
	n.mu.Lock()
	prefs.ControlURL, prefs.Hostname = n.upWith.ControlURL, n.upWith.Hostname
	prefs.AdvertiseTags = n.upWith.Tags
	n.mu.Unlock()
	if err := client.Start(ctx, ipn.Options{AuthKey: authKey, UpdatePrefs: prefs}); err != nil {
		return err
	}
	return client.StartLoginInteractive(ctx)
}

type authArgs struct {
	AuthKey string `json:"auth_key"`
}

// login signs a logged-out or expired node in again and waits until it runs.
func (n *node) login(ctx context.Context, r *request) (any, error) {
	var args authArgs
	if err := r.args(&args); err != nil {
		return nil, err
	}
	server, client, err := n.running()
	if err != nil {
		return nil, err
	}
	if err := n.relogin(ctx, client, args.AuthKey); err != nil {
		return nil, err
	}
	return server.Up(ctx)
}

// rotate gets a new node key and waits until the netmap names it.
func (n *node) rotate(ctx context.Context, r *request) (any, error) {
	var args authArgs
	if err := r.args(&args); err != nil {
		return nil, err
	}
	_, client, err := n.running()
	if err != nil {
		return nil, err
	}
	before, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.relogin(ctx, client, args.AuthKey); err != nil {
		return nil, err
	}
	var now *ipnstate.Status
	err = until(ctx, func() (bool, error) {
		now, err = client.Status(ctx)
		if err != nil {
			return false, err
		}
		changed := now.Self != nil && now.Self.PublicKey != before.Self.PublicKey && !now.Self.PublicKey.IsZero()
		return changed && now.BackendState == ipn.Running.String(), nil
	})
	if err != nil {
		return nil, fmt.Errorf("no new key in the netmap: %w", err)
	}
	return map[string]any{"old": before.Self.PublicKey, "new": now.Self.PublicKey}, nil
}

// until polls until the condition holds, an error comes or the context ends.
func until(ctx context.Context, holds func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// seenPeer is what an event says about a peer.
type seenPeer struct {
	Name   string   `json:"name"`
	Key    string   `json:"key"`
	Online bool     `json:"online"`
	IPs    []string `json:"ips"`
	Tags   []string `json:"tags"`
	Relay  string   `json:"relay"`
	User   int64    `json:"user"`
}

// watch tells about state changes and about every difference in the peer list.
func (n *node) watch(ctx context.Context, client *local.Client) {
	changed := make(chan struct{}, 1)
	go n.watchBus(ctx, client, changed)
	known := map[tailcfg.StableNodeID]string{}
	tick := time.NewTicker(pollPeers)
	defer tick.Stop()
	for {
		if status, err := client.Status(ctx); err == nil {
			n.tellPeers(status, known)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

func (n *node) watchBus(ctx context.Context, client *local.Client, changed chan<- struct{}) {
	bus, err := client.WatchIPNBus(ctx, ipn.NotifyInitialState|notifyPeerChanges)
	if err != nil {
		n.w.event("bus_lost", map[string]any{"error": err.Error()})
		return
	}
	defer bus.Close()
	for {
		notify, err := bus.Next()
		if err != nil {
			if ctx.Err() == nil {
				n.w.event("bus_lost", map[string]any{"error": err.Error()})
			}
			return
		}
		if notify.State != nil {
			n.w.event("state", map[string]any{"state": notify.State.String()})
		}
		if notify.ErrMessage != nil {
			n.w.event("backend_error", map[string]any{"text": *notify.ErrMessage})
		}
		if notify.BrowseToURL != nil && *notify.BrowseToURL != "" {
			n.w.event("browse", map[string]any{"url": *notify.BrowseToURL})
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func (n *node) tellPeers(status *ipnstate.Status, known map[tailcfg.StableNodeID]string) {
	now := map[tailcfg.StableNodeID]bool{}
	for _, peer := range status.Peer {
		now[peer.ID] = true
		seen := seenPeer{
			Name: peer.DNSName, Key: peer.PublicKey.String(), Online: peer.Online,
			Relay: peer.Relay, User: int64(peer.UserID), IPs: []string{}, Tags: []string{},
		}
		for _, ip := range peer.TailscaleIPs {
			seen.IPs = append(seen.IPs, ip.String())
		}
		if peer.Tags != nil {
			seen.Tags = peer.Tags.AsSlice()
		}
		if text := fmt.Sprint(seen); known[peer.ID] != text {
			known[peer.ID] = text
			n.w.event("peer", map[string]any{"stable_id": peer.ID, "peer": seen})
		}
	}
	for id := range known {
		if !now[id] {
			delete(known, id)
			n.w.event("peer_gone", map[string]any{"stable_id": id})
		}
	}
}
