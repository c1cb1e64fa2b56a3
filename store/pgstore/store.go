package pgstore

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base32"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgschema"
	"github.com/postrider/postrider/store"
)

// Options are how a Store is to be; the zero value will do.
type Options struct {
	// Schema is where the tables are; "" = "postrider".
	Schema string
	// History is how many ranges of expunged UIDs each mailbox remembers;
	// 0 = 65,536, negative = none, so that each sync lists anew.
	History int
	// Keywords is how many different keywords a mailbox may have in use at
	// once; 0 = 256, negative = 32,767, the most there can be. Beyond:
	// store.ErrLimit.
	Keywords int
	// Mailboxes is how many an account may have; 0 = 10,000, negative = no
	// limit. Beyond: store.ErrLimit.
	Mailboxes int
	// MessageSize is the greatest message, in octets; 0 = no limit. Beyond:
	// store.ErrTooBig.
	MessageSize int64
	// Grace is how long an expunged message can still be opened, and a body
	// that nothing uses is kept; 0 = one hour.
	Grace time.Duration
	// Timeout is how long one call may take at most; 0 = one minute, negative
	// = no limit but the caller's.
	Timeout time.Duration
	// Poll is how often accounts that are watched are looked at, should
	// PostgreSQL not have told; 0 = 5 seconds.
	Poll time.Duration
	// Blobs, if any, keeps the bodies that are larger than BlobsAbove; nil =
	// all are in the database. Nodes must agree in it.
	Blobs Blobs
	// BlobsAbove is the largest body, in octets, that is in the database all
	// the same; 0 = 128 KiB, negative = none, 256 KiB at most.
	BlobsAbove int
	// Listen is how to connect for LISTEN; nil = as the pool does. Set it when
	// the pool goes through PgBouncer, to PostgreSQL itself: without it, other
	// nodes' changes are found by polling there.
	Listen *pgx.ConnConfig
	// Search keeps the text of messages beside them, for SEARCH, with the
	// extension pg_trgm; it is made if it is not there and the user may. Without
	// it nothing is kept. Messages get their text soon after they came, from one
	// of the nodes: Append takes no longer, and the database grows by two to
	// three times the text. One with more than 256 KiB of it is always looked
	// through. All nodes should say the same.
	Search bool
	// Log hears of what goes wrong in the background; nil = slog.Default().
	Log *slog.Logger
}

const (
	defaultSchema    = "postrider"
	defaultHistory   = 1 << 16
	defaultKeywords  = 256
	mostKeywords     = 1<<15 - 1
	defaultMailboxes = 10_000
	defaultGrace     = time.Hour
	defaultTimeout   = time.Minute
	defaultPoll      = 5 * time.Second
	maxName          = 1024 // octets of a mailbox or keyword name
)

// Store is a store in PostgreSQL. It is safe for concurrent use, by any number
// of nodes. It is also a store.Admin, store.Stager and store.Deliverer; its
// accounts are also store.Watcher, Subscriber, RecentClaimer, Quoter,
// SummaryWriter, Importer and Searcher.
type Store struct {
	pool   *pgxpool.Pool
	o      Options
	tables pgschema.Tables
	data   string // names the data: two Stores over the same have the same

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	hub     hub
	joiner  joiner

	byNum, byName statements // of insert
	search        search
}

