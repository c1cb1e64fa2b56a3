package queuetest

import (
	"slices"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// optional skips the test when the storage is not a T.
func optional[T any](s *suite) T {
	s.Helper()
	v, ok := s.storage.(T)
	if !ok {
		s.Skipf("%T is no %T", s.storage, &v)
	}
	return v
}

func (s *suite) list(l queue.Lister, f queue.Filter) map[queue.ID]*queue.Entry {
	s.Helper()
	found := make(map[queue.ID]*queue.Entry)
	for e, err := range l.List(ctx, f) {
		s.must(err)
		if found[e.ID] != nil {
			s.Fatalf("%v was listed twice", e.ID)
		}
		found[e.ID] = e
	}
	return found
}

func (s *suite) lister() {
	l := optional[queue.Lister](s)
	o := s.owner()
	a, b := s.submission(names(2)...), s.submission(queue.Lane{Dest: "d0.test", Tenant: "t"})
	b.Message.Campaign = "spring"
	b.Entries[0].Held = true
	s.put(a, b)
	s.lease(o, 1, lane("d0.test"))
	for _, c := range []struct {
		f    queue.Filter
		want int
	}{
		{queue.Filter{}, 3},
		{queue.Filter{Dest: "d0.test"}, 2},
		{queue.Filter{Tenant: "t"}, 1},
		{queue.Filter{Campaign: "spring"}, 1},
		{queue.Filter{Held: true}, 1},
		{queue.Filter{From: a.Entries[0].Envelope.From}, 3},
		{queue.Filter{IDs: []queue.ID{a.Message.ID}}, 2},
		{queue.Filter{IDs: []queue.ID{a.Entries[0].ID, a.Entries[0].ID, b.Entries[0].ID}}, 2},
		{queue.Filter{IDs: []queue.ID{a.Message.ID}, Dest: "d1.test"}, 1},
		{queue.Filter{IDs: []queue.ID{queue.NewID()}}, 0},
	} {
		if got := s.list(l, c.f); len(got) != c.want {
			s.Errorf("%+v lists %d, want %d", c.f, len(got), c.want)
		}
	}
	if e := s.list(l, queue.Filter{})[a.Entries[0].ID]; e == nil || e.Owner != o {
		s.Errorf("the leased entry is listed as %+v", e)
	}
}

// edited applies e to what f chooses and checks how many that are.
func (s *suite) edited(ed queue.Editor, f queue.Filter, e queue.Edit, want int) {
	s.Helper()
	n, err := ed.Edit(ctx, f, e)
	s.must(err)
	if n != want {
		s.Errorf("%+v changed %d, want %d", e, n, want)
	}
}

func (s *suite) editFree() {
	ed := optional[queue.Editor](s)
	o := s.owner()
	sub := s.submission(names(3)...)
	s.put(sub)
	f := func(i int) queue.Filter { return queue.Filter{IDs: []queue.ID{sub.Entries[i].ID}} }
	s.edited(ed, f(0), queue.Edit{Hold: true}, 1)
	s.none(o, lane("d0.test"))
	s.edited(ed, f(0), queue.Edit{Release: true, Lane: lane("moved.test")}, 1)
	s.none(o, lane("d0.test"))
	s.must(s.storage.Finish(ctx, done(s.one(o, lane("moved.test")))))
	s.edited(ed, f(1), queue.Edit{Due: s.clockNow().Add(time.Second)}, 1)
	s.none(o, lane("d1.test"))
	s.pass(time.Second)
	s.must(s.storage.Finish(ctx, done(s.one(o, lane("d1.test")))))
	s.edited(ed, f(2), queue.Edit{Drop: true}, 1)
	s.gone(sub.Message)
	s.edited(ed, queue.Filter{}, queue.Edit{Drop: true}, 0)
}

func (s *suite) editLeased() {
	ed := optional[queue.Editor](s)
	o := s.owner()
	sub := s.submission(names(4)...)
	s.put(sub)
	leases := s.lease(o, 1, names(4)...)
	f := func(i int) queue.Filter { return queue.Filter{IDs: []queue.ID{leases[i].Entry.ID}} }
	at := func(i int) queue.Lane { return leases[i].Entry.Lane }
	s.edited(ed, f(0), queue.Edit{Hold: true}, 1)
	s.edited(ed, f(1), queue.Edit{Drop: true}, 1)
	s.edited(ed, f(2), queue.Edit{Lane: lane("moved.test")}, 1)
	if r := s.renew(o); len(r.Revoked) != 3 {
		s.Errorf("%d entries revoked, want 3", len(r.Revoked))
	}
	for _, l := range leases[:3] {
		s.must(s.storage.Finish(ctx, &queue.Outcome{Lease: l, Due: s.clockNow()}))
	}
	if r := s.renew(o); len(r.Revoked) != 0 {
		s.Errorf("%v still revoked", r.Revoked)
	}
	for i := range 3 {
		s.none(o, at(i))
	}
	s.must(s.storage.Finish(ctx, done(s.one(o, lane("moved.test")))))
	s.edited(ed, f(0), queue.Edit{Release: true}, 1)
	s.must(s.storage.Finish(ctx, done(s.one(o, at(0)))))
	// Dropped while leased, and its owner dies: gone.
	s.edited(ed, f(3), queue.Edit{Drop: true}, 1)
	s.pass(2 * time.Minute)
	next := s.owner()
	s.none(next, at(3))
	s.gone(sub.Message)
}

// editEnd: what is ended is listed among the alarms, free or leased, held or
// not, and says why.
func (s *suite) editEnd() {
	ed := optional[queue.Editor](s)
	o := s.owner()
	free, held, leased := s.submission(lane("free.test")), s.submission(lane("held.test")), s.submission(lane("leased.test"))
	held.Entries[0].Held = true
	s.put(free, held, leased)
	l := s.one(o, lane("leased.test"))
	end := &smtp.Error{Code: 550, Enhanced: smtp.EnhancedCode{5, 7, 1}, Text: "Enough"}
	s.edited(ed, queue.Filter{}, queue.Edit{End: end}, 3)
	if r := s.renew(o); len(r.Revoked) != 1 {
		s.Errorf("revoked %v", r.Revoked)
	}
	s.must(s.storage.Finish(ctx, &queue.Outcome{Lease: l, Due: s.clockNow().Add(time.Hour)}))
	if _, ok := s.lanes(s.clockNow())[queue.Lane{Dest: queue.Alarms}]; !ok {
		s.Error("no alarm is due")
	}
	leases := s.lease(o, 10, queue.Lane{Dest: queue.Alarms})
	if len(leases) != 3 {
		s.Fatalf("%d alarms, want 3", len(leases))
	}
	for _, l := range leases {
		if len(l.Entry.Last) != 2 || l.Entry.Held {
			s.Fatalf("%+v", l.Entry)
		}
		for _, r := range l.Entry.Last {
			if e, ok := r.Err.(*smtp.Error); !ok || *e != *end {
				s.Errorf("ended by %v, want %v", r.Err, end)
			}
		}
		s.must(s.storage.Finish(ctx, done(l)))
	}
}

func (s *suite) editResume() {
	ed := optional[queue.Editor](s)
	o := s.owner()
	sub := s.submission(names(3)...)
	sub.Entries[0].Held, sub.Entries[0].Suspended = true, true
	sub.Entries[1].Held = true
	s.put(sub)
	s.edited(ed, queue.Filter{}, queue.Edit{Resume: true}, 3)
	s.one(o, lane("d0.test"))
	s.none(o, lane("d1.test"))
	s.one(o, lane("d2.test"))
}

func (s *suite) editRecipient() {
	ed := optional[queue.Editor](s)
	o := s.owner()
	sub := s.submission(names(4)...)
	s.put(sub)
	to := func(i, k int) smtp.Address { return sub.Entries[i].Envelope.To[k].Address }
	at := func(local, domain string) smtp.Address { return smtp.Address{Local: local, Domain: domain} }
	leased := s.one(o, lane("d0.test"))
	s.edited(ed, queue.Filter{To: to(0, 1)}, queue.Edit{Old: to(0, 1), New: at("new", "d0.test")}, 1)
	s.must(s.storage.Finish(ctx, &queue.Outcome{Lease: leased, Done: []int{0}, Due: s.clockNow()}))
	if e := s.one(o, lane("d0.test")).Entry; len(e.Envelope.To) != 1 || e.Envelope.To[0].Address != at("new", "d0.test") {
		s.Errorf("recipients %+v", e.Envelope.To)
	}
	s.edited(ed, queue.Filter{To: to(1, 0)}, queue.Edit{Old: to(1, 0)}, 1)
	s.edited(ed, queue.Filter{To: to(1, 1)}, queue.Edit{Old: to(1, 1), New: at("x", "moved.test")}, 1)
	if e := s.one(o, lane("moved.test")).Entry; len(e.Envelope.To) != 1 || e.Envelope.To[0].Original != to(1, 1).String() {
		s.Errorf("recipients %+v", e.Envelope.To)
	}
	for k := range 2 {
		s.edited(ed, queue.Filter{To: to(2, k)}, queue.Edit{Old: to(2, k)}, 1)
	}
	s.none(o, lane("d2.test"))
	s.edited(ed, queue.Filter{Dest: "d2.test"}, queue.Edit{Drop: true}, 0)
}

func (s *suite) pause() {
	ed := optional[queue.Editor](s)
	o := s.owner()
	f := queue.Filter{Dest: "a.test"}
	s.must(ed.Pause(ctx, f, true))
	s.must(ed.Pause(ctx, f, true))
	s.must(ed.Pause(ctx, queue.Filter{Tenant: "t"}, true))
	if r := s.renew(o); len(r.Paused) != 2 {
		s.Errorf("paused %v, want two rules", r.Paused)
	}
	if rules, err := ed.Paused(ctx); err != nil || len(rules) != 2 {
		s.Errorf("paused %v, %v, want two rules", rules, err)
	}
	s.must(ed.Pause(ctx, f, false))
	if r := s.renew(o); len(r.Paused) != 1 || r.Paused[0].Tenant != "t" {
		s.Errorf("paused %v", r.Paused)
	}
}

func (s *suite) waker() {
	w := optional[queue.Waker](s)
	woken := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		case <-time.After(5 * time.Second):
			return false
		}
	}
	first, second := w.Wake(), w.Wake()
	s.put(s.submission(lane("a.test")))
	if !woken(first) || !woken(second) {
		s.Error("Put woke nobody")
	}
	l := s.one(s.owner(), lane("a.test"))
	c := w.Wake()
	out := done(l)
	out.Put = []*queue.Submission{s.submissionOf(foreign(content), lane("bounce.test"))}
	s.must(s.storage.Finish(ctx, out))
	if !woken(c) {
		s.Error("a bounce woke nobody")
	}
}

