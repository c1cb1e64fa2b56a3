package diskstore

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/postrider/postrider/store"
)

// Deliver implements store.Deliverer: the targets share one body and one
// flush of the disk.
func (s *Store) Deliver(ctx context.Context, d store.Draft, targets []store.Target) []error {
	errs := make([]error, len(targets))
	all := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	if d.Body != nil && d.Body.Size() > 0 {
		// A body that is not ours is copied once, for all targets.
		p, err := s.prepare(ctx, "", store.Draft{Body: d.Body})
		if err != nil {
			return all(err)
		}
		defer p.release()
		if p.own {
			d.Body = p.body
		}
	}
	type write struct {
		t *tx
		l *landing
	}
	writes := make([]write, len(targets))
	for i := range targets {
		writes[i].l, writes[i].t, errs[i] = s.deliver(ctx, d, &targets[i])
	}
	for i, w := range writes {
		if errs[i] == nil {
			errs[i] = w.t.land(w.l)
			s.end()
		}
	}
	return errs
}

// deliver applies the delivery to one target; without an error the caller ends
// the call when it has landed.
func (s *Store) deliver(ctx context.Context, d store.Draft, to *store.Target) (l *landing, t *tx, err error) {
	p, err := s.prepare(ctx, to.Account, to.Draft(d))
	if err != nil {
		return nil, nil, err
	}
	defer p.release()
	cost := p.cost()
	if err := s.admit(ctx, cost); err != nil {
		return nil, nil, err
	}
	defer s.flight.Leave(cost)
	if err := s.begin(ctx); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			s.end()
		}
	}()
	a, err := s.account(to.Account)
	if err != nil {
		return nil, nil, err
	}
	box := to.Mailbox
	if box == "" {
		box = store.Inbox
	}
	return a.try(func(t *tx) error {
		if to.Once != "" {
			if again, err := t.once(to.Once); again || err != nil {
				return err
			}
		}
		_, err := t.append(ctx, box, nil, []prepared{p}, store.AppendOptions{})
		return err
	})
}

const (
	// oncePeriod is how long deliveries are remembered together; those of
	// this period and the two before it are known.
	oncePeriod = 48 * time.Hour
	onceKept   = 2
)

func oncePrefix(period uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kOnce}, period)
}

func periodOf(t time.Time) uint32 { return uint32(t.Unix() / int64(oncePeriod/time.Second)) }

// once reports whether the account has taken a delivery of this name, and
// remembers it with the write if not.
func (t *tx) once(name string) (again bool, err error) {
	h := hashOf(name)
	key := func(period uint32) []byte {
		return append(be8(oncePrefix(period), t.a.no), h[:]...)
	}
	now := periodOf(t.now)
	for k := range uint32(onceKept + 1) {
		v, err := t.a.s.db.Value(key(now - k))
		if err != nil {
			return false, unavailable(err)
		}
		if v != nil {
			return true, nil
		}
	}
	t.batch().Set(key(now), nil, nil)
	return false, nil
}
