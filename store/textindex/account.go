package textindex

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/mime/searchtext"
	"github.com/postrider/postrider/store"
)

// account is an account of the inner store, with an index.
type account struct {
	store.Account
	ix *Index
	id string
}

var _ store.Searcher = (*account)(nil)

// Unwrap returns the account without the index; see store.As.
func (a *account) Unwrap() store.Account { return a.Account }

// maxLookups bounds what one search looks up; more would hardly tell more.
const maxLookups = 32

// Candidates implements store.Searcher.
func (a *account) Candidates(ctx context.Context, box store.MailboxID, terms []store.Term) (store.UIDSet, store.UID, error) {
	boxes, _, err := a.Mailboxes(ctx, store.MailboxQuery{IDs: []store.MailboxID{box}})
	if err != nil {
		return nil, 0, err
	}
	if len(boxes) == 0 {
		return nil, 0, store.ErrNotExist
	}
	uids, through, current, err := a.ix.candidates(ctx, a.id, boxes[0], terms)
	if !current || errors.Is(err, diskdb.ErrDamaged) {
		a.ix.later(a.id)
	}
	return uids, through, err
}

// candidates looks into the index. current is false when it is behind.
func (ix *Index) candidates(ctx context.Context, account string, box store.Mailbox, terms []store.Term) (uids store.UIDSet, through store.UID, current bool, err error) {
	var texts [][]byte
	for _, t := range terms {
		texts = append(texts, searchtext.AppendFolded(nil, []byte(t.Text)))
	}
	tris := trigrams(texts, maxLookups)
	if len(tris) == 0 {
		return nil, 0, true, nil
	}
	ix.using.RLock()
	defer ix.using.RUnlock()
	if ix.closed {
		return nil, 0, true, ErrClosed
	}
	if err := ix.db.Failure(); err != nil {
		return nil, 0, true, err
	}
	snap := ix.db.NewSnapshot()
	defer snap.Close()
	st, err := readState(snap, account, box.ID)
	if err != nil {
		return nil, 0, false, fmt.Errorf("textindex: %w", err)
	}
	if !st.fits(box) {
		return nil, 0, false, nil
	}
	for _, s := range st.segments {
		if err := ctx.Err(); err != nil {
			return nil, 0, true, err
		}
		if err := lookup(snap, s, tris, func(u store.UID) { uids.Add(u) }); err != nil {
			return nil, 0, false, fmt.Errorf("textindex: %w", err)
		}
	}
	return uids, st.next - 1, st.modSeq == box.ModSeq, nil
}

func readState(db pebble.Reader, account string, box store.MailboxID) (*state, error) {
	v, err := diskdb.Get(db, boxKey(account, box))
	if err != nil {
		return nil, err
	}
	return decodeState(v)
}

// fits tells whether s can be of the mailbox as it is: not of one that it was
// before the account was made again or went back in time.
func (s *state) fits(box store.Mailbox) bool {
	return s.uidValidity == box.UIDValidity && s.next <= max(box.UIDNext, 1) && s.modSeq <= box.ModSeq
}

// Sync brings the index of one account up to date now, which else happens in
// the background. Of an account that is not there it forgets all, and returns
// store.ErrNotExist.
func (ix *Index) Sync(ctx context.Context, id string) error {
	ix.writing.Lock()
	defer ix.writing.Unlock()
	if ix.ctx.Err() != nil {
		return ErrClosed
	}
	if err := ix.db.Failure(); err != nil {
		return err
	}
	acc, err := ix.inner.Account(ctx, id)
	var boxes []store.Mailbox
	if err == nil {
		boxes, _, err = acc.Mailboxes(ctx, store.MailboxQuery{})
	}
	if errors.Is(err, store.ErrNotExist) {
		return errors.Join(err, ix.drop(id))
	}
	if err != nil {
		return err
	}
	if err := ix.dropOthers(id, boxes); err != nil {
		return err
	}
	var errs []error
	for _, b := range boxes {
		s := syncer{ix: ix, ctx: ctx, acc: acc, account: id, box: b}
		err := s.sync()
		if errors.Is(err, diskdb.ErrDamaged) || errors.Is(err, pebble.ErrCorruption) {
			ix.o.Log.Warn("textindex: damaged, made anew", "account", id, "mailbox", b.ID, "err", err)
			if err = ix.dropBox(id, b.ID, nil); err == nil {
				err = s.sync()
			}
		}
		if errors.Is(err, store.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("mailbox %q: %w", b.Name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// Drop forgets an account. It is indexed again when it is used again.
func (ix *Index) Drop(ctx context.Context, id string) error {
	ix.writing.Lock()
	defer ix.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if ix.ctx.Err() != nil {
		return ErrClosed
	}
	return ix.drop(id)
}

func (ix *Index) drop(id string) error { return ix.dropOthers(id, nil) }

// dropOthers forgets the account's mailboxes but these.
func (ix *Index) dropOthers(id string, but []store.Mailbox) error {
	key := accountKey(id)
	it, err := ix.db.NewIter(&pebble.IterOptions{LowerBound: key, UpperBound: after(key)})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		box := store.MailboxID(it.Key()[len(key):])
		if slices.ContainsFunc(but, func(b store.Mailbox) bool { return b.ID == box }) {
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		st, err := decodeState(v)
		if err != nil {
			st = nil // its segments stay behind, unreachable
		}
		if err := ix.dropBox(id, box, st); err != nil {
			return err
		}
	}
	return it.Error()
}

// dropBox forgets a mailbox; st may be nil.
func (ix *Index) dropBox(id string, box store.MailboxID, st *state) error {
	if st == nil {
		var err error
		if st, err = readState(ix.db, id, box); err != nil {
			st = &state{}
		}
	}
	batch := ix.db.NewBatch()
	defer batch.Close()
	for _, s := range st.segments {
		if err := s.drop(batch); err != nil {
			return err
		}
	}
	if err := batch.Delete(boxKey(id, box), nil); err != nil {
		return err
	}
	return batch.Commit(pebble.NoSync)
}
