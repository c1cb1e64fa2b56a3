package diskqueue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

var errRecord = errors.New("diskqueue: damaged record")

// writer appends values to a record.
type writer struct{ b []byte }

func record(size int) *writer { return &writer{append(make([]byte, 0, size), recordVersion)} }

func (w *writer) seal() []byte        { return seal(w.b) }
func (w *writer) uint(v uint64)       { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)         { w.b = binary.AppendVarint(w.b, v) }
func (w *writer) octet(v byte)        { w.b = append(w.b, v) }
func (w *writer) id(v queue.ID)       { w.b = append(w.b, v[:]...) }
func (w *writer) time(v time.Time)    { w.int(int64(stampOf(v))) }
func (w *writer) addr(a smtp.Address) { w.text(a.Local); w.text(a.Domain) }

func (w *writer) text(s string) {
	w.uint(uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) bools(v ...bool) {
	var o byte
	for i, b := range v {
		if b {
			o |= 1 << i
		}
	}
	w.octet(o)
}

// reader takes values out of a record. Its first error stays.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: it ends early, or has a value out of range", errRecord)
	}
	r.b = nil
}

// end reports what went wrong; a record has nothing behind its values.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	return r.err
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) octet() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) id() (v queue.ID) {
	copy(v[:], r.take(uint64(idLen)))
	return v
}

func (r *reader) text() string    { return string(r.take(r.uint())) }
func (r *reader) time() time.Time { return stamp(r.int()).time() }
func (r *reader) addr() smtp.Address {
	return smtp.Address{Local: r.text(), Domain: r.text()}
}

func (r *reader) bools(v ...*bool) {
	o := r.octet()
	if o>>len(v) != 0 {
		r.fail()
	}
	for i, b := range v {
		*b = o&(1<<i) != 0
	}
}

// count reads how many values follow, each of at least one octet: what a
// record says must not cost more than it is long.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

// message is a queue.Message as it is kept.
type message struct {
	*queue.Message
	entries int      // that it began with
	head    int      // length of Head
	file    queue.ID // of the body; zero = it is in c
}

func encodeMessage(m *message) []byte {
	w := record(128)
	w.message(m.Message)
	w.uint(uint64(m.entries))
	w.uint(uint64(m.head))
	w.id(m.file)
	return w.seal()
}

func decodeMessage(b []byte) (*message, error) {
	r, err := unseal(b)
	if err != nil {
		return nil, err
	}
	m := &message{Message: r.message()}
	m.entries = int(r.uint())
	m.head = int(r.uint())
	m.file = r.id()
	if m.entries < 1 || m.head < 0 || int64(m.head) > m.Size {
		r.fail()
	}
	return m, r.end()
}

func (w *writer) message(m *queue.Message) {
	w.id(m.ID)
	w.text(m.Tenant)
	w.text(m.Campaign)
	w.text(m.Key)
	w.time(m.Received)
	w.uint(uint64(m.Size))
	w.bools(m.EightBit)
	w.uint(uint64(len(m.Meta)))
	for k, v := range m.Meta {
		w.text(k)
		w.text(v)
	}
}

func (r *reader) message() *queue.Message {
	m := &queue.Message{ID: r.id(), Tenant: r.text(), Campaign: r.text(), Key: r.text(), Received: r.time(), Size: int64(r.uint())}
	if m.Size < 0 {
		r.fail()
	}
	r.bools(&m.EightBit)
	if n := r.count(); n > 0 {
		m.Meta = make(map[string]string, n)
		for range n {
			k := r.text()
			m.Meta[k] = r.text()
		}
	}
	return m
}

// entryRecord is an entry with what only the storage knows.
type entryRecord struct {
	*queue.Entry
	message queue.ID
	token   int64
}

func encodeEntry(e *queue.Entry, token int64) []byte {
	w := record(256)
	w.id(e.ID)
	w.id(e.Message.ID)
	w.lane(e.Lane)
	w.bools(e.Held, e.Suspended)
	w.time(e.Since)
	w.time(e.Due)
	w.time(e.Alarm)
	w.uint(uint64(e.Attempt))
	w.uint(uint64(token))
	w.envelope(&e.Envelope)
	w.uint(uint64(len(e.Last)))
	for i := range e.Last {
		w.result(&e.Last[i])
	}
	return w.seal()
}

