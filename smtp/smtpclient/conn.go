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

// Conn is one connection to a host, ready for mail. It may be used from many
// goroutines: the commands of a Send follow a message that was sent and is not
// answered yet, where the host allows it (PIPELINING, RFC 2920 §3.1), and
// replies are handed out in that order.
type Conn struct {
	dialer *Dialer
	target Target
	tmo    Timeouts
	trace  *Trace
	ext    map[string]string // nil after HELO
	limits smtp.Limits
	tls    *tls.ConnectionState
	tlsErr error
	hop    *smtp.Hop // shared by results: not changed after open
	proven Security
	// provenFor is the Key of the Verifier that proven Verified was proven for.
	provenFor string
	authed    bool
	w         *watch // of what uses the connection alone

	// turn is held by who writes, until nothing more of its message follows.
	// Each use of the connection then reads when the one before has.
	turn chan struct{}
	tail chan struct{} // closed when the last use has read its replies; of turn
	mail int           // how many transactions there were; of turn

	// Of who reads.
	br    *bufio.Reader
	dirty bool // a transaction is open: RSET is owed

	mu     sync.Mutex // guards what follows, and deadlines
	nc     net.Conn
	err    error // why nothing more can be sent
	users  int   // uses under way
	closed bool
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
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Reset aborts the current transaction (RSET) and shows that the connection
// is alive. After an error the connection is of no more use.
func (c *Conn) Reset(ctx context.Context) error {
	return c.talk(ctx, func() error {
		r, err := c.command(c.tmo.Command, "RSET")
		if err == nil && r.Code != 250 {
			return hostRefusal(r)
		}
		c.dirty = err != nil
		return err
	})
}

// Close says QUIT, unless the connection has failed, and closes it. Called
// while Send runs in another goroutine it cuts the connection instead: if the
// message was sent completely, its results are Unsure. It may be called more
// than once.
func (c *Conn) Close() error {
	c.mu.Lock()
	busy := c.users > 0
	c.mu.Unlock()
	if !busy {
		if done, err := c.alone(context.Background()); err == nil {
			c.w = c.watch(context.Background())
			c.command(c.tmo.Quit, "QUIT")
			c.setErr(lost(context.Background(), ErrClosed))
			done()
		}
	}
	c.cut()
	return nil
}

// begin and end frame each use of the connection.
func (c *Conn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case c.closed:
		return lost(context.Background(), ErrClosed)
	}
	c.users++
	return nil
}

func (c *Conn) end() {
	c.mu.Lock()
	c.users--
	c.mu.Unlock()
}

