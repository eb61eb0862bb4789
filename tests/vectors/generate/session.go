package main

import (
	"encoding/json"

	"tailscale.com/control/controlclient"
)

// mapSessions feeds each list of map responses to a map session of the official client. The
// function it calls is ours: regenerate.sh puts added/replay.go.txt into the package.
func mapSessions(sessions [][]json.RawMessage) []any {
	var all []any
	for _, messages := range sessions {
		all = append(all, controlclient.ReplayForVectors(messages))
	}
	return all
}