func (s *suite) eventLog() {
	log := optional[queue.EventLog](s)
	o := s.owner()
	sub := s.submission(lane("a.test"))
	event := func() queue.Event {
		return queue.Event{ID: queue.NewID(), Kind: queue.EventQueued, Message: sub.Message}
	}
	first, second := event(), event()
	sub.Events = []queue.Event{first}
	s.put(sub)
	s.put(sub)
	out := done(s.one(o, lane("a.test")))
	out.Events = []queue.Event{second}
	s.must(s.storage.Finish(ctx, out))
	got, err := log.NextEvents(ctx, o, 10)
	s.must(err)
	if len(got) == 0 {
		s.Skip("the event log is off")
	}
	if len(got) != 2 || got[0].ID != first.ID || got[1].ID != second.ID {
		s.Fatalf("events %+v", got)
	}
	s.must(log.AckEvents(ctx, first.ID))
	if again, _ := log.NextEvents(ctx, s.owner(), 10); len(again) != 0 {
		s.Errorf("leased events were handed out again: %+v", again)
	}
	s.pass(2 * time.Minute) // the reader dies without an acknowledgement
	next := s.owner()
	again, err := log.NextEvents(ctx, next, 10)
	s.must(err)
	if len(again) != 1 || again[0].ID != second.ID {
		s.Errorf("events %+v, want the second again", again)
	}
	s.must(log.AckEvents(ctx, second.ID))
	s.editEvents(log, next)
}

