package smtpclient

import (
	"bufio"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/postrider/postrider/smtp"
)

// blockSize is the unit in which a message is read and written.
const blockSize = 32 << 10

// blocks are the buffers of running transactions; idle connections have none.
var (
	blocks  blockPool
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, blockSize) }}
)

type blockPool struct{ p sync.Pool }

func (b *blockPool) get() *[]byte {
	if v, ok := b.p.Get().(*[]byte); ok {
		return v
	}
	v := make([]byte, blockSize)
	return &v
}

func (b *blockPool) put(v *[]byte) { b.p.Put(v) }

// Send transfers one message and returns a result for each recipient of env,
// in order. The commands up to DATA go out together when the host announces
// PIPELINING (RFC 2920), behind the message of another Send that is not
// answered yet, and it is not waited for recipient by recipient.
//
// ctx may end it up to the last octet before the final dot. Then the reply is
// awaited, for Timeouts.Dot at most; if it does not come, the recipients'
// errors are Unsure. env and body are the caller's again when Send returns.
//
// More than 100 recipients, or more than the host announces (LIMITS, RFC 9422)
// or takes (452 4.5.3), get several transactions on the same connection
// (RFC 5321 §4.5.3.1.8 and 10).
func (c *Conn) Send(ctx context.Context, env *smtp.Envelope, body Body) []smtp.Result {
	results, _ := c.send(ctx, env, body, nil)
	return results
}

// send is Send. free, if not nil, is called once the message has been sent and
// another may follow, which is not always. begun reports whether the host said
// anything to this message: if not, it is safe to send it elsewhere.
func (c *Conn) send(ctx context.Context, env *smtp.Envelope, body Body, free func()) (results []smtp.Result, begun bool) {
	if len(env.To) == 0 {
		return nil, false
	}
	results = make([]smtp.Result, len(env.To))
	if err := c.begin(); err != nil {
		for i := range results {
			results[i] = smtp.Result{Err: err, Hop: c.hop}
		}
		return results, false
	}
	defer c.end()
	pl := c.plan(env, body, results)
	todo := pl.todo
	for len(todo) > 0 {
		n := c.transactionSize(env, todo)
		t := transaction{c: c, ctx: ctx, env: env, body: body, plan: pl, todo: todo[:n:n], results: results}
		if n == len(todo) {
			t.free = free
		}
		later := t.run()
		begun = begun || t.begun
		if len(later) > 0 {
			todo = append(later, todo[n:]...)
		} else {
			todo = todo[n:]
		}
		if err := c.Err(); err != nil {
			fill(results, todo, smtp.Result{Err: err, Hop: c.hop})
			break
		}
	}
	return results, begun
}

// transactionSize is how many of todo go into one transaction: what the host
// announces, else the 100 that every host takes (RFC 5321 §4.5.3.1.8). To find
// its limit by trying would look like an attack to some.
func (c *Conn) transactionSize(env *smtp.Envelope, todo []int) int {
	n := 100
	if m := c.limits.RcptMax; m > 0 {
		n = min(m, 1000)
	}
	n = min(n, len(todo))
	if m := c.limits.RcptDomainMax; m > 0 {
		domains := map[string]bool{}
		for k, i := range todo[:n] {
			if domains[env.To[i].Domain] = true; len(domains) > m {
				return k
			}
		}
	}
	return n
}

// transaction is one MAIL, RCPT…, DATA sequence.
type transaction struct {
	c       *Conn
	ctx     context.Context
	env     *smtp.Envelope
	body    Body
	plan    plan
	todo    []int // recipients named in it
	results []smtp.Result
	free    func() // see send

	p        place
	w        watch
	begun    bool // the host said something to MAIL, other than goodbye
	over     bool // the connection was ended, and everybody has a result
	accepted []int
	later    []int       // for the next transaction
	mailErr  *smtp.Error // MAIL was refused
	dataErr  *smtp.Error
	dataOK   bool // 354
	dataIn   smtp.Reply
}

