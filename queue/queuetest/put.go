package queuetest

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/queue"
)

func (s *suite) putAndOpen() {
	sub := s.submission(names(3)...)
	sub.Message.Meta = map[string]string{"k": "v"}
	s.put(sub)
	if sub.Duplicate {
		s.Error("a first Put is a duplicate")
	}
	want := string(sub.Head) + content
	if got := s.read(sub.Message); got != want {
		s.Errorf("read %q, want %q", got, want)
	}
	if sub.Message.Size != int64(len(want)) {
		s.Errorf("Message.Size is %d, want %d", sub.Message.Size, len(want))
	}
	o := s.owner()
	for _, e := range sub.Entries {
		l := s.one(o, e.Lane)
		if l.Entry.ID != e.ID || l.Entry.Message.ID != sub.Message.ID || l.Entry.Message.Meta["k"] != "v" ||
			len(l.Entry.Envelope.To) != 2 || l.Entry.Envelope.From != e.Envelope.From || l.Entry.Attempt != 0 {
			s.Errorf("leased %+v, want %+v", l.Entry, e)
		}
		// Reads at any offset, across the seam of Head and Body.
		b, err := s.storage.Open(ctx, l.Entry.Message)
		s.must(err)
		part := make([]byte, 8)
		_, err = b.ReadAt(part, int64(len(sub.Head)-4))
		s.must(err)
		if string(part) != want[len(sub.Head)-4:len(sub.Head)+4] {
			s.Errorf("ReadAt gave %q", part)
		}
		s.must(b.Close())
	}
}

func (s *suite) putAllOrNone() {
	good, bad := s.submission(lane("a.test")), s.submission(lane("b.test"))
	bad.Entries[0].Envelope.To = nil
	if err := s.storage.Put(ctx, good, bad); err == nil {
		s.Fatal("an entry without recipients was stored")
	}
	o := s.owner()
	s.none(o, lane("a.test"))
	if got := s.lanes(s.clockNow().Add(time.Hour)); len(got) != 0 {
		s.Errorf("lanes %v after a failed Put", got)
	}
	s.put(good) // its body is still ours
	s.one(o, lane("a.test"))
	s.must(bad.Body.Close())
}

func (s *suite) putTwice() {
	sub := s.submission(lane("a.test"))
	s.put(sub)
	s.put(sub) // as after an error that may have meant "stored"
	o := s.owner()
	l := s.one(o, lane("a.test"))
	s.put(sub) // while it is leased
	s.none(o, lane("a.test"))
	s.must(s.storage.Finish(ctx, done(l)))
	s.gone(sub.Message)
}

// memory is a Staged that no storage made.
type memory struct{ bytes.Reader }

func (m *memory) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (m *memory) Close() error              { return nil }

func foreign(text string) *memory { return &memory{*bytes.NewReader([]byte(text))} }

func (s *suite) foreignBody() {
	text := strings.Repeat("Some line of text.\r\n", 20_000) // 400 KB
	sub := s.submissionOf(foreign(text), lane("a.test"))
	s.put(sub)
	if got := s.read(sub.Message); got != string(sub.Head)+text {
		s.Errorf("read %d octets, want %d", len(got), len(text))
	}
}

func (s *suite) key() {
	o := s.owner()
	first := s.submission(lane("a.test"))
	first.Message.Key = "k"
	s.put(first)
	again := s.submission(lane("b.test")) // other content: the first wins
	again.Message.Key = "k"
	s.put(again)
	if !again.Duplicate || again.Message.ID != first.Message.ID {
		s.Errorf("the second is %+v, want a duplicate of %v", again, first.Message.ID)
	}
	s.none(o, lane("b.test"))
	other := s.submission(queue.Lane{Dest: "c.test", Tenant: "other"})
	other.Message.Key = "k"
	s.put(other)
	if other.Duplicate {
		s.Error("another tenant's key is a duplicate")
	}
	s.must(s.storage.Finish(ctx, done(s.one(o, lane("a.test")))))
	s.pass(71 * time.Hour)
	late := s.submission(lane("a.test"))
	late.Message.Key = "k"
	s.put(late)
	if !late.Duplicate || late.Message.ID != first.Message.ID {
		s.Error("the key was forgotten within 72 hours")
	}
}

func (s *suite) keyRace() {
	const n = 8
	subs := make([]*queue.Submission, n)
	for i := range subs {
		subs[i] = s.submission(lane("a.test"))
		subs[i].Message.Key = "same"
	}
	var wg sync.WaitGroup
	for _, sub := range subs {
		wg.Go(func() {
			if err := s.storage.Put(ctx, sub); err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	fresh := 0
	for _, sub := range subs {
		if !sub.Duplicate {
			fresh++
		}
		if sub.Message.ID != subs[0].Message.ID {
			s.Error("the same key gave two IDs")
		}
	}
	if fresh != 1 {
		s.Errorf("%d of %d were stored, want 1", fresh, n)
	}
	s.one(s.owner(), lane("a.test"))
}

func (s *suite) stagedNeverPut() {
	s.storage = s.opened(Config{MaxBytes: 1 << 20})
	big := strings.Repeat("x", 700<<10)
	for range 5 { // together more than fits
		s.must(s.stage(s.storage, big).Close())
	}
	b := s.stage(s.storage, big)
	s.must(b.Close())
	s.must(b.Close())
}

func (s *suite) full() {
	s.storage = s.opened(Config{MaxBytes: 1 << 20})
	isFull := func(err error) {
		s.Helper()
		if !errors.Is(err, queue.ErrFull) {
			s.Fatalf("got %v, want ErrFull", err)
		}
	}
	_, err := s.storage.Stage(ctx, 2<<20)
	isFull(err)
	// More than announced.
	b, err := s.storage.Stage(ctx, -1)
	s.must(err)
	chunk := make([]byte, 64<<10)
	for err = nil; err == nil; {
		_, err = b.Write(chunk)
		if b.Size() > 1<<20 {
			s.Fatal("more than MaxBytes was staged")
		}
	}
	isFull(err)
	s.must(b.Close())

	var subs []*queue.Submission
	for i := range names(1 << 14) {
		b, err := s.storage.Stage(ctx, 1000)
		if err != nil {
			isFull(err)
			break
		}
		if _, err := b.Write(chunk[:1000]); err != nil {
			isFull(err)
			s.must(b.Close())
			break
		}
		sub := s.submissionOf(b, names(i + 1)[i])
		if err := s.storage.Put(ctx, sub); err != nil {
			isFull(err)
			s.must(b.Close())
			break
		}
		subs = append(subs, sub)
	}
	if len(subs) < 100 {
		s.Fatalf("only %d small messages fit into 1 MiB", len(subs))
	}
	isFull(s.storage.Put(ctx, s.submissionOf(foreign(string(make([]byte, 512<<10))), lane("never.test"))))
	// Outcomes fit, with a bounce each.
	o := s.owner()
	s.none(o, lane("never.test"))
	for _, sub := range subs[:100] {
		out := done(s.one(o, sub.Entries[0].Lane))
		out.Put = []*queue.Submission{s.submissionOf(foreign(string(chunk[:4000])), lane("bounce.test"))}
		s.must(s.storage.Finish(ctx, out))
	}
	if got := len(s.lease(o, 200, lane("bounce.test"))); got != 100 {
		s.Errorf("%d bounces, want 100", got)
	}
}