// editEvents: what is done by hand is told, when it takes effect.
func (s *suite) editEvents(log queue.EventLog, o queue.Owner) {
	ed, ok := s.storage.(queue.Editor)
	if !ok {
		return
	}
	free, leased := s.submission(lane("free.test")), s.submission(lane("leased.test"))
	s.put(free, leased)
	l := s.one(o, lane("leased.test"))
	s.edited(ed, queue.Filter{}, queue.Edit{Hold: true}, 2)
	s.edited(ed, queue.Filter{Dest: "free.test"}, queue.Edit{Hold: true}, 1) // it is
	s.edited(ed, queue.Filter{Dest: "free.test"}, queue.Edit{Release: true, Due: s.clockNow()}, 1)
	s.edited(ed, queue.Filter{Dest: "free.test"}, queue.Edit{Drop: true}, 1)
	s.must(s.storage.Finish(ctx, &queue.Outcome{Lease: l, Due: s.clockNow()}))
	got, err := log.NextEvents(ctx, o, 10)
	s.must(err)
	var kinds []string
	for _, e := range got {
		kinds = append(kinds, e.Kind.String()+" "+e.Lane.Dest)
	}
	if want := []string{"held free.test", "released free.test", "dropped free.test", "held leased.test"}; !slices.Equal(kinds, want) {
		s.Errorf("events %q, want %q", kinds, want)
	}
}
