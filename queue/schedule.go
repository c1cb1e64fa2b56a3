package queue

import (
	"context"
	"errors"
	"time"
)

const (
	pollBlind = time.Second // between listings of a storage that is no Waker, or is shared
	pollWaker = time.Minute // of another: hints can be lost
	// relistDrained is how soon the lanes are listed again after one had
	// less than was asked for: the most that its next entry can be late.
	relistDrained = 100 * time.Millisecond
	maxAlarms     = 16 // alarms looked at at one time
	maxGroups     = 16 // sites looked up at one time
	listingPart   = 10 // at most this part of the time goes to listing
	// groupTimeout bounds the look-up of one site: a domain whose answer does
	// not come is its own site, and keeps nobody waiting for its place.
	groupTimeout = 30 * time.Second
)

// scheduler decides what is leased. It belongs to one goroutine.
type scheduler struct {
	*run
	concurrency, perTenant, perSite, perLane int

	lanes    map[Lane]*lane
	tenants  map[string]*tenant
	ring     []*tenant // those with a lane that is ready, next first
	again    []*tenant // those in the middle of their turn, before them
	sites    sites
	grouper  Grouper
	toGroup  []*lane
	grouping int
	// Those that are over their rate, and until when all are.
	slowLanes   timeHeap[*lane]
	slowTenants timeHeap[*tenant]
	slowUntil   time.Time

	inflight       int // entries leased to be delivered
	alarms         int // alarms being looked at
	alarmDue       time.Time
	nextDue        time.Time // the earliest Due to come that is known
	listAt, listed time.Time // when to list next; not before
	wake           <-chan struct{}
	fails          int       // of the storage, in a row
	pauseUntil     time.Time // because of them
}

func newScheduler(r *run) *scheduler {
	s := &scheduler{run: r, lanes: make(map[Lane]*lane), tenants: make(map[string]*tenant)}
	s.concurrency = or(r.q.Concurrency, defaultConcurrency)
	s.perTenant = or(r.q.PerTenant, s.concurrency)
	s.perSite = or(r.q.PerSite, defaultPerSite)
	s.sites = sites{byName: make(map[string]*site), most: s.siteMost, fixed: r.q.fixed}
	s.perLane = r.q.PerLane
	s.grouper, _ = r.q.Transport.(Grouper)
	return s
}

// loop runs until the run is drained and the last delivery has ended.
func (s *scheduler) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		s.collect(now)
		if s.draining.Load() {
			if s.inflight == 0 && s.alarms == 0 && s.grouping == 0 {
				return
			}
			<-s.kicked
			continue
		}
		if s.reshare.Swap(false) {
			s.reshares()
		}
		if s.relist.Swap(false) {
			s.listAt = now
		}
		owner, leased, ok := s.lease()
		if ok && s.failing.Load() == 0 && !now.Before(s.pauseUntil) {
			s.work(leased, owner, now)
		}
		var timeC <-chan time.Time
		if next := s.next(ok); !next.IsZero() {
			timer.Reset(time.Until(next))
			timeC = timer.C
		}
		var wake <-chan struct{}
		if s.listAt.After(s.listed) { // else it is listed as soon as may be, anyway
			wake = s.wake
		}
		select {
		case <-s.kicked:
		case <-wake:
			s.wake = nil
			s.listAt = s.listed
		case <-timeC:
		}
	}
}

