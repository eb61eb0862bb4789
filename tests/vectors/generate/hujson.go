package main

import (
	"encoding/json"
	"regexp"
	"strconv"

	"github.com/tailscale/hujson"
)

var spot = regexp.MustCompile(`line (\d+), column (\d+)`)

func hujsonAnswers(texts []string) []any {
	var all []any
	for _, text := range texts {
		answer := map[string]any{"text": text}
		standard, err := hujson.Standardize([]byte(text))
		if err != nil {
			answer["error"] = true
			if m := spot.FindStringSubmatch(err.Error()); m != nil {
				answer["line"] = must(strconv.Atoi(m[1]))
				answer["column"] = must(strconv.Atoi(m[2]))
			}
		} else {
			var value any
			if err := json.Unmarshal(standard, &value); err != nil {
				answer["error"] = true
			} else {
				answer["value"] = value
			}
		}
		all = append(all, answer)
	}
	return all
}