// Open opens the store in a database, and makes its tables or brings them up
// to date. The pool stays the caller's: close it after the Store.
func Open(ctx context.Context, pool *pgxpool.Pool, o Options) (*Store, error) {
	setDefault(&o.History, defaultHistory)
	setDefault(&o.Keywords, defaultKeywords)
	setDefault(&o.Mailboxes, defaultMailboxes)
	setDefault(&o.Grace, defaultGrace)
	setDefault(&o.Timeout, defaultTimeout)
	setDefault(&o.Poll, defaultPoll)
	if o.Schema == "" {
		o.Schema = defaultSchema
	}
	if o.Keywords < 0 {
		o.Keywords = mostKeywords
	}
	setDefault(&o.BlobsAbove, defaultBlobsAbove)
	o.BlobsAbove = min(max(o.BlobsAbove, 0), inline)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Store{pool: pool, o: o, tables: tables(o.Schema)}
	if err := s.migrate(ctx); err != nil {
		return nil, fail(err)
	}
	if err := s.openSearch(ctx); err != nil {
		return nil, fail(err)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.hub.init(s)
	s.joiner.waiting = make(map[int64][]*joined)
	s.joiner.slots = make(chan struct{}, max(1, pool.Config().MaxConns/2))
	s.byNum, s.byName = s.statements("num", "bigint"), s.statements("id", "text")
	s.running.Go(s.sweepNowAndThen)
	if s.search.on {
		s.running.Go(s.fillNowAndThen)
	}
	return s, nil
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// Close ends what runs in the background. Calls under way end on their own.
func (s *Store) Close() error {
	s.joiner.mu.Lock()
	s.joiner.closed = true
	s.joiner.mu.Unlock()
	s.cancel()
	s.hub.line.Close()
	s.running.Wait()
	return nil
}

// sql puts the schema's name into a statement: for {s} as a name, for {q} within
// quotes.
func (s *Store) sql(text string) string {
	if strings.Contains(text, "{q}") {
		text = strings.ReplaceAll(text, "{q}", strings.ReplaceAll(s.tables.Quoted(), "'", "''"))
	}
	return s.tables.SQL(text)
}

// bounded gives ctx the Timeout.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.o.Timeout < 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.o.Timeout)
}

// Account returns an account; store.ErrNotExist.
func (s *Store) Account(ctx context.Context, id string) (store.Account, error) {
	a := &account{s: s, id: id}
	err := a.read(ctx, `SELECT num FROM {s}.accounts WHERE id = $1`, []any{text(id)}, &a.num)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Accounts returns the names of all accounts, sorted.
func (s *Store) Accounts(ctx context.Context) ([]string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.query(ctx, s.sql(`SELECT id FROM {s}.accounts ORDER BY id`))
	if err != nil {
		return nil, fail(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, fail(err)
}

// CreateAccount makes an account with an empty Inbox; store.ErrExist.
func (s *Store) CreateAccount(ctx context.Context, id string) error {
	if !storable(id) {
		return store.ErrLimit
	}
	validity, err := s.validity(ctx)
	if err != nil {
		return err
	}
	return s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, s.sql(`WITH a AS (INSERT INTO {s}.accounts (id, modseq) VALUES ($1, 1) RETURNING num)
			INSERT INTO {s}.mailboxes (account, id, name, uidvalidity, modseq, horizon) SELECT num, $2, $2, $3, 1, $4 FROM a`),
			id, string(store.Inbox), validity, s.horizon(1))
		return err
	})
}

// horizon is that of a new mailbox.
func (s *Store) horizon(modSeq int64) int64 {
	if s.o.History < 0 {
		return modSeq
	}
	return 0
}

// DeleteAccount removes an account with its mail; store.ErrNotExist. Handles
// to it, its sessions' among them, get store.ErrNotExist from then on.
func (s *Store) DeleteAccount(ctx context.Context, id string) error {
	a := &account{s: s, id: id}
	err := s.transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		err := tx.QueryRow(ctx, s.sql(`SELECT num FROM {s}.accounts WHERE id = $1 FOR UPDATE`), text(id)).Scan(&a.num)
		if err != nil {
			return err
		}
		// Their bodies are left to the sweep.
		_, err = tx.Exec(ctx, s.sql(`UPDATE {s}.blobs SET pending = now()
			WHERE num IN (SELECT blob FROM {s}.contents WHERE account = $1)`), a.num)
		for _, sql := range []string{
			`DELETE FROM {s}.messages WHERE mailbox IN (SELECT num FROM {s}.mailboxes WHERE account = $1)`,
			`DELETE FROM {s}.expunged WHERE mailbox IN (SELECT num FROM {s}.mailboxes WHERE account = $1)`,
			`DELETE FROM {s}.contents WHERE account = $1`,
			`DELETE FROM {s}.threads WHERE account = $1`,
			`DELETE FROM {s}.deliveries WHERE account = $1`,
			`DELETE FROM {s}.accounts WHERE num = $1`, // with its mailboxes
		} {
			if err == nil {
				_, err = tx.Exec(ctx, s.sql(sql), a.num)
			}
		}
		return err
	})
	if err == nil {
		s.hub.committed(a.num)
	}
	return err
}

// SetQuota bounds an account's messages to this many octets, 0 = no limit.
// What is there already stays. store.ErrNotExist.
func (s *Store) SetQuota(ctx context.Context, id string, octets int64) error {
	a := &account{s: s}
	return a.read(ctx, `UPDATE {s}.accounts SET quota = $2 WHERE id = $1 RETURNING num`, []any{text(id), octets}, &a.num)
}

// validity gives out a UIDVALIDITY that was never used in this store and is
// not below the clock: an account that is made again cannot meet its old ones.
func (s *Store) validity(ctx context.Context) (v int64, err error) {
	a := &account{s: s}
	err = a.read(ctx, `UPDATE {s}.meta SET validity = greatest(validity + 1, extract(epoch FROM clock_timestamp())::bigint) RETURNING validity`, nil, &v)
	return v, err
}

// storable reports whether a name can be kept.
func storable(name string) bool {
	return len(name) <= maxName && text(name) == name
}

// text makes a string one that PostgreSQL takes. What it changes can be the
// name of nothing.
func text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\ufffd"), "\ufffd")
}

var ids = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID returns an object identifier (RFC 8474 §4): a letter for its kind,
// then 120 bits of chance.
func newID(kind byte) string {
	var b [15]byte
	rand.Read(b[:])
	out := make([]byte, 1, 25)
	out[0] = kind
	return string(ids.AppendEncode(out, b[:]))
}
