package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

// account is one account by its number, which never means another.
type account struct {
	s   *Store
	id  string
	num int64
}

var (
	_ store.Account       = (*account)(nil)
	_ store.Watcher       = (*account)(nil)
	_ store.Subscriber    = (*account)(nil)
	_ store.RecentClaimer = (*account)(nil)
	_ store.Quoter        = (*account)(nil)
	_ store.SummaryWriter = (*account)(nil)
	_ store.Importer      = (*account)(nil)
)

// read runs one statement that gives one row.
func (a *account) read(ctx context.Context, sql string, args []any, into ...any) error {
	ctx, cancel := a.s.bounded(ctx)
	defer cancel()
	return fail(a.s.row(ctx, a.s.sql(sql), args, into...))
}

// transact runs f in a transaction, again if PostgreSQL asks for it.
func (s *Store) transact(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	return fail(s.again(ctx, func(ctx context.Context) error {
		conn, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return f(ctx, tx) })
	}))
}

// again runs f, and again if PostgreSQL asks for it.
func (s *Store) again(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for tries := 0; ; tries++ {
		err := f(ctx)
		switch code(err) {
		case deadlock, serialization:
			if tries < 3 && ctx.Err() == nil {
				continue
			}
		}
		return err
	}
}

// write is one write to an account, whose row is locked.
type write struct {
	ctx    context.Context
	a      *account
	tx     pgx.Tx
	modSeq int64 // the account's, and once commit was called this write's
	quota  int64
	used   int64
	raised bool
}

// write runs f with the account locked and keeps what f did to w. Whoever
// watches is told if f called commit.
func (a *account) write(ctx context.Context, f func(w *write) error) error {
	raised := false
	err := a.s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		w := &write{ctx: ctx, a: a, tx: tx}
		if err := w.lock(); err != nil {
			return err
		}
		used := w.used
		if err := f(w); err != nil {
			return err
		}
		raised = w.raised
		if !w.raised && w.used == used {
			return nil
		}
		return w.exec(`UPDATE {s}.accounts SET modseq = $2, used = $3 WHERE num = $1`, a.num, w.modSeq, w.used)
	})
	if err == nil && raised {
		a.s.hub.committed(a.num)
	}
	return err
}

func (w *write) lock() error {
	return w.row(`SELECT modseq, quota, used FROM {s}.accounts WHERE num = $1 FOR UPDATE`, w.a.num).Scan(&w.modSeq, &w.quota, &w.used)
}

// commit gives this write its ModSeq.
func (w *write) commit() int64 {
	if !w.raised {
		w.raised = true
		w.modSeq++
	}
	return w.modSeq
}

// room checks the quota, and counts what is added and freed.
func (w *write) room(added, freed int64) error {
	if w.quota > 0 && added > freed && w.used-freed+added > w.quota {
		return store.ErrQuota
	}
	w.used += added - freed
	return nil
}

func (w *write) exec(sql string, args ...any) error {
	_, err := w.tx.Exec(w.ctx, w.a.s.sql(sql), args...)
	return err
}

func (w *write) row(sql string, args ...any) pgx.Row {
	return w.tx.QueryRow(w.ctx, w.a.s.sql(sql), args...)
}

func (w *write) query(sql string, args ...any) (pgx.Rows, error) {
	return w.tx.Query(w.ctx, w.a.s.sql(sql), args...)
}

// box is a mailbox as a write sees it. save keeps what was changed.
type box struct {
	num      int64
	validity uint32
	next     int64
	modSeq   int64
	horizon  int64
	keywords []string
	counts   store.Counts
	words    bool    // keywords changed
	given    []int16 // numbers of keywords that this write is about to store
}

const boxColumns = `num, uidvalidity, uidnext, modseq, horizon, keywords, messages, unseen, deleted, size, deleted_size`

func (w *write) box(id store.MailboxID) (*box, error) {
	return w.scanBox(w.row(`SELECT `+boxColumns+` FROM {s}.mailboxes WHERE account = $1 AND id = $2`, w.a.num, text(string(id))))
}

func (w *write) scanBox(row pgx.Row) (*box, error) {
	b := new(box)
	c := &b.counts
	err := row.Scan(&b.num, &b.validity, &b.next, &b.modSeq, &b.horizon, &b.keywords, &c.Messages, &c.Unseen, &c.Deleted, &c.Size, &c.DeletedSize)
	if errors.Is(err, pgx.ErrNoRows) {
		err = store.ErrNotExist
	}
	return b, err
}

func (w *write) save(b *box) error {
	c := &b.counts
	if b.words {
		if err := w.exec(`UPDATE {s}.mailboxes SET keywords = $2 WHERE num = $1`, b.num, b.keywords); err != nil {
			return err
		}
	}
	return w.exec(`UPDATE {s}.mailboxes SET uidvalidity = $2, uidnext = $3, modseq = $4, horizon = $5,
		messages = $6, unseen = $7, deleted = $8, size = $9, deleted_size = $10 WHERE num = $1`,
		b.num, int64(b.validity), b.next, b.modSeq, b.horizon, c.Messages, c.Unseen, c.Deleted, c.Size, c.DeletedSize)
}

// count adds (n = 1) or takes away (n = -1) a message in the counters.
func (b *box) count(flags store.SystemFlags, size int64, n int) {
	b.counts.Messages += n
	b.counts.Size += int64(n) * size
	if !flags.Has(store.Seen) {
		b.counts.Unseen += n
	}
	if flags.Has(store.Deleted) {
		b.counts.Deleted += n
		b.counts.DeletedSize += int64(n) * size
	}
}

// commitOf is the Commit of b, whose ModSeq was prev.
func (b *box) commitOf(prev int64) store.Commit {
	return store.Commit{Prev: store.ModSeq(prev), ModSeq: store.ModSeq(b.modSeq)}
}
