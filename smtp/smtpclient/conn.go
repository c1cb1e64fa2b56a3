package smtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/postrider/postrider/smtp"
)

// Conn is one connection to a host, ready for mail. It is used by one
// goroutine at a time; only Close may be called from another.
type Conn struct {
	dialer *Dialer
	target Target
	tmo    Timeouts
	trace  *Trace
	br     *bufio.Reader
	ext    map[string]string // nil after HELO
	tls    *tls.ConnectionState
	tlsErr error
	hop    *smtp.Hop // shared by results: not changed after open
	proven Security
	authed bool

	err      error // why nothing more can be sent
	dirty    bool  // a transaction is open: RSET is owed
	progress bool  // this Send had a reply to MAIL

	mu          sync.Mutex // guards what follows, and deadlines
	nc          net.Conn
	watched     uint // the current watch; an older one's callback does nothing
	interrupted bool // the context of the call is done
	busy        bool // a call is running
	closed      bool
}

// Hop returns who was connected to.
func (c *Conn) Hop() smtp.Hop { return *c.hop }

// Security returns what the connection has proven: Plain, Encrypted or
// Verified.
func (c *Conn) Security() Security { return c.proven }

// TLS returns the state of TLS, nil in plain text.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// TLSError returns why an opportunistic connection is in plain text although
// the host offered STARTTLS, nil otherwise.
func (c *Conn) TLSError() error { return c.tlsErr }

// Extension reports whether the host announced an extension, named in upper
// case, and with which parameters.
func (c *Conn) Extension(name string) (params string, ok bool) {
	params, ok = c.ext[name]
	return params, ok
}

// Err returns why the connection can send nothing more, nil while it can.
func (c *Conn) Err() error { return c.err }

// Reset aborts the current transaction (RSET) and shows that the connection
// is alive. After an error the connection is of no more use.
func (c *Conn) Reset(ctx context.Context) error {
	if err := c.begin(); err != nil {
		return err
	}
	defer c.end()
	stop := c.watch(ctx)
	r, err := c.command(c.tmo.Command, "RSET")
	stop()
	if err == nil && r.Code != 250 {
		c.abandon(hostRefusal(r))
		return c.err
	}
	if err != nil {
		return c.fail(ctx, err)
	}
	c.dirty = false
	return nil
}

// Close says QUIT, unless the connection has failed, and closes it. Called
// while Send runs in another goroutine it cuts the connection instead: if the
// message was sent completely, its results are Unsure. It may be called more
// than once.
func (c *Conn) Close() error {
	if c.begin() == nil {
		c.command(c.tmo.Quit, "QUIT")
		c.err = lost(context.Background(), ErrClosed)
		c.end()
	}
	c.cut()
	return nil
}

// begin and end frame each use of the connection.
func (c *Conn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.busy:
		return lost(context.Background(), ErrClosed)
	case c.err != nil:
		return c.err
	case c.closed:
		return lost(context.Background(), ErrClosed)
	}
	c.busy = true
	return nil
}

func (c *Conn) end() {
	c.mu.Lock()
	c.busy = false
	c.mu.Unlock()
}

// cut closes the transport; it may be called from any goroutine.
func (c *Conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if t, ok := c.nc.(*tls.Conn); ok {
		t.NetConn().Close() // a goodbye in TLS could block
		return
	}
	c.nc.Close()
}

// fail notes that the conversation is over, and returns the error to report.
func (c *Conn) fail(ctx context.Context, err error) *smtp.Error {
	c.mu.Lock()
	if c.closed {
		err = fmt.Errorf("%w (%w)", ErrClosed, err)
	}
	c.mu.Unlock()
	e := lost(ctx, err)
	c.abandon(e)
	return e
}

// abandon ends the connection, so that a message without its dot is not
// taken for one.
func (c *Conn) abandon(err error) {
	c.err = err
	c.cut()
}

// watch makes the end of ctx interrupt the I/O of the call that follows. stop
// ends the watching; the first call of it returns false when ctx was done
// before.
func (c *Conn) watch(ctx context.Context) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return true }
	}
	c.mu.Lock()
	c.watched++
	id := c.watched
	c.interrupted = false
	c.mu.Unlock()
	off := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.watched == id {
			c.interrupted = true
			c.nc.SetDeadline(time.Unix(1, 0))
		}
	})
	return func() bool {
		ok := off()
		c.mu.Lock()
		c.watched++
		c.interrupted = false
		c.mu.Unlock()
		return ok
	}
}

// arm gives the next I/O d, unless it is to be interrupted.
func (c *Conn) arm(d time.Duration) {
	var t time.Time
	if d > 0 {
		t = time.Now().Add(d)
	}
	c.mu.Lock()
	if !c.interrupted {
		c.nc.SetDeadline(t)
	}
	c.mu.Unlock()
}

// command sends one line and reads its reply. Only I/O and protocol errors
// are errors.
func (c *Conn) command(d time.Duration, line string) (smtp.Reply, error) {
	c.trace.command(line)
	return c.exchange(d, line)
}

func (c *Conn) exchange(d time.Duration, line string) (smtp.Reply, error) {
	c.arm(d)
	buf := append(append(make([]byte, 0, 128), line...), '\r', '\n')
	if _, err := c.nc.Write(buf); err != nil {
		return c.lastWords(err)
	}
	return c.reply(d)
}

// reply reads one reply, which d bounds as a whole.
func (c *Conn) reply(d time.Duration) (smtp.Reply, error) {
	c.arm(d)
	r, err := readReply(c.br)
	if err == nil {
		c.trace.reply(r)
	}
	return r, err
}

// lastWords reads what a host may have said before it closed the connection
// under our writing: 421 or 554 tell more than "broken pipe".
func (c *Conn) lastWords(werr error) (smtp.Reply, error) {
	if isTimeout(werr) {
		return smtp.Reply{}, werr
	}
	c.arm(time.Second)
	if r, err := readReply(c.br); err == nil && r.Code >= 400 {
		c.trace.reply(r)
		return r, nil
	}
	return smtp.Reply{}, werr
}
