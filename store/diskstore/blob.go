package diskstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/postrider/postrider/internal/diskdb"
	"github.com/postrider/postrider/store"
)

// lent is a message, or its beginning, in memory that is used again when it is
// released.
type lent struct {
	mem    []byte
	loan   *[]byte // what mem lies in, to be given back
	users  atomic.Int64
	closed atomic.Bool
}

// over is what users is, about, when the memory was given back.
const over = math.MinInt64 / 2

// enter keeps mem until leave. What was given back may have another message's
// octets soon, so nobody may look at it.
func (l *lent) enter() error {
	l.users.Add(1)
	if l.closed.Load() {
		l.leave()
		return errBodyClosed
	}
	return nil
}

func (l *lent) leave() {
	// Whoever leaves last gives it back, one of them.
	if l.users.Add(-1) == 0 && l.closed.Load() && l.users.CompareAndSwap(0, over) {
		giveBack(l.loan)
	}
}

// release reports whether it was the first.
func (l *lent) release() bool {
	l.users.Add(1)
	defer l.leave()
	return !l.closed.Swap(true)
}

func (l *lent) Size() int64 { return int64(len(l.mem)) }

func (l *lent) ReadAt(p []byte, off int64) (int, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.leave()
	return readAt(l.mem, p, off)
}