// run returns the recipients that a next transaction may serve.
func (t *transaction) run() []int {
	c := t.c
	if err := t.p.enter(t.ctx, c); err != nil {
		t.rest(err)
		return nil
	}
	defer func() {
		t.p.leave()
		t.p.pass()
	}()
	if err := c.Err(); err != nil {
		t.rest(err)
		return nil
	}
	if t.ctx.Err() != nil { // nothing was said, so the connection is as good as before
		t.p.withdraw()
		t.rest(interrupted(t.ctx))
		return nil
	}
	if m := c.limits.MailMax; m > 0 && c.mail >= m {
		e := &smtp.Error{Code: 451, Enhanced: smtp.EnhancedCode{4, 5, 3}, Text: "Host takes no more messages on this connection"}
		if t.p.behind() {
			c.setErr(e)
		} else {
			c.abandon(e)
		}
		t.rest(e)
		return nil
	}
	c.mail++
	t.w.start(t.ctx, c)
	err := t.commands()
	if err == nil && !t.over {
		err = t.data()
	}
	t.w.stop()
	if err != nil {
		t.rest(t.fail(err))
		return nil
	}
	if t.over {
		return nil
	}
	return t.later
}

// fail ends the connection, unless err says that it has been.
func (t *transaction) fail(err error) error {
	if e := new(smtp.Error); errors.As(err, &e) {
		return e
	}
	return t.c.fail(t.ctx, err)
}

// rest sets the result of everyone who has none yet.
func (t *transaction) rest(err error) { t.end(smtp.Result{Err: err, Hop: t.c.hop}) }

func (t *transaction) end(r smtp.Result) {
	for _, list := range [...][]int{t.accepted, t.later} {
		fill(t.results, list, r)
	}
	t.accepted, t.later, t.over = nil, nil, true
	for _, i := range t.todo {
		if t.results[i].Hop == nil {
			t.results[i] = r
		}
	}
}

// What each command of a transaction is, in the order of sending.
const (
	stepReset = -1 - iota
	stepMail
	stepData // and 0, 1, … are the recipients in todo
)

// commands sends everything up to DATA and reads the replies.
func (t *transaction) commands() error {
	c := t.c
	buf := blocks.get()
	defer blocks.put(buf)
	out := (*buf)[:0]
	_, pipelining := c.ext[smtp.ExtPipelining]

	// What is behind a message without an answer has nothing to reset: the
	// host is done with it, well or ill, before it reads on (RFC 5321
	// §4.1.1.4).
	first := stepMail
	if !pipelining || !t.p.behind() {
		if err := t.p.await(t.ctx); err != nil {
			return err
		}
		if err := c.Err(); err != nil {
			return err
		}
		if c.br.Buffered() > 0 {
			return violation("reply without a command")
		}
		if c.dirty {
			first = stepReset
		}
		c.dirty = true
	}
	// Chunks follow once somebody is there to have them: a host that refuses
	// one may read it as commands.
	last := stepData
	if t.plan.chunked {
		last = len(t.todo) - 1
	}
	next := func(step int) int {
		switch {
		case step == stepReset:
			return stepMail
		case step == stepMail:
			return 0
		case step+1 < len(t.todo):
			return step + 1
		}
		return stepData
	}
	add := func(step int) {
		at := len(out)
		switch step {
		case stepReset:
			out = append(out, "RSET"...)
		case stepMail:
			out = append(out, t.plan.mail...)
		case stepData:
			out = append(out, "DATA"...)
		default:
			out = c.appendRcpt(out, &t.env.To[t.todo[step]], t.plan.wide)
		}
		if c.trace != nil {
			c.trace.command(string(out[at:]))
		}
		out = append(out, '\r', '\n')
	}

	if !pipelining {
		for step := first; ; step = next(step) {
			if step == stepData && len(t.accepted) == 0 {
				return nil
			}
			out = out[:0]
			add(step)
			t.w.writes(c.tmo.Command)
			var r smtp.Reply
			_, err := c.nc.Write(out)
			if err == nil {
				r, err = c.reply(&t.w, t.wait(step))
			} else {
				r, err = c.lastWords(&t.w, err)
			}
			if err == nil {
				err = t.took(step, r)
			}
			if err != nil || t.mailErr != nil || t.over || step == last {
				return err
			}
		}
	}

	for step := first; ; step = next(step) {
		add(step)
		if step == last {
			break
		}
	}
	t.w.writes(c.tmo.Command)
	// A few commands fit any buffer between us and the peer. More are
	// written beside the reading, or both sides could wait for the other to
	// read (RFC 2920 §3.1).
	var werr error
	join := func() error { return werr }
	if len(out) > readBuffer {
		done := make(chan error, 1)
		go func() {
			_, err := c.nc.Write(out)
			done <- err
		}()
		join = func() error { return <-done }
	} else {
		_, werr = c.nc.Write(out)
	}
	err := t.p.await(t.ctx)
	if err == nil {
		if err = c.Err(); err == nil {
			err = t.replies(first, last, next, werr)
		}
	}
	if err != nil && !t.p.behind() {
		err = t.fail(err) // and so ends the writing
	}
	if e := join(); err == nil && !t.over {
		err = e
	}
	return err
}

