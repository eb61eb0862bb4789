package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/opt"
)

// The messages whose Go form our codec must match, by name.
var messages = map[string]reflect.Type{
	"RegisterRequest":               reflect.TypeFor[tailcfg.RegisterRequest](),
	"RegisterResponse":              reflect.TypeFor[tailcfg.RegisterResponse](),
	"MapRequest":                    reflect.TypeFor[tailcfg.MapRequest](),
	"MapResponse":                   reflect.TypeFor[tailcfg.MapResponse](),
	"Node":                          reflect.TypeFor[tailcfg.Node](),
	"PingResponse":                  reflect.TypeFor[tailcfg.PingResponse](),
	"DERPMap":                       reflect.TypeFor[tailcfg.DERPMap](),
	"DERPAdmitClientRequest":        reflect.TypeFor[tailcfg.DERPAdmitClientRequest](),
	"DERPAdmitClientResponse":       reflect.TypeFor[tailcfg.DERPAdmitClientResponse](),
	"OverTLSPublicKeyResponse":      reflect.TypeFor[tailcfg.OverTLSPublicKeyResponse](),
	"EarlyNoise":                    reflect.TypeFor[tailcfg.EarlyNoise](),
	"SSHAction":                     reflect.TypeFor[tailcfg.SSHAction](),
	"SSHEventNotifyRequest":         reflect.TypeFor[tailcfg.SSHEventNotifyRequest](),
	"SetDNSRequest":                 reflect.TypeFor[tailcfg.SetDNSRequest](),
	"HealthChangeRequest":           reflect.TypeFor[tailcfg.HealthChangeRequest](),
	"SetDeviceAttributesRequest":    reflect.TypeFor[tailcfg.SetDeviceAttributesRequest](),
	"QueryFeatureRequest":           reflect.TypeFor[tailcfg.QueryFeatureRequest](),
	"QueryFeatureResponse":          reflect.TypeFor[tailcfg.QueryFeatureResponse](),
	"TokenRequest":                  reflect.TypeFor[tailcfg.TokenRequest](),
	"TokenResponse":                 reflect.TypeFor[tailcfg.TokenResponse](),
	"AuditLogRequest":               reflect.TypeFor[tailcfg.AuditLogRequest](),
	"TKAInitBeginRequest":           reflect.TypeFor[tailcfg.TKAInitBeginRequest](),
	"TKAInitBeginResponse":          reflect.TypeFor[tailcfg.TKAInitBeginResponse](),
	"TKAInitFinishRequest":          reflect.TypeFor[tailcfg.TKAInitFinishRequest](),
	"TKABootstrapRequest":           reflect.TypeFor[tailcfg.TKABootstrapRequest](),
	"TKABootstrapResponse":          reflect.TypeFor[tailcfg.TKABootstrapResponse](),
	"TKASyncOfferRequest":           reflect.TypeFor[tailcfg.TKASyncOfferRequest](),
	"TKASyncOfferResponse":          reflect.TypeFor[tailcfg.TKASyncOfferResponse](),
	"TKASyncSendRequest":            reflect.TypeFor[tailcfg.TKASyncSendRequest](),
	"TKASyncSendResponse":           reflect.TypeFor[tailcfg.TKASyncSendResponse](),
	"TKADisableRequest":             reflect.TypeFor[tailcfg.TKADisableRequest](),
	"TKASubmitSignatureRequest":     reflect.TypeFor[tailcfg.TKASubmitSignatureRequest](),
	"TKASignaturesUsingKeyRequest":  reflect.TypeFor[tailcfg.TKASignaturesUsingKeyRequest](),
	"TKASignaturesUsingKeyResponse": reflect.TypeFor[tailcfg.TKASignaturesUsingKeyResponse](),
}

type message struct {
	Type string          `json:"type"`
	Zero json.RawMessage `json:"zero"` // the zero value
	Full json.RawMessage `json:"full"` // every field set, lists and maps with two elements
}