func readAt(mem, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errOffset
	}
	if off < int64(len(mem)) {
		n = copy(p, mem[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// blob is an open message.
type blob struct {
	lent // the head, and the body unless that is in file
	s    *Store
	e    *email
	file *frameFile // nil = all of it is in memory
}

func (b *blob) Size() int64 { return b.e.size() }

func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	if err := b.enter(); err != nil {
		return 0, err
	}
	defer b.leave()
	n, err := readAt(b.mem, p, off)
	if err != io.EOF || b.file == nil {
		return n, err
	}
	k, err := b.file.ReadAt(p[n:], off+int64(n)-int64(len(b.mem)))
	return n + k, err
}

func (b *blob) Close() error {
	if !b.release() {
		return nil
	}
	var err error
	if b.file != nil {
		err = b.file.f.Close()
	}
	b.s.pins.drop(b.e.blob)
	return err
}

// Messages are read into memory that is used again: these are its sizes.
var loans = [...]struct {
	size int
	pool *sync.Pool
}{{8 << 10, new(sync.Pool)}, {24 << 10, new(sync.Pool)}, {72 << 10, new(sync.Pool)}, {144 << 10, new(sync.Pool)}}

// borrow returns memory for n octets; nothing is in it.
func borrow(n int) *[]byte {
	for i := range loans {
		if l := &loans[i]; n <= l.size {
			if b, ok := l.pool.Get().(*[]byte); ok {
				return b
			}
			b := make([]byte, 0, l.size)
			return &b
		}
	}
	b := make([]byte, 0, n)
	return &b
}

// giveBack takes what borrow gave; nil is none.
func giveBack(b *[]byte) {
	if b == nil {
		return
	}
	for i := range loans {
		if cap(*b) == loans[i].size {
			loans[i].pool.Put(b)
		}
	}
}

// Open implements store.Account.
func (a *account) Open(ctx context.Context, m store.Message) (store.Blob, error) {
	s := a.s
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	no, ok := numberOf('m', m.ID)
	if !ok {
		return nil, store.ErrNotExist
	}
	a.mu.Lock()
	gone, l := a.gone, a.last
	a.mu.Unlock()
	if gone {
		return nil, store.ErrNotExist
	}
	b := &blob{s: s}
	err := a.seeEmail(ctx, no, func(e *email) error {
		b.e = e
		s.pins.add(e.blob)
		// The sweeper may have been quicker.
		if err := b.open(); err != nil {
			s.pins.drop(e.blob)
			return a.lost(no, err)
		}
		e.head = b.mem[:len(e.head)]
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := l.wait(); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// open reads the head and the body, or opens its file.
func (b *blob) open() (err error) {
	large := b.e.bodySize > int64(b.s.o.BodyMemory) // most likely a file
	if large {
		b.file, err = b.s.openFile(b.e)
	}
	if !large || errors.Is(err, store.ErrNotExist) {
		in, err := b.s.readBody(&b.lent, b.e)
		if in || err != nil {
			return err
		}
	}
	if !large {
		b.file, err = b.s.openFile(b.e)
	}
	if err != nil {
		return err
	}
	b.mem = bytes.Clone(b.e.head)
	return nil
}

// seeEmail reads an email for f; store.ErrNotExist. Its head belongs to it
// until f returns.
func (a *account) seeEmail(ctx context.Context, no uint64, f func(e *email) error) error {
	v, done, err := a.s.db.Get(key2(kEmail, a.no, no))
	if errors.Is(err, pebble.ErrNotFound) {
		return store.ErrNotExist
	}
	if err != nil {
		return unavailable(err)
	}
	e, size, err := decodeEmail(no, v)
	if err == nil && e.key != nil {
		// Who unwraps keys may take his time: nothing of the database is held.
		e, size, err = decodeEmail(no, bytes.Clone(v))
		done.Close()
		done = io.NopCloser(nil)
	}
	defer done.Close()
	if err == nil {
		err = a.s.unlock(ctx, a.name, e, size)
	}
	if err != nil {
		return damaged(err, "email %s", idOf('m', no))
	}
	return f(e)
}

// readEmail reads an email; store.ErrNotExist.
func (a *account) readEmail(ctx context.Context, no uint64) (e *email, err error) {
	err = a.seeEmail(ctx, no, func(x *email) error {
		e = x
		e.head = bytes.Clone(e.head)
		return nil
	})
	return e, err
}

// readBody reads an email's head and body into l, unless the body is not in
// the database.
func (s *Store) readBody(l *lent, e *email) (in bool, err error) {
	if e.blob == 0 {
		l.mem = bytes.Clone(e.head)
		return true, nil
	}
	v, done, err := s.db.Get(key1(kBlob, e.blob))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	defer done.Close()
	return true, s.takeBody(l, e, v)
}

// takeBody reads an email's head and body, which has this record, into l.
func (s *Store) takeBody(l *lent, e *email, v []byte) error {
	size := min(e.bodySize, int64(s.o.BodyMemory)) // what a record says must not cost more
	loan := borrow(len(e.head) + int(size))
	mem := append(*loan, e.head...)
	n := len(mem)
	body, err := s.decodeBody(mem[n:], v, e.bodyKey, e.bodySize)
	if err != nil {
		giveBack(loan)
		return damaged(err, "body of email %s", idOf('m', e.no))
	}
	if end := n + len(body); end <= cap(mem) && len(body) > 0 && &mem[:end][n] == &body[0] {
		mem = mem[:end] // it was made where it belongs
	} else {
		mem = append(mem, body...)
	}
	l.mem, l.loan = mem, loan
	return nil
}

// openFile opens the file of an email's body.
func (s *Store) openFile(e *email) (*frameFile, error) {
	v, err := s.db.Value(key1(kFile, e.blob))
	if err != nil {
		return nil, unavailable(err)
	}
	if v == nil {
		return nil, store.ErrNotExist
	}
	l, err := s.decodeLayout(v, e.bodyKey)
	if err == nil && l.size != e.bodySize {
		err = diskdb.ErrDamaged
	}
	if err != nil {
		return nil, damaged(err, "body of email %s", idOf('m', e.no))
	}
	f, err := s.readFile(e.blob)
	if errors.Is(err, fs.ErrNotExist) {
		if v, err := s.db.Value(key1(kFile, e.blob)); err == nil && v == nil {
			return nil, store.ErrNotExist
		}
		err = damaged(fmt.Errorf("%w: %w", diskdb.ErrDamaged, err), "body of email %s", idOf('m', e.no))
	}
	if err != nil {
		return nil, unavailable(err)
	}
	return &frameFile{f: f, layout: l}, nil
}

// readFile opens the file of a body.
func (s *Store) readFile(no uint64) (readFile, error) {
	if s.o.fs == vfs.Default {
		return os.Open(s.blobPath(no)) // which asks the system less
	}
	return s.o.fs.Open(s.blobPath(no))
}

// The record of a body in the database: version, coding, frame, and the last 32
// bits of XXH3 of them, big-endian. Those of the first stores, without
// codeXXH3, end with CRC-32C as other records do.
const (
	bodyVersion = 1
	bodyAt      = 2
	bodyEnd     = 4
)

func beginBody(buf []byte, c coding) []byte { return append(buf[:0], bodyVersion, c.octet()|codeXXH3) }

func endBody(b []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(xxh3.Hash(b))) }

// encodeBody makes such a record.
func encodeBody(c coding, body []byte) ([]byte, error) {
	stored, err := c.seal(body, 0)
	if err != nil {
		return nil, err
	}
	b := beginBody(make([]byte, 0, bodyAt+len(stored)+bodyEnd), c)
	return endBody(append(b, stored...)), nil
}

// unsealBody returns how a body is coded, and its frame.
func unsealBody(v []byte) (o byte, frame []byte, err error) {
	if len(v) < bodyAt+bodyEnd || v[1]&codeXXH3 == 0 {
		r, err := diskdb.Unseal(v)
		o := r.Octet()
		return o, r.B, errors.Join(err, r.Err())
	}
	end := len(v) - bodyEnd
	if v[0] != bodyVersion || uint32(xxh3.Hash(v[:end])) != binary.BigEndian.Uint32(v[end:]) {
		return 0, nil, fmt.Errorf("%w: checksum of a body", diskdb.ErrDamaged)
	}
	return v[1] &^ codeXXH3, v[bodyAt:end], nil
}

// decodeBody reads a body of size octets; it lies in v, or in buf's capacity
// if there is enough, or is new.
func (s *Store) decodeBody(buf, v, key []byte, size int64) ([]byte, error) {
	o, frame, err := unsealBody(v)
	if err != nil {
		return nil, err
	}
	c, err := s.readCoding(o, key)
	if err != nil {
		return nil, err
	}
	if size > 1<<31 {
		return nil, diskdb.ErrDamaged
	}
	return c.open(buf[:0], frame, 0, int(size))
}

// prepared is a Draft ready to become a row.
type prepared struct {
	no       uint64 // of the email; 0 = a new one
	thread   uint64 // 0 = to be found
	head     []byte
	blob     uint64
	bodySize int64   // of the body
	body     *staged // what is to be written; nil = nothing
	staged   *staged // what release is about
	own      bool    // it is to be closed
	entered  bool    // it is to be left
	flags    store.Flags
	date     time.Time
	summary  []byte
	ids      [][hashBytes]byte

	bodyKey []byte // nil = the body is not sealed
	// What lock made of it.
	dataKey, wrapped, sealedKey []byte
	storedHead, storedSummary   []byte
}

func (p *prepared) size() int64 { return int64(len(p.head)) + p.bodySize }

// cost is about what goes into the database.
func (p *prepared) cost() int64 {
	n := int64(len(p.head)+len(p.summary)) + rowCost + 256
	if p.body != nil && p.body.file == nil {
		n += p.bodySize
	}
	return n
}

func (p *prepared) how() byte {
	if p.wrapped != nil {
		return codeSealed
	}
	return 0
}

func (p *prepared) release() {
	if p.entered {
		p.staged.leave()
	}
	if p.own {
		p.staged.Close()
	}
}

// maxReferences bounds what one message adds to the threads.
const maxReferences = 32

// prepare brings a Draft's body to where it will stay, and seals what is to
// be sealed for an account, before any lock is taken.
func (s *Store) prepare(ctx context.Context, account string, d store.Draft) (p prepared, err error) {
	if err := s.begin(ctx); err != nil {
		return p, err
	}
	defer s.end()
	p = prepared{flags: store.NewFlags(d.Flags.System&^codeGone, d.Flags.Keywords...), date: d.InternalDate, summary: bytes.Clone(d.Summary), head: d.Head}
	if d.Body != nil {
		p.bodySize = d.Body.Size()
	}
	if s.o.MessageSize > 0 && p.size() > s.o.MessageSize {
		return p, store.ErrTooBig
	}
	for i, id := range append([]string{d.MessageID}, d.References...) {
		// The message's own, the thread's first, and the latest.
		if id != "" && (i < 2 || i > len(d.References)-(maxReferences-2)) {
			p.ids = append(p.ids, hashOf(id))
		}
	}
	switch b := d.Body.(type) {
	case *blob:
		if b.s == s && b.enter() == nil {
			defer b.leave()
			p.blob, p.bodySize, p.thread, p.bodyKey = b.e.blob, b.e.bodySize, b.e.thread, b.e.bodyKey
			if len(d.Head) == 0 {
				p.no, p.head = b.e.no, bytes.Clone(b.e.head) // the same octets
			} else {
				p.head = append(bytes.Clone(d.Head), b.e.head...)
			}
			return p, p.lock(ctx, s.o.Keys, account)
		}
	case *staged:
		if b.s == s {
			if err := b.enter(); err != nil {
				return p, err
			}
			p.body, p.staged, p.entered = b, b, true
			if len(d.Head) == 0 {
				p.no = b.no
			}
		}
	}
	if p.body == nil && p.bodySize > 0 {
		if p.body, err = s.newStaged(p.bodySize); err != nil {
			return p, err
		}
		p.staged, p.own = p.body, true
		if err := p.body.readFrom(d.Body, p.bodySize); err != nil {
			p.release()
			return p, fmt.Errorf("diskstore: reading the body: %w", err)
		}
	}
	if p.body != nil {
		if err := p.body.seal(); err != nil {
			p.release()
			return p, err
		}
		p.bodySize = p.body.size
		if p.bodySize > 0 {
			p.blob, p.bodyKey = p.body.no, p.body.frames.key
		} else {
			p.body = nil // there is nothing to write
		}
	}
	if err := p.lock(ctx, s.o.Keys, account); err != nil {
		p.release()
		return p, err
	}
	return p, nil
}

// email returns the account's email for a Draft: the one that it has, or a
// new one, which it writes.
func (t *tx) email(ctx context.Context, p *prepared) (*email, error) {
	a := t.a
	if p.no != 0 {
		if e := t.fresh[p.no]; e != nil {
			return e, nil
		}
		e, err := a.readEmail(ctx, p.no)
		if err == nil || !errors.Is(err, store.ErrNotExist) {
			return e, err
		}
	}
	e := &email{no: p.no, thread: p.thread, blob: p.blob, bodySize: p.bodySize, head: p.head, ids: p.ids,
		key: p.wrapped, sealedKey: p.sealedKey}
	if e.no == 0 {
		e.no = a.s.nums.next()
	}
	if err := t.enthread(e); err != nil {
		return nil, err
	}
	b := t.batch()
	b.Set(key2(kEmail, a.no, e.no), e.encode(p.storedHead), nil)
	if len(p.summary) > 0 {
		b.Set(key2(kSummary, a.no, e.no), encodeSummary(p.how(), p.storedSummary), nil)
	}
	if e.blob != 0 {
		b.Set(key3(kBlobRef, e.blob, a.no, e.no), nil, nil)
	}
	if p.body != nil && !p.body.stored.Load() && !slices.Contains(t.stored, p.body) {
		if p.body.file != nil {
			b.Set(key1(kFile, e.blob), p.body.frames.encode(), nil)
		} else {
			b.Set(key1(kBlob, e.blob), p.body.record, nil)
		}
		t.stored = append(t.stored, p.body)
	}
	if t.fresh == nil {
		t.fresh = make(map[uint64]*email)
	}
	t.fresh[e.no] = e
	return e, nil
}

// enthread finds the thread of a new email, that of one that it refers to or
// is referred to by, else a new one (RFC 8474 §5.2), and makes its Message-IDs
// lead there.
func (t *tx) enthread(e *email) error {
	leads := make([]thread, len(e.ids))
	for i, h := range e.ids {
		lead, known := t.leads[h]
		if !known {
			v, err := t.a.s.db.Value(hashKey(kThread, t.a.no, h))
			if err != nil {
				return unavailable(err)
			}
			if v != nil {
				if lead, err = decodeThread(v); err != nil {
					lead = thread{} // it leads nowhere any more
				}
			}
		}
		leads[i] = lead
		if e.thread == 0 {
			e.thread = lead.no
		}
	}
	if e.thread == 0 {
		e.thread = t.a.s.nums.next()
	}
	for i, h := range e.ids {
		lead, known := t.leads[h]
		if !known {
			lead = leads[i]
		}
		if lead.no == 0 {
			lead.no = e.thread
		}
		lead.refs++
		if t.leads == nil {
			t.leads = make(map[[hashBytes]byte]thread)
		}
		t.leads[h] = lead
		t.batch().Set(hashKey(kThread, t.a.no, h), lead.encode(), nil)
	}
	return nil
}
