// Package pgnotify tells nodes that share a PostgreSQL database of changes, by
// NOTIFY. What it tells is a hint: notifications are lost while a connection
// is down, so whoever needs the truth asks the tables now and then.
package pgnotify

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// tellEvery is how long changes wait to be told together.
const tellEvery = 10 * time.Millisecond

// maxPayload is what fits into one notification, in octets.
const maxPayload = 7900

// Line is one node's end of a channel.
type Line struct {
	pool    *pgxpool.Pool
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

// New returns a Line that can tell. Close ends it.
func New(pool *pgxpool.Pool, channel string, log *slog.Logger, heard func(key string)) *Line {
	l := &Line{pool: pool, channel: channel, log: log, heard: heard, node: rand.Text(),
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
	again := time.Second
	for l.ctx.Err() == nil {
		begin := time.Now()
		err := l.listen()
		if l.ctx.Err() != nil {
			return
		}
		if time.Since(begin) > time.Minute {
			again = time.Second
		}
		l.log.Warn("postgresql: listening to other nodes failed, connecting again", "channel", l.channel, "in", again, "err", err)
		l.wait(again)
		again = min(2*again, 30*time.Second)
	}
}

// listen has a connection of its own: it must not be one that PgBouncer
// gives to another at the end of a transaction.
func (l *Line) listen() error {
	conn, err := pgx.ConnectConfig(l.ctx, l.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(l.ctx))
	if _, err := conn.Exec(l.ctx, "LISTEN "+pgx.Identifier{l.channel}.Sanitize()); err != nil {
		return err
	}
	l.heard("") // for what was missed until now
	for {
		n, err := conn.WaitForNotification(l.ctx)
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
