package pgstore

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/store"
)

const mailboxColumns = `b.id, b.name, b.uidvalidity, b.uidnext, b.modseq, b.horizon, b.recent, b.special_use,
	b.messages, b.unseen, b.deleted, b.size, b.deleted_size`

func (s *Store) scanMailbox(row pgx.Row, more ...any) (store.Mailbox, error) {
	var m store.Mailbox
	c := &m.Counts
	err := row.Scan(append([]any{&m.ID, &m.Name, &m.UIDValidity, &m.UIDNext, &m.ModSeq, &m.Horizon, &m.Recent, &m.SpecialUse,
		&c.Messages, &c.Unseen, &c.Deleted, &c.Size, &c.DeletedSize}, more...)...)
	if s.o.History < 0 {
		m.Horizon = m.ModSeq
	}
	return m, err
}

// Mailboxes lists in the order of creation.
func (a *account) Mailboxes(ctx context.Context, q store.MailboxQuery) ([]store.Mailbox, store.ModSeq, error) {
	ctx, cancel := a.s.bounded(ctx)
	defer cancel()
	where, args := ``, []any{a.num, int64(q.ChangedSince)}
	if len(q.IDs) > 0 || len(q.Names) > 0 {
		where = ` AND (b.id = ANY($3) OR b.name = ANY($4))`
		ids, names := make([]string, len(q.IDs)), make([]string, len(q.Names))
		for i, id := range q.IDs {
			ids[i] = text(string(id))
		}
		for i, n := range q.Names {
			names[i] = text(n)
		}
		args = append(args, ids, names)
	}
	// One statement sees one state: the bound and the rows belong together.
	rows, err := a.s.query(ctx, a.s.sql(`SELECT `+mailboxColumns+`, a.modseq FROM {s}.accounts a
		LEFT JOIN {s}.mailboxes b ON b.account = a.num AND b.modseq > $2`+where+`
		WHERE a.num = $1 ORDER BY b.num`), args...)
	if err != nil {
		return nil, 0, fail(err)
	}
	defer rows.Close()
	var out []store.Mailbox
	var through store.ModSeq
	there := false
	for rows.Next() {
		there = true
		if rows.RawValues()[0] == nil { // no mailbox is wanted
			err = rows.Scan(nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, &through)
		} else {
			var m store.Mailbox
			if m, err = a.s.scanMailbox(rows, &through); err == nil {
				out = append(out, m)
			}
		}
		if err != nil {
			return nil, 0, fail(err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fail(err)
	}
	if !there {
		return nil, 0, store.ErrNotExist
	}
	if q.ChangedSince == 0 || where != `` {
		return out, through, nil
	}
	gone, err := a.gone(ctx, q.ChangedSince, through)
	return append(out, gone...), through, err
}

// gone are the mailboxes that were deleted after since.
func (a *account) gone(ctx context.Context, since, through store.ModSeq) ([]store.Mailbox, error) {
	rows, err := a.s.query(ctx, a.s.sql(`SELECT id, modseq FROM {s}.gone WHERE account = $1 AND modseq > $2 AND modseq <= $3 ORDER BY modseq`),
		a.num, int64(since), int64(through))
	if err != nil {
		return nil, fail(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m store.Mailbox, err error) {
		m.Gone = true
		return m, row.Scan(&m.ID, &m.ModSeq)
	})
	return out, fail(err)
}

func checkName(name string) error {
	if name == "" || !storable(name) {
		return store.ErrLimit
	}
	return nil
}

// CreateMailbox implements store.Account.
func (a *account) CreateMailbox(ctx context.Context, m store.NewMailbox) (store.Mailbox, error) {
	if err := checkName(m.Name); err != nil {
		return store.Mailbox{}, err
	}
	validity, err := a.s.validity(ctx)
	if err != nil {
		return store.Mailbox{}, err
	}
	var out store.Mailbox
	err = a.write(ctx, nil, func(w *write) (err error) {
		out, err = w.create(m, validity)
		return err
	})
	return out, err
}

func (w *write) create(m store.NewMailbox, validity int64) (store.Mailbox, error) {
	s := w.a.s
	var n int
	if err := w.row(`SELECT count(*) FROM {s}.mailboxes WHERE account = $1`, w.a.num).Scan(&n); err != nil {
		return store.Mailbox{}, err
	}
	if s.o.Mailboxes > 0 && n >= s.o.Mailboxes {
		return store.Mailbox{}, store.ErrLimit
	}
	modSeq := w.commit()
	return s.scanMailbox(w.row(`INSERT INTO {s}.mailboxes AS b (account, id, name, uidvalidity, modseq, horizon, special_use)
		VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING `+mailboxColumns,
		w.a.num, newID('f'), m.Name, validity, modSeq, s.horizon(modSeq), uses(m.SpecialUse)))
}

// uses are special uses as they are kept.
func uses(list []string) []string {
	out := make([]string, 0, len(list))
	for _, u := range list {
		out = append(out, text(u))
	}
	return out
}

// UpdateMailboxes implements store.Account.
func (a *account) UpdateMailboxes(ctx context.Context, u ...store.MailboxUpdate) error {
	if len(u) == 0 {
		return nil
	}
	for _, x := range u {
		if x.Name == nil {
			continue
		}
		if err := checkName(*x.Name); err != nil {
			return err
		}
		if x.ID == store.Inbox && *x.Name != string(store.Inbox) {
			return store.ErrPermission
		}
	}
	return a.write(ctx, nil, func(w *write) error {
		modSeq := w.commit()
		// Names change places only when all have left theirs.
		w.exec(`SET CONSTRAINTS ALL DEFERRED`)
		for _, x := range u {
			var use []string
			if x.SpecialUse != nil {
				use = uses(*x.SpecialUse)
			}
			n, err := w.affect(`UPDATE {s}.mailboxes SET modseq = $3::bigint, name = coalesce($4::text, name), special_use = coalesce($5::text[], special_use)
				WHERE account = $1::bigint AND id = $2::text`, a.num, text(string(x.ID)), modSeq, x.Name, use)
			if err != nil {
				return err
			}
			if n == 0 {
				return store.ErrNotExist
			}
		}
		w.exec(`SET CONSTRAINTS ALL IMMEDIATE`)
		return nil
	})
}

// DeleteMailbox implements store.Account.
func (a *account) DeleteMailbox(ctx context.Context, id store.MailboxID) error {
	if id == store.Inbox {
		return store.ErrPermission
	}
	return a.write(ctx, []store.MailboxID{id}, func(w *write) error {
		b, err := w.box(id)
		if err != nil {
			return err
		}
		if err := w.room(0, b.counts.Size); err != nil {
			return err
		}
		w.exec(`WITH gone AS (SELECT content, count(*) AS n FROM {s}.messages WHERE mailbox = $1 GROUP BY content)
			UPDATE {s}.contents c SET refs = refs - n, expunged = CASE WHEN refs = n THEN now() END FROM gone WHERE c.num = gone.content`, b.num)
		w.exec(`INSERT INTO {s}.gone (account, id, modseq) VALUES ($1, $2, $3)`, a.num, string(id), w.commit())
		w.exec(`DELETE FROM {s}.messages WHERE mailbox = $1`, b.num)
		w.exec(`DELETE FROM {s}.expunged WHERE mailbox = $1`, b.num)
		w.exec(`DELETE FROM {s}.mailboxes WHERE num = $1`, b.num)
		return nil
	})
}

// Quota implements store.Quoter.
func (a *account) Quota(ctx context.Context) (store.Quota, error) {
	var q store.Quota
	err := a.read(ctx, `SELECT used, quota FROM {s}.accounts WHERE num = $1`, []any{a.num}, &q.Used, &q.Limit)
	return q, err
}

// ClaimRecent implements store.RecentClaimer.
func (a *account) ClaimRecent(ctx context.Context, box store.MailboxID) (from, to store.UID, err error) {
	// The row is locked before it is read: of two sessions one gets all.
	err = a.read(ctx, `WITH old AS (SELECT num, recent FROM {s}.mailboxes WHERE account = $1 AND id = $2 FOR UPDATE)
		UPDATE {s}.mailboxes b SET recent = b.uidnext FROM old WHERE b.num = old.num RETURNING old.recent, b.uidnext`,
		[]any{a.num, text(string(box))}, &from, &to)
	return from, to, err
}

// exists tells an account that has nothing from one that is not there.
func (a *account) exists(ctx context.Context) error {
	var n int
	return a.read(ctx, `SELECT 1 FROM {s}.accounts WHERE num = $1`, []any{a.num}, &n)
}

// Subscriptions implements store.Subscriber.
func (a *account) Subscriptions(ctx context.Context) ([]string, error) {
	if err := a.exists(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := a.s.bounded(ctx)
	defer cancel()
	rows, err := a.s.query(ctx, a.s.sql(`SELECT name FROM {s}.subscriptions WHERE account = $1 ORDER BY name`), a.num)
	if err != nil {
		return nil, fail(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	slices.Sort(names)
	return names, fail(err)
}

// Subscribe implements store.Subscriber; store.ErrLimit.
func (a *account) Subscribe(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return a.write(ctx, nil, func(w *write) error {
		var n int
		if err := w.row(`SELECT count(*) FROM {s}.subscriptions WHERE account = $1 AND name <> $2`, a.num, name).Scan(&n); err != nil {
			return err
		}
		if a.s.o.Mailboxes > 0 && n >= a.s.o.Mailboxes {
			return store.ErrLimit
		}
		w.exec(`INSERT INTO {s}.subscriptions (account, name) VALUES ($1, $2) ON CONFLICT DO NOTHING`, a.num, name)
		return nil
	})
}

// Unsubscribe implements store.Subscriber.
func (a *account) Unsubscribe(ctx context.Context, name string) error {
	return a.write(ctx, nil, func(w *write) error {
		w.exec(`DELETE FROM {s}.subscriptions WHERE account = $1 AND name = $2`, a.num, text(name))
		return nil
	})
}

// WriteSummary implements store.SummaryWriter.
func (a *account) WriteSummary(ctx context.Context, m store.Message, summary []byte) error {
	var n int64
	return a.read(ctx, `UPDATE {s}.contents SET summary = $3 WHERE account = $1 AND id = $2 RETURNING num`, []any{a.num, text(m.ID), summary}, &n)
}

// instant is a date as it is kept: its moment, and its zone in minutes.
func instant(t time.Time) (time.Time, int16) {
	_, seconds := t.Zone()
	return t, int16(seconds / 60)
}

// zoned puts a date together again.
func zoned(t time.Time, minutes int16) time.Time {
	if minutes == 0 {
		return t.UTC()
	}
	return t.In(time.FixedZone("", int(minutes)*60))
}
