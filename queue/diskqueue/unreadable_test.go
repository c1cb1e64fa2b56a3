package diskqueue

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/queue/queuetest"
	"github.com/postrider/postrider/smtp"
)

// records counts what is logged.
type records struct {
	slog.Handler
	mu    sync.Mutex
	texts map[string]int
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }

func (r *records) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts[rec.Message]++
	return nil
}

// spoilt is a queue of some of whose mail the disk changed.
type spoilt struct {
	*testing.T
	s   *Storage
	log *records
	tr  *queuetest.Transport
}

func newSpoilt(t *testing.T) *spoilt {
	p := &spoilt{T: t, log: &records{Handler: slog.DiscardHandler, texts: make(map[string]int)}, tr: new(queuetest.Transport)}
	s, err := Open(t.TempDir(), &Options{BodyMemory: 4 << 10, MinFree: -1, Log: slog.New(p.log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.s.Close(); err != nil {
			t.Error(err)
		}
	})
	p.s = s
	return p
}

// put stores a message of some length with an entry in each of n lanes.
func (p *spoilt) put(size, n int) *queue.Submission {
	p.Helper()
	sub := mail(p, p.s, noise(size), n)
	for _, e := range sub.Entries {
		e.Envelope.From = smtp.Address{Local: "sender", Domain: "from.test"}
		e.Since = time.Now()
	}
	if err := p.s.Put(p.Context(), sub); err != nil {
		p.Fatal(err)
	}
	return sub
}

// change sets a key to what f makes of its value; nil = gone.
func (p *spoilt) change(key []byte, f func(v []byte) []byte) {
	p.Helper()
	v, err := p.s.db.Value(key)
	if err != nil || v == nil {
		p.Fatalf("%q: %x, %v", key, v, err)
	}
	if v = f(v); v == nil {
		err = p.s.db.Delete(key, pebble.Sync)
	} else {
		err = p.s.db.Set(key, v, pebble.Sync)
	}
	if err != nil {
		p.Fatal(err)
	}
}

func flip(v []byte) []byte { v[len(v)/2] ^= 1; return v }
func gone([]byte) []byte   { return nil }

// run runs a queue until done says so, and returns the events by kind.
func (p *spoilt) run(done func(seen map[queue.EventKind]int) bool) map[queue.EventKind]int {
	p.Helper()
	seen := make(map[queue.EventKind]int)
	var mu sync.Mutex
	wake := make(chan struct{}, 1)
	q := &queue.Queue{Storage: p.s, Transport: p.tr, Hostname: "mx.test", Log: slog.New(slog.DiscardHandler), OnEvent: func(e queue.Event) {
		mu.Lock()
		seen[e.Kind]++
		mu.Unlock()
		select {
		case wake <- struct{}{}:
		default:
		}
	}}
	ended := make(chan error, 1)
	go func() { ended <- q.Run(context.Background()) }()
	limit := time.After(2 * time.Minute)
	for {
		mu.Lock()
		over := done(seen)
		mu.Unlock()
		if over {
			break
		}
		select {
		case <-wake:
		case <-limit:
			p.Fatalf("the queue stands still: events %v", seen)
		}
	}
	if err := q.Shutdown(context.Background()); err != nil {
		p.Error(err)
	}
	if err := <-ended; err != nil {
		p.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return seen
}

// left returns how many entries there are, by lane.
func (p *spoilt) left() map[string]int {
	p.Helper()
	n := make(map[string]int)
	for e, err := range p.s.List(p.Context(), queue.Filter{}) {
		if err != nil {
			p.Fatal(err)
		}
		n[e.Lane.Dest]++
	}
	return n
}

func (p *spoilt) check(problems, setAside int) {
	p.Helper()
	r, err := p.s.Check(p.Context())
	if err != nil || len(r.Problems) != problems || r.SetAside != setAside {
		p.Errorf("Check: %d set aside, want %d, %d problems, want %d: %q, %v", r.SetAside, setAside, len(r.Problems), problems, r.Problems, err)
	}
}

// TestUnreadableEntrySetAside: an entry that cannot be read is set aside with
// an error, and never stops the queue: what else is in its lane, and in others,
// is delivered. Check tells of it, and Repair mends what it left.
func TestUnreadableEntrySetAside(t *testing.T) {
	kinds := []struct {
		name string
		key  func(*queue.Submission) []byte
		f    func([]byte) []byte
	}{
		{"entry changed", func(s *queue.Submission) []byte { return idKey(kEntry, s.Entries[0].ID) }, flip},
		{"entry cut", func(s *queue.Submission) []byte { return idKey(kEntry, s.Entries[0].ID) }, func(v []byte) []byte { return v[:len(v)-3] }},
		{"entry empty", func(s *queue.Submission) []byte { return idKey(kEntry, s.Entries[0].ID) }, func(v []byte) []byte { return v[:0] }},
		{"entry gone", func(s *queue.Submission) []byte { return idKey(kEntry, s.Entries[0].ID) }, gone},
		{"message changed", func(s *queue.Submission) []byte { return idKey(kMessage, s.Message.ID) }, flip},
		{"message gone", func(s *queue.Submission) []byte { return idKey(kMessage, s.Message.ID) }, gone},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			p := newSpoilt(t)
			p.put(100, 2)
			bad := p.put(100, 1) // in the middle of a lane
			p.put(100, 2)
			p.change(kind.key(bad), kind.f)
			if r, err := p.s.Check(t.Context()); err != nil || len(r.Problems) == 0 || r.SetAside != 0 {
				t.Errorf("Check before: %+v, %v", r, err)
			}
			seen := p.run(func(seen map[queue.EventKind]int) bool { return seen[queue.EventDelivered] == 4 && len(p.left()) == 0 })
			if len(seen) != 1 {
				t.Errorf("events %v", seen)
			}
			if n := p.log.texts["diskqueue: set aside what cannot be read"]; n < 1 || n > 2 { // its place, and its alarm's
				t.Errorf("told of %d times: %v", n, p.log.texts)
			}
			if _, err := p.s.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			r, err := p.s.Check(t.Context())
			if err != nil || len(r.Problems) > 0 || r.SetAside == 0 || r.Entries+r.Messages > 0 {
				t.Errorf("Check after Repair: %+v, %v", r, err)
			}
			p.put(100, 1)
			p.run(func(seen map[queue.EventKind]int) bool { return seen[queue.EventDelivered] == 1 && len(p.left()) == 0 })
		})
	}
}

