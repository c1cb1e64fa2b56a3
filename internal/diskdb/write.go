package diskdb

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// Commit is a batch on its way to the disk.
type Commit struct {
	d *DB
	b *pebble.Batch
	n int64
}

// Commit makes b visible; it is durable when Wait of what it returns says so,
// which must be called. One sync serves all who wait. ErrFull: not even b
// fits. On error nothing happened that can be relied on. b is the DB's from
// here on.
func (d *DB) Commit(b *pebble.Batch) (Commit, error) {
	n := int64(b.Len())
	if err := d.Enter(n); err != nil {
		b.Close()
		return Commit{}, err
	}
	err := d.ApplyNoSyncWait(b, pebble.Sync)
	if err == nil {
		err = d.Failure()
	}
	if err != nil {
		d.Leave(n)
		return Commit{}, err
	}
	return Commit{d, b, n}, nil
}

// Wait returns when the batch is durable.
func (c Commit) Wait() error {
	err := c.b.SyncWait()
	c.b.Close()
	c.d.Leave(c.n)
	if failed := c.d.Failure(); failed != nil {
		return failed
	}
	return err
}

// CommitLater makes visible what need not survive a crash. On a full disk it
// is left for another time. b stays the caller's.
func (d *DB) CommitLater(b *pebble.Batch) error {
	n := int64(b.Len())
	if err := d.Enter(n); err != nil {
		if errors.Is(err, ErrFull) {
			return nil
		}
		return err
	}
	defer d.Leave(n)
	return b.Commit(pebble.NoSync)
}