// next is when the loop has to look again if nothing kicks it.
func (s *scheduler) next(leased bool) time.Time {
	if !leased || s.failing.Load() > 0 {
		return time.Time{} // a kick tells when that changes
	}
	t := later(s.listAt, s.listed)
	for _, w := range [...]time.Time{s.sites.waiting.first(), s.slowLanes.first(), s.slowTenants.first(), s.slowUntil} {
		if !w.IsZero() && w.Before(t) {
			t = w
		}
	}
	if time.Now().Before(s.pauseUntil) {
		// Nothing is done before, and then there may be lanes that are ready
		// already: no listing tells of them.
		t = s.pauseUntil
	}
	return t
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// work lists, leases and starts what may start now.
func (s *scheduler) work(leased context.Context, owner Owner, now time.Time) {
	if !now.Before(s.listAt) && !now.Before(s.listed) {
		s.list(leased, now)
	}
	if s.revive.Swap(false) {
		s.sites.revive(now)
	}
	for site, ok := s.sites.waiting.back(now); ok; site, ok = s.sites.waiting.back(now) {
		s.unpark(site, now)
	}
	for l, ok := s.slowLanes.back(now); ok; l, ok = s.slowLanes.back(now) {
		s.ready(l)
	}
	for t, ok := s.slowTenants.back(now); ok; t, ok = s.slowTenants.back(now) {
		if s.enter(t); t.lanes == 0 {
			delete(s.tenants, t.name)
		}
	}
	if !now.Before(s.slowUntil) {
		s.slowUntil = time.Time{}
	}
	s.startGrouping(leased)
	if s.alarms < maxAlarms && !s.alarmDue.IsZero() && !now.Before(s.alarmDue) {
		s.leaseAlarms(leased, owner)
	}
	for s.leaseLanes(leased, owner, now) {
	}
}

// storageFailed notes that the storage could not be asked.
func (s *scheduler) storageFailed(what string, err error, leased context.Context) {
	if leased.Err() != nil {
		return
	}
	if errors.Is(err, ErrLeaseLost) {
		s.lost()
		return
	}
	s.pauseUntil = time.Now().Add(retryStorage(s.fails))
	s.fails++
	s.q.log().Error("queue: "+what, "err", err)
}

// list learns which lanes have something due.
func (s *scheduler) list(leased context.Context, now time.Time) {
	poll := pollBlind
	if w, ok := s.q.Storage.(Waker); ok {
		// Asked first: what changes during the listing wakes us again. What
		// another queue put back for later wakes nobody, though, and it may
		// have no part of a limit left by then.
		s.wake = w.Wake()
		if s.alone() {
			poll = pollWaker
		}
	}
	s.nextDue, s.alarmDue = time.Time{}, time.Time{}
	begun := now
	for ld, err := range s.q.Storage.Lanes(leased, now.Add(poll)) {
		if err != nil {
			s.storageFailed("listing the lanes", err, leased)
			return
		}
		switch {
		case ld.Lane.Dest == Alarms:
			s.alarmDue = ld.Due
		case ld.Due.After(now):
			s.dueAt(ld.Due)
		default:
			s.add(ld.Lane, now)
		}
	}
	s.fails = 0
	s.sites.sweep(now)
	for _, site := range s.sites.byName {
		if !site.parked.empty() {
			s.unpark(site, now)
		}
	}
	now = time.Now()
	s.listed = now.Add(listingPart * now.Sub(begun))
	s.listAt = begun.Add(poll) // what is due later was not asked for
	for _, t := range []time.Time{s.nextDue, s.alarmDue} {
		if t.After(begun) && t.Before(s.listAt) {
			s.listAt = t
		}
	}
}

// dueAt makes sure that the lanes are listed at t.
func (s *scheduler) dueAt(t time.Time) {
	if s.nextDue.IsZero() || t.Before(s.nextDue) {
		s.nextDue = t
	}
	s.listAt = earlier(s.listAt, t)
}

// add takes up a lane that has something due.
func (s *scheduler) add(key Lane, now time.Time) {
	l := s.lanes[key]
	if l == nil {
		t := s.tenants[key.Tenant]
		if t == nil {
			t = &tenant{name: key.Tenant, most: s.tenantMost(key.Tenant)}
			s.tenants[key.Tenant] = t
		}
		l = &lane{key: key, tenant: t}
		s.lanes[key] = l
		t.lanes++
	}
	if l.state != laneIdle {
		return
	}
	switch {
	case l.site != nil:
		s.ready(l)
	case s.grouper != nil && key.Dest != "":
		l.state = laneGroup
		s.toGroup = append(s.toGroup, l)
	default:
		s.settleAt(l, key.Dest, now)
	}
}

// settleAt gives a lane its site.
func (s *scheduler) settleAt(l *lane, name string, now time.Time) {
	l.site = s.sites.get(name, now)
	l.site.lanes++
	s.ready(l)
}

// ready puts a lane at the end of its tenant's queue.
func (s *scheduler) ready(l *lane) {
	l.state, l.quantum, l.ask = laneReady, quantum, max(l.ask, 2)
	l.tenant.ready.push(l)
	s.enter(l.tenant)
}

// enter lets a tenant take part if it can use a turn: before the others when
// it is in the middle of one, else behind them.
func (s *scheduler) enter(t *tenant) {
	if t.waiting || t.place != 0 || t.inflight >= t.most || t.current == nil && t.ready.empty() {
		return
	}
	if t.credit <= 0 {
		t.credit, t.begun = quantum, false
	}
	t.waiting = true
	if t.begun {
		s.again = append(s.again, t)
	} else {
		s.ring = append(s.ring, t)
	}
}

// turn takes out the tenant whose turn it is, nil when there is none.
func (s *scheduler) turn() *tenant {
	from := &s.again
	if len(*from) == 0 {
		from = &s.ring
	}
	if len(*from) == 0 {
		return nil
	}
	t := (*from)[0]
	(*from)[0] = nil
	*from = (*from)[1:]
	t.waiting, t.begun = false, true
	return t
}

// rest makes a lane idle and forgets it when nothing is under way.
func (s *scheduler) rest(l *lane) {
	l.state = laneIdle
	if l.inflight > 0 {
		return
	}
	delete(s.lanes, l.key)
	l.site.lanes--
	if l.tenant.lanes--; l.tenant.lanes == 0 && l.tenant.place == 0 {
		delete(s.tenants, l.tenant.name)
	}
}

// unpark gives a site's room to the lanes that wait for it.
func (s *scheduler) unpark(site *site, now time.Time) {
	for room := site.room(now); room > 0; {
		l := site.parked.pop()
		if l == nil {
			return
		}
		s.ready(l)
		// A tenant that may not start anything must not keep the room.
		if l.tenant.inflight < l.tenant.most {
			room--
		}
	}
}

// reservation is capacity taken for a lane before its entries are leased.
type reservation struct {
	lane *lane
	n    int
}

// plan takes capacity: in turn for each tenant, and of it in turn for each
// lane. What a turn took and did not use is credited again, so a tenant with
// many short lanes gets as much as one with a long one.
func (s *scheduler) plan(leased context.Context, now time.Time) []reservation {
	var plan []reservation
	for s.inflight < s.concurrency && s.slowUntil.IsZero() && !now.Before(s.pauseUntil) && leased.Err() == nil {
		t := s.turn()
		if t == nil {
			break
		}
		if r, ok := s.reserve(leased, t, now); ok {
			plan = append(plan, r)
		}
		s.enter(t)
	}
	return plan
}

// reserve takes capacity for the next lane of t, or puts that lane to where
// it has to wait.
func (s *scheduler) reserve(leased context.Context, t *tenant, now time.Time) (reservation, bool) {
	if t.inflight >= t.most {
		return reservation{}, false
	}
	l := t.current
	t.current = nil
	if l == nil {
		l = t.ready.pop()
	} else if t.ready.above(l.key.Priority) {
		t.ready.push(l)
		l = t.ready.pop()
	}
	if l == nil {
		return reservation{}, false
	}
	room := l.site.room(now)
	switch {
	case s.pausedLane(l.key):
		s.rest(l)
		s.unpark(l.site, now)
		return reservation{}, false
	case room <= 0:
		l.state = laneParked
		l.site.parked.push(l)
		if now.Before(l.site.wakeAt()) {
			s.sites.waiting.wait(l.site)
		}
		return reservation{}, false
	case l.inflight >= s.laneMost(l):
		l.state = laneFull
		s.unpark(l.site, now)
		return reservation{}, false
	}
	n := min(s.concurrency-s.inflight, t.most-t.inflight, room, s.laneMost(l)-l.inflight, l.ask, l.quantum, t.credit)
	if s.q.Limiter != nil {
		if n = s.rate(leased, l, n, now); n == 0 {
			return reservation{}, false
		}
	}
	s.take(l, n)
	l.quantum -= n
	t.credit -= n
	l.state = laneLeasing
	return reservation{l, n}, true
}

// take takes capacity. The site's, the lane's and the tenant's are free again
// when the delivery has ended, that of the queue when its outcome is written:
// what waits for the disk keeps nobody's connection idle, and is bounded.
func (s *scheduler) take(l *lane, n int) {
	s.inflight += n
	s.occupy(l, n)
}

func (s *scheduler) occupy(l *lane, n int) {
	l.tenant.inflight += n
	l.inflight += n
	l.site.inflight += n
}

// vacate gives a lane's capacity back and lets those move on who waited for it.
func (s *scheduler) vacate(l *lane, n int, now time.Time) {
	s.occupy(l, -n)
	if l.state == laneFull {
		s.ready(l)
	}
	s.enter(l.tenant)
	s.unpark(l.site, now)
}

// leaseLanes leases what plan took capacity for and starts it. It reports
// whether it is worth calling again.
func (s *scheduler) leaseLanes(leased context.Context, owner Owner, now time.Time) bool {
	plan := s.plan(leased, now)
	if len(plan) == 0 {
		return false
	}
	want := make([]Want, len(plan))
	for i, p := range plan {
		want[i] = Want{p.lane.key, p.n}
	}
	leases, err := s.q.Storage.Lease(leased, owner, want)
	if err != nil {
		s.storageFailed("leasing", err, leased)
	}
	got := make(map[*lane]int, len(plan))
	for _, lease := range leases {
		l := s.lanes[lease.Entry.Lane]
		if l == nil || l.state != laneLeasing {
			s.q.log().Error("queue: the storage leased what was not asked for", "entry", lease.Entry.ID)
			continue
		}
		got[l]++
		j := &job{lease: lease, lane: l, cost: s.q.cost(lease.Entry)}
		if j.cost > 1 {
			for _, key := range laneKeys(l) {
				s.owe(key, j.cost-1)
			}
		}
		s.start(leased, j)
	}
	for _, p := range plan {
		l, n := p.lane, got[p.lane]
		l.tenant.credit += p.n - n
		s.unused(l, p.n-n, now)
		if n == l.ask {
			l.ask = min(2*l.ask, quantum)
		}
		switch {
		case err != nil:
			s.ready(l)
		case n < p.n:
			// It has no more for now. When its next is due only a listing
			// tells: the one before told of the earliest alone.
			l.state = laneIdle
			s.listAt = earlier(s.listAt, now.Add(relistDrained))
		case l.quantum > 0 && l.tenant.current == nil:
			l.state = laneReady
			l.tenant.current = l
			s.enter(l.tenant)
		default:
			s.ready(l)
		}
		if n < p.n {
			s.inflight -= p.n - n
			s.vacate(l, p.n-n, now)
		}
		if l.state == laneIdle {
			s.rest(l)
		}
	}
	return err == nil
}

// leaseAlarms leases entries that must be looked at.
func (s *scheduler) leaseAlarms(leased context.Context, owner Owner) {
	free := maxAlarms - s.alarms
	leases, err := s.q.Storage.Lease(leased, owner, []Want{{Lane{Dest: Alarms}, free}})
	if err != nil {
		s.storageFailed("leasing alarms", err, leased)
		return
	}
	if len(leases) < free {
		// The next alarm is learned by listing. Not at once: by the storage's
		// clock, this one may not be due yet.
		s.alarmDue = time.Time{}
		s.listAt = earlier(s.listAt, time.Now().Add(relistDrained))
	}
	s.alarms += len(leases)
	for _, lease := range leases {
		s.start(leased, &job{lease: lease})
	}
}

// start begins a job in its own goroutine.
func (s *scheduler) start(leased context.Context, j *job) {
	j.started = time.Now()
	s.deliverWG.Go(func() {
		s.do(leased, j)
		s.mu.Lock()
		s.finished = append(s.finished, j)
		s.mu.Unlock()
		s.kick()
	})
}

// collect takes in what ended since it was called last.
func (s *scheduler) collect(now time.Time) {
	s.mu.Lock()
	delivered, finished, grouped := s.attempts, s.finished, s.grouped
	s.attempts, s.finished, s.grouped = nil, nil, nil
	s.mu.Unlock()
	for _, j := range delivered {
		l := j.lane
		var retry time.Duration
		if !j.retry.IsZero() {
			retry = max(j.retry.Sub(now), 1) // it may be due by now
		}
		if !j.tried {
			s.unused(l, j.cost, now)
		}
		l.site.heed(j.verdict, j.started, now, retry)
		if now.Before(l.site.wakeAt()) || l.site.place != 0 {
			s.sites.waiting.wait(l.site)
		}
		s.vacate(l, 1, now)
		if l.state == laneIdle && l.inflight == 0 {
			s.rest(l)
		}
	}
	for _, j := range finished {
		if j.lane == nil {
			s.alarms--
		} else {
			s.inflight--
		}
		if !j.next.IsZero() {
			s.dueAt(j.next)
		}
		if t := j.alarm; !t.IsZero() && (s.alarmDue.IsZero() || t.Before(s.alarmDue)) {
			s.alarmDue = t
			s.listAt = earlier(s.listAt, t)
		}
	}
	for _, l := range grouped {
		s.grouping--
		s.settleAt(l, l.group, now)
	}
}

// startGrouping asks the transport for the sites of lanes, a few at a time.
func (s *scheduler) startGrouping(leased context.Context) {
	for len(s.toGroup) > 0 && s.grouping < maxGroups {
		l := s.toGroup[0]
		s.toGroup = s.toGroup[1:]
		s.grouping++
		s.deliverWG.Go(func() {
			ctx, cancel := context.WithTimeout(leased, groupTimeout)
			name, err := s.grouper.Group(ctx, l.key.Dest)
			cancel()
			if err != nil || name == "" {
				name = l.key.Dest // the delivery will say what is wrong
			}
			s.mu.Lock()
			l.group = name
			s.grouped = append(s.grouped, l)
			s.mu.Unlock()
			s.kick()
		})
	}
}
