package pgqueue

import (
	"context"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/queue"
)

// page is how many entries are listed or edited in one transaction.
const page = 500

// where is what SQL can tell of a Filter; Match is the truth.
func where(f *queue.Filter) (string, pgx.NamedArgs) {
	args := pgx.NamedArgs{"page": page}
	clause := `true`
	add := func(name, condition string, value any) {
		clause += ` AND ` + condition
		args[name] = value
	}
	if len(f.IDs) > 0 {
		add("ids", `(e.id = ANY(@ids::uuid[]) OR e.message = ANY(@ids::uuid[]))`, uuids(f.IDs))
	}
	if f.Dest != "" {
		add("dest", `e.dest = @dest`, text(f.Dest))
	}
	if f.Tenant != "" {
		add("tenant", `e.tenant = @tenant`, text(f.Tenant))
	}
	if f.Campaign != "" {
		add("campaign", `m.campaign = @campaign`, text(f.Campaign))
	}
	if !f.From.IsZero() {
		add("sender", `e.sender = @sender`, text(f.From.String()))
	}
	if !f.To.IsZero() {
		add("to", `@to = ANY(e.recipients)`, text(f.To.String()))
	}
	if f.Held {
		clause += ` AND e.held`
	}
	return clause, args
}

// pages calls f for pages of what a Filter chooses, each in a transaction,
// until it says false.
func (s *Storage) pages(ctx context.Context, filter queue.Filter, lock string, f func(ctx context.Context, t pgx.Tx, rows []row) error, after func(rows []row) bool) error {
	cond, args := where(&filter)
	last := uuid(queue.ID{})
	for {
		var found, kept []row
		err := s.transact(ctx, func(ctx context.Context, t pgx.Tx) (err error) {
			args["last"] = last
			found, err = s.entries(ctx, t, cond+` AND e.id > @last::uuid ORDER BY e.id LIMIT @page `+lock, args)
			if err != nil {
				return err
			}
			kept = nil
			for _, r := range found {
				if filter.Match(r.Entry) {
					kept = append(kept, r)
				}
			}
			return f(ctx, t, kept)
		})
		if err != nil || !after(kept) || len(found) < page {
			return err
		}
		last = uuid(found[len(found)-1].ID)
	}
}

// List implements queue.Lister.
func (s *Storage) List(ctx context.Context, f queue.Filter) iter.Seq2[*queue.Entry, error] {
	return func(yield func(*queue.Entry, error) bool) {
		if err := s.bury(ctx); err != nil {
			yield(nil, err)
			return
		}
		err := s.pages(ctx, f, ``, func(context.Context, pgx.Tx, []row) error { return nil }, func(rows []row) bool {
			for _, r := range rows {
				if !yield(r.Entry, nil) {
					return false
				}
			}
			return true
		})
		if err != nil {
			yield(nil, err)
		}
	}
}

// Edit implements queue.Editor. Many entries are changed a page at a time.
func (s *Storage) Edit(ctx context.Context, f queue.Filter, c queue.Edit) (int, error) {
	if err := s.bury(ctx); err != nil {
		return 0, err
	}
	n := 0
	err := s.pages(ctx, f, `FOR UPDATE OF e`, func(ctx context.Context, t pgx.Tx, rows []row) error {
		for _, r := range rows {
			if r.Owner != "" {
				if _, err := t.Exec(ctx, s.sql(`INSERT INTO {s}.queue_edits (entry, revokes, edit) VALUES ($1, $2, $3)`), uuid(r.ID), c.Revokes(), encode(editOf(&c))); err != nil {
					return err
				}
				continue
			}
			gone, err := s.apply(ctx, t, &c, r.Entry)
			if err != nil {
				return err
			}
			if gone {
				err = s.remove(ctx, t, r.Entry)
			} else {
				err = s.write(ctx, t, r.Entry)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, func(rows []row) bool {
		n += len(rows)
		return true
	})
	if n > 0 {
		s.changed()
	}
	return n, err
}

// Pause implements queue.Editor.
func (s *Storage) Pause(ctx context.Context, f queue.Filter, on bool) error {
	text := encode(ruleOf(&f))
	err := s.transact(ctx, func(ctx context.Context, t pgx.Tx) error {
		// A rule that is made again goes to the end.
		_, err := t.Exec(ctx, s.sql(`DELETE FROM {s}.queue_rules WHERE rule = $1`), text)
		if err == nil && on {
			_, err = t.Exec(ctx, s.sql(`INSERT INTO {s}.queue_rules (rule) VALUES ($1) ON CONFLICT DO NOTHING`), text)
		}
		return err
	})
	if err == nil {
		s.changed()
	}
	return err
}

// Paused implements queue.Editor.
func (s *Storage) Paused(ctx context.Context) ([]queue.Filter, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, s.sql(`SELECT rule FROM {s}.queue_rules ORDER BY n`))
	if err != nil {
		return nil, fail(err)
	}
	out, err := collectRules(rows)
	return out, fail(err)
}

func collectRules(rows pgx.Rows) ([]queue.Filter, error) {
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (queue.Filter, error) {
		var text string
		var v rule
		if err := r.Scan(&text); err != nil {
			return queue.Filter{}, err
		}
		err := decode([]byte(text), &v)
		return v.filter(), err
	})
}
