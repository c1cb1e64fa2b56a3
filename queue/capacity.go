package queue

import (
	"context"
	"time"
)

// alone reports whether no other queue shares the storage.
func (s *scheduler) alone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owners <= 1
}

// siteMost and tenantMost are this queue's share of what may run at one time.
func (s *scheduler) siteMost(name string) int {
	return s.most(s.q.SiteConcurrency, s.perSite, "site "+name, name)
}

func (s *scheduler) tenantMost(name string) int {
	return s.most(s.q.TenantConcurrency, s.perTenant, "tenant "+name, name)
}

func (s *scheduler) most(of func(string) int, def int, key, name string) int {
	if of != nil {
		def = or(of(name), def)
	}
	if def < 0 {
		return s.concurrency
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return share(def, key, s.rank, s.owners)
}

// reshares takes the shares anew.
func (s *scheduler) reshares() {
	for _, site := range s.sites.byName {
		site.highest = s.siteMost(site.name)
	}
	for _, t := range s.tenants {
		t.most = s.tenantMost(t.name)
		s.enter(t)
	}
}

func (s *scheduler) laneMost(l *lane) int {
	if s.perLane < 0 {
		return s.concurrency
	}
	return or(s.perLane, l.site.highest)
}

// laneKeys are what a lane's deliveries count for with the Limiter.
func laneKeys(l *lane) [4]string {
	return [...]string{"total", "tenant " + l.key.Tenant, "site " + l.site.name, "dest " + l.key.Dest}
}

// rate asks the Limiter for n deliveries of a lane. When there are none, the
// lane waits with whatever is over its rate.
func (s *scheduler) rate(leased context.Context, l *lane, n int, now time.Time) int {
	keys := laneKeys(l)
	for i, key := range keys {
		granted, again, err := s.q.Limiter.Take(leased, key, n)
		if err != nil {
			s.storageFailed("asking the limiter", err, leased)
			granted, again = 0, time.Time{}
		}
		granted = max(min(granted, n), 0)
		for _, before := range keys[:i] {
			s.giveRate(before, n-granted)
		}
		if n = granted; n > 0 {
			continue
		}
		again = later(again, now.Add(time.Millisecond)) // it must not be asked in a loop
		switch {
		case err != nil:
			s.ready(l)
		case i == 0:
			s.slowUntil = again
			s.ready(l)
		case i == 1:
			l.tenant.again = again
			s.slowTenants.wait(l.tenant)
			s.ready(l)
		case i == 2:
			l.site.again = again
			l.state = laneParked
			l.site.parked.push(l)
			s.sites.waiting.wait(l.site)
		default:
			l.again, l.state = again, laneSlow
			s.slowLanes.wait(l)
			s.unpark(l.site, now)
		}
		return 0
	}
	return n
}

func (s *scheduler) giveRate(key string, n int) {
	if n > 0 {
		s.q.Limiter.Give(key, n)
	}
}

// cost is what a delivery of e takes from each rate.
func (q *Queue) cost(e *Entry) int {
	if q.Cost == nil || q.Limiter == nil {
		return 1
	}
	return max(q.Cost(e), 1)
}

// owe makes a debt of n: it is known what an entry costs when it is leased.
func (r *run) owe(key string, n int) {
	if n > 0 {
		r.q.Limiter.Give(key, -n)
	}
}

// unused gives n units of a lane back to the Limiter, and has those ask
// again who wait for them.
func (s *scheduler) unused(l *lane, n int, now time.Time) {
	if s.q.Limiter == nil || n <= 0 {
		return
	}
	for _, key := range laneKeys(l) {
		s.q.Limiter.Give(key, n)
	}
	s.slowUntil = earlier(s.slowUntil, now)
	if t := l.tenant; t.place != 0 {
		t.again = now
		s.slowTenants.wait(t)
	}
	if site := l.site; now.Before(site.again) {
		site.again = now
		if site.place != 0 {
			s.sites.waiting.wait(site)
		}
	}
	if l.place != 0 {
		l.again = now
		s.slowLanes.wait(l)
	}
}
