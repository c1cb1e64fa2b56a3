package queuetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

func (s *suite) leaseOrder() {
	o := s.owner()
	now := s.clockNow()
	for _, i := range []int{3, 1, 4, 0, 2, 7} {
		sub := s.submission(lane("a.test"))
		sub.Entries[0].Due = now.Add(time.Duration(i-4) * time.Second)
		sub.Entries[0].Attempt = i
		s.put(sub)
	}
	var got []int
	for _, l := range append(s.lease(o, 2, lane("a.test")), s.lease(o, 10, lane("a.test"))...) {
		got = append(got, l.Entry.Attempt)
	}
	if want := []int{0, 1, 2, 3, 4}; !slices.Equal(got, want) {
		s.Errorf("leased in the order %v, want %v and not what is not due", got, want)
	}
	s.pass(3 * time.Second)
	s.renew(o)
	if l := s.one(o, lane("a.test")); l.Entry.Attempt != 7 {
		s.Error("what became due was not leased")
	}
}

func (s *suite) leaseOnlyWanted() {
	o := s.owner()
	lanes := []queue.Lane{lane("a.test"), lane("b.test"), {Dest: "a.test", Tenant: "t"}, {Dest: "a.test", Priority: 1}}
	for _, l := range lanes {
		for range 3 {
			s.put(s.submission(l))
		}
	}
	leases, err := s.storage.Lease(ctx, o, []queue.Want{{Lane: lanes[0], Max: 2}, {Lane: lanes[3], Max: 1}, {Lane: lane("no.test"), Max: 5}})
	s.must(err)
	count := map[queue.Lane]int{}
	for _, l := range leases {
		count[l.Entry.Lane]++
		if l.Owner != o || l.Token != 1 {
			s.Errorf("lease %+v", l)
		}
	}
	if len(leases) != 3 || count[lanes[0]] != 2 || count[lanes[3]] != 1 {
		s.Errorf("leased %v", count)
	}
}

func (s *suite) lanesYield() {
	now := s.clockNow()
	o := s.owner()
	soon := s.submission(lane("soon.test"))
	soon.Entries[0].Due = now.Add(10 * time.Second)
	late := s.submission(lane("late.test"))
	late.Entries[0].Due = now.Add(time.Hour)
	held := s.submission(lane("held.test"))
	held.Entries[0].Held = true
	leased := s.submission(lane("leased.test"))
	two := s.submission(lane("two.test"))
	two.Entries[0].Due = now.Add(5 * time.Second)
	earlier := s.submission(lane("two.test"))
	earlier.Entries[0].Due = now.Add(-time.Second)
	s.put(soon, late, held, leased, two, earlier)
	s.one(o, lane("leased.test"))
	s.none(o, lane("held.test"))
	got := s.lanes(now.Add(time.Minute))
	want := map[queue.Lane]time.Time{lane("soon.test"): soon.Entries[0].Due, lane("two.test"): earlier.Entries[0].Due}
	if len(got) != len(want) {
		s.Errorf("lanes %v, want %v", got, want)
	}
	for l, t := range want {
		if !got[l].Equal(t) {
			s.Errorf("%v is due at %v, want %v", l, got[l], t)
		}
	}
	// A break in the middle leaves nothing locked.
	for range s.storage.Lanes(ctx, now.Add(time.Minute)) {
		s.put(s.submission(lane("more.test")))
		break
	}
	s.one(o, lane("more.test"))
}

