package mxtest

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// memory is a connection to the DNS that needs no goroutine: the answer is
// there when the question has been written.
type memory struct {
	d     *DNS
	tcp   bool
	out   []byte
	ready time.Time // when out may be read

	mu  sync.Mutex
	cut chan struct{} // closed when the deadline is over
}

func (c *memory) Write(b []byte) (int, error) {
	q := &dns.Msg{}
	wire := b
	if c.tcp {
		wire = b[min(2, len(b)):]
	}
	if err := q.Unpack(wire); err != nil {
		return 0, err
	}
	// The size limit of UDP holds here too, so that both ways are gone.
	m, delay := c.d.answer(q, "memory", !c.tcp)
	if m == nil {
		return len(b), nil
	}
	c.ready = time.Now().Add(delay)
	out, err := m.Pack()
	if err != nil {
		return 0, err
	}
	if c.tcp {
		c.out = binary.BigEndian.AppendUint16(c.out, uint16(len(out)))
	}
	c.out = append(c.out, out...)
	return len(b), nil
}

func (c *memory) Read(b []byte) (int, error) {
	if len(c.out) == 0 {
		if c.tcp {
			return 0, io.EOF
		}
		return 0, os.ErrDeadlineExceeded
	}
	if late := time.Until(c.ready); late > 0 {
		t := time.NewTimer(late)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.over():
			return 0, os.ErrDeadlineExceeded
		}
	}
	n := copy(b, c.out)
	c.out = c.out[n:]
	return n, nil
}

// over returns what is closed when the deadline is over.
func (c *memory) over() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut == nil {
		c.cut = make(chan struct{})
	}
	return c.cut
}

// SetDeadline ends a wait when t is over already; who asks bounds it by the
// context otherwise.
func (c *memory) SetDeadline(t time.Time) error {
	if t.IsZero() || time.Until(t) > 0 {
		return nil
	}
	cut := c.over()
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-cut:
	default:
		close(cut)
	}
	return nil
}

func (c *memory) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }

func (c *memory) Close() error                     { return nil }
func (c *memory) LocalAddr() net.Addr              { return memoryAddr{} }
func (c *memory) RemoteAddr() net.Addr             { return memoryAddr{} }
func (c *memory) SetWriteDeadline(time.Time) error { return nil }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }
