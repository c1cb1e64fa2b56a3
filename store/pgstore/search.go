package pgstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postrider/postrider/internal/pgschema"
	"github.com/postrider/postrider/mime"
	"github.com/postrider/postrider/mime/searchtext"
	"github.com/postrider/postrider/store"
)

//go:embed search.sql
var searchSchema string

const (
	// maxText is how much text of a message is kept, in octets; one with more
	// is a candidate always.
	maxText = 256 << 10
	// fillRows is how many texts are filled in at a time.
	fillRows = 32
	// fillMany is after how many the database is to count them, as it does by
	// itself later.
	fillMany = 500
	// fillEvery is how often a node looks for messages without.
	fillEvery = 2 * time.Second
	// fillLease is how long a node that fills need not say so again.
	fillLease = time.Minute
	// fillBack is how far back among the contents each look begins: who was
	// numbered first may come last.
	fillBack = 10_000
)

var _ store.Searcher = (*account)(nil)

// search is the state of Options.Search.
type search struct {
	on   bool // texts is there
	wake chan struct{}
	node string
	from int64 // contents below have been filled
}

// openSearch makes the tables of Options.Search, where it can.
func (s *Store) openSearch(ctx context.Context) error {
	if !s.o.Search {
		return nil
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	const where = `SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_trgm'`
	var trgm string
	err := s.pool.QueryRow(ctx, where).Scan(&trgm)
	if errors.Is(err, pgx.ErrNoRows) {
		// Another node may do it at the same time: then look again.
		_, made := s.pool.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_trgm`)
		if err = s.pool.QueryRow(ctx, where).Scan(&trgm); errors.Is(err, pgx.ErrNoRows) {
			s.o.Log.Warn("pgstore: SEARCH goes without an index, as the extension pg_trgm is not there and cannot be made", "err", made)
			return nil
		}
	}
	if err != nil {
		return err
	}
	step := strings.ReplaceAll(searchSchema, "{trgm}", pgx.Identifier{trgm}.Sanitize())
	t := pgschema.Tables{Package: "pgstore search", Schema: s.o.Schema, Meta: "search", Steps: []string{step}}
	if _, err := t.Migrate(ctx, s.pool); err != nil {
		return err
	}
	s.search = search{on: true, wake: make(chan struct{}, 1), node: newID('n')}
	return nil
}

// Candidates implements store.Searcher, with Options.Search. Else it knows
// nothing.
func (a *account) Candidates(ctx context.Context, box store.MailboxID, terms []store.Term) (store.UIDSet, store.UID, error) {
	if !a.s.search.on {
		return nil, 0, nil
	}
	var num, next int64
	err := a.read(ctx, `SELECT num, uidnext FROM {s}.mailboxes WHERE account = $1 AND id = $2`, []any{a.num, text(string(box))}, &num, &next)
	if err != nil {
		return nil, 0, err
	}
	// Planned with the texts at hand: how rare they are decides.
	args := []any{pgx.QueryExecModeExec, num, a.num}
	var like strings.Builder
	for _, t := range terms {
		args = append(args, pattern(t.Text))
		fmt.Fprintf(&like, " AND x.text LIKE $%d", len(args)-1)
	}
	ctx, cancel := a.s.bounded(ctx)
	defer cancel()
	// Found by their text, and those whose text is not known.
	rows, err := a.s.pool.Query(ctx, a.s.sql(`WITH found AS MATERIALIZED (SELECT x.content FROM {s}.texts x WHERE x.account = $2`+like.String()+`)
		SELECT m.uid FROM {s}.messages m JOIN found f ON f.content = m.content WHERE m.mailbox = $1
		UNION ALL
		SELECT m.uid FROM {s}.messages m LEFT JOIN {s}.texts x ON x.account = $2 AND x.content = m.content AND x.text IS NOT NULL
			WHERE m.mailbox = $1 AND x.content IS NULL
		ORDER BY 1`), args...)
	if err != nil {
		return nil, 0, fail(err)
	}
	uids := store.UIDSet{}
	var uid int64
	_, err = pgx.ForEachRow(rows, []any{&uid}, func() error {
		uids.Add(store.UID(uid))
		return nil
	})
	if err != nil {
		return nil, 0, fail(err)
	}
	select {
	case a.s.search.wake <- struct{}{}:
	default:
	}
	return uids, store.UID(min(next-1, int64(store.MaxUID))), nil
}

// pattern is LIKE's for texts with s in it.
func pattern(s string) string {
	folded := text(string(searchtext.AppendFolded(nil, []byte(s))))
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(folded) + "%"
}

// fillNowAndThen gives messages their texts.
func (s *Store) fillNowAndThen() {
	tick := time.NewTicker(fillEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.search.wake:
		}
		if err := s.fill(s.ctx); err != nil && s.ctx.Err() == nil {
			s.o.Log.Warn("pgstore: messages could not be indexed for SEARCH, it will be done again", "err", err)
		}
	}
}

// fill gives all messages that have none their texts, unless another node is
// at it.
func (s *Store) fill(ctx context.Context) error {
	from, filled := max(s.search.from-fillBack, 0), 0
	for {
		tag, err := s.pool.Exec(ctx, s.sql(`UPDATE {s}.search SET filler = $1, until = now() + $2::interval WHERE filler = $1 OR until < now()`), s.search.node, fillLease)
		if err != nil || tag.RowsAffected() == 0 {
			return fail(err)
		}
		last, n, err := s.fillSome(ctx, from)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		filled += n
		from = last + 1
		s.search.from = max(s.search.from, from)
	}
	if filled < fillMany {
		return nil
	}
	// Who does not know how many there are would read them all.
	_, err := s.pool.Exec(ctx, s.sql(`ANALYZE {s}.texts`))
	return fail(err)
}

// fillSome fills the first few at or after a number, and returns the last.
func (s *Store) fillSome(ctx context.Context, from int64) (last int64, n int, err error) {
	type content struct {
		num, account int64
		id           string
		summary      []byte
	}
	rows, err := s.pool.Query(ctx, s.sql(`SELECT c.num, c.account, c.id, c.summary FROM {s}.contents c
		WHERE c.num >= $1 AND c.expunged IS NULL AND NOT EXISTS (SELECT FROM {s}.texts x WHERE x.content = c.num) ORDER BY c.num LIMIT $2`), from, fillRows)
	if err != nil {
		return 0, 0, fail(err)
	}
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c content, err error) {
		err = r.Scan(&c.num, &c.account, &c.id, &c.summary)
		return c, err
	})
	if err != nil {
		return 0, 0, fail(err)
	}
	var g textGatherer
	batch := new(pgx.Batch)
	texts := make(map[int64]*string)
	for _, c := range found {
		last = c.num
		text, err := g.text(ctx, &account{s: s, num: c.account}, store.Message{ID: c.id, Summary: c.summary})
		if errors.Is(err, store.ErrNotExist) {
			continue
		}
		if errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			return 0, 0, err
		}
		if err != nil {
			s.o.Log.Warn("pgstore: a message could not be indexed for SEARCH", "id", c.id, "err", err)
		}
		texts[c.num] = text
		batch.Queue(s.sql(insertText), c.num, text)
	}
	if s.pool.SendBatch(ctx, batch).Close() == nil {
		return last, len(found), nil
	}
	// One by one: a text that the database does not take, or whose content went
	// meanwhile, is no reason to stop.
	for num, text := range texts {
		_, err := s.pool.Exec(ctx, s.sql(insertText), num, text)
		if text != nil && strings.HasPrefix(code(err), "22") { // an encoding that does not have it, or the like
			_, err = s.pool.Exec(ctx, s.sql(insertText), num, nil)
		}
		if err != nil && code(err) != foreignKeyViolation {
			return 0, 0, fail(err)
		}
	}
	return last, len(found), nil
}

const insertText = `INSERT INTO {s}.texts (content, account, text) SELECT num, account, $2 FROM {s}.contents WHERE num = $1 ON CONFLICT DO NOTHING`

// textGatherer is a searchtext.Visitor that makes one text of them all.
type textGatherer struct {
	scan   searchtext.Scanner
	folder searchtext.Folder
	buf    []byte
}

// text returns what texts keeps of a message, nil when that is too much or
// cannot be read.
func (g *textGatherer) text(ctx context.Context, a *account, m store.Message) (*string, error) {
	b, err := a.Open(ctx, m)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	root, err := mime.DecodeSummary(m.Summary)
	if err != nil {
		if root, err = mime.Parse(b, b.Size(), mime.Limits{}); err != nil {
			return nil, err
		}
	}
	g.buf = g.buf[:0]
	for f := range root.Header.Fields() {
		g.Begin(false)
		g.Write([]byte(mime.DecodeText(f.Value)))
	}
	err = g.scan.Scan(root, b, g)
	g.Begin(true)
	if err != nil || len(g.buf) > maxText {
		return nil, err
	}
	s := text(string(g.buf))
	return &s, nil
}

// Wants implements searchtext.Visitor.
func (g *textGatherer) Wants(bool) bool { return len(g.buf) <= maxText }

// Begin implements searchtext.Visitor.
func (g *textGatherer) Begin(bool) { g.buf = append(g.folder.End(g.buf), '\n') }

// Write implements searchtext.Visitor.
func (g *textGatherer) Write(p []byte) { g.buf = g.folder.Append(g.buf, p) }