func (s *suite) leaseRace() {
	const owners, entries = 4, 400
	for range entries / 4 {
		s.put(s.submission(names(4)...))
	}
	var mu sync.Mutex
	seen := make(map[queue.ID]queue.Owner)
	var wg sync.WaitGroup
	for range owners {
		o := s.owner()
		wg.Go(func() {
			for {
				var want []queue.Want
				for _, l := range names(4) {
					want = append(want, queue.Want{Lane: l, Max: 3})
				}
				leases, err := s.storage.Lease(ctx, o, want)
				if err != nil {
					s.Error(err)
				}
				if len(leases) == 0 {
					return
				}
				mu.Lock()
				for _, l := range leases {
					if other, twice := seen[l.Entry.ID]; twice {
						s.Errorf("%v is leased to %v and %v", l.Entry.ID, other, o)
					}
					seen[l.Entry.ID] = o
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != entries {
		s.Errorf("%d entries leased, want %d", len(seen), entries)
	}
}

func (s *suite) bornLeased() {
	o, other := s.owner(), s.owner()
	sub := s.submission(lane("a.test"))
	sub.Entries[0].Owner = o
	s.put(sub)
	s.none(other, lane("a.test"))
	s.must(s.storage.Finish(ctx, done(&queue.Lease{Entry: sub.Entries[0], Owner: o, Token: 1})))
	s.gone(sub.Message)
	// Born to an owner that is not alive it is free.
	sub = s.submission(lane("a.test"))
	sub.Entries[0].Owner = "nobody"
	s.put(sub)
	s.one(other, lane("a.test"))
}

func (s *suite) ownerDies() {
	dead, alive := s.owner(), s.owner()
	s.put(s.submission(lane("a.test")))
	l := s.one(dead, lane("a.test"))
	s.pass(40 * time.Second)
	s.renew(alive)
	s.none(alive, lane("a.test"))
	s.pass(30 * time.Second)
	if got := s.lanes(s.clockNow()); len(got) != 1 {
		s.Errorf("lanes %v after the owner died", got)
	}
	out := done(l)
	out.Put = []*queue.Submission{s.submissionOf(foreign(content), lane("bounce.test"))}
	s.lost(s.storage.Finish(ctx, out))
	s.none(alive, lane("bounce.test"))
	if got := s.one(alive, lane("a.test")); got.Entry.ID != l.Entry.ID || got.Entry.Attempt != 0 || len(got.Entry.Envelope.To) != 2 {
		s.Errorf("leased again as %+v", got.Entry)
	}
	_, err := s.storage.Renew(ctx, dead, time.Minute)
	s.lost(err)
	_, err = s.storage.Lease(ctx, dead, []queue.Want{{Lane: lane("a.test"), Max: 1}})
	s.lost(err)
	s.lost(s.storage.Finish(ctx, out))
}

func (s *suite) unknownOwner() {
	_, err := s.storage.Lease(ctx, "nobody", []queue.Want{{Lane: lane("a.test"), Max: 1}})
	s.lost(err)
	s.put(s.submission(lane("a.test")))
	l := s.one(s.owner(), lane("a.test"))
	stolen := *l
	stolen.Owner = s.owner()
	s.lost(s.storage.Finish(ctx, done(&stolen)))
	s.must(s.storage.Finish(ctx, done(l)))
}

func (s *suite) ranks() {
	ranks := map[int]bool{}
	s.renew(queue.NewReader()) // it does not deliver
	owners := []queue.Owner{s.owner(), s.owner(), s.owner()}
	for _, o := range owners {
		r := s.renew(o)
		if r.Owners != 3 || r.Rank < 0 || r.Rank > 2 || ranks[r.Rank] {
			s.Errorf("rank %d of %d", r.Rank, r.Owners)
		}
		ranks[r.Rank] = true
	}
	s.pass(50 * time.Second)
	s.renew(owners[0])
	s.pass(50 * time.Second)
	if r := s.renew(owners[0]); r.Owners != 1 || r.Rank != 0 {
		s.Errorf("rank %d of %d when the others are dead", r.Rank, r.Owners)
	}
}

// leave: an owner that renews for no time is dead, and what it held is free.
func (s *suite) leave() {
	o, next := s.owner(), s.owner()
	s.put(s.submission(lane("a.test")))
	l := s.one(o, lane("a.test"))
	_, err := s.storage.Renew(ctx, o, 0)
	s.must(err)
	s.lost(s.storage.Finish(ctx, done(l)))
	if r := s.renew(next); r.Owners != 1 {
		s.Errorf("%d owners, want the one that is left", r.Owners)
	}
	s.one(next, lane("a.test"))
}

func (s *suite) staleToken() {
	o := s.owner()
	s.put(s.submission(lane("a.test")))
	first := s.one(o, lane("a.test"))
	back := &queue.Outcome{Lease: first, Due: s.clockNow()}
	s.must(s.storage.Finish(ctx, back))
	second := s.one(o, lane("a.test"))
	if second.Token != first.Token+1 {
		s.Errorf("tokens %d and %d", first.Token, second.Token)
	}
	s.lost(s.storage.Finish(ctx, done(first)))
	s.must(s.storage.Finish(ctx, done(second)))
	s.lost(s.storage.Finish(ctx, done(second)))
}

func (s *suite) finishDefers() {
	o := s.owner()
	s.put(s.submission(lane("a.test")))
	l := s.one(o, lane("a.test"))
	now := s.clockNow()
	r := smtp.Result{Err: &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 7, 1}, Text: "Later", Scope: smtp.ScopeHost, Unsure: true}}
	s.must(s.storage.Finish(ctx, &queue.Outcome{Lease: l, Done: []int{0}, Last: []smtp.Result{r},
		Due: now.Add(30 * time.Second), Alarm: now.Add(time.Hour), Attempt: 5, Lane: lane("b.test")}))
	s.none(o, lane("a.test"))
	s.none(o, lane("b.test"))
	s.pass(30 * time.Second)
	e := s.one(o, lane("b.test")).Entry
	if len(e.Envelope.To) != 1 || e.Envelope.To[0].Local != "r2" || e.Attempt != 5 || len(e.Last) != 1 || !e.Alarm.Equal(now.Add(time.Hour)) {
		s.Fatalf("deferred as %+v", e)
	}
	got, ok := e.Last[0].Err.(*smtp.Error)
	if !ok || got.Code != 451 || got.Scope != smtp.ScopeHost || !got.Unsure || got.Text != "Later" {
		s.Errorf("last result %+v", e.Last[0])
	}
	for _, bad := range []*queue.Outcome{{Done: []int{1}}, {Done: []int{-1}}, {Done: []int{0, 0}}} {
		bad.Lease = s.leaseOf(o, e)
		if err := s.storage.Finish(ctx, bad); err == nil {
			s.Errorf("an outcome with Done %v of one recipient was written", bad.Done)
		}
	}
}

// leaseOf remakes the lease of an entry that o holds for the second time.
func (s *suite) leaseOf(o queue.Owner, e *queue.Entry) *queue.Lease {
	return &queue.Lease{Entry: e, Owner: o, Token: 2}
}

func (s *suite) finishAndPut() {
	o := s.owner()
	s.put(s.submission(lane("a.test")))
	l := s.one(o, lane("a.test"))
	bad := s.submissionOf(foreign(content), lane("bounce.test"))
	bad.Entries[0].Envelope.To = nil
	out := done(l)
	out.Put = []*queue.Submission{s.submissionOf(foreign(content), lane("bounce.test")), bad}
	if err := s.storage.Finish(ctx, out); err == nil {
		s.Fatal("an outcome with an unusable bounce was written")
	}
	s.none(o, lane("bounce.test"))
	if got := s.read(l.Entry.Message); got == "" {
		s.Error("the message is gone though its outcome failed")
	}
	out.Put = out.Put[:1]
	s.must(s.storage.Finish(ctx, out))
	s.gone(l.Entry.Message)
	b := s.one(o, lane("bounce.test"))
	if got := s.read(b.Entry.Message); got != string(out.Put[0].Head)+content {
		s.Errorf("the bounce reads %q", got)
	}
}

func (s *suite) lastTwo() {
	o := s.owner()
	for range 50 {
		sub := s.submission(names(2)...)
		s.put(sub)
		leases := s.lease(o, 1, names(2)...)
		if len(leases) != 2 {
			s.Fatalf("%d leases", len(leases))
		}
		var wg sync.WaitGroup
		for _, l := range leases {
			wg.Go(func() {
				if err := s.storage.Finish(ctx, done(l)); err != nil {
					s.Error(err)
				}
			})
		}
		wg.Wait()
		s.gone(sub.Message)
	}
}

func (s *suite) openDuringLastFinish() {
	o := s.owner()
	sub := s.submission(lane("a.test"))
	s.put(sub)
	l := s.one(o, lane("a.test"))
	b, err := s.storage.Open(ctx, sub.Message)
	s.must(err)
	s.must(s.storage.Finish(ctx, done(l)))
	s.gone(sub.Message)
	if got := s.readBlob(b); got != string(sub.Head)+content {
		s.Errorf("read %q after the last Finish", got)
	}
	s.must(b.Close())
	s.must(b.Close())
}

func (s *suite) alarm() {
	alarms := lane(queue.Alarms)
	o := s.owner()
	now := s.clockNow()
	sub := s.submission(lane("paused.test"))
	sub.Entries[0].Due = now.Add(time.Hour) // may not send, for whatever reason
	sub.Entries[0].Alarm = now.Add(10 * time.Second)
	held := s.submission(lane("held.test"))
	held.Entries[0].Held, held.Entries[0].Alarm = true, now
	urgent := s.submission(lane("suspended.test"))
	urgent.Entries[0].Alarm = now.Add(5 * time.Second)
	if ed, ok := s.storage.(queue.Editor); ok {
		for _, dest := range []string{"paused.test", "suspended.test"} {
			s.must(ed.Pause(ctx, queue.Filter{Dest: dest}, true))
		}
	}
	s.put(sub, held, urgent)
	s.none(o, alarms)
	if got := s.lanes(now.Add(time.Minute)); len(got) != 2 || got[lane("suspended.test")].IsZero() || !got[alarms].Equal(urgent.Entries[0].Alarm) {
		s.Errorf("lanes %v, want the one that is due and the first alarm", got)
	}
	s.pass(5 * time.Second)
	l := s.one(o, alarms) // in a lane that is suspended, too
	if l.Entry.ID != urgent.Entries[0].ID {
		s.Errorf("leased %+v", l.Entry)
	}
	s.must(s.storage.Finish(ctx, done(l)))
	s.pass(5 * time.Second)
	l = s.one(o, alarms)
	if l.Entry.ID != sub.Entries[0].ID || l.Entry.Lane != lane("paused.test") {
		s.Errorf("leased %+v", l.Entry)
	}
	s.none(o, alarms)
	s.must(s.storage.Finish(ctx, &queue.Outcome{Lease: l, Due: l.Entry.Due, Alarm: now.Add(20 * time.Second)}))
	s.none(o, alarms)
	s.pass(10 * time.Second)
	s.must(s.storage.Finish(ctx, done(s.one(o, alarms))))
	if got := s.lanes(now.Add(2 * time.Hour)); len(got) != 0 {
		s.Errorf("lanes %v, want none", got)
	}
}

func (s *suite) clock() {
	o := s.owner()
	s.put(s.submission(lane("a.test")))
	l := s.one(o, lane("a.test"))
	s.pass(-time.Hour)
	s.renew(o)
	s.must(s.storage.Finish(ctx, &queue.Outcome{Lease: l, Due: s.clockNow()}))
	l = s.one(o, lane("a.test"))
	s.put(s.submission(lane("b.test"))) // due in the jumped clock's now
	s.one(o, lane("b.test"))
	s.pass(2 * time.Hour) // the owner looks dead: its entries are free, once
	s.lost(s.storage.Finish(ctx, done(l)))
	next := s.owner()
	s.must(s.storage.Finish(ctx, done(s.one(next, lane("a.test")))))
	s.must(s.storage.Finish(ctx, done(s.one(next, lane("b.test")))))
}

// blockedLanes has many lanes that may not send, each with an earlier entry
// than the one that may.
func (s *suite) blockedLanes() {
	const n = 20_000
	body := foreign(content)
	for from := 0; from < n; from += 1000 {
		var subs []*queue.Submission
		for i := range 1000 {
			subs = append(subs, s.submissionOf(body, lane(fmt.Sprintf("blocked%d.test", from+i))))
		}
		s.put(subs...)
	}
	s.pass(time.Second)
	s.put(s.submission(lane("free.test")))
	found := s.lanes(s.clockNow())
	if len(found) != n+1 || found[lane("free.test")].IsZero() {
		s.Errorf("%d lanes, want %d with the free one among them", len(found), n+1)
	}
	o := s.owner()
	s.must(s.storage.Finish(ctx, done(s.one(o, lane("free.test")))))
	// They wait no longer than they must, and are listed all the time.
	if got := s.lanes(s.clockNow()); len(got) != n {
		s.Errorf("%d lanes, want %d", len(got), n)
	}
	for _, i := range []int{0, n / 2, n - 1} {
		s.one(o, lane(fmt.Sprintf("blocked%d.test", i)))
	}
}

// depth has many entries in one lane, in 1,000, and in as many lanes: each
// lane is found, and mail that comes last is leased in one call.
func (s *suite) depth() {
	n := 50_000
	switch {
	case testing.Short():
		n = 5_000
	case raceEnabled:
		n = 20_000
	}
	body := foreign(content)
	for _, lanes := range []int{1, 1_000, n} {
		s.storage = s.opened(Config{MaxBytes: 8 << 30})
		begun := time.Now()
		for from := 0; from < n; from += 1000 {
			var subs []*queue.Submission
			for i := range 1000 {
				subs = append(subs, s.submissionOf(body, lane(fmt.Sprintf("deep%d.test", (from+i)%lanes))))
			}
			s.put(subs...)
		}
		put := time.Since(begun)
		s.pass(time.Second)
		s.put(s.submission(lane("last.test")))
		begun = time.Now()
		if found := s.lanes(s.clockNow()); len(found) != lanes+1 {
			s.Fatalf("%d lanes, want %d", len(found), lanes+1)
		}
		listed := time.Since(begun)
		o := s.owner()
		begun = time.Now()
		s.must(s.storage.Finish(ctx, done(s.one(o, lane("last.test")))))
		if got := s.lease(o, 10, lane("deep0.test")); len(got) != min(10, n/lanes) {
			s.Errorf("%d leased of the first lane", len(got))
		}
		s.Logf("%d entries in %d lanes: put %v, lanes %v, lease and finish %v", n, lanes, put, listed, time.Since(begun))
	}
}

// starvation puts many entries for a dead destination before a live one.
func (s *suite) starvation() {
	dead, live := 1_000_000, 1_000
	switch {
	case testing.Short():
		dead = 10_000
	case raceEnabled:
		dead = 100_000
	}
	s.storage = s.opened(Config{MaxBytes: 8 << 30})
	body := foreign(content)
	var subs []*queue.Submission
	begun := time.Now()
	for i := range dead {
		subs = append(subs, s.submissionOf(body, lane("dead.test")))
		if len(subs) == 1000 || i == dead-1 {
			s.put(subs...)
			subs = subs[:0]
		}
	}
	s.pass(time.Second)
	for i := range live {
		s.put(s.submissionOf(body, lane(fmt.Sprintf("live%d.test", i))))
	}
	put := time.Since(begun)
	o := s.owner()
	begun = time.Now()
	found := s.lanes(s.clockNow())
	listed := time.Since(begun)
	if len(found) != live+1 {
		s.Fatalf("%d lanes, want %d", len(found), live+1)
	}
	// The capacity of the dead lane is used up: it is not asked for.
	var want []queue.Want
	for l := range found {
		if l.Dest != "dead.test" {
			want = append(want, queue.Want{Lane: l, Max: 1})
		}
	}
	begun = time.Now()
	first, err := s.storage.Lease(ctx, o, want[:1])
	s.must(err)
	if len(first) != 1 {
		s.Fatal("the first live entry was not leased in one call")
	}
	rest, err := s.storage.Lease(ctx, o, want[1:])
	s.must(err)
	if len(rest) != live-1 {
		s.Errorf("%d live entries leased, want %d", len(rest)+1, live)
	}
	s.Logf("%d dead + %d live: put %v, lanes %v, lease %v", dead, live, put, listed, time.Since(begun))
}
