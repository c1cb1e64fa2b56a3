// Package pgnotify tells nodes that share a PostgreSQL database of changes, by
// NOTIFY. What it tells is a hint: notifications are lost while a connection
// is down, so whoever needs the truth asks the tables now and then.
package pgnotify

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// tellEvery is how long changes wait to be told together.
const tellEvery = 10 * time.Millisecond

// firstAgain and lastAgain are how long to wait before connecting again: until
// then what others tell is not heard.
const (
	firstAgain = 100 * time.Millisecond
	lastAgain  = 5 * time.Second
)

// maxPayload is what fits into one notification, in octets.
const maxPayload = 7900

// Line is one node's end of a channel.
type Line struct {
	pool    *pgxpool.Pool
	direct  *pgx.ConnConfig // how to connect for LISTEN; nil = as pool does
	channel string
	log     *slog.Logger
	// heard is called for each key that another node told, and with "" when
	// anything may have happened meanwhile.
	heard func(key string)
	node  string // names this Line among others, in its own notifications

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	dirty   map[string]struct{}
	tell    chan struct{}
	listens bool
}

// New returns a Line that can tell. Close ends it. direct, if not nil, is how
// to connect for LISTEN: past a pooler that pool goes through.
func New(pool *pgxpool.Pool, direct *pgx.ConnConfig, channel string, log *slog.Logger, heard func(key string)) *Line {
	l := &Line{pool: pool, direct: direct, channel: channel, log: log, heard: heard, node: rand.Text(),
		dirty: make(map[string]struct{}), tell: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.running.Go(l.telling)
	return l
}

// Close ends what runs in the background.
func (l *Line) Close() {
	l.cancel()
	l.running.Wait()
}

// Tell tells other nodes of a change soon. Keys have no spaces. Changes that
// come shortly after one another are told together, and in no transaction of
// the caller's: NOTIFY makes commits wait for one another.
func (l *Line) Tell(key string) {
	l.mu.Lock()
	l.dirty[key] = struct{}{}
	l.mu.Unlock()
	select {
	case l.tell <- struct{}{}:
	default:
	}
}

// Listen begins to listen. More than once is once.
func (l *Line) Listen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.listens && l.ctx.Err() == nil {
		l.listens = true
		l.running.Go(l.listening)
	}
}

func (l *Line) telling() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.tell:
		}
		l.wait(tellEvery)
		l.mu.Lock()
		dirty := l.dirty
		l.dirty = make(map[string]struct{})
		l.mu.Unlock()
		for _, text := range payloads(l.node, dirty) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), 5*time.Second)
			if _, err := l.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, l.channel, text); err != nil {
				l.log.Debug("postgresql: other nodes are not told, they will find it", "channel", l.channel, "err", err)
			}
			cancel()
		}
	}
}

func (l *Line) wait(d time.Duration) {
	select {
	case <-l.ctx.Done():
	case <-time.After(d):
	}
}

// payloads are notifications: the node, then keys.
func payloads(node string, keys map[string]struct{}) []string {
	var out []string
	b := []byte(node)
	for k := range keys {
		if len(b)+len(k) > maxPayload && len(b) > len(node) {
			out = append(out, string(b))
			b = []byte(node)
		}
		b = append(append(b, ' '), k...)
	}
	if len(b) > len(node) {
		out = append(out, string(b))
	}
	return out
}

// listening connects again when it must.
func (l *Line) listening() {
	again := firstAgain
	for l.ctx.Err() == nil {
		begin := time.Now()
		err := l.listen()
		if l.ctx.Err() != nil {
			return
		}
		if errors.Is(err, errPooler) {
			l.log.Warn("postgresql: the pool goes through a pooler, where LISTEN does not work: other nodes' changes are found by polling", "channel", l.channel)
			return
		}
		if time.Since(begin) > time.Minute {
			again = firstAgain
		}
		l.log.Warn("postgresql: listening to other nodes failed, connecting again", "channel", l.channel, "in", again, "err", err)
		l.wait(again)
		again = min(2*again, lastAgain)
	}
}

// errPooler says that a connection is not to PostgreSQL itself.
var errPooler = errors.New("pgnotify: not connected to PostgreSQL directly")

const (
	connectWithin = 10 * time.Second
	// probeEvery is how often a silent connection is tried: one that was cut
	// says nothing either.
	probeEvery = time.Minute
)

// connect makes a connection of its own: LISTEN must not be on one that a
// pooler gives to another at the end of a transaction.
func (l *Line) connect() (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, connectWithin)
	defer cancel()
	if l.direct != nil {
		return pgx.ConnectConfig(ctx, l.direct.Copy())
	}
	c := l.pool.Config()
	if c.BeforeConnect != nil {
		if err := c.BeforeConnect(ctx, c.ConnConfig); err != nil {
			return nil, err
		}
	}
	return pgx.ConnectConfig(ctx, c.ConnConfig)
}

// bounded runs a statement that has one value in its answer.
func (l *Line) bounded(conn *pgx.Conn, sql string, into any) error {
	ctx, cancel := context.WithTimeout(l.ctx, connectWithin)
	defer cancel()
	return conn.QueryRow(ctx, sql).Scan(into)
}

func (l *Line) listen() error {
	conn, err := l.connect()
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), time.Second)
		defer cancel()
		conn.Close(ctx)
	}()
	var pid uint32
	if err := l.bounded(conn, `SELECT pg_backend_pid()`, &pid); err != nil {
		return err
	}
	if l.direct == nil && pid != conn.PgConn().PID() {
		return errPooler
	}
	ctx, cancel := context.WithTimeout(l.ctx, connectWithin)
	_, err = conn.Exec(ctx, "LISTEN "+pgx.Identifier{l.channel}.Sanitize())
	cancel()
	if err != nil {
		return err
	}
	l.heard("") // for what was missed until now
	for {
		ctx, cancel := context.WithTimeout(l.ctx, probeEvery)
		n, err := conn.WaitForNotification(ctx)
		cancel()
		if pgconn.Timeout(err) && l.ctx.Err() == nil && !conn.IsClosed() {
			if err = l.bounded(conn, `SELECT pg_backend_pid()`, &pid); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		node, rest, _ := strings.Cut(n.Payload, " ")
		if node == l.node {
			continue
		}
		for key := range strings.FieldsSeq(rest) {
			l.heard(key)
		}
	}
}
