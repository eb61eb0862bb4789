// Command generate writes the golden data of tests/vectors from the official Go packages.
//
// Usage: generate DIR. It reads DIR/inputs_*.json (questions that our tests ask) and writes
// DIR/go_*.json (what the official packages answer). Output is the same at every run.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: generate DIR")
	}
	dir := os.Args[1]
	write(dir, "go_keys.json", keyVectors())
	write(dir, "go_messages.json", fullMessages())
	write(dir, "go_lenient.json", lenientAnswers(read[[]question](dir, "inputs_lenient.json")))
	write(dir, "go_controlbase.json", exchanges())
	write(dir, "go_hujson.json", hujsonAnswers(read[[]string](dir, "inputs_hujson.json")))
	if sessions := filepath.Join(dir, "inputs_mapsession.json"); exists(sessions) {
		write(dir, "go_mapsession.json", mapSessions(read[[][]json.RawMessage](dir, "inputs_mapsession.json")))
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func read[T any](dir, name string) (value T) {
	data := must(os.ReadFile(filepath.Join(dir, name)))
	check(json.Unmarshal(data, &value))
	return value
}

// write puts one top-level element on each line, so that changes can be read.
func write(dir, name string, value any) {
	var out bytes.Buffer
	switch value := value.(type) {
	case []any:
		out.WriteString("[")
		for i, element := range value {
			if i > 0 {
				out.WriteString(",")
			}
			out.WriteString("\n")
			out.Write(compact(element))
		}
		out.WriteString("\n]\n")
	case map[string]any:
		out.Write(compact(value))
		out.WriteString("\n")
	default:
		log.Fatalf("%s: cannot write %T", name, value)
	}
	check(os.WriteFile(filepath.Join(dir, name), out.Bytes(), 0o644))
	fmt.Println(name, out.Len())
}

func compact(value any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	check(encoder.Encode(value))
	return bytes.TrimSpace(out.Bytes())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
