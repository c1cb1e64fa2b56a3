package pgnotify

import (
	"slices"
	"strings"
	"testing"
)

func TestPayloads(t *testing.T) {
	keys := make(map[string]struct{})
	for i := range 3000 {
		keys[strings.Repeat("k", 1+i%7)+string(rune('a'+i%26))+strings.Repeat("z", i/100)] = struct{}{}
	}
	got := make(map[string]struct{})
	for _, p := range payloads("node", keys) {
		if len(p) > maxPayload+100 {
			t.Errorf("a payload of %d octets", len(p))
		}
		words := strings.Fields(p)
		if words[0] != "node" {
			t.Errorf("a payload of %q", words[0])
		}
		for _, w := range words[1:] {
			if _, twice := got[w]; twice {
				t.Errorf("%q is told twice", w)
			}
			got[w] = struct{}{}
		}
	}
	if len(got) != len(keys) {
		t.Errorf("%d of %d keys are told", len(got), len(keys))
	}
	if p := payloads("node", nil); !slices.Equal(p, nil) {
		t.Errorf("nothing to tell gives %q", p)
	}
}
