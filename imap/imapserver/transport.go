package imapserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/postrider/postrider/internal/netserve"
)

// transport is the connection with its deadlines. Reading flushes what was
// written first, so that replies go out exactly when the input is drained.
// One goroutine reads and writes; wakeUp may be called from any.
type transport struct {
	nc    *netserve.Conn
	conn  net.Conn      // nc, or TLS on it
	bw    *bufio.Writer // nil while the session waits
	perIO time.Duration // for each read and write within a command; 0 = none

	begun time.Time // the command that is read
	got   int64     // octets of it, about

	first    [1]byte // read by readFirst, not yet by Read
	hasFirst bool

	mu      sync.Mutex
	waiting bool // a read waits for a command, or in IDLE: it may be woken
	hears   bool // in IDLE: news of the mailbox wake it too
	woken   bool
	until   time.Time // the end of waiting, zero = none
}

// longAgo makes a read return at once.
var longAgo = time.Unix(1, 0)

// writerSize is large for the sake of FETCH. The buffers are pooled, so that
// sessions that wait hold none.
const (
	readerSize = 4 << 10
	writerSize = 32 << 10
)

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readerSize) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writerSize) }}
)

// readFirst waits for one octet, without a buffer, and keeps it for Read.
func (t *transport) readFirst() error {
	if t.hasFirst {
		return nil
	}
	n, err := t.Read(t.first[:])
	if n == 1 {
		t.hasFirst = true
		return nil
	}
	return err
}

// Read implements io.Reader for the session's bufio.Reader.
func (t *transport) Read(p []byte) (int, error) {
	if t.hasFirst && len(p) > 0 {
		t.hasFirst = false
		p[0] = t.first[0]
		return 1, nil
	}
	if t.bw != nil && t.bw.Buffered() > 0 {
		if err := t.bw.Flush(); err != nil {
			return 0, err
		}
	}
	t.mu.Lock()
	var at time.Time
	switch {
	case t.waiting && t.woken:
		at = longAgo
	case t.waiting:
		at = t.until
	case t.perIO > 0:
		at = time.Now().Add(t.perIO)
		// Octets that come one by one do not buy time without end.
		if end := t.begun.Add(t.perIO + time.Duration(t.got)*(time.Second/minRate)); end.Before(at) {
			at = end
		}
		if !t.until.IsZero() && t.until.Before(at) {
			at = t.until
		}
	}
	t.conn.SetReadDeadline(at)
	t.mu.Unlock()
	n, err := t.conn.Read(p)
	t.got += int64(n)
	return n, err
}

// minRate is how many octets a second a command has to bring, on average.
const minRate = 1 << 10

// begin says that a command begins.
func (t *transport) begin() { t.begun, t.got = time.Now(), 0 }

// Write implements io.Writer for the session's bufio.Writer.
func (t *transport) Write(p []byte) (int, error) {
	if t.perIO > 0 {
		t.conn.SetWriteDeadline(time.Now().Add(t.perIO))
	}
	return t.conn.Write(p)
}

// wait begins or ends waiting for a command.
func (t *transport) wait(on bool, until time.Time) {
	t.mu.Lock()
	t.waiting, t.until = on, until
	t.mu.Unlock()
	t.begin()
}

// wakeUp ends a read that waits, and the next one if none does.
func (t *transport) wakeUp() {
	t.mu.Lock()
	t.woken = true
	if t.waiting {
		t.conn.SetReadDeadline(longAgo)
	}
	t.mu.Unlock()
}

// listen begins or ends IDLE, where news is wakeUp.
func (t *transport) listen(on bool) {
	t.mu.Lock()
	t.hears = on
	t.mu.Unlock()
}

// news says that something happened in the mailbox.
func (t *transport) news() {
	t.mu.Lock()
	hears := t.hears
	t.mu.Unlock()
	if hears {
		t.wakeUp()
	}
}

// takeWoken tells whether wakeUp was called, and forgets it.
func (t *transport) takeWoken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.woken
	t.woken = false
	return w
}

// startTLS puts TLS on the connection.
func (t *transport) startTLS(srv *Server, by time.Time) (*tls.ConnectionState, *x509.Certificate, error) {
	ctx := t.nc.Context()
	if !by.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, by)
		defer cancel()
	}
	if t.perIO > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.perIO)
		defer cancel()
	}
	t.nc.Conn.SetDeadline(time.Time{})
	c, cert, err := srv.handshakes.Handshake(ctx, t.nc.Conn, srv.TLS)
	if err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	t.conn = c
	t.mu.Unlock()
	st := c.ConnectionState()
	return &st, cert, nil
}

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}
