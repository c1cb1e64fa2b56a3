package milter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// What we send.
const (
	cmdNegotiate = 'O'
	cmdMacro     = 'D'
	cmdConnect   = 'C'
	cmdHello     = 'H'
	cmdMail      = 'M'
	cmdRcpt      = 'R'
	cmdData      = 'T'
	cmdHeader    = 'L'
	cmdHeaderEnd = 'N'
	cmdBody      = 'B'
	cmdEnd       = 'E'
	cmdAbort     = 'A'
	cmdQuit      = 'Q'
)

// What a filter sends.
const (
	repContinue    = 'c'
	repAccept      = 'a'
	repReject      = 'r'
	repTempfail    = 't'
	repDiscard     = 'd'
	repReply       = 'y'
	repSkip        = 's'
	repProgress    = 'p'
	repShutdown    = '4'
	repConnFail    = 'f'
	modAddHeader   = 'h'
	modInsHeader   = 'i'
	modChgHeader   = 'm'
	modAddRcpt     = '+'
	modAddRcptArgs = '2'
	modDelRcpt     = '-'
	modFrom        = 'e'
	modBody        = 'b'
	modQuarantine  = 'q'
)

// Changes that a filter may ask for.
const (
	actAddHeaders = 1 << iota
	actBody
	actAddRcpt
	actDelRcpt
	actChgHeaders
	actQuarantine
	actFrom
	actAddRcptArgs
)

// Steps that a filter may leave out ("no"), or not answer ("nr").
const (
	noConnect = 1 << iota
	noHello
	noMail
	noRcpt
	noBody
	noHeaders
	noHeaderEnd
	nrHeader
	noUnknown
	noData
	canSkip
	rejectedRcpts
	nrConnect
	nrHello
	nrMail
	nrRcpt
	nrData
	nrUnknown
	nrHeaderEnd
	nrBody
	leadingSpace
)

const (
	version    = 6
	maxPacket  = 1 << 20 // octets of one packet from a filter
	chunkBytes = 65535   // of a body in one packet
)

// ErrProtocol is what a filter that breaks the protocol is reported with.
var ErrProtocol = errors.New("milter: filter breaks the protocol")

// wire is a connection to a filter.
type wire struct {
	nc      net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	timeout time.Duration
	version uint32
	actions uint32
	steps   uint32
	buf     []byte // of the last packet read
}

func newWire(nc net.Conn, timeout time.Duration) *wire {
	return &wire{nc: nc, r: bufio.NewReaderSize(nc, 4<<10), w: bufio.NewWriterSize(nc, 4<<10), timeout: timeout}
}

// guard lets ctx end what blocks until release.
func (c *wire) guard(ctx context.Context) (release func()) {
	c.deadline(c.timeout)
	stop := context.AfterFunc(ctx, func() { c.nc.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

func (c *wire) deadline(d time.Duration) {
	if d > 0 {
		c.nc.SetDeadline(time.Now().Add(d))
	}
}

// send writes one packet into the buffer.
func (c *wire) send(cmd byte, parts ...[]byte) error {
	n := 1
	for _, p := range parts {
		n += len(p)
	}
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], uint32(n))
	head[4] = cmd
	c.w.Write(head[:])
	for _, p := range parts {
		c.w.Write(p)
	}
	if n > 1<<30 {
		return io.ErrShortWrite
	}
	return nil
}

// read returns the next packet; data is valid until the next read.
func (c *wire) read() (cmd byte, data []byte, err error) {
	if err := c.w.Flush(); err != nil {
		return 0, nil, err
	}
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, noEOF(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > maxPacket {
		return 0, nil, fmt.Errorf("%w: packet of %d octets", ErrProtocol, n)
	}
	if int(n)-1 > cap(c.buf) {
		c.buf = make([]byte, n-1)
	}
	data = c.buf[:n-1]
	if _, err := io.ReadFull(c.r, data); err != nil {
		return 0, nil, noEOF(err)
	}
	if cap(c.buf) > 128<<10 {
		c.buf = nil // do not keep what a body needed
	}
	return head[4], data, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// negotiate opens the conversation; offered are the changes we can do.
func (c *wire) negotiate(offered uint32) error {
	const steps = noConnect | noHello | noMail | noRcpt | noBody | noHeaders | noHeaderEnd | noUnknown | noData |
		canSkip | nrHeader | nrConnect | nrHello | nrMail | nrRcpt | nrData | nrUnknown | nrHeaderEnd | nrBody | leadingSpace
	var b [12]byte
	binary.BigEndian.PutUint32(b[0:], version)
	binary.BigEndian.PutUint32(b[4:], offered)
	binary.BigEndian.PutUint32(b[8:], steps)
	if err := c.send(cmdNegotiate, b[:]); err != nil {
		return err
	}
	cmd, data, err := c.read()
	if err != nil {
		return err
	}
	if cmd != cmdNegotiate || len(data) < 12 {
		return fmt.Errorf("%w: %q instead of negotiation", ErrProtocol, cmd)
	}
	c.version, c.actions, c.steps = binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])
	if c.version < 2 || c.version > version {
		return fmt.Errorf("%w: version %d", ErrProtocol, c.version)
	}
	// A filter may name changes that were not offered, as rspamd does, as
	// long as it does not come with them; steps are kept to from now on.
	c.actions &= offered
	if c.steps&^uint32(steps) != 0 {
		return fmt.Errorf("%w: it wants steps that were not offered (%#x)", ErrProtocol, c.steps&^uint32(steps))
	}
	if c.version < 3 {
		c.steps |= noUnknown
	}
	if c.version < 4 {
		c.steps |= noData
	}
	return nil
}

// macros sends name and value in turn; those without a value are left out.
func (c *wire) macros(cmd byte, nameValue ...string) error {
	data := []byte{cmd}
	for i := 0; i+1 < len(nameValue); i += 2 {
		if nameValue[i+1] != "" {
			data = appendString(appendString(data, nameValue[i]), nameValue[i+1])
		}
	}
	return c.send(cmdMacro, data)
}

// appendString appends a C string; what follows a NUL is no part of one.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != 0 {
			b = append(b, s[i])
		}
	}
	return append(b, 0)
}

// stringsOf reads exactly n C strings; one that is not ended ends with data.
func stringsOf(data []byte, atLeast, atMost int) ([]string, error) {
	var out []string
	for len(data) > 0 {
		s, rest, _ := bytes.Cut(data, []byte{0})
		out = append(out, string(s))
		data = rest
		if len(out) > atMost {
			break
		}
	}
	if len(out) < atLeast || len(out) > atMost {
		return nil, fmt.Errorf("%w: %d strings", ErrProtocol, len(out))
	}
	return out, nil
}

// quit says goodbye and closes.
func (c *wire) quit() {
	c.nc.SetDeadline(time.Now().Add(time.Second))
	if c.send(cmdQuit) == nil {
		c.w.Flush()
	}
	c.nc.Close()
}
