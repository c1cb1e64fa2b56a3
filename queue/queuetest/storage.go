package queuetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// Config is what a storage under test is to be opened with.
type Config struct {
	// Now is the clock it must use.
	Now func() time.Time
	// MaxBytes, if not 0, bounds what it keeps, in octets.
	MaxBytes int64
	// Step, if not nil, is to be called before each step that changes what a
	// crash would leave. Storages that cannot do so ignore it: see [Crasher].
	Step func()
}

// Opener opens an empty storage for one test, which closes it with t.Cleanup
// where that is needed.
type Opener func(t *testing.T, c Config) queue.Storage

// Run checks the storages that open makes. The largest case has 1,000,000
// entries, fewer with -short or -race.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"PutAndOpen", (*suite).putAndOpen},
		{"Fidelity", (*suite).fidelity},
		{"PutAllOrNone", (*suite).putAllOrNone},
		{"PutTwice", (*suite).putTwice},
		{"ForeignBody", (*suite).foreignBody},
		{"Key", (*suite).key},
		{"KeyRace", (*suite).keyRace},
		{"LeaseOrder", (*suite).leaseOrder},
		{"LeaseOnlyWanted", (*suite).leaseOnlyWanted},
		{"LanesYield", (*suite).lanesYield},
		{"LeaseRace", (*suite).leaseRace},
		{"BornLeased", (*suite).bornLeased},
		{"OwnerDies", (*suite).ownerDies},
		{"Leave", (*suite).leave},
		{"UnknownOwner", (*suite).unknownOwner},
		{"Ranks", (*suite).ranks},
		{"StaleToken", (*suite).staleToken},
		{"FinishDefers", (*suite).finishDefers},
		{"FinishAndPut", (*suite).finishAndPut},
		{"LastTwo", (*suite).lastTwo},
		{"OpenDuringLastFinish", (*suite).openDuringLastFinish},
		{"Alarm", (*suite).alarm},
		{"Clock", (*suite).clock},
		{"StagedNeverPut", (*suite).stagedNeverPut},
		{"Full", (*suite).full},
		{"BlockedLanes", (*suite).blockedLanes},
		{"Depth", (*suite).depth},
		{"Starvation", (*suite).starvation},
		{"Lister", (*suite).lister},
		{"EditFree", (*suite).editFree},
		{"EditLeased", (*suite).editLeased},
		{"EditEnd", (*suite).editEnd},
		{"EditResume", (*suite).editResume},
		{"EditRecipient", (*suite).editRecipient},
		{"Pause", (*suite).pause},
		{"Waker", (*suite).waker},
		{"EventLog", (*suite).eventLog},
		{"Crashes", (*suite).crashes},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, open: open, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
			s.storage = s.opened(Config{})
			c.test(s)
		})
	}
}

// suite is one test's world.
type suite struct {
	*testing.T
	open    Opener
	storage queue.Storage

	mu  sync.Mutex
	now time.Time
}

func (s *suite) opened(c Config) queue.Storage {
	c.Now = s.clockNow
	return s.open(s.T, c)
}

func (s *suite) clockNow() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *suite) pass(d time.Duration) {
	s.mu.Lock()
	s.now = s.now.Add(d)
	s.mu.Unlock()
}

var ctx = context.Background()

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// owner registers a new owner for a minute.
func (s *suite) owner() queue.Owner {
	s.Helper()
	o := queue.NewOwner()
	s.renew(o)
	return o
}

func (s *suite) renew(o queue.Owner) queue.Renewal {
	s.Helper()
	r, err := s.storage.Renew(ctx, o, time.Minute)
	s.must(err)
	return r
}

// stage returns a staged body of st.
func (s *suite) stage(st queue.Storage, body string) queue.Staged {
	s.Helper()
	b, err := st.Stage(ctx, int64(len(body)))
	s.must(err)
	_, err = io.WriteString(b, body)
	s.must(err)
	return b
}

const content = "Subject: x\r\n\r\nHello\r\n"

