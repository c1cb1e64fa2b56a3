package smtpclient

import (
	"bufio"
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/internal/lineio"
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
// PIPELINING (RFC 2920), and it is not waited for recipient by recipient.
//
// ctx may end it up to the last octet before the final dot. Then the reply is
// awaited, for Timeouts.Dot at most; if it does not come, the recipients'
// errors are Unsure. env and body are the caller's again when Send returns.
//
// More than 100 recipients, or more than the host announces or takes (452
// 4.5.3), get several transactions on the same connection (RFC 5321
// §4.5.3.1.8 and 10).
func (c *Conn) Send(ctx context.Context, env *smtp.Envelope, body Body) []smtp.Result {
	c.progress = false
	if len(env.To) == 0 {
		return nil
	}
	results := make([]smtp.Result, len(env.To))
	if err := c.begin(); err != nil {
		for i := range results {
			results[i] = smtp.Result{Err: err, Hop: c.hop}
		}
		return results
	}
	defer c.end()
	mail, todo, wide := c.plan(env, body, results)
	for len(todo) > 0 {
		if c.err != nil {
			fill(results, todo, smtp.Result{Err: c.err, Hop: c.hop})
			break
		}
		n := min(len(todo), c.maxRecipients())
		t := transaction{c: c, ctx: ctx, env: env, body: body, mail: mail, wide: wide, todo: todo[:n:n], results: results}
		if later := t.run(); len(later) > 0 {
			todo = append(later, todo[n:]...)
		} else {
			todo = todo[n:]
		}
	}
	return results
}

// maxRecipients is how many recipients go into one transaction: what the host
// announces in LIMITS (RFC 9422), else the 100 that every host takes (RFC 5321
// §4.5.3.1.8). To find its limit by trying would look like an attack to some.
func (c *Conn) maxRecipients() int {
	for p := range strings.FieldsSeq(c.ext["LIMITS"]) {
		if k, v, ok := strings.Cut(p, "="); ok && strings.EqualFold(k, "RCPTMAX") {
			if n, err := strconv.Atoi(v); err == nil && n > 0 {
				return min(n, 1000)
			}
		}
	}
	return 100
}

// transaction is one MAIL, RCPT…, DATA sequence.
type transaction struct {
	c       *Conn
	ctx     context.Context
	env     *smtp.Envelope
	body    Body
	mail    string
	wide    bool  // under SMTPUTF8
	todo    []int // recipients named in it
	results []smtp.Result

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
	if c.br.Buffered() > 0 {
		t.rest(c.fail(context.Background(), violation("reply without a command")))
		return nil
	}
	stop := c.watch(t.ctx)
	err := t.commands()
	if err == nil {
		err = t.data(stop)
	}
	stop()
	if err != nil {
		t.rest(c.fail(t.ctx, err))
		return nil
	}
	if c.err != nil {
		t.rest(c.err)
		return nil
	}
	return t.later
}

// rest sets the result of everyone who has none yet.
func (t *transaction) rest(err error) {
	for _, list := range [...][]int{t.accepted, t.later} {
		fill(t.results, list, smtp.Result{Err: err, Hop: t.c.hop})
	}
	t.accepted, t.later = nil, nil
	for _, i := range t.todo {
		if t.results[i].Hop == nil {
			t.results[i] = smtp.Result{Err: err, Hop: t.c.hop}
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

	first := stepMail
	if c.dirty {
		first = stepReset
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
			out = append(out, t.mail...)
		case stepData:
			out = append(out, "DATA"...)
		default:
			out = c.appendRcpt(out, &t.env.To[t.todo[step]], t.wide)
		}
		if c.trace != nil {
			c.trace.command(string(out[at:]))
		}
		out = append(out, '\r', '\n')
	}

	c.dirty = true
	if !pipelining {
		for step := first; ; step = next(step) {
			if step == stepData && len(t.accepted) == 0 {
				return nil
			}
			out = out[:0]
			add(step)
			c.arm(c.tmo.Command)
			var r smtp.Reply
			_, err := c.nc.Write(out)
			if err == nil {
				r, err = c.reply(t.wait(step))
			} else {
				r, err = c.lastWords(err)
			}
			if err == nil {
				err = t.took(step, r)
			}
			if err != nil || t.mailErr != nil || c.err != nil || step == stepData {
				return err
			}
		}
	}

	for step := first; ; step = next(step) {
		add(step)
		if step == stepData {
			break
		}
	}
	c.arm(c.tmo.Command)
	// A few commands fit any buffer between us and the peer. More are
	// written beside the reading, or both sides could wait for the other to
	// read (RFC 2920 §3.1).
	var werr chan error
	if len(out) > readBuffer {
		werr = make(chan error, 1)
		go func() {
			_, err := c.nc.Write(out)
			werr <- err
		}()
	} else if _, err := c.nc.Write(out); err != nil {
		r, err := c.lastWords(err)
		if err == nil {
			err = t.took(first, r)
		}
		return err
	}
	var err error
	for step := first; ; step = next(step) {
		var r smtp.Reply
		if r, err = c.reply(t.wait(step)); err != nil {
			break
		}
		if err = t.took(step, r); err != nil || c.err != nil || step == stepData {
			break
		}
	}
	if werr != nil {
		if err != nil || c.err != nil {
			c.cut()
		}
		if e := <-werr; err == nil && c.err == nil {
			err = e
		}
	}
	return err
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
		for _, list := range [...][]int{t.accepted, t.later} {
			fill(t.results, list, smtp.Result{Err: e, Reply: r, Hop: c.hop})
		}
		t.accepted, t.later = nil, nil
		for _, i := range t.todo {
			if t.results[i].Hop == nil {
				t.results[i] = smtp.Result{Err: e, Reply: r, Hop: c.hop}
			}
		}
		return nil
	}
	switch {
	case step == stepReset:
		if r.Code/100 != 2 {
			return violation("RSET refused: %v", r)
		}
	case step == stepMail:
		c.progress = true
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

// data sends the message after 354 and reads the outcome.
func (t *transaction) data(stop func() bool) error {
	c := t.c
	if c.err != nil {
		return nil
	}
	if t.dataErr != nil {
		fill(t.results, t.accepted, smtp.Result{Err: t.dataErr, Reply: t.dataIn, Hop: c.hop})
		return nil
	}
	if !t.dataOK {
		return nil // not asked for: nobody was accepted
	}
	if len(t.accepted) == 0 {
		// Pipelined, and the host wants the message although nobody is to
		// have it: RFC 2920 §3.1, the lone dot.
		if c.target.LMTP {
			return violation("354 without a recipient")
		}
		_, err := c.command(c.tmo.Data, ".")
		return err
	}

	bw := writers.Get().(*bufio.Writer)
	bw.Reset(c.nc)
	defer func() {
		bw.Reset(nil)
		writers.Put(bw)
	}()
	dw := lineio.NewDotWriter(bw)
	if err := t.copyBody(dw); err != nil {
		// Without the dot nothing is delivered: that needs the connection
		// to end here.
		if e, ok := err.(*smtp.Error); ok {
			c.abandon(e)
			return nil
		}
		r, err := c.lastWords(err)
		if err != nil {
			return err
		}
		e := refusal(r, smtp.ScopeMessage)
		c.abandon(e)
		fill(t.results, t.accepted, smtp.Result{Err: e, Reply: r, Hop: c.hop})
		t.accepted = nil
		return nil
	}
	// The last moment for ctx: nobody hangs up after the dot.
	if !stop() {
		return t.ctx.Err()
	}
	c.arm(c.tmo.Block)
	dw.Close()
	err := bw.Flush()
	c.trace.sent(t.body.Size())

	accepted := t.accepted
	t.accepted = nil
	for k := 0; k < len(accepted); k++ {
		var r smtp.Reply
		if err == nil {
			r, err = c.reply(c.tmo.Dot)
		} else if k == 0 {
			r, err = c.lastWords(err)
		}
		if err == nil && r.Code/100 == 3 {
			err = violation("unexpected reply to the message: %v", r)
		}
		if err != nil {
			e := *c.fail(context.Background(), err)
			e.Unsure = true
			fill(t.results, accepted[k:], smtp.Result{Err: &e, Hop: c.hop})
			return nil
		}
		res := smtp.Result{Reply: r, Hop: c.hop}
		if r.Code/100 != 2 {
			scope := smtp.ScopeMessage
			if c.target.LMTP {
				scope = smtp.ScopeRecipient
			}
			e := refusal(r, scope)
			res.Err = e
			if r.Code == 421 {
				c.abandon(e)
				fill(t.results, accepted[k:], res)
				return nil
			}
		}
		if !c.target.LMTP {
			fill(t.results, accepted, res)
			c.dirty = res.Err != nil
			return nil
		}
		t.results[accepted[k]] = res
	}
	c.dirty = false
	return nil
}

// copyBody writes the message; an *smtp.Error means that it could not be read.
func (t *transaction) copyBody(w *lineio.DotWriter) error {
	buf := blocks.get()
	defer blocks.put(buf)
	size := t.body.Size()
	for off := int64(0); off < size; {
		n, err := readBlock(t.body, *buf, off, size)
		if err != nil {
			return bodyError(err)
		}
		t.c.arm(t.c.tmo.Block)
		if _, err := w.Write((*buf)[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