// alone waits until nobody uses the connection, and lets nobody in until done
// is called.
func (c *Conn) alone(ctx context.Context) (done func(), err error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	p := new(place)
	if err := p.enter(ctx, c); err != nil {
		c.end()
		return nil, err
	}
	done = func() {
		p.leave()
		p.pass()
		c.end()
	}
	if err = c.Err(); err == nil {
		if err = p.await(ctx); err == nil {
			err = c.Err()
		}
	}
	if err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// place is one use's place in the order of commands and replies.
type place struct {
	c      *Conn
	before chan struct{} // closed when the replies of the use before are read
	done   chan struct{}
	once   sync.Once // of pass
	left   bool
}

// enter waits for the turn to write.
func (p *place) enter(ctx context.Context, c *Conn) error {
	select {
	case c.turn <- struct{}{}:
	default:
		select {
		case c.turn <- struct{}{}:
		case <-ctx.Done():
			return interrupted(ctx)
		}
	}
	p.c, p.before, p.done = c, c.tail, make(chan struct{})
	c.tail = p.done
	return nil
}

// pass gives the turn to write to the next use.
func (p *place) pass() { p.once.Do(func() { <-p.c.turn }) }

// behind reports whether replies to a use before are still to come.
func (p *place) behind() bool {
	select {
	case <-p.before:
		return false
	default:
		return true
	}
}

// await waits for the turn to read. When ctx is done first, what was written
// is given up, and the connection with it: once those before have read theirs.
func (p *place) await(ctx context.Context) error {
	select {
	case <-p.before:
		return nil
	default:
	}
	select {
	case <-p.before:
		return nil
	case <-ctx.Done():
	}
	e := interrupted(ctx)
	p.c.mu.Lock()
	if p.c.err == nil {
		p.c.err = e
	}
	p.c.mu.Unlock()
	// leave of the one before, or of this one, cuts.
	if !p.behind() {
		p.c.cut()
	}
	return e
}

// leave ends the use: the next may read.
func (p *place) leave() {
	if p.left {
		return
	}
	p.left = true
	if p.behind() {
		// Given up: nobody is behind us, since the turn was not passed on.
		return
	}
	if p.c.Err() != nil {
		p.c.cut()
	}
	close(p.done)
	if p.c.Err() != nil { // set by one that gave up just now
		p.c.cut()
	}
}

// withdraw takes the place back, before anything was written: the next use is
// behind the one before.
func (p *place) withdraw() {
	p.c.tail = p.before
	p.left = true
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
	if c.closed && c.err == nil {
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
	c.setErr(err)
	c.cut()
}

func (c *Conn) setErr(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// watch makes the end of a context interrupt the I/O of one use.
type watch struct {
	c    *Conn
	off  func() bool
	done bool // the context is; guarded by c.mu, as what follows
	read bool // the use reads now, or writes
	writ bool
}

func (c *Conn) watch(ctx context.Context) *watch {
	w := new(watch)
	w.start(ctx, c)
	return w
}

func (w *watch) start(ctx context.Context, c *Conn) {
	w.c, w.off = c, func() bool { return true }
	if ctx.Done() == nil {
		return
	}
	w.off = context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		w.done = true
		if w.read {
			c.nc.SetReadDeadline(time.Unix(1, 0))
		}
		if w.writ {
			c.nc.SetWriteDeadline(time.Unix(1, 0))
		}
	})
}

// stop ends the watching; the first call of it returns false when the context
// was done before.
func (w *watch) stop() bool {
	ok := w.off()
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.read, w.writ, w.done = false, false, false
	return ok
}

// reads and writes give the next input and output d, unless it is to be
// interrupted.
func (w *watch) reads(d time.Duration) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.read = true
	w.c.nc.SetReadDeadline(w.deadline(d))
}

func (w *watch) writes(d time.Duration) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.writ = true
	w.c.nc.SetWriteDeadline(w.deadline(d))
}

// wrote ends the interest in output: the next use has it.
func (w *watch) wrote() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.writ = false
}

func (w *watch) deadline(d time.Duration) time.Time {
	switch {
	case w.done:
		return time.Unix(1, 0)
	case d > 0:
		return time.Now().Add(d)
	}
	return time.Time{}
}

// command sends one line and reads its reply. Only I/O and protocol errors
// are errors.
func (c *Conn) command(d time.Duration, line string) (smtp.Reply, error) {
	c.trace.command(line)
	return c.exchange(d, line)
}

func (c *Conn) exchange(d time.Duration, line string) (smtp.Reply, error) {
	c.w.writes(d)
	buf := append(append(make([]byte, 0, 128), line...), '\r', '\n')
	if _, err := c.nc.Write(buf); err != nil {
		return c.lastWords(c.w, err)
	}
	return c.reply(c.w, d)
}

// reply reads one reply, which d bounds as a whole.
func (c *Conn) reply(w *watch, d time.Duration) (smtp.Reply, error) {
	w.reads(d)
	r, err := readReply(c.br)
	if err == nil {
		c.trace.reply(r)
	}
	return r, err
}

// lastWords reads what a host may have said before it closed the connection
// under our writing: 421 or 554 tell more than "broken pipe".
func (c *Conn) lastWords(w *watch, werr error) (smtp.Reply, error) {
	if isTimeout(werr) {
		return smtp.Reply{}, werr
	}
	w.reads(time.Second)
	if r, err := readReply(c.br); err == nil && r.Code >= 400 {
		c.trace.reply(r)
		return r, nil
	}
	return smtp.Reply{}, werr
}
