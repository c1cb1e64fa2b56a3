package diskstore

import (
	"errors"

	"github.com/postrider/postrider/store"
)

// errFound ends a walk.
var errFound = errors.New("diskstore: found")

// The first unseen message of a mailbox is in its record, so that nobody looks
// for it. A write looks for the next one only when it takes the first away:
// from there on, one chunk after the other. Reading one's mail in order thus
// passes each message once; only who marks the first message again and again
// while all others are seen pays for a walk over the mailbox, and that is less
// than what a change of flags on all of it costs.

// unseenChange is what a write does to unseen messages.
type unseenChange struct {
	lost  bool         // the first is not unseen any more
	fewer store.UIDSet // that were unseen and are not any more
	more  store.UID    // the first that came to be unseen; 0 = none
}

// note says that a message was unseen before the write, or is after it.
func (b *boxTx) note(uid store.UID, was, is bool) {
	u := &b.unseenChange
	switch {
	case was == is:
	case was:
		u.lost = u.lost || uid == b.unseen
		u.fewer.Add(uid)
	case u.more == 0 || uid < u.more:
		u.more = uid
	}
}

func unseen(f store.SystemFlags) bool { return !f.Has(store.Seen) }

// setUnseen works out the first unseen message after a write.
func (t *tx) setUnseen(b *boxTx) error {
	u := &b.unseenChange
	first := u.more
	switch {
	case b.counts.Unseen == 0:
		first = 0
	case !u.lost:
		if first == 0 || b.unseen != 0 && b.unseen < first {
			first = b.unseen
		}
	case b.was != nil:
		last := store.MaxUID
		if first > 0 {
			last = first - 1
		}
		c, err := newCursor(t.a.s.db, t.a.no, b.was, true, true)
		if err != nil {
			return err
		}
		old, err := c.firstUnseen(b.was, b.unseen, last, u.fewer)
		c.close()
		if err != nil {
			return err
		}
		if old > 0 {
			first = old
		}
	}
	b.unseen = first
	return nil
}

// firstUnseen returns the first unseen message of b with a UID from from to
// last that is not in skip; 0 = none.
func (c *cursor) firstUnseen(b *mailbox, from, last store.UID, skip store.UIDSet) (store.UID, error) {
	if from > last {
		return 0, nil
	}
	i, k := overlapping(b.dir, from, last)
	for _, info := range b.dir[i:k] {
		if some, err := c.anyUnseen(info.first); err != nil {
			return 0, err
		} else if !some {
			continue
		}
		ch, _, err := c.chunk(info.first)
		if err != nil {
			return 0, err
		}
		first := ch.firstUnseen(from, last, skip)
		ch.free()
		if first > 0 {
			return first, nil
		}
	}
	first := store.UID(0)
	if from = max(from, b.tail); from > last {
		return 0, nil
	}
	err := c.tail(store.UIDSet{{First: from, Last: last}}, func(m *row) error {
		if unseen(m.system) && !skip.Contains(m.uid) {
			first = m.uid
			return errFound
		}
		return nil
	})
	if err == errFound {
		err = nil
	}
	return first, err
}

func (c *chunk) firstUnseen(from, last store.UID, skip store.UIDSet) store.UID {
	for j, code := range c.codes {
		u := c.uids[j]
		if code&codeGone == 0 && unseen(store.SystemFlags(code)) && u >= from && u <= last && !skip.Contains(u) {
			return u
		}
	}
	return 0
}
