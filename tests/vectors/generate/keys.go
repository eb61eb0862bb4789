package main

import (
	"bytes"
	"encoding/hex"

	"go4.org/mem"
	"tailscale.com/types/key"
)

const hardwareKeyText = "hwattestpub:04" +
	"6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" +
	"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5" // the generator of P-256

func keyVectors() map[string]any {
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = byte(i*7 + 1)
	}
	texts := map[string]string{
		"machine":   key.MachinePublicFromRaw32(mem.B(raw)).String(),
		"node":      key.NodePublicFromRaw32(mem.B(raw)).String(),
		"disco":     key.DiscoPublicFromRaw32(mem.B(raw)).String(),
		"node_zero": key.NodePublic{}.String(),
	}
	shorts := map[string]string{
		"machine":    key.MachinePublicFromRaw32(mem.B(raw)).ShortString(),
		"node":       key.NodePublicFromRaw32(mem.B(raw)).ShortString(),
		"disco":      key.DiscoPublicFromRaw32(mem.B(raw)).ShortString(),
		"node_zero":  key.NodePublic{}.ShortString(),
		"disco_zero": key.DiscoPublic{}.ShortString(),
	}
	var private key.MachinePrivate
	check(private.UnmarshalText([]byte("privkey:" + hex.EncodeToString(raw))))
	digits := hex.EncodeToString(raw)
	upper := string(bytes.ToUpper([]byte(digits)))
	parsed := []any{}
	for _, text := range []string{
		"nodekey:" + digits, "nodekey:" + upper, "NODEKEY:" + digits, "mkey:" + digits, digits, "",
		"nodekey:", "nodekey:" + digits[2:], "nodekey:" + digits + "00", "nodekey:" + digits + "\n",
		" nodekey:" + digits, "nodekey:" + "0x" + digits[2:], "nodekey:" + "g" + digits[1:],
		"nodekey:" + "\u0661" + digits[2:],
	} {
		var k key.NodePublic
		err := k.UnmarshalText([]byte(text))
		parsed = append(parsed, map[string]any{"text": text, "ok": err == nil})
	}
	var nl key.NLPublic
	check(nl.UnmarshalText([]byte("tlpub:" + digits)))
	texts["lock"] = string(must(nl.MarshalText()))
	return map[string]any{
		"raw": digits, "texts": texts, "shorts": shorts, "node_parse": parsed,
		"private":        string(must(private.MarshalText())),
		"private_public": private.Public().String(),
		"hardware":       hardwareKeyText,
	}
}
