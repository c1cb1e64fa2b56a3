package pgqueue

import (
	"encoding/json"
	"testing"

	"github.com/postrider/postrider/queue"
)

// What can be read back is written the same way again, whatever a record says.
func FuzzEntryRecord(f *testing.F) {
	f.Add(`{"from":{"local":"a","domain":"b.test"},"to":[{"local":"c","domain":"d.test","notify":3}],"last":[{"error":{"code":451,"enhanced":[4,7,1],"text":"Later","unsure":true}},{"hop":{"addr":"192.0.2.1:25","tls":772}}]}`)
	f.Add(`{"since":"2026-11-25T10:00:00.000000001Z","from":{},"to":null,"deliver_by":"2026-11-25T10:00:00Z"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var r entry
		if decode([]byte(text), &r) != nil {
			return
		}
		var e, again queue.Entry
		r.fill(&e)
		first := encode(entryOf(&e))
		var back entry
		if err := decode([]byte(first), &back); err != nil {
			t.Fatalf("%s does not read back: %v", first, err)
		}
		back.fill(&again)
		if second := encode(entryOf(&again)); second != first {
			t.Fatalf("%s\nreads back as\n%s", first, second)
		}
		if !json.Valid([]byte(first)) {
			t.Fatal(first)
		}
	})
}

func TestUUID(t *testing.T) {
	id := queue.NewID()
	back, err := parseUUID(uuid(id))
	if err != nil || back != id {
		t.Errorf("%v reads back as %v, %v", id, back, err)
	}
	for _, bad := range []string{"", "x", uuid(id)[1:], uuid(id) + "00"} {
		if _, err := parseUUID(bad); err == nil {
			t.Errorf("%q is taken for an ID", bad)
		}
	}
}