// decodeEntry leaves Entry.Message to the caller.
func decodeEntry(b []byte) (entryRecord, error) {
	r, err := unseal(b)
	if err != nil {
		return entryRecord{}, err
	}
	e := entryRecord{Entry: &queue.Entry{ID: r.id()}, message: r.id()}
	e.Lane = r.lane()
	r.bools(&e.Held, &e.Suspended)
	e.Since, e.Due, e.Alarm = r.time(), r.time(), r.time()
	e.Attempt = int(r.uint())
	e.token = int64(r.uint())
	r.envelope(&e.Envelope)
	if n := r.count(); n > 0 {
		e.Last = make([]smtp.Result, n)
		for i := range e.Last {
			r.result(&e.Last[i])
		}
	}
	if r.err == nil && len(e.Envelope.To) == 0 {
		r.fail()
	}
	return e, r.end()
}

func (w *writer) lane(l queue.Lane) {
	w.text(l.Dest)
	w.text(l.Tenant)
	w.octet(byte(l.Priority))
}

func (r *reader) lane() queue.Lane {
	return queue.Lane{Dest: r.text(), Tenant: r.text(), Priority: int8(r.octet())}
}

func (w *writer) envelope(e *smtp.Envelope) {
	w.addr(e.From)
	w.uint(uint64(e.Size))
	w.text(string(e.Body))
	w.bools(e.UTF8, e.RequireTLS, e.TLSOptional, e.ByReturn, e.ByTrace)
	w.text(e.Auth)
	w.text(string(e.Return))
	w.text(e.EnvelopeID)
	w.time(e.DeliverBy)
	w.time(e.HoldUntil)
	w.text(e.HoldRequest)
	w.octet(byte(e.Priority))
	w.text(e.Solicit)
	w.uint(uint64(len(e.To)))
	for i := range e.To {
		to := &e.To[i]
		w.addr(to.Address)
		w.octet(byte(to.Notify))
		w.text(to.OriginalType)
		w.text(to.Original)
		w.time(to.ValidSince)
		w.bools(to.RelayUnchecked)
	}
}

func (r *reader) envelope(e *smtp.Envelope) {
	e.From = r.addr()
	e.Size = int64(r.uint())
	e.Body = smtp.BodyType(r.text())
	r.bools(&e.UTF8, &e.RequireTLS, &e.TLSOptional, &e.ByReturn, &e.ByTrace)
	e.Auth = r.text()
	e.Return = smtp.DSNReturn(r.text())
	e.EnvelopeID = r.text()
	e.DeliverBy, e.HoldUntil = r.time(), r.time()
	e.HoldRequest = r.text()
	e.Priority = int8(r.octet())
	e.Solicit = r.text()
	n := r.count()
	e.To = make([]smtp.Recipient, 0, min(n, 1000))
	for range n {
		to := smtp.Recipient{Address: r.addr()}
		to.Notify = smtp.Notify(r.octet())
		to.OriginalType, to.Original = r.text(), r.text()
		to.ValidSince = r.time()
		r.bools(&to.RelayUnchecked)
		if r.err != nil {
			return
		}
		e.To = append(e.To, to)
	}
}

func (w *writer) code(c smtp.EnhancedCode) {
	for _, n := range c {
		w.uint(uint64(n))
	}
}

func (r *reader) code() (c smtp.EnhancedCode) {
	for i := range c {
		c[i] = uint16(r.uint())
	}
	return c
}

// How an error is kept.
const (
	errNone byte = iota
	errSMTP
	errOther
)

func (w *writer) error(err error) {
	var e *smtp.Error
	switch {
	case err == nil:
		w.octet(errNone)
	case errors.As(err, &e):
		w.octet(errSMTP)
		w.uint(uint64(e.Code))
		w.code(e.Enhanced)
		w.text(e.Text)
		w.octet(byte(e.Scope))
		w.bools(e.Unsure)
		cause := ""
		if e.Err != nil {
			cause = e.Err.Error()
		}
		w.text(cause)
	default:
		w.octet(errOther)
		w.text(err.Error())
	}
}

func (r *reader) error() error {
	switch r.octet() {
	case errNone:
		return nil
	case errSMTP:
		e := &smtp.Error{Code: int(r.uint()), Enhanced: r.code(), Text: r.text(), Scope: smtp.Scope(r.octet())}
		r.bools(&e.Unsure)
		if cause := r.text(); cause != "" {
			e.Err = errors.New(cause)
		}
		return e
	case errOther:
		return errors.New(r.text())
	}
	r.fail()
	return nil
}

func (w *writer) result(v *smtp.Result) {
	w.error(v.Err)
	w.uint(uint64(v.Reply.Code))
	w.code(v.Reply.Enhanced)
	w.text(v.Reply.Text)
	w.bools(v.Hop != nil)
	if h := v.Hop; h != nil {
		w.text(h.Name)
		addr, _ := h.Addr.MarshalBinary() // never fails
		w.text(string(addr))
		w.uint(uint64(h.TLS))
		w.text(h.Auth)
		w.bools(h.DSN, h.DeliverBy)
		w.error(h.TLSErr)
		w.error(h.AuthErr)
	}
}