// submission makes one with an entry in each lane, due now.
func (s *suite) submission(lanes ...queue.Lane) *queue.Submission {
	s.Helper()
	return s.submissionOf(s.stage(s.storage, content), lanes...)
}

func (s *suite) submissionOf(body queue.Staged, lanes ...queue.Lane) *queue.Submission {
	now := s.clockNow()
	m := &queue.Message{ID: queue.NewID(), Tenant: lanes[0].Tenant, Received: now}
	sub := &queue.Submission{Message: m, Body: body, Head: []byte("Received: y\r\n")}
	for _, l := range lanes {
		sub.Entries = append(sub.Entries, &queue.Entry{ID: queue.NewID(), Message: m, Lane: l, Since: now, Due: now,
			Envelope: smtp.Envelope{From: smtp.Address{Local: "a", Domain: "from.test"}, To: []smtp.Recipient{
				{Address: smtp.Address{Local: "r1", Domain: l.Dest}}, {Address: smtp.Address{Local: "r2", Domain: l.Dest}}}}})
	}
	return sub
}

func (s *suite) put(subs ...*queue.Submission) {
	s.Helper()
	s.must(s.storage.Put(ctx, subs...))
}

// lane makes a Lane.
func lane(dest string) queue.Lane { return queue.Lane{Dest: dest} }

// lease claims up to max entries of each lane.
func (s *suite) lease(o queue.Owner, max int, lanes ...queue.Lane) []*queue.Lease {
	s.Helper()
	var want []queue.Want
	for _, l := range lanes {
		want = append(want, queue.Want{Lane: l, Max: max})
	}
	leases, err := s.storage.Lease(ctx, o, want)
	s.must(err)
	return leases
}

// one leases exactly one entry.
func (s *suite) one(o queue.Owner, l queue.Lane) *queue.Lease {
	s.Helper()
	leases := s.lease(o, 2, l)
	if len(leases) != 1 {
		s.Fatalf("%d leases in %v, want 1", len(leases), l)
	}
	return leases[0]
}

func (s *suite) none(o queue.Owner, l queue.Lane) {
	s.Helper()
	if leases := s.lease(o, 1, l); len(leases) != 0 {
		s.Fatalf("leased %v in %v, want nothing", leases[0].Entry.ID, l)
	}
}

// lanes lists what is due by before.
func (s *suite) lanes(before time.Time) map[queue.Lane]time.Time {
	s.Helper()
	found := make(map[queue.Lane]time.Time)
	for l, err := range s.storage.Lanes(ctx, before) {
		s.must(err)
		if _, twice := found[l.Lane]; twice {
			s.Fatalf("lane %v was yielded twice", l.Lane)
		}
		found[l.Lane] = l.Due
	}
	return found
}

// done is the outcome of a lease with every recipient finished.
func done(l *queue.Lease) *queue.Outcome {
	o := &queue.Outcome{Lease: l, Attempt: l.Entry.Attempt + 1}
	for i := range l.Entry.Envelope.To {
		o.Done = append(o.Done, i)
	}
	return o
}

func (s *suite) lost(err error) {
	s.Helper()
	if !errors.Is(err, queue.ErrLeaseLost) {
		s.Fatalf("got %v, want ErrLeaseLost", err)
	}
}

// read returns the whole of a stored message.
func (s *suite) read(m *queue.Message) string {
	s.Helper()
	b, err := s.storage.Open(ctx, m)
	s.must(err)
	defer b.Close()
	return s.readBlob(b)
}

func (s *suite) readBlob(b queue.Blob) string {
	s.Helper()
	text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	s.must(err)
	return string(text)
}

// gone checks that a message is no longer there.
func (s *suite) gone(m *queue.Message) {
	s.Helper()
	b, err := s.storage.Open(ctx, m)
	if err == nil {
		b.Close()
	}
	if !errors.Is(err, queue.ErrNotFound) {
		s.Fatalf("Open of a finished message: %v, want ErrNotFound", err)
	}
}

func names(n int) []queue.Lane {
	lanes := make([]queue.Lane, n)
	for i := range lanes {
		lanes[i] = lane(fmt.Sprintf("d%d.test", i))
	}
	return lanes
}
