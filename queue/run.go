package queue

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// run is one Run of a Queue: the scheduler's goroutine (main), one that renews
// the leases, one for each delivery, and a few that look up sites.
type run struct {
	q    *Queue
	done chan struct{} // closed when all of them have ended

	base      context.Context // of storage calls; ends with cut
	cutBase   context.CancelFunc
	draining  atomic.Bool
	failing   atomic.Int32 // Finish calls that failed and are being retried
	kicked    chan struct{}
	relist    atomic.Bool // list the lanes at the next kick
	revive    atomic.Bool // ask sites that are down at the next kick
	reshare   atomic.Bool // the owners changed
	renewNow  chan struct{}
	deliverWG sync.WaitGroup
	turns     turns // of senders

	mu       sync.Mutex
	owner    Owner
	leased   context.Context // ends when the owner's leases do
	endLease context.CancelFunc
	active   map[ID]context.CancelFunc
	rank     int // of this owner
	owners   int
	paused   []Filter
	ended    []Filter // rules that are gone, and may have left entries held; of renew
	attempts []*job   // their deliveries have ended; outcomes may be still to write
	finished []*job   // all of it has
	grouped  []*lane
}

func newRun(q *Queue) *run {
	r := &run{q: q, done: make(chan struct{}), kicked: make(chan struct{}, 1), renewNow: make(chan struct{}, 1), active: make(map[ID]context.CancelFunc)}
	r.base, r.cutBase = context.WithCancel(context.Background())
	return r
}

// drain ends the leasing.
func (r *run) drain() {
	r.draining.Store(true)
	r.kick()
}

// cut also ends what can be ended.
func (r *run) cut() {
	r.cutBase()
	r.drain()
}

func (r *run) kick() {
	select {
	case r.kicked <- struct{}{}:
	default:
	}
}

func (r *run) main() {
	stop := make(chan struct{})
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		r.renew(stop)
	}()
	newScheduler(r).loop()
	r.deliverWG.Wait()
	close(stop)
	<-renewed
	r.cutBase()
}

// retryStorage is how long to wait before a storage is asked again after its
// nth failure.
func retryStorage(n int) time.Duration {
	return jitter(min(100*time.Millisecond<<min(n, 6), 5*time.Second))
}

// renew keeps an owner alive until stop is closed, and makes a new one when
// it is found dead.
func (r *run) renew(stop <-chan struct{}) {
	// A cut waits for deliveries whose dot is sent: they need their leases.
	ctx, cancel := context.WithCancel(context.Background())
	var resuming sync.WaitGroup
	defer resuming.Wait()
	defer cancel()
	watched := make(chan struct{})
	defer func() { <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	life := or(r.q.LeaseTime, defaultLeaseTime)
	var until time.Time
	owner := NewOwner()
	defer func() { r.leave(owner) }()
	for fails := 0; ; {
		begun := time.Now()
		// Deliveries must have ended when the leases do, whatever the storage
		// takes to answer.
		limit := begun.Add(life)
		if !until.IsZero() {
			limit = until.Add(-life / 10)
		}
		call, end := context.WithDeadline(ctx, limit)
		info, err := r.q.Storage.Renew(call, owner, life)
		wait := life / 3
		switch {
		case err == nil:
			fails = 0
			until = begun.Add(life)
			r.renewedAs(owner, &info)
			if len(r.ended) > 0 {
				ended := r.ended
				r.ended = nil
				resuming.Go(func() { r.resume(ctx, ended) })
			}
		case ctx.Err() != nil:
			end()
			return
		case errors.Is(err, ErrLeaseLost):
			r.lost()
			r.q.log().Warn("queue: leases lost; another queue may deliver the same mail", "owner", owner)
			owner, until, wait = NewOwner(), time.Time{}, 0
		default:
			wait = retryStorage(fails)
			fails++
			r.q.log().Error("queue: renewing the leases", "err", err)
			if !until.IsZero() && !time.Now().Before(limit) {
				r.lost() // nothing may be sent without a lease
				until = time.Time{}
			} else if !until.IsZero() {
				wait = min(wait, time.Until(limit))
			}
		}
		end()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-r.renewNow:
			t.Stop()
		case <-stop:
			t.Stop()
			return
		}
	}
}