func (r *reader) result(v *smtp.Result) {
	v.Err = r.error()
	v.Reply = smtp.Reply{Code: int(r.uint()), Enhanced: r.code(), Text: r.text()}
	var hop bool
	if r.bools(&hop); !hop {
		return
	}
	h := &smtp.Hop{Name: r.text()}
	var addr netip.AddrPort
	if addr.UnmarshalBinary([]byte(r.text())) != nil {
		r.fail()
	}
	h.Addr, h.TLS, h.Auth = addr, uint16(r.uint()), r.text()
	r.bools(&h.DSN, &h.DeliverBy)
	h.TLSErr, h.AuthErr = r.error(), r.error()
	v.Hop = h
}

func encodeKey(id queue.ID, expires time.Time) []byte {
	w := record(32)
	w.id(id)
	w.time(expires)
	return w.seal()
}

func decodeKey(b []byte) (id queue.ID, expires time.Time, err error) {
	r, err := unseal(b)
	if err != nil {
		return id, expires, err
	}
	id, expires = r.id(), r.time()
	return id, expires, r.end()
}

func encodeEdits(edits []queue.Edit) []byte {
	w := record(64)
	w.uint(uint64(len(edits)))
	for _, e := range edits {
		w.bools(e.Hold, e.Release, e.Resume, e.Drop, e.End != nil)
		w.time(e.Due)
		w.lane(e.Lane)
		if e.End != nil {
			w.error(e.End)
		}
		w.addr(e.Old)
		w.addr(e.New)
	}
	return w.seal()
}

func decodeEdits(b []byte) ([]queue.Edit, error) {
	r, err := unseal(b)
	if err != nil {
		return nil, err
	}
	edits := make([]queue.Edit, r.count())
	for i := range edits {
		e := &edits[i]
		var end bool
		r.bools(&e.Hold, &e.Release, &e.Resume, &e.Drop, &end)
		e.Due, e.Lane = r.time(), r.lane()
		if end {
			if e.End, end = r.error().(*smtp.Error); !end {
				r.fail()
			}
		}
		e.Old, e.New = r.addr(), r.addr()
	}
	return edits, r.end()
}

// A filter is a key, so equal ones have one encoding.
func encodeFilter(f *queue.Filter) []byte {
	w := record(64)
	w.uint(uint64(len(f.IDs)))
	for _, id := range f.IDs {
		w.id(id)
	}
	w.text(f.Dest)
	w.text(f.Tenant)
	w.text(f.Campaign)
	w.addr(f.From)
	w.addr(f.To)
	w.bools(f.Held)
	return w.seal()
}

func decodeFilter(b []byte) (queue.Filter, error) {
	var f queue.Filter
	r, err := unseal(b)
	if err != nil {
		return f, err
	}
	for range r.count() {
		f.IDs = append(f.IDs, r.id())
		if r.err != nil {
			break
		}
	}
	f.Dest, f.Tenant, f.Campaign = r.text(), r.text(), r.text()
	f.From, f.To = r.addr(), r.addr()
	r.bools(&f.Held)
	return f, r.end()
}

func encodeEvent(e *queue.Event) []byte {
	w := record(256)
	w.id(e.ID)
	w.octet(byte(e.Kind))
	w.time(e.Time)
	w.bools(e.Message != nil)
	if e.Message != nil {
		w.message(e.Message)
	}
	w.id(e.Entry)
	w.lane(e.Lane)
	w.addr(e.From)
	w.addr(e.To)
	w.uint(uint64(e.Attempt))
	w.result(&e.Result)
	w.time(e.Next)
	return w.seal()
}

func decodeEvent(b []byte) (queue.Event, error) {
	var e queue.Event
	r, err := unseal(b)
	if err != nil {
		return e, err
	}
	e.ID, e.Kind, e.Time = r.id(), queue.EventKind(r.octet()), r.time()
	var m bool
	if r.bools(&m); m {
		e.Message = r.message()
	}
	e.Entry, e.Lane, e.From, e.To = r.id(), r.lane(), r.addr(), r.addr()
	e.Attempt = int(r.uint())
	r.result(&e.Result)
	e.Next = r.time()
	return e, r.end()
}

// without returns to without the indexes in done, which must ascend.
func without(to []smtp.Recipient, done []int) ([]smtp.Recipient, error) {
	for i, d := range done {
		if d < 0 || d >= len(to) || i > 0 && d <= done[i-1] {
			return nil, fmt.Errorf("diskqueue: done recipients %v of %d", done, len(to))
		}
	}
	if len(done) == len(to) {
		return nil, nil
	}
	left := slices.Clone(to)
	for _, d := range slices.Backward(done) {
		left = slices.Delete(left, d, d+1)
	}
	return left, nil
}
