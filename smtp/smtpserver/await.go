package smtpserver

import (
	"bufio"
	"sync"
	"syscall"

	"github.com/postrider/postrider/internal/lineio"
)

// A connection that waits for a command holds no buffers: most connections of
// a busy server are idle, and their buffers would be most of its memory. What
// the peer sends then is read into a block that is taken for each try, and
// goes to the reader from there. Of TLS, which has a buffer of its own, one
// octet is waited for.

// awaitBlock is more than a usual group of commands has.
const awaitBlock = 2 << 10

// awaited is what await has read.
type awaited struct {
	raw   syscall.RawConn    // nil: not possible here
	try   func(uintptr) bool // tryRead
	block *[awaitBlock]byte  // what got is in, to be given back
	one   [1]byte            // got of TLS
	got   []byte
	err   error
}

// buffers takes a reader and a writer for the connection.
func (c *Conn) buffers() {
	s := c.srv
	c.r = s.readers.get(readBuffer, c)
	if c.w, _ = s.writers.Get().(*bufio.Writer); c.w == nil {
		c.w = bufio.NewWriterSize(nil, writeBuffer)
	}
	c.w.Reset(netWriter{c})
}

// release gives them back; nothing may be in them.
func (c *Conn) release() {
	c.srv.putReader(c.r)
	c.w.Reset(nil)
	c.srv.writers.Put(c.w)
	c.r, c.w = nil, nil
}

// resize changes the reader for one with a buffer of size octets, if nothing
// is in it: a message is read in larger pieces than commands are.
func (c *Conn) resize(size int) {
	if c.r.Size() == size || c.r.Buffered() > 0 {
		return
	}
	c.srv.putReader(c.r)
	c.r = nil
	if size == dataBuffer {
		c.r = c.srv.dataReaders.get(size, c)
	} else {
		c.r = c.srv.readers.get(size, c)
	}
}

// readers is a pool of readers of one size.
type readers struct{ sync.Pool }

func (p *readers) get(size int, c *Conn) *lineio.Reader {
	r, _ := p.Get().(*lineio.Reader)
	if r == nil {
		r = lineio.NewReader(nil, size)
	}
	r.Reset(netReader{c})
	return r
}

func (s *Server) putReader(r *lineio.Reader) {
	r.Reset(nil)
	if r.Size() == dataBuffer {
		s.dataReaders.Put(r)
	} else {
		s.readers.Put(r)
	}
}

// await waits for the next command without buffers; netReader.Read hands
// out what came of it.
func (c *Conn) await() {
	a := &c.awaited
	if c.r.Buffered() > 0 {
		return
	}
	if a.raw == nil && c.tls == nil || c.w.Flush() != nil {
		c.resize(readBuffer)
		return
	}
	c.waiting = true
	c.arm()
	if !c.srv.conns.Idle(c.base, c.wake) {
		return // the reader will see it too
	}
	c.release()
	var err error
	if c.tls != nil {
		var n int
		n, err = c.nc.Read(a.one[:])
		a.got = a.one[:n]
	} else {
		err = a.raw.Read(a.try)
	}
	c.srv.conns.Busy(c.base)
	c.buffers()
	if err != nil {
		a.err = err
	}
}

// taken hands out what await has read.
func (c *Conn) taken(p []byte) (int, error) {
	a := &c.awaited
	k := copy(p, a.got)
	a.got = nil
	if a.block != nil {
		c.srv.blocks.Put(a.block)
		a.block = nil
	}
	err := a.err
	a.err = nil
	return k, err
}

// blocks is a pool of blocks for all connections of a server.
type blocks struct{ sync.Pool }

func (b *blocks) get() *[awaitBlock]byte {
	if p, ok := b.Get().(*[awaitBlock]byte); ok {
		return p
	}
	return new([awaitBlock]byte)
}
