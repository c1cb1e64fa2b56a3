package diskstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// copied is the name of the file that marks a copy.
const copied = "COPIED"

// Backup writes a copy of the store, as it is at one moment, to dir, which
// must not exist. It may be called while the store is used. Files are linked
// where the file system can, else copied. When a copy is opened first, UIDs and
// ModSeqs jump ahead: what the store gave out after the backup is not given out
// again, and mail programs list their mailboxes anew.
func (s *Store) Backup(ctx context.Context, dir string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if err := s.backup(ctx, dir); err != nil {
		return fmt.Errorf("diskstore: backup: %w", err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, dir string) error {
	disk := s.o.fs
	if _, err := disk.Stat(dir); err == nil {
		return fmt.Errorf("%s: %w", dir, fs.ErrExist)
	}
	blobs := disk.PathJoin(dir, "blobs")
	if err := diskdb.MakeDir(disk, blobs); err != nil {
		return err
	}
	// What the copy refers to stays meanwhile.
	s.sweeper.turn.Lock()
	defer s.sweeper.turn.Unlock()
	if err := s.db.Checkpoint(disk.PathJoin(dir, "db"), pebble.WithFlushedWAL()); err != nil {
		return err
	}
	// Files that came later are orphans that the copy's Open removes.
	list, err := disk.List(s.db.Path("blobs"))
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := vfs.LinkOrCopy(disk, s.db.Path("blobs", name), disk.PathJoin(blobs, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // one that was never appended
			return err
		}
	}
	if err := diskdb.SyncDir(disk, blobs); err != nil {
		return err
	}
	if err := diskdb.WriteFile(disk, dir, copied, time.Now().UTC().Format(time.RFC3339)+"\n"); err != nil {
		return err
	}
	return diskdb.WriteFile(disk, dir, "FORMAT", formatLine)
}

const (
	// uidJump and modSeqJump are more than a mailbox can have given out
	// between a backup and the day when it is needed.
	uidJump    = 1 << 20
	modSeqJump = 1 << 32
)

// reissue is done once to a copy.
func (s *Store) reissue() error {
	if _, err := s.o.fs.Stat(s.db.Path(copied)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	c := &checker{s: s, r: s.db}
	err := c.each(context.Background(), []byte{kMailbox}, func(key, value []byte) error {
		if len(key) != 17 {
			return nil
		}
		b, err := decodeMailbox(u8(key[9:]), value)
		if err != nil {
			return nil // Check reports it
		}
		b.modSeq += modSeqJump
		b.horizon, b.tombs, b.tombRgs = b.modSeq, 0, 0
		if b.next < store.MaxUID/2 {
			b.next += uidJump
		} else {
			b.validity = max(b.validity+1, uint32(time.Now().Unix()))
		}
		batch.Set(key, b.encode(), nil)
		// History is of no use any more, but for what is to be given back.
		acct := u8(key[1:])
		return c.each(context.Background(), boxKey(kTomb, acct, b.no), func(key, value []byte) error {
			due, _, err := decodeTomb(value)
			if err != nil || len(key) != lenTomb {
				return nil
			}
			pending, err := c.has(dueKey(due, acct, b.no, store.ModSeq(u8(key[17:]))))
			if err == nil && !pending {
				batch.Delete(key, nil)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	err = c.each(context.Background(), []byte{kAccount}, func(key, value []byte) error {
		a, err := decodeAccount(value)
		if err != nil || len(key) != 9 {
			return nil
		}
		a.modSeq += modSeqJump
		a.validity = max(a.validity+1, uint32(time.Now().Unix()))
		a.horizon = a.modSeq
		batch.Set(key, a.encode(), nil)
		return nil
	})
	if err != nil {
		return err
	}
	s.nums.last += numberStep
	s.nums.cover(batch)()
	if err := s.db.Apply(batch, pebble.Sync); err != nil {
		return err
	}
	if err := s.o.fs.Remove(s.db.Path(copied)); err != nil {
		return err
	}
	return diskdb.SyncDir(s.o.fs, s.dir)
}