// leave ends an owner, so that others take over its share at once.
func (r *run) leave(owner Owner) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := r.q.Storage.Renew(ctx, owner, 0); err != nil && !errors.Is(err, ErrLeaseLost) {
		r.q.log().Warn("queue: leaving", "owner", owner, "err", err)
	}
}

// renewedAs notes that owner's leases hold.
func (r *run) renewedAs(owner Owner, info *Renewal) {
	r.mu.Lock()
	if r.owner != owner || r.leased.Err() != nil {
		r.owner = owner
		r.leased, r.endLease = context.WithCancel(r.base)
		r.relist.Store(true)
	}
	for _, id := range info.Revoked {
		if cancel := r.active[id]; cancel != nil {
			cancel()
		}
	}
	if !reflect.DeepEqual(r.paused, info.Paused) {
		r.relist.Store(true)
		for _, old := range r.paused {
			// What this queue held by a rule that is gone, perhaps after it was.
			if !old.ofLane() && !slices.ContainsFunc(info.Paused, func(f Filter) bool { return reflect.DeepEqual(f, old) }) {
				r.ended = append(r.ended, old)
			}
		}
	}
	r.paused = info.Paused
	if r.rank != info.Rank || r.owners != info.Owners {
		r.rank, r.owners = info.Rank, info.Owners
		r.reshare.Store(true)
		r.relist.Store(true)
	}
	r.mu.Unlock()
	if r.relist.Load() {
		r.kick()
	}
}

// resume releases what rules held that are gone. It tries until that holds or
// ctx is done.
func (r *run) resume(ctx context.Context, ended []Filter) {
	for n := 0; len(ended) > 0; {
		_, err := r.q.resume(ctx, ended[0])
		if err == nil {
			ended, n = ended[1:], 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		r.q.log().Error("queue: releasing what a rule held", "err", err)
		t := time.NewTimer(retryStorage(n))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		n++
	}
}

// lost ends what the leases allowed.
func (r *run) lost() {
	r.mu.Lock()
	if r.endLease != nil {
		r.endLease()
	}
	r.mu.Unlock()
}

// lease returns who leases and until when; ok is false while nobody does.
func (r *run) lease() (owner Owner, ctx context.Context, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner, r.leased, r.leased != nil && r.leased.Err() == nil
}

// pausedLane reports whether a rule that knows no more than a lane stops it.
func (r *run) pausedLane(l Lane) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.paused {
		if f := &r.paused[i]; f.ofLane() && (f.Dest == "" || f.Dest == l.Dest) && (f.Tenant == "" || f.Tenant == l.Tenant) {
			return true
		}
	}
	return false
}

// pausedEntry reports whether any rule stops e.
func (r *run) pausedEntry(e *Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.paused {
		if r.paused[i].Match(e) {
			return true
		}
	}
	return false
}

// finish writes an outcome: it tries until that holds or the lease is lost,
// and reports whether it holds. While any outcome fails nothing is leased:
// each delivery that cannot be noted would be made twice.
func (r *run) finish(o *Outcome) bool {
	failed := false
	defer func() {
		if failed {
			r.failing.Add(-1)
			r.kick()
		}
	}()
	for n := 0; ; n++ {
		last := r.base.Err() != nil
		// The outcome of a delivery that was cut is worth writing, too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.base), 30*time.Second)
		err := r.q.Storage.Finish(ctx, o)
		cancel()
		if err == nil {
			r.q.tell(o.Events)
			for _, s := range o.Put {
				if !s.Duplicate {
					r.q.tell(s.Events)
				}
			}
			return true
		}
		log := r.q.log().With("entry", o.Lease.Entry.ID, "message", o.Lease.Entry.Message.ID, "done", len(o.Done), "err", err)
		if errors.Is(err, ErrLeaseLost) {
			log.Warn("queue: outcome not written, the lease is lost: mail that was delivered may be delivered again")
			return false
		}
		if last {
			log.Error("queue: closed before the outcome could be written: mail that was delivered may be delivered again")
			return false
		}
		log.Error("queue: writing an outcome; nothing is leased until it holds")
		if !failed {
			failed = true
			r.failing.Add(1)
		}
		t := time.NewTimer(retryStorage(n))
		select {
		case <-t.C:
		case <-r.base.Done():
			t.Stop()
		}
	}
}