func fullMessages() []any {
	var all []any
	for _, name := range sortedKeys(messages) {
		full := reflect.New(messages[name])
		f := filler{}
		f.fill(full.Elem(), name)
		all = append(all, message{
			Type: name,
			Zero: must(json.Marshal(reflect.New(messages[name]).Interface())),
			Full: compact(full.Interface()),
		})
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	for i := range keys { // short lists
		for j := i + 1; j < len(keys); j++ {
			if keys[j] < keys[i] {
				keys[i], keys[j] = keys[j], keys[i]
			}
		}
	}
	return keys
}

// filler sets every field of a value to something that is not zero and differs from the others.
type filler struct{ n int }

func (f *filler) next() int { f.n++; return f.n }

func (f *filler) special(v reflect.Value) bool {
	n := f.next()
	hex := strings.Repeat(fmt.Sprintf("%02x", n%256), 32)
	text := func(s string) bool {
		check(v.Addr().Interface().(interface{ UnmarshalText([]byte) error }).UnmarshalText([]byte(s)))
		return true
	}
	switch p := v.Addr().Interface().(type) {
	case *key.MachinePublic:
		return text("mkey:" + hex)
	case *key.NodePublic:
		return text("nodekey:" + hex)
	case *key.DiscoPublic:
		return text("discokey:" + hex)
	case *key.NLPublic:
		return text("nlpub:" + hex)
	case *key.ChallengePublic:
		return text("chalpub:" + hex)
	case *key.HardwareAttestationPublic:
		return text(hardwareKeyText)
	case *netip.Addr:
		*p = netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)})
	case *netip.AddrPort:
		*p = netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n)), uint16(n))
	case *netip.Prefix:
		*p = netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd7a:115c:a1e0::%x", n)), 128)
	case *time.Time:
		*p = time.Date(2026, 1, 2, 3, 4, n%60, 1000*n, time.UTC)
	case *opt.Bool:
		p.Set(n%2 == 0)
	case *tailcfg.RawMessage:
		*p = tailcfg.RawMessage(fmt.Sprintf(`{"n":%d,"list":[null,"<é>"]}`, n))
	case *tailcfg.HostinfoView:
		var hi tailcfg.Hostinfo
		f.fill(reflect.ValueOf(&hi).Elem(), "Hostinfo")
		*p = hi.View()
	case *tailcfg.SignatureType:
		*p = tailcfg.SignatureV2
	default:
		return false
	}
	return true
}

func (f *filler) fill(v reflect.Value, path string) {
	if f.special(v) {
		return
	}
	n := f.next()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				f.fill(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), path)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte{byte(n), 0xff, 0})
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			f.fill(v.Index(i), path)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(k, path)
			f.fill(e, path)
			v.SetMapIndex(k, e)
		}
	case reflect.Interface:
		v.Set(reflect.ValueOf(fmt.Sprintf("any %d", n)))
	case reflect.String:
		v.SetString(fmt.Sprintf("text <&é> %d", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(n))
	case reflect.Uint16, reflect.Uint64:
		v.SetUint(uint64(n))
	case reflect.Float64:
		v.SetFloat(float64(n) + 0.5)
	default:
		panic(path + ": no filling for " + v.Type().String())
	}
}

type question struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type answer struct {
	question
	Error bool            `json:"error,omitempty"`
	Value json.RawMessage `json:"value,omitempty"` // what Go understood, written again
}

func lenientAnswers(questions []question) []any {
	var all []any
	for _, q := range questions {
		value := reflect.New(messages[q.Type])
		if err := json.NewDecoder(bytes.NewReader([]byte(q.Text))).Decode(value.Interface()); err != nil {
			all = append(all, answer{question: q, Error: true})
			continue
		}
		all = append(all, answer{question: q, Value: compact(value.Interface())})
	}
	return all
}
