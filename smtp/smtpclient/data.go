package smtpclient

import (
	"bufio"
	"context"
	"errors"
	"strconv"

	"github.com/postrider/postrider/internal/lineio"
	"github.com/postrider/postrider/smtp"
)

// chunkSize is the size of a BDAT chunk, in octets.
const chunkSize = 1 << 20

// data sends the message after 354, or in chunks if it is binary, and reads the
// outcome.
//
// What is text does not go in chunks. They could save a round trip only if they
// left with the envelope, before it is known that somebody is to have them; a
// host that refuses a recipient and does not read the chunk away, as RFC 3030
// §2 asks, would take what somebody wrote in a message for our commands, and
// such hosts exist. Behind the replies to the envelope DATA has as many round
// trips (TestChunksTakeNoLessTime), every host knows it, and a message with a
// bare LF in it is put right on the way.
func (t *transaction) data() error {
	c := t.c
	switch {
	case t.dataErr != nil:
		fill(t.results, t.accepted, smtp.Result{Err: t.dataErr, Reply: t.dataIn, Hop: c.hop})
		return nil
	case t.plan.chunked && len(t.accepted) > 0:
		return t.chunks()
	case !t.dataOK:
		return nil // not asked for: nobody was accepted
	case len(t.accepted) == 0:
		// Pipelined, and the host wants the message although nobody is to
		// have it: RFC 2920 §3.1, the lone dot.
		if c.target.LMTP {
			return violation("354 without a recipient")
		}
		t.w.writes(c.tmo.Data)
		c.trace.command(".")
		if _, err := c.nc.Write([]byte(".\r\n")); err != nil {
			return err
		}
		_, err := c.reply(&t.w, c.tmo.Data)
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
		return t.cutShort(err)
	}
	// The last moment for ctx: nobody hangs up after the dot.
	if !t.w.stop() {
		return t.ctx.Err()
	}
	t.w.writes(c.tmo.Block)
	dw.Close()
	return t.outcome(bw.Flush())
}

// cutShort ends the connection within the message: without its end nothing is
// delivered.
func (t *transaction) cutShort(err error) error {
	c := t.c
	if e := new(smtp.Error); errors.As(err, &e) { // the message cannot be read
		c.abandon(e)
		t.rest(e)
		return nil
	}
	r, err := c.lastWords(&t.w, err)
	if err != nil {
		return err
	}
	e := refusal(r, smtp.ScopeMessage)
	c.abandon(e)
	t.end(smtp.Result{Err: e, Reply: r, Hop: c.hop})
	return nil
}

// outcome reads the replies to a message whose end has been written; werr is
// what became of that.
func (t *transaction) outcome(err error) error {
	c := t.c
	c.trace.sent(t.body.Size())
	t.w.wrote()
	if _, pipelining := c.ext[smtp.ExtPipelining]; pipelining && err == nil {
		t.p.pass()
		if t.free != nil {
			t.free()
		}
	}
	accepted := t.accepted
	t.accepted = nil
	for k := 0; k < len(accepted); k++ {
		var r smtp.Reply
		if err == nil {
			r, err = c.reply(&t.w, c.tmo.Dot)
		} else if k == 0 {
			r, err = c.lastWords(&t.w, err)
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
		t.w.writes(t.c.tmo.Block)
		if _, err := w.Write((*buf)[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// chunks sends the message with BDAT (RFC 3030 §2), each chunk while the reply
// to the one before is on its way.
func (t *transaction) chunks() error {
	c := t.c
	bw := writers.Get().(*bufio.Writer)
	bw.Reset(c.nc)
	defer func() {
		bw.Reset(nil)
		writers.Put(bw)
	}()
	_, pipelining := c.ext[smtp.ExtPipelining]
	size := t.body.Size()
	pending := false // the reply to the chunk before is to come
	for off := int64(0); ; {
		n := min(size-off, chunkSize)
		last := off+n == size
		line := "BDAT " + strconv.FormatInt(n, 10)
		if last {
			line += " LAST"
		}
		c.trace.command(line)
		wrote := make(chan error, 1)
		go func() { wrote <- t.writeChunk(bw, line, off, n, last) }()
		if pending {
			if err := t.chunkReply(); err != nil {
				err = t.fail(err)
				<-wrote
				return err
			}
		}
		if err := <-wrote; err != nil {
			return t.cutShort(err)
		}
		switch {
		case t.dataErr != nil && last:
			// Its last octets are not out, and better stay here.
			c.abandon(t.dataErr)
			t.end(smtp.Result{Err: t.dataErr, Reply: t.dataIn, Hop: c.hop})
			return nil
		case t.dataErr != nil:
			return t.refused(1)
		}
		if last {
			break
		}
		off += n
		if pending = true; !pipelining {
			pending = false
			if err := t.chunkReply(); err != nil {
				return err
			}
			if t.dataErr != nil {
				return t.refused(0)
			}
		}
	}
	if !t.w.stop() {
		return t.ctx.Err()
	}
	t.w.writes(c.tmo.Block)
	return t.outcome(bw.Flush())
}

// writeChunk writes one chunk, of the last one not the last octets.
func (t *transaction) writeChunk(bw *bufio.Writer, line string, off, n int64, last bool) error {
	t.w.writes(t.c.tmo.Block)
	bw.WriteString(line)
	bw.WriteString("\r\n")
	if err := t.copyChunk(bw, off, n); err != nil || last {
		return err
	}
	return bw.Flush()
}

// chunkReply reads the reply to one chunk that is not the last; a refusal is
// in t.dataErr.
func (t *transaction) chunkReply() error {
	c := t.c
	r, err := c.reply(&t.w, c.tmo.Dot)
	switch {
	case err != nil:
		return err
	case r.Code/100 == 2:
		return nil
	case r.Code < 400:
		return violation("unexpected reply to BDAT: %v", r)
	}
	t.dataErr, t.dataIn = refusal(r, smtp.ScopeMessage), r
	return nil
}

// refused ends a message of which a chunk was refused, when the replies to n
// more have been read. The next transaction begins with RSET.
func (t *transaction) refused(n int) error {
	c, e, r := t.c, t.dataErr, t.dataIn
	fill(t.results, t.accepted, smtp.Result{Err: e, Reply: r, Hop: c.hop})
	t.accepted = nil
	if r.Code == 421 {
		c.abandon(e)
		t.rest(e)
		return nil
	}
	for range n {
		if err := t.chunkReply(); err != nil {
			return err // everybody has a result
		}
	}
	return nil
}

// copyChunk writes n octets from off, as they are.
func (t *transaction) copyChunk(bw *bufio.Writer, off, n int64) error {
	buf := blocks.get()
	defer blocks.put(buf)
	for end := off + n; off < end; {
		k, err := readBlock(t.body, *buf, off, end)
		if err != nil {
			return bodyError(err)
		}
		t.w.writes(t.c.tmo.Block)
		if _, err := bw.Write((*buf)[:k]); err != nil {
			return err
		}
		off += int64(k)
	}
	return nil
}
