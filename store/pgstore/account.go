package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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

// conn is what statements are sent by: a connection in a transaction, or a
// savepoint.
type conn interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// write is one write to an account, whose row is locked. Statements that give
// nothing back wait until something is asked for, and go with it.
type write struct {
	ctx    context.Context
	a      *account
	tx     conn
	modSeq int64 // the account's, and once commit was called this write's
	quota  int64
	used   int64
	raised bool
	boxes  map[store.MailboxID]*box // that were read with the lock
	queue  *pgx.Batch
}

const lockSQL = `SELECT modseq, quota, used, ` + byIndexSQL + ` FROM {s}.accounts WHERE num = $1::bigint FOR UPDATE`

// write runs f with the account locked and keeps what f did to w. Mailboxes
// that f will ask for are read at once. Whoever watches is told if f called
// commit.
func (a *account) write(ctx context.Context, boxes []store.MailboxID, f func(w *write) error) error {
	raised := false
	err := a.s.again(ctx, func(ctx context.Context) error {
		conn, err := a.s.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		w := &write{ctx: ctx, a: a, tx: conn}
		if err := w.run(boxes, f); err != nil {
			// Should this fail, the pool does not take the connection back.
			if ctx.Err() == nil {
				conn.Exec(ctx, `ROLLBACK`)
			}
			return err
		}
		raised = w.raised
		return nil
	})
	if err == nil && raised {
		a.s.hub.committed(a.num)
	}
	return fail(err)
}

// run is the transaction: it begins with the first batch, and ends with the
// last.
func (w *write) run(boxes []store.MailboxID, f func(w *write) error) error {
	if err := w.begin(boxes); err != nil {
		return err
	}
	used := w.used
	if err := f(w); err != nil {
		return err
	}
	if w.raised || w.used != used {
		w.exec(`UPDATE {s}.accounts SET modseq = $2::bigint, used = $3::bigint WHERE num = $1::bigint`, w.a.num, w.modSeq, w.used)
	}
	w.exec(`COMMIT`)
	return w.flush()
}

func (w *write) begin(boxes []store.MailboxID) error {
	b := new(pgx.Batch)
	b.Queue(`BEGIN`)
	b.Queue(w.a.s.sql(lockSQL), w.a.num)
	for _, id := range boxes {
		b.Queue(w.a.s.sql(boxSQL), w.a.num, text(string(id)))
	}
	res := w.tx.SendBatch(w.ctx, b)
	defer res.Close()
	if _, err := res.Exec(); err != nil {
		return err
	}
	if err := res.QueryRow().Scan(&w.modSeq, &w.quota, &w.used, nil); err != nil {
		return err
	}
	w.boxes = make(map[store.MailboxID]*box)
	for _, id := range boxes {
		b, err := scanBox(res.QueryRow())
		switch {
		case errors.Is(err, store.ErrNotExist): // f will ask, and hear of it
		case err != nil:
			return err
		default:
			w.boxes[id] = b
		}
	}
	return res.Close()
}

// lock locks the account in a transaction that has begun.
func (w *write) lock() error {
	return w.row(lockSQL, w.a.num).Scan(&w.modSeq, &w.quota, &w.used, nil)
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

// exec runs a statement with the next that gives something back.
func (w *write) exec(sql string, args ...any) {
	if w.queue == nil {
		w.queue = new(pgx.Batch)
	}
	w.queue.Queue(w.a.s.sql(sql), args...)
}

// flush runs what waits.
func (w *write) flush() error {
	if w.queue == nil {
		return nil
	}
	b := w.queue
	w.queue = nil
	return w.tx.SendBatch(w.ctx, b).Close()
}

// affect runs a statement and returns how many rows it was about.
func (w *write) affect(sql string, args ...any) (int64, error) {
	if err := w.flush(); err != nil {
		return 0, err
	}
	tag, err := w.tx.Exec(w.ctx, w.a.s.sql(sql), args...)
	return tag.RowsAffected(), err
}

func (w *write) row(sql string, args ...any) pgx.Row {
	if err := w.flush(); err != nil {
		return failed{err}
	}
	return w.tx.QueryRow(w.ctx, w.a.s.sql(sql), args...)
}

func (w *write) query(sql string, args ...any) (pgx.Rows, error) {
	if err := w.flush(); err != nil {
		return nil, err
	}
	return w.tx.Query(w.ctx, w.a.s.sql(sql), args...)
}

// failed is a row that is not there for a reason.
type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

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

const boxSQL = `SELECT ` + boxColumns + ` FROM {s}.mailboxes WHERE account = $1::bigint AND id = $2::text`

func (w *write) box(id store.MailboxID) (*box, error) {
	if b := w.boxes[id]; b != nil {
		return b, nil
	}
	return scanBox(w.row(boxSQL, w.a.num, text(string(id))))
}

func scanBox(row pgx.Row) (*box, error) {
	b := new(box)
	c := &b.counts
	err := row.Scan(&b.num, &b.validity, &b.next, &b.modSeq, &b.horizon, &b.keywords, &c.Messages, &c.Unseen, &c.Deleted, &c.Size, &c.DeletedSize)
	if errors.Is(err, pgx.ErrNoRows) {
		err = store.ErrNotExist
	}
	return b, err
}

func (w *write) save(b *box) {
	c := &b.counts
	if b.words {
		w.exec(`UPDATE {s}.mailboxes SET keywords = $2::text[] WHERE num = $1::bigint`, b.num, b.keywords)
	}
	w.exec(`UPDATE {s}.mailboxes SET uidvalidity = $2::bigint, uidnext = $3::bigint, modseq = $4::bigint, horizon = $5::bigint,
		messages = $6::bigint, unseen = $7::bigint, deleted = $8::bigint, size = $9::bigint, deleted_size = $10::bigint WHERE num = $1::bigint`,
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
