package pgqueue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/postrider/postrider/internal/pgnotify"
	"github.com/postrider/postrider/internal/pgschema"
	"github.com/postrider/postrider/queue"
)

// Options are how a Storage is to be; the zero value will do.
type Options struct {
	// Schema is where the tables are; "" = "postrider". They all begin with
	// "queue_", so it may be one that is used for more.
	Schema string
	// KeepEvents turns the event log on. Events that nobody acknowledges stay.
	KeepEvents bool
	// Blobs, if any, keeps the bodies that are larger than BlobsAbove; nil =
	// all are in the database. Nodes must agree in it.
	Blobs Blobs
	// BlobsAbove is the largest body, in octets, that is in the database all
	// the same; 0 = 128 KiB, negative = none, 256 KiB at most.
	BlobsAbove int
	// Timeout is how long one call may take at most; 0 = one minute, negative
	// = no limit but the caller's.
	Timeout time.Duration
	// Listen is how to connect for LISTEN; nil = as the pool does. Set it when
	// the pool goes through PgBouncer, to PostgreSQL itself: without it, other
	// nodes' changes are found by polling there.
	Listen *pgx.ConnConfig
	// Now is the clock; nil = the database's. It is for tests.
	Now func() time.Time
	// Log hears of what goes wrong in the background; nil = slog.Default().
	Log *slog.Logger
}

const (
	defaultSchema  = "postrider"
	defaultTimeout = time.Minute
)

// Storage is a queue.Storage, Waker, Lister, Editor and EventLog in
// PostgreSQL. It is safe for concurrent use, by any number of nodes.
type Storage struct {
	pool   *pgxpool.Pool
	o      Options
	tables pgschema.Tables
	data   string // names the data: two Storages over the same have the same
	line   *pgnotify.Line
	puts   group[*newPut]
	ends   group[*ended]
	putSQL string
	endSQL string

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	deaths  chan time.Duration // until the next owner may be dead

	mu    sync.Mutex
	wake  chan struct{}
	calls map[int64]time.Time // that failed, and how long to look for them
}

var (
	_ queue.Storage  = (*Storage)(nil)
	_ queue.Waker    = (*Storage)(nil)
	_ queue.Lister   = (*Storage)(nil)
	_ queue.Editor   = (*Storage)(nil)
	_ queue.EventLog = (*Storage)(nil)
)

// ErrUnavailable wraps what the database, or the Blobs, say when they cannot be
// asked: whether something was written may be unknown.
var ErrUnavailable = errors.New("pgqueue: the database is unavailable")

// Open opens the queue in a database, and makes its tables or brings them up
// to date. The pool stays the caller's: close it after the Storage.
func Open(ctx context.Context, pool *pgxpool.Pool, o Options) (*Storage, error) {
	if o.Schema == "" {
		o.Schema = defaultSchema
	}
	if o.BlobsAbove == 0 {
		o.BlobsAbove = defaultBlobsAbove
	}
	o.BlobsAbove = min(max(o.BlobsAbove, 0), chunk)
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Storage{pool: pool, o: o, tables: tables(o.Schema)}
	if err := s.migrate(ctx); err != nil {
		return nil, fail(err)
	}
	s.putSQL, s.endSQL = s.sql(putRows), s.sql(endRows)
	s.puts = group[*newPut]{most: groups, calls: groupCalls, octets: groupOctets, run: s.putTogether}
	s.ends = group[*ended]{most: groups, calls: groupCalls, octets: groupOctets, run: s.endTogether}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.line = pgnotify.New(pool, o.Listen, o.Schema+"_queue", o.Log, func(string) { s.wakeUp() })
	s.deaths = make(chan time.Duration, 1)
	s.running.Go(s.sweepNowAndThen)
	s.running.Go(s.buryInTime)
	return s, nil
}

// Close ends what runs in the background. Calls under way end on their own.
func (s *Storage) Close() error {
	s.cancel()
	s.puts.close()
	s.ends.close()
	s.line.Close()
	s.running.Wait()
	return nil
}

// sql puts the schema's name into a statement.
func (s *Storage) sql(text string) string { return s.tables.SQL(text) }

// bounded gives ctx the Timeout.
func (s *Storage) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.o.Timeout < 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.o.Timeout)
}

// now is an argument for coalesce($n, clock_timestamp()): nil means the
// database's clock.
func (s *Storage) now() *time.Time {
	if s.o.Now == nil {
		return nil
	}
	t := s.o.Now()
	return &t
}

// What PostgreSQL calls the errors that mean something here.
const (
	serialization       = "40001"
	deadlock            = "40P01"
	foreignKeyViolation = "23503"
	diskFull            = "53100"
	tooLarge            = "54000" // program limits
)

func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// fail turns an error of the database into one of package queue's. Those of a
// context are left as they are.
func fail(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled), known(err):
		return err
	case code(err) == diskFull || code(err) == tooLarge:
		return fmt.Errorf("%w: %w", queue.ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func known(err error) bool {
	for _, e := range []error{queue.ErrFull, queue.ErrLeaseLost, queue.ErrNotFound, ErrUnavailable, ErrVersion, errSubmission, errClosed, errOutcome, errBody, errAlone} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// maxWait is how long a call waits for a connection of the pool at most, and
// half of the Timeout: it had better hear that the database is busy.
const maxWait = 10 * time.Second

var errBusy = errors.New("all connections of the pool are in use")

// acquire takes a connection of the pool.
func (s *Storage) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	most := maxWait
	if s.o.Timeout > 0 {
		most = min(most, s.o.Timeout/2)
	}
	wait, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	conn, err := s.pool.Acquire(wait)
	if st := s.pool.Stat(); err != nil && wait.Err() != nil && st.AcquiredConns() >= st.MaxConns() {
		err = fmt.Errorf("%w: %w", errBusy, err)
	}
	return conn, err
}

// begin begins a transaction. Should this node be cut off in the midst of it,
// the server ends it after the Timeout, so that others need not wait for its
// locks; unless its own settings say when.
func (s *Storage) begin() string {
	if s.o.Timeout < 0 {
		return `BEGIN`
	}
	return fmt.Sprintf(`BEGIN; SELECT set_config('idle_in_transaction_session_timeout', '%d', true) WHERE current_setting('idle_in_transaction_session_timeout') = '0'`,
		max(s.o.Timeout.Milliseconds(), 1))
}

// transact runs f in a transaction, again if PostgreSQL asks for it.
func (s *Storage) transact(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	conn, err := s.acquire(ctx)
	if err != nil {
		return fail(err)
	}
	defer conn.Release()
	for tries := 0; ; tries++ {
		err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{BeginQuery: s.begin()}, func(tx pgx.Tx) error { return f(ctx, tx) })
		if c := code(err); (c == deadlock || c == serialization) && tries < 5 && ctx.Err() == nil {
			continue
		}
		return fail(err)
	}
}

// Wake implements queue.Waker.
func (s *Storage) Wake() <-chan struct{} {
	s.line.Listen()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

// wakeUp wakes the queues of this process.
func (s *Storage) wakeUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// changed wakes the queues of all nodes.
func (s *Storage) changed() {
	s.wakeUp()
	s.line.Tell("-")
}
