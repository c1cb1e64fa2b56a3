package queue

import "time"

// site is what shares hosts: its limit is learned, in memory.
type site struct {
	name     string
	inflight int
	lanes    int     // in memory that are of this site
	parked   classes // lanes that wait for room here
	// limit is how many deliveries may run: a success adds its share of one
	// whole window, a failure of the host halves it.
	limit    float64
	fails    int       // failures of the host in a row
	lastCut  time.Time // when limit was halved last
	downs    int       // how often in a row it was found down
	until    time.Time // down until then
	again    time.Time // over its rate until then
	probing  bool      // one delivery at a time until it answers
	lastUsed time.Time
	highest  int // what limit may grow to: this queue's share
	fixed    bool
	place    int // in sites.waiting + 1
}

func (s *site) wakeAt() time.Time { return later(s.until, s.again) }
func (s *site) where() *int       { return &s.place }

// verdict is what a delivery says of its site.
type verdict uint8

const (
	vNone   verdict = iota // nothing: it was cut short, or failed on our side
	vWell                  // a recipient was taken
	vAnswer                // the host answered, but took none
	vHost                  // the host failed
	vRoute                 // every host failed
)

const (
	failsToDown   = 3 // failures in a row after which a site is left alone
	firstDown     = time.Minute
	longestDown   = 30 * time.Minute
	siteMemory    = 10 * time.Minute // how long an idle site's limit is remembered
	siteStartPart = 4                // a site starts at this part of its limit
)

// room is how many deliveries may begin.
func (s *site) room(now time.Time) int {
	if now.Before(s.until) || now.Before(s.again) {
		return 0
	}
	n := min(int(s.limit), s.highest)
	if s.probing {
		n = min(n, 1)
	}
	return n - s.inflight
}

// heed takes a verdict of a delivery that began at started. retry is when its
// entry is tried again: there is no reason to ask the site later than that.
func (s *site) heed(v verdict, started, now time.Time, retry time.Duration) {
	s.lastUsed = now
	if s.fixed {
		return
	}
	switch v {
	case vWell:
		s.up(now)
		s.limit = max(min(s.limit+1/s.limit, float64(s.highest)), 1)
	case vAnswer:
		s.up(now)
	case vHost, vRoute:
		// What was under way when the limit was halved saw the same failure.
		if started.Before(s.lastCut) {
			return
		}
		s.lastCut = now
		s.limit = max(s.limit/2, 1)
		s.fails++
		if v == vRoute || s.probing || s.fails >= failsToDown {
			d := firstDown << min(s.downs, 5)
			if retry > 0 {
				d = min(d, retry)
			}
			s.until = now.Add(min(d, longestDown))
			s.downs++
			s.probing = true
		}
	}
}

// up notes that the host answered; what was under way when the site was found
// down may prove that it is not.
func (s *site) up(now time.Time) {
	s.fails, s.downs, s.probing = 0, 0, false
	s.until = earlier(s.until, now)
}

// sites are those with work or a memory.
type sites struct {
	byName  map[string]*site
	waiting timeHeap[*site]       // those to wake up at their time
	most    func(name string) int // how many deliveries may run at a site
	swept   time.Time
	fixed   bool
}

func (ss *sites) get(name string, now time.Time) *site {
	s := ss.byName[name]
	if s == nil {
		most := ss.most(name)
		s = &site{name: name, highest: most, limit: max(float64(most)/siteStartPart, 1), lastUsed: now}
		if ss.fixed {
			s.limit, s.fixed = float64(most), true
		}
		ss.byName[name] = s
	}
	return s
}

// revive lets the sites that are down be asked at once, with one delivery.
func (ss *sites) revive(now time.Time) {
	for _, s := range ss.byName {
		if now.Before(s.until) {
			s.until = now
			if s.place != 0 {
				ss.waiting.wait(s)
			}
		}
	}
}

// sweep forgets sites that were idle for long.
func (ss *sites) sweep(now time.Time) {
	if now.Sub(ss.swept) < time.Minute {
		return
	}
	ss.swept = now
	for name, s := range ss.byName {
		if s.lanes == 0 && s.place == 0 && now.Sub(s.lastUsed) > siteMemory {
			delete(ss.byName, name)
		}
	}
}
