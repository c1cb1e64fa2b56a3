package diskqueue

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/queue"
	"github.com/postrider/postrider/smtp"
)

// writer appends values to a record.
type writer struct{ *diskdb.Writer }

func record(size int) writer { return writer{diskdb.Record(size)} }

func (w writer) id(v queue.ID)       { w.B = append(w.B, v[:]...) }
func (w writer) time(v time.Time)    { w.Int(int64(stampOf(v))) }
func (w writer) addr(a smtp.Address) { w.Text(a.Local); w.Text(a.Domain) }

func (w writer) bools(v ...bool) {
	var o byte
	for i, b := range v {
		if b {
			o |= 1 << i
		}
	}
	w.Octet(o)
}

// reader takes values out of a record. Its first error stays.
type reader struct{ diskdb.Reader }

// unseal returns the content of a record.
func unseal(b []byte) (*reader, error) {
	r, err := diskdb.Unseal(b)
	return &reader{r}, err
}

func (r *reader) id() (v queue.ID) {
	copy(v[:], r.Take(uint64(idLen)))
	return v
}

func (r *reader) time() time.Time { return stamp(r.Int()).time() }

func (r *reader) addr() smtp.Address {
	return smtp.Address{Local: r.Text(), Domain: r.Text()}
}

func (r *reader) bools(v ...*bool) {
	o := r.Octet()
	if o>>len(v) != 0 {
		r.Fail()
	}
	for i, b := range v {
		*b = o&(1<<i) != 0
	}
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
	w.Uint(uint64(m.entries))
	w.Uint(uint64(m.head))
	w.id(m.file)
	return w.Seal()
}

func decodeMessage(b []byte) (*message, error) {
	r, err := unseal(b)
	if err != nil {
		return nil, err
	}
	m := &message{Message: r.message()}
	m.entries = int(r.Uint())
	m.head = int(r.Uint())
	m.file = r.id()
	if m.entries < 1 || m.head < 0 || int64(m.head) > m.Size {
		r.Fail()
	}
	return m, r.End()
}

func (w writer) message(m *queue.Message) {
	w.id(m.ID)
	w.Text(m.Tenant)
	w.Text(m.Campaign)
	w.Text(m.Key)
	w.time(m.Received)
	w.Uint(uint64(m.Size))
	w.bools(m.EightBit)
	w.Uint(uint64(len(m.Meta)))
	for k, v := range m.Meta {
		w.Text(k)
		w.Text(v)
	}
}

