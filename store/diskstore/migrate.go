package diskstore

import (
	"bytes"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// migrations lead from each format to the next; the last ends at formatLine.
func migrations() []diskdb.Migration {
	return []diskdb.Migration{{From: "postrider diskstore 1\n", Step: addUnseen}}
}

// migrateBoxes is how many mailboxes one step of a migration changes.
const migrateBoxes = 200

// addUnseen leads from format 1 to 2: the record of a mailbox has its first
// unseen message.
func addUnseen(d *diskdb.DB, b *pebble.Batch, from []byte) (next []byte, err error) {
	it, err := d.NewIter(&pebble.IterOptions{LowerBound: []byte{kMailbox}, UpperBound: []byte{kMailbox + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	n := 0
	for ok := it.SeekGE(from); ok; ok = it.Next() {
		if n++; n > migrateBoxes {
			return slices.Clone(it.Key()), nil
		}
		if len(it.Key()) != 1+8+8 {
			continue // Check reports it
		}
		r, err := diskdb.Unseal(it.Value())
		if err != nil {
			continue // this, too
		}
		acct, box := u8(it.Key()[1:]), u8(it.Key()[9:])
		m := readMailbox1(box, &r)
		if r.End() != nil {
			continue
		}
		if m.counts.Unseen > 0 {
			if m.unseen, err = seekUnseen(d, acct, m); err != nil {
				return nil, err
			}
		}
		if err := b.Set(bytes.Clone(it.Key()), m.encode(), nil); err != nil {
			return nil, err
		}
	}
	return nil, it.Error()
}

// seekUnseen looks for the first unseen message of a mailbox. A part that
// cannot be read is passed over: Check reports it, and Repair looks again.
func seekUnseen(d *diskdb.DB, acct uint64, m *mailbox) (store.UID, error) {
	c, err := newCursor(d, acct, m, true, true)
	if err != nil {
		return 0, err
	}
	defer c.close()
	var firsts []store.UID
	for ok := c.chunks.First(); ok; ok = c.chunks.Next() {
		if first, col, ok := chunkFirst(c.chunks.Key()); ok && col == colFlags {
			firsts = append(firsts, first)
		}
	}
	if err := c.chunks.Error(); err != nil {
		return 0, err
	}
	for _, first := range firsts {
		ch, _, err := c.chunk(first)
		if errors.Is(err, diskdb.ErrDamaged) {
			continue
		}
		if err != nil {
			return 0, err
		}
		uid := ch.firstUnseen(1, store.MaxUID, nil)
		ch.free()
		if uid > 0 {
			return uid, nil
		}
	}
	first, err := c.firstUnseen(m, 1, store.MaxUID, nil)
	if errors.Is(err, diskdb.ErrDamaged) {
		err = nil
	}
	return first, err
}