// TestUnreadableBody: a message that is not all there is not half delivered,
// is tried again no sooner than others and delays none. Repair ends it, and its
// sender hears of that.
func TestUnreadableBody(t *testing.T) {
	content := func(s *queue.Submission) []byte { return idKey(kContent, s.Message.ID) }
	onFile := func(f func(p *spoilt, name string)) func(*spoilt, *queue.Submission) {
		return func(p *spoilt, s *queue.Submission) {
			v, err := p.s.db.Value(idKey(kMessage, s.Message.ID))
			if err != nil {
				p.Fatal(err)
			}
			m, err := decodeMessage(v)
			if err != nil || m.file.IsZero() {
				p.Fatalf("%+v, %v", m, err)
			}
			f(p, p.s.bodyPath(m.file))
		}
	}
	rewrite := func(f func([]byte) []byte) func(*spoilt, *queue.Submission) {
		return onFile(func(p *spoilt, name string) {
			text, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(name, f(text), 0o600)
			}
			if err != nil {
				p.Fatal(err)
			}
		})
	}
	inDB := func(f func([]byte) []byte) func(*spoilt, *queue.Submission) {
		return func(p *spoilt, s *queue.Submission) { p.change(content(s), f) }
	}
	kinds := []struct {
		name string
		size int
		f    func(*spoilt, *queue.Submission)
	}{
		{"missing", 2000, inDB(gone)},
		{"short", 2000, inDB(func(v []byte) []byte { return v[:len(v)-7] })},
		{"empty", 2000, inDB(func(v []byte) []byte { return v[:0] })},
		{"changed", 2000, inDB(flip)},
		{"another's", 2000, inDB(func(v []byte) []byte { // of another length, with a checksum that is right
			return append(append([]byte{}, 'x'), 0, 0, 0, 0)
		})},
		{"file missing", 200_000, onFile(func(p *spoilt, name string) {
			if err := os.Remove(name); err != nil {
				p.Fatal(err)
			}
		})},
		{"file short", 200_000, rewrite(func(v []byte) []byte { return v[:len(v)-1] })},
		{"file cut at a frame", 200_000, rewrite(func(v []byte) []byte { return v[:2*frameSize] })},
		{"file changed", 200_000, rewrite(flip)},
		{"file's head missing", 200_000, inDB(gone)},
		{"file's record changed", 200_000, func(p *spoilt, s *queue.Submission) {
			v, err := p.s.db.Value(idKey(kMessage, s.Message.ID))
			if err != nil {
				p.Fatal(err)
			}
			m, err := decodeMessage(v)
			if err != nil {
				p.Fatal(err)
			}
			p.change(idKey(kFile, m.file), flip)
		}},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			p := newSpoilt(t)
			p.put(kind.size, 2)
			bad := p.put(kind.size, 1)
			p.put(kind.size, 2)
			kind.f(p, bad)
			p.check(1, 0)
			seen := p.run(func(seen map[queue.EventKind]int) bool {
				return seen[queue.EventDelivered] == 4 && seen[queue.EventDeferred] > 0
			})
			if seen[queue.EventDeferred] != 1 || len(seen) != 2 {
				t.Errorf("events %v", seen)
			}
			for _, d := range p.tr.Deliveries() {
				if d.Results != nil && len(d.Body) < kind.size {
					t.Errorf("%d octets of %d were delivered", len(d.Body), kind.size)
				}
			}
			for e, err := range p.s.List(t.Context(), queue.Filter{}) {
				if err != nil || e.ID != bad.Entries[0].ID || time.Until(e.Due) < time.Minute || !strings.Contains(fmt.Sprint(e.Last[0].Err), "Cannot read the message") {
					t.Errorf("%+v, %v", e, err)
				}
			}
			if r, err := p.s.Repair(t.Context()); err != nil || len(r.Problems) != 1 || r.Entries != 1 {
				t.Fatalf("Repair: %+v, %v", r, err)
			}
			seen = p.run(func(seen map[queue.EventKind]int) bool { // with the notice
				return seen[queue.EventFailed] == 1 && seen[queue.EventDelivered] == 1 && len(p.left()) == 0
			})
			all := p.tr.Deliveries()
			last := all[len(all)-1]
			if to := last.Envelope.To[0].String(); to != "sender@from.test" || !strings.Contains(last.Body, "5.3.0") {
				t.Errorf("events %v; the last delivery is to %s:\n%s", seen, to, last.Body)
			}
			p.check(0, 0)
		})
	}
}

// TestUnreadableValues: where the database has lost a file of its own, what was
// in it is unreadable, and no more.
func TestUnreadableValues(t *testing.T) {
	p := newSpoilt(t)
	bad := p.put(3000, 1)
	if err := p.s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(p.s.db.Path("db", "*.blob"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	p.put(3000, 2)
	if err := p.s.Close(); err != nil { // what it has open it would go on reading
		t.Fatal(err)
	}
	if err := os.Truncate(files[0], 1000); err != nil {
		t.Fatal(err)
	}
	again, err := Open(p.s.dir, &p.s.o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	p.s = again
	p.check(1, 0)
	p.run(func(seen map[queue.EventKind]int) bool {
		return seen[queue.EventDelivered] == 2 && seen[queue.EventDeferred] == 1
	})
	if r, err := p.s.Repair(t.Context()); err != nil || len(r.Problems) != 1 || r.Entries != 1 {
		t.Fatalf("Repair: %+v, %v", r, err)
	}
	p.run(func(seen map[queue.EventKind]int) bool { return seen[queue.EventFailed] == 1 && len(p.left()) == 0 })
	if n := len(p.left()); n > 0 {
		t.Errorf("%d entries are left of message %v", n, bad.Message.ID)
	}
}