func (r *reader) message() *queue.Message {
	m := &queue.Message{ID: r.id(), Tenant: r.Text(), Campaign: r.Text(), Key: r.Text(), Received: r.time(), Size: int64(r.Uint())}
	if m.Size < 0 {
		r.Fail()
	}
	r.bools(&m.EightBit)
	if n := r.Count(); n > 0 {
		m.Meta = make(map[string]string, n)
		for range n {
			k := r.Text()
			m.Meta[k] = r.Text()
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
	w.Uint(uint64(e.Attempt))
	w.Uint(uint64(token))
	w.envelope(&e.Envelope)
	w.Uint(uint64(len(e.Last)))
	for i := range e.Last {
		w.result(&e.Last[i])
	}
	return w.Seal()
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
	e.Attempt = int(r.Uint())
	e.token = int64(r.Uint())
	r.envelope(&e.Envelope)
	if n := r.Count(); n > 0 {
		e.Last = make([]smtp.Result, n)
		for i := range e.Last {
			r.result(&e.Last[i])
		}
	}
	if r.Err() == nil && len(e.Envelope.To) == 0 {
		r.Fail()
	}
	return e, r.End()
}

func (w writer) lane(l queue.Lane) {
	w.Text(l.Dest)
	w.Text(l.Tenant)
	w.Octet(byte(l.Priority))
}

func (r *reader) lane() queue.Lane {
	return queue.Lane{Dest: r.Text(), Tenant: r.Text(), Priority: int8(r.Octet())}
}

func (w writer) envelope(e *smtp.Envelope) {
	w.addr(e.From)
	w.Uint(uint64(e.Size))
	w.Text(string(e.Body))
	w.bools(e.UTF8, e.RequireTLS, e.TLSOptional, e.ByReturn, e.ByTrace)
	w.Text(e.Auth)
	w.Text(string(e.Return))
	w.Text(e.EnvelopeID)
	w.time(e.DeliverBy)
	w.time(e.HoldUntil)
	w.Text(e.HoldRequest)
	w.Octet(byte(e.Priority))
	w.Text(e.Solicit)
	w.Uint(uint64(len(e.To)))
	for i := range e.To {
		to := &e.To[i]
		w.addr(to.Address)
		w.Octet(byte(to.Notify))
		w.Text(to.OriginalType)
		w.Text(to.Original)
		w.time(to.ValidSince)
		w.bools(to.RelayUnchecked)
	}
}

func (r *reader) envelope(e *smtp.Envelope) {
	e.From = r.addr()
	e.Size = int64(r.Uint())
	e.Body = smtp.BodyType(r.Text())
	r.bools(&e.UTF8, &e.RequireTLS, &e.TLSOptional, &e.ByReturn, &e.ByTrace)
	e.Auth = r.Text()
	e.Return = smtp.DSNReturn(r.Text())
	e.EnvelopeID = r.Text()
	e.DeliverBy, e.HoldUntil = r.time(), r.time()
	e.HoldRequest = r.Text()
	e.Priority = int8(r.Octet())
	e.Solicit = r.Text()
	n := r.Count()
	e.To = make([]smtp.Recipient, 0, min(n, 1000))
	for range n {
		to := smtp.Recipient{Address: r.addr()}
		to.Notify = smtp.Notify(r.Octet())
		to.OriginalType, to.Original = r.Text(), r.Text()
		to.ValidSince = r.time()
		r.bools(&to.RelayUnchecked)
		if r.Err() != nil {
			return
		}
		e.To = append(e.To, to)
	}
}

func (w writer) code(c smtp.EnhancedCode) {
	for _, n := range c {
		w.Uint(uint64(n))
	}
}

func (r *reader) code() (c smtp.EnhancedCode) {
	for i := range c {
		c[i] = uint16(r.Uint())
	}
	return c
}

// How an error is kept.
const (
	errNone byte = iota
	errSMTP
	errOther
)

func (w writer) error(err error) {
	var e *smtp.Error
	switch {
	case err == nil:
		w.Octet(errNone)
	case errors.As(err, &e):
		w.Octet(errSMTP)
		w.Uint(uint64(e.Code))
		w.code(e.Enhanced)
		w.Text(e.Text)
		w.Octet(byte(e.Scope))
		w.bools(e.Unsure)
		cause := ""
		if e.Err != nil {
			cause = e.Err.Error()
		}
		w.Text(cause)
	default:
		w.Octet(errOther)
		w.Text(err.Error())
	}
}

func (r *reader) error() error {
	switch r.Octet() {
	case errNone:
		return nil
	case errSMTP:
		e := &smtp.Error{Code: int(r.Uint()), Enhanced: r.code(), Text: r.Text(), Scope: smtp.Scope(r.Octet())}
		r.bools(&e.Unsure)
		if cause := r.Text(); cause != "" {
			e.Err = errors.New(cause)
		}
		return e
	case errOther:
		return errors.New(r.Text())
	}
	r.Fail()
	return nil
}

func (w writer) result(v *smtp.Result) {
	w.error(v.Err)
	w.Uint(uint64(v.Reply.Code))
	w.code(v.Reply.Enhanced)
	w.Text(v.Reply.Text)
	w.bools(v.Hop != nil)
	if h := v.Hop; h != nil {
		w.Text(h.Name)
		addr, _ := h.Addr.MarshalBinary() // never fails
		w.Text(string(addr))
		w.Uint(uint64(h.TLS))
		w.Text(h.Auth)
		w.bools(h.DSN, h.DeliverBy)
		w.error(h.TLSErr)
		w.error(h.AuthErr)
	}
}

func (r *reader) result(v *smtp.Result) {
	v.Err = r.error()
	v.Reply = smtp.Reply{Code: int(r.Uint()), Enhanced: r.code(), Text: r.Text()}
	var hop bool
	if r.bools(&hop); !hop {
		return
	}
	h := &smtp.Hop{Name: r.Text()}
	var addr netip.AddrPort
	if addr.UnmarshalBinary([]byte(r.Text())) != nil {
		r.Fail()
	}
	h.Addr, h.TLS, h.Auth = addr, uint16(r.Uint()), r.Text()
	r.bools(&h.DSN, &h.DeliverBy)
	h.TLSErr, h.AuthErr = r.error(), r.error()
	v.Hop = h
}

func encodeKey(id queue.ID, expires time.Time) []byte {
	w := record(32)
	w.id(id)
	w.time(expires)
	return w.Seal()
}

func decodeKey(b []byte) (id queue.ID, expires time.Time, err error) {
	r, err := unseal(b)
	if err != nil {
		return id, expires, err
	}
	id, expires = r.id(), r.time()
	return id, expires, r.End()
}

func encodeEdits(edits []queue.Edit) []byte {
	w := record(64)
	w.Uint(uint64(len(edits)))
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
	return w.Seal()
}

func decodeEdits(b []byte) ([]queue.Edit, error) {
	r, err := unseal(b)
	if err != nil {
		return nil, err
	}
	edits := make([]queue.Edit, r.Count())
	for i := range edits {
		e := &edits[i]
		var end bool
		r.bools(&e.Hold, &e.Release, &e.Resume, &e.Drop, &end)
		e.Due, e.Lane = r.time(), r.lane()
		if end {
			if e.End, end = r.error().(*smtp.Error); !end {
				r.Fail()
			}
		}
		e.Old, e.New = r.addr(), r.addr()
	}
	return edits, r.End()
}

// A filter is a key, so equal ones have one encoding.
func encodeFilter(f *queue.Filter) []byte {
	w := record(64)
	w.Uint(uint64(len(f.IDs)))
	for _, id := range f.IDs {
		w.id(id)
	}
	w.Text(f.Dest)
	w.Text(f.Tenant)
	w.Text(f.Campaign)
	w.addr(f.From)
	w.addr(f.To)
	w.bools(f.Held)
	return w.Seal()
}

func decodeFilter(b []byte) (queue.Filter, error) {
	var f queue.Filter
	r, err := unseal(b)
	if err != nil {
		return f, err
	}
	for range r.Count() {
		f.IDs = append(f.IDs, r.id())
		if r.Err() != nil {
			break
		}
	}
	f.Dest, f.Tenant, f.Campaign = r.Text(), r.Text(), r.Text()
	f.From, f.To = r.addr(), r.addr()
	r.bools(&f.Held)
	return f, r.End()
}

func encodeEvent(e *queue.Event) []byte {
	w := record(256)
	w.id(e.ID)
	w.Octet(byte(e.Kind))
	w.time(e.Time)
	w.bools(e.Message != nil)
	if e.Message != nil {
		w.message(e.Message)
	}
	w.id(e.Entry)
	w.lane(e.Lane)
	w.addr(e.From)
	w.addr(e.To)
	w.Uint(uint64(e.Attempt))
	w.result(&e.Result)
	w.time(e.Next)
	return w.Seal()
}

func decodeEvent(b []byte) (queue.Event, error) {
	var e queue.Event
	r, err := unseal(b)
	if err != nil {
		return e, err
	}
	e.ID, e.Kind, e.Time = r.id(), queue.EventKind(r.Octet()), r.time()
	var m bool
	if r.bools(&m); m {
		e.Message = r.message()
	}
	e.Entry, e.Lane, e.From, e.To = r.id(), r.lane(), r.addr(), r.addr()
	e.Attempt = int(r.Uint())
	r.result(&e.Result)
	e.Next = r.time()
	return e, r.End()
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