// replies reads the replies from first to last. werr is what became of the
// writing: then the host may still have said why.
func (t *transaction) replies(first, last int, next func(int) int, werr error) error {
	c := t.c
	c.dirty = true
	for step := first; ; step = next(step) {
		var r smtp.Reply
		var err error
		if werr != nil {
			r, err = c.lastWords(&t.w, werr)
		} else {
			r, err = c.reply(&t.w, t.wait(step))
		}
		if err == nil {
			err = t.took(step, r)
		}
		if err != nil || t.over || step == last {
			return err
		}
	}
}

func (t *transaction) wait(step int) time.Duration {
	if step == stepData {
		return t.c.tmo.Data
	}
	return t.c.tmo.Command
}

// took notes the reply to one command. An error means that the conversation
// is out of step.
func (t *transaction) took(step int, r smtp.Reply) error {
	c := t.c
	if r.Code == 421 {
		// The host closes the connection, whatever it was asked.
		e := refusal(r, smtp.ScopeHost)
		c.abandon(e)
		t.end(smtp.Result{Err: e, Reply: r, Hop: c.hop})
		return nil
	}
	switch {
	case step == stepReset:
		if r.Code/100 != 2 {
			return violation("RSET refused: %v", r)
		}
	case step == stepMail:
		t.begun = true
		switch {
		case r.Code/100 == 2:
		case r.Code >= 400:
			t.mailErr = refusal(r, smtp.ScopeMessage)
			fill(t.results, t.todo, smtp.Result{Err: t.mailErr, Reply: r, Hop: c.hop})
		default:
			return violation("unexpected reply to MAIL: %v", r)
		}
	case step == stepData:
		switch {
		case r.Code == 354:
			t.dataOK = true
		case r.Code >= 400:
			t.dataErr = refusal(r, smtp.ScopeMessage)
			t.dataIn = r
		default:
			return violation("unexpected reply to DATA: %v", r)
		}
	default:
		i := t.todo[step]
		switch {
		case t.mailErr != nil:
		case r.Code/100 == 2:
			t.accepted = append(t.accepted, i)
		case len(t.accepted) > 0 && tooMany(r):
			t.later = append(t.later, i)
		case r.Code >= 400:
			t.results[i] = smtp.Result{Err: refusal(r, smtp.ScopeRecipient), Reply: r, Hop: c.hop}
		default:
			return violation("unexpected reply to RCPT: %v", r)
		}
	}
	return nil
}

// tooMany recognises "too many recipients" (RFC 5321 §4.5.3.1.10); 552 is
// what RFC 821 called it.
func tooMany(r smtp.Reply) bool {
	if r.Code != 452 && r.Code != 552 {
		return false
	}
	return r.Enhanced == smtp.EnhancedCode{} || r.Enhanced[1] == 5 && r.Enhanced[2] == 3
}
