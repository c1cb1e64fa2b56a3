package memstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/postrider/postrider/store"
)

// prepared is a Draft ready to become a row.
type prepared struct {
	c     *content // nil ID and thread are given out under the lock
	flags store.Flags
	date  time.Time
}

// prepare reads a Draft's body, before any lock is taken.
func (s *Store) prepare(ctx context.Context, d store.Draft) (prepared, error) {
	if err := ctx.Err(); err != nil {
		return prepared{}, err
	}
	size := int64(len(d.Head))
	if d.Body != nil {
		size += d.Body.Size()
	}
	if s.MessageSize > 0 && size > s.MessageSize || size > math.MaxInt {
		return prepared{}, store.ErrTooBig
	}
	c := &content{owner: s, summary: append([]byte(nil), d.Summary...)}
	linked := false
	switch b := d.Body.(type) {
	case *content:
		if linked = b.owner == s; !linked {
			break
		}
		c.head, c.data, c.thread = b.head, b.data, b.thread
		if len(d.Head) == 0 {
			c.id = b.id // the same octets
		} else {
			c.head = append(append([]byte(nil), d.Head...), b.head...)
		}
	case *staged:
		if linked = b.owner == s; !linked {
			break
		}
		c.head, c.data = append([]byte(nil), d.Head...), b.data[:len(b.data):len(b.data)]
		if len(d.Head) == 0 {
			c.id = b.id
		}
	}
	if !linked {
		c.data = make([]byte, size)
		n := copy(c.data, d.Head)
		if d.Body != nil {
			if _, err := io.ReadFull(io.NewSectionReader(d.Body, 0, size-int64(n)), c.data[n:]); err != nil {
				return prepared{}, fmt.Errorf("memstore: reading the body: %w", unexpected(err))
			}
		}
	}
	if d.MessageID != "" {
		c.ids = append(c.ids, strings.Clone(d.MessageID))
	}
	for _, r := range d.References {
		if len(c.ids) == maxReferences {
			break
		}
		if r != "" {
			c.ids = append(c.ids, strings.Clone(r))
		}
	}
	return prepared{c, store.NewFlags(d.Flags.System, d.Flags.Keywords...), d.InternalDate}, nil
}

func (s *Store) prepareAll(ctx context.Context, d []store.Draft) ([]prepared, error) {
	ready := make([]prepared, len(d))
	for i := range d {
		var err error
		if ready[i], err = s.prepare(ctx, d[i]); err != nil {
			return nil, err
		}
	}
	return ready, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Append implements store.Account.
func (a *account) Append(ctx context.Context, box store.MailboxID, d []store.Draft, o store.AppendOptions) (store.Appended, error) {
	ready, err := a.store.prepareAll(ctx, d)
	if err != nil {
		return store.Appended{}, err
	}
	a.mu.Lock()
	r, err := a.append(ctx, box, nil, ready, o)
	a.mu.Unlock()
	if err == nil && (r.Prev != r.ModSeq || r.Replaced.Prev != r.Replaced.ModSeq) {
		a.notify()
	}
	return r, err
}

// append is Append with the lock held, or Import when UIDs are given.
func (a *account) append(ctx context.Context, box store.MailboxID, uids []store.UID, d []prepared, o store.AppendOptions) (store.Appended, error) {
	b, err := a.box(ctx, box)
	if err != nil {
		return store.Appended{}, err
	}
	next := uint64(b.next)
	var passed store.UIDSet // UIDs that are given to nobody
	for _, uid := range uids {
		if uint64(uid) < next {
			return store.Appended{}, store.ErrExist
		}
		if uint64(uid) > next {
			passed.AddRange(store.UID(next), uid-1)
		}
		next = uint64(uid) + 1
	}
	if uids == nil {
		next += uint64(len(d))
	}
	var rb *mailbox
	var old *row
	if o.Replace.UID != 0 {
		if rb, err = a.box(ctx, o.Replace.Box); err != nil {
			return store.Appended{}, err
		}
		if old = rb.find(o.Replace.UID); old == nil {
			return store.Appended{}, store.ErrNotExist
		}
	}
	var size int64
	words := make(map[string]struct{})
	for _, p := range d {
		size += p.c.Size()
		b.missing(p.flags.Keywords, words)
	}
	freed := int64(0)
	if old != nil {
		freed = old.content.Size()
	}
	if err := a.room(b, size, freed, next, words); err != nil {
		return store.Appended{}, err
	}

	r := store.Appended{Commit: store.Commit{Prev: b.modSeq, ModSeq: b.modSeq}, UIDValidity: b.validity}
	if rb != nil {
		r.Replaced = store.Commit{Prev: rb.modSeq, ModSeq: rb.modSeq}
	}
	if len(d) == 0 && old == nil {
		return r, nil
	}
	m, now := a.commit(), time.Now()
	r.Messages = make([]store.Message, len(d))
	for i, p := range d {
		date := p.date
		if date.IsZero() {
			date = now
		}
		c := a.adopt(p.c)
		n := &row{system: p.flags.System, set: b.acquire(p.flags.Keywords, 1), content: c, date: date, saved: now}
		if uids != nil {
			b.next = uids[i]
		}
		b.add(n, m)
		a.hold(c)
		r.Messages[i] = n.message(store.WithDates | store.WithIDs)
	}
	if len(d) > 0 {
		b.modSeq = m
	}
	b.bury(passed, m, limit(a.store.History, defaultHistory))
	if old != nil {
		rb.remove(store.UIDs(old.uid), m, limit(a.store.History, defaultHistory))
		a.drop(old.content, now)
		rb.modSeq = m
		r.Replaced.ModSeq = m
	}
	r.ModSeq = b.modSeq
	return r, nil
}

// adopt returns the account's own content for c: the one it has under that
// ID, or c with its ID and thread filled in.
func (a *account) adopt(c *content) *content {
	if c.id != "" {
		if have := a.contents[c.id]; have != nil {
			return have
		}
	} else {
		c.id = newID('m')
	}
	if c.thread == "" {
		c.thread = a.threadOf(c.ids)
	}
	return c
}

// room checks what a write needs before anything is changed; next is the
// UIDNext that it leads to.
func (a *account) room(b *mailbox, size, freed int64, next uint64, words map[string]struct{}) error {
	if a.quota > 0 && size > freed && a.used-freed+size > a.quota {
		return store.ErrQuota
	}
	if next > uint64(store.MaxUID) {
		return store.ErrLimit
	}
	for w := range words {
		if len(w) > maxName {
			return store.ErrLimit
		}
	}
	if len(words) > 0 && len(b.keywords)+len(words) > limit(a.store.Keywords, defaultKeywords) {
		return store.ErrLimit
	}
	return nil
}
